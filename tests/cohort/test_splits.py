"""Splits of subjects and codes of persons."""

from maediff.cohort.splits import person_code, split_of


def test_splits_of_known_subjects():
    # int(hashlib.sha256(b'ds002748/sub-01').hexdigest(), 16) % 10 is 0 to 6, and so on
    assert [split_of("ds002748", f"sub-{n:02}") for n in (1, 2, 7)] == ["train", "val", "test"]


def test_shares_of_splits():
    splits = [split_of("d", str(number)) for number in range(2000)]
    assert abs(splits.count("train") / 2000 - 0.7) < 0.03
    assert abs(splits.count("test") / 2000 - 0.1) < 0.02
    assert splits != [split_of("e", str(number)) for number in range(2000)]


def test_person_code():
    code = person_code("ds", "sub-01")
    assert len(code) == 16 and int(code, 16) >= 0
    assert code == person_code("ds", "ds__sub-01")  # the subject among several datasets
    assert code != person_code("ds", "sub-02") and code != person_code("other", "sub-01")
