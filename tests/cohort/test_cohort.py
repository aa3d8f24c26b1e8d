import json
import subprocess
import sys

import numpy as np
import pytest

from helpers.brains import ball, made_brain, save
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess
from maediff.cohort.splits import split_of
from maediff.core.errors import InputError
from maediff.core.types import CEILING


@pytest.fixture
def cohort(tmp_path):
    """Two healthy and one ill scan to train, one unknown; one healthy in val; thick slices, so quick."""
    lines = ["subject,image,lesion_mask,split,healthy,lesion_kind"]
    for number, (name, split, healthy) in enumerate(
        [
            ("a", "train", "1"),
            ("b", "train", "1"),
            ("ill", "train", "0"),
            ("unknown", "train", ""),
            ("v", "val", "1"),
        ]
    ):
        data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0), seed=number)
        save(tmp_path / "in" / f"{name}.nii.gz", data, affine)
        if name == "ill":
            save(
                tmp_path / "in" / "lesion.nii.gz",
                ball(data.shape, affine, (10, 5, 0), 5.0),
                affine,
            )
        lines.append(
            f"{name},{name}.nii.gz,{'lesion.nii.gz' if name == 'ill' else ''},{split},{healthy},"
            f"{'bright' if name == 'ill' else ''}"
        )
    (tmp_path / "in" / "scans.csv").write_text("\n".join(lines))
    assert (
        preprocess(
            [tmp_path / "in" / "scans.csv"], tmp_path / "cohort", modality="T1w", quiet=True
        )
        == 0
    )
    return Cohort.open(tmp_path / "cohort")


def test_splits_by_hash_are_those_of_the_design():
    # python -c "import hashlib; print(int(hashlib.sha256(b'ds002748/sub-01').hexdigest(), 16) % 10)" and so on
    assert [split_of("ds002748", f"sub-{n:02}") for n in (1, 2, 7)] == ["train", "val", "test"]
    drawn = [split_of("d", str(number)) for number in range(2000)]
    assert (
        abs(drawn.count("train") / 2000 - 0.7) < 0.03
        and abs(drawn.count("test") / 2000 - 0.1) < 0.02
    )
    assert split_of("a", "1") != split_of("b", "1") or split_of("a", "2") != split_of("b", "2")


def test_a_loaded_scan(cohort):
    row = next(row for row in cohort.rows if row.name == "ill")
    ill = cohort.load(row)
    n = len(ill.images)
    assert ill.images.shape == ill.brain.shape == ill.lesion.shape == (n, 96, 96)
    assert (
        ill.images.dtype == np.float32
        and ill.images.min() == 0
        and 1.05 < ill.images.max() < CEILING
    )
    assert not ill.images[~ill.brain].any()
    np.testing.assert_array_equal(ill.slice_ids, np.arange(n))
    assert ill.spacing_mm == pytest.approx((2, 2, 6))
    assert ill.healthy is False and ill.extra == {"lesion_kind": "bright"}
    near = np.convolve(ill.lesion.any(axis=(1, 2)), [1, 1, 1], "same") > 0
    np.testing.assert_array_equal(ill.lesion_free, ~near)
    assert (
        cohort.load(cohort.rows[0]).lesion_free.all()
        and cohort.load(cohort.rows[0]).lesion is None
    )
    unknown = cohort.load(next(row for row in cohort.rows if row.name == "unknown"))
    assert unknown.healthy is None and not unknown.lesion_free.any()


def test_training_takes_healthy_scans_and_lesion_free_slices_only(cohort):
    slices = cohort.training_slices("train")
    assert slices.subjects == ["a", "b", "ill"]
    for number, name in enumerate(slices.subjects):
        loaded = cohort.load(next(row for row in cohort.rows if row.name == name))
        wanted = loaded.lesion_free & (loaded.brain.mean(axis=(1, 2)) >= 0.01)
        mine = slices.subject_index == number
        np.testing.assert_array_equal(slices.brain[mine], loaded.brain[wanted])
        np.testing.assert_allclose(
            slices.images[mine] / 255, loaded.images[wanted].clip(0, 1), atol=0.5 / 255 + 1e-6
        )
    assert slices.images.dtype == np.uint8
    (cached,) = (cohort.path / "cache").glob("train-*")
    assert cached.stat().st_mode == cohort.path.stat().st_mode  # for whom the umask says


def test_a_split_without_healthy_slices_is_refused(cohort):
    with pytest.raises(
        InputError, match=r"no healthy subject in split test \(it has 0 scans\); add"
    ):
        cohort.training_slices("test")
    with pytest.raises(InputError, match="choose one of train, val, test"):
        cohort.split("training")


def test_the_cache_is_memory_mapped_reused_and_rebuilt_when_the_cohort_changes(
    cohort, monkeypatch
):
    first = cohort.training_slices("train")
    assert isinstance(first.images, np.memmap)
    monkeypatch.setattr(Cohort, "load", lambda *_: pytest.fail("read the scans again"))
    np.testing.assert_array_equal(cohort.training_slices("train").images, first.images)
    monkeypatch.undo()
    table = (cohort.path / "manifest.csv").read_text().replace("b,,in,train,1", "b,,in,train,0")
    (cohort.path / "manifest.csv").write_text(table)
    changed = Cohort.open(cohort.path)
    assert changed.hash != cohort.hash
    assert changed.training_slices("train").subjects == ["a", "ill"]
    assert len(list((cohort.path / "cache").iterdir())) == 1


def test_a_cohort_that_cannot_be_written_to_still_trains(cohort, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError("read-only")

    expected = np.array(cohort.training_slices("val").images)
    monkeypatch.setattr(np, "save", refuse)
    (cohort.path / "cache").rename(cohort.path / "old")
    np.testing.assert_array_equal(cohort.training_slices("val").images, expected)
    assert list((cohort.path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["subjects.json", "images.npy"])
def test_a_damaged_cache_is_made_anew(cohort, name):
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


def test_what_is_no_cohort_is_refused_by_name(cohort, tmp_path):
    with pytest.raises(InputError, match=r"gone: no such folder"):
        Cohort.open(tmp_path / "gone")
    with pytest.raises(InputError, match=r"in: holds no cohort\.json"):
        Cohort.open(tmp_path / "in")
    path = cohort.path / "cohort.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(InputError, match=r"cohort\.json: cohort format 99, this version reads 2"):
        Cohort.open(cohort.path)
    path.write_text(json.dumps(meta | {"modality": ["T1w"], "grid": "x"}))
    with pytest.raises(
        InputError,
        match=r"cohort\.json: modality, grid missing or damaged; run `maediff preprocess`",
    ):
        Cohort.open(cohort.path)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        Cohort.open(cohort.path)
    path.write_text(json.dumps(meta))
    (cohort.path / "a" / "image.nii.gz").rename(cohort.path / "a" / "away.nii.gz")
    with pytest.raises(InputError, match=r"image\.nii\.gz is missing"):
        Cohort.open(cohort.path)
    (cohort.path / "manifest.csv").write_text("subject,image\nx,y\n")
    with pytest.raises(InputError, match=r"manifest\.csv, line 2"):
        Cohort.open(cohort.path)


def test_a_damaged_scan_in_the_cohort_is_named(cohort):
    path = cohort.path / "a" / "image.json"
    whole = json.loads(path.read_text())
    for content in (
        {},
        [],
        whole | {"lesion_free": 3},
        whole | {"extra": "x"},
        whole | {"grid": None},
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"image\.json: missing or damaged"):
            cohort.load(cohort.rows[0])
    (cohort.path / "a" / "image.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        cohort.load(cohort.rows[0])


def test_reading_a_cohort_needs_no_heavy_library(cohort):
    code = (
        "import sys; from pathlib import Path; from maediff.cohort.cohort import Cohort; "
        f"Cohort.open(Path({str(cohort.path)!r})).training_slices('train'); "
        "print([name for name in ('SimpleITK', 'nilearn', 'matplotlib', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
