"""Splits of subjects and codes of persons."""

import os
from pathlib import Path

import pytest

from maediff.cohort.splits import MIN_VAL, assign_splits, person_code, split_of
from maediff.scans.reference import ScanRef


def make_refs(names, *, healthy=True, split=None, dataset="scans"):
    return [
        ScanRef(
            subject=str(name),
            session="",
            image=Path(f"{name}_T1w.nii.gz"),
            dataset=dataset,
            healthy=healthy,
            split=split,
        )
        for name in names
    ]


def find_names(split, count, dataset="scans"):
    """Return names whose hash gives a split."""
    names = (f"p{number}" for number in range(1000))
    return [name for name in names if split_of(dataset, name) == split][:count]


def test_splits_of_known_subjects():
    # int(hashlib.sha256(b'ds002748/sub-01').hexdigest(), 16) % 10 is 0 to 6, and so on
    assert [split_of("ds002748", f"sub-{n:02}") for n in (1, 2, 7)] == ["train", "val", "test"]


def test_shares_of_splits():
    splits = [split_of("d", str(number)) for number in range(2000)]
    assert abs(splits.count("train") / 2000 - 0.7) < 0.03
    assert abs(splits.count("test") / 2000 - 0.1) < 0.02
    assert splits != [split_of("e", str(number)) for number in range(2000)]


def test_ten_scans_without_val():
    """The reported case: by hash 6 train, 0 val and 4 test."""
    refs = make_refs([*find_names("train", 6), *find_names("test", 4)])
    splits = assign_splits(refs)
    assert splits.counts == {"train": 6, "val": 3, "test": 1} and splits.n_moved == 3
    assert splits.list_shortages() == []
    assert "10 subjects: 6 train, 3 val, 1 test" in splits.describe()
    assert "3 of them moved to val for thresholds" in splits.describe()
    # Neither the order of the scans nor a second scan of a subject changes a split.
    again = assign_splits([*reversed(refs), *refs])
    assert [again.of(ref) for ref in refs] == [splits.of(ref) for ref in refs]


@pytest.mark.parametrize("count", range(5, 60, 6))
@pytest.mark.parametrize("by_hash", ["train", "test", "any"])
def test_val_is_three_subjects_or_a_fifth(count, by_hash):
    names = range(count) if by_hash == "any" else find_names(by_hash, count)
    splits = assign_splits(make_refs(names))
    assert splits.counts["val"] >= max(MIN_VAL, 0.2 * count)
    assert sum(splits.counts.values()) == count
    if by_hash == "train":
        assert splits.counts["train"] >= 1
    if by_hash == "any":  # people who train stay in train
        for ref in make_refs(names):
            if split_of("scans", ref.subject) == "train" and splits.counts["test"] > 1:
                assert splits.of(ref) == "train"


def test_given_splits_are_kept():
    given = make_refs(range(10), split="train")
    assert assign_splits(given).counts == {"train": 10, "val": 0, "test": 0}
    assert "no val subject" in assign_splits(given).list_shortages()[0]
    more = [*make_refs(["v1", "v2", "v3"], split="val"), *make_refs(find_names("train", 5))]
    splits = assign_splits([*given, *more])  # three val subjects are enough for five others
    assert splits.n_moved == 0 and splits.counts["val"] == 3
    assert "13 given, 5 by the hash of each name" in splits.describe()


def test_healthy_subjects_become_val():
    """Val patients with lesions give no thresholds."""
    patients = make_refs([f"lesion{number}" for number in range(40)], healthy=False)
    healthy = make_refs(find_names("train", 6))
    splits = assign_splits([*patients, *healthy])
    assert sum(splits.of(ref) == "val" for ref in healthy) == MIN_VAL
    assert all(splits.of(ref) == split_of("scans", ref.subject) for ref in patients)


def test_too_few_subjects():
    two = assign_splits(make_refs(["a", "b"]))
    assert two.counts == {"train": 0, "val": 2, "test": 0}
    train, val, test = two.list_shortages()
    assert "no model can be trained" in train and "at least 4 subjects" in train
    assert "2 val subjects, so thresholds" in val and "no test subject" in test
    four = assign_splits(make_refs("abcd"))
    assert four.counts == {"train": 1, "val": 3, "test": 0}


def test_person_code():
    code = person_code("ds", "sub-01")
    assert len(code) == 16 and int(code, 16) >= 0
    assert code == person_code("ds", "ds__sub-01")  # the subject among several datasets
    assert code != person_code("ds", "sub-02") and code != person_code("other", "sub-01")


def test_names_that_are_no_utf8():
    name = os.fsdecode(b"M\xfcller")  # as a file system of another encoding gives it
    assert split_of(name, "sub-01") in ("train", "val", "test")
    assert person_code(name, "sub-01") != person_code("Muller", "sub-01")
