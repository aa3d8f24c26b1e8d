"""Training slices in the cache of a cohort."""

import numpy as np
import pytest

from maediff.cohort.cohort import Cohort
from maediff.cohort.slices import SliceSet, read_slices, store_slices


def slice_set(n=3):
    return SliceSet(
        images=np.arange(n * 4, dtype=np.uint8).reshape(n, 2, 2),
        brain=np.ones((n, 2, 2), dtype=bool),
        subject_index=np.arange(n),
        subjects=[f"s{number}" for number in range(n)],
    )


def test_store_and_read(tmp_path):
    assert read_slices(tmp_path / "train-1") is None
    assert store_slices(tmp_path / "train-1", slice_set(2))
    assert store_slices(tmp_path / "train-2", slice_set(3))
    assert [path.name for path in tmp_path.iterdir()] == ["train-2"]
    stored = read_slices(tmp_path / "train-2")
    assert stored.subjects == ["s0", "s1", "s2"]
    np.testing.assert_array_equal(stored.images, slice_set(3).images)
    np.testing.assert_array_equal(stored.subject_index, [0, 1, 2])


def test_cache_follows_cohort(cohort, monkeypatch):
    first = cohort.training_slices("train")
    assert isinstance(first.images, np.memmap)
    monkeypatch.setattr(Cohort, "load", lambda *_: pytest.fail("read the scans again"))
    np.testing.assert_array_equal(cohort.training_slices("train").images, first.images)
    monkeypatch.undo()
    table = (
        (cohort.path / "manifest.csv").read_text("utf-8").replace("b,,in,train,1", "b,,in,train,0")
    )
    (cohort.path / "manifest.csv").write_text(table)
    changed = Cohort.open(cohort.path)
    assert changed.hash != cohort.hash
    assert changed.training_slices("train").subjects == ["a", "ill"]
    assert len(list((cohort.path / "cache").iterdir())) == 1


def test_read_only_cohort(cohort, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError("read-only")

    expected = np.array(cohort.training_slices("val").images)
    monkeypatch.setattr(np, "save", refuse)
    (cohort.path / "cache").rename(cohort.path / "old")
    np.testing.assert_array_equal(cohort.training_slices("val").images, expected)
    assert list((cohort.path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["subjects.json", "images.npy"])
def test_damaged_cache_is_rebuilt(cohort, name):
    good = cohort.training_slices("train")
    (path,) = (cohort.path / "cache").glob(f"*/{name}")
    content = path.read_bytes()
    path.unlink()  # the arrays above are still mapped from it
    path.write_bytes(content[: len(content) // 2])
    for _ in range(2):
        again = cohort.training_slices("train")
        assert again.subjects == good.subjects
        np.testing.assert_array_equal(again.images, good.images)
    assert (cohort.path / "cache" / path.parent.name / name).read_bytes() == content
