"""Open a cohort and load its scans."""

import json
import subprocess
import sys

import numpy as np
import pytest

from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.core.types import CEILING


def test_load_returns_images_masks_and_lesion_free_slices(cohort):
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


def test_training_slices(cohort):
    slices = cohort.training_slices("train")
    assert slices.subjects == ["a", "b", "ill"]
    for number, name in enumerate(slices.subjects):
        loaded = cohort.load(next(row for row in cohort.rows if row.name == name))
        used = loaded.lesion_free & (loaded.brain.mean(axis=(1, 2)) >= 0.01)
        mine = slices.subject_index == number
        np.testing.assert_array_equal(slices.brain[mine], loaded.brain[used])
        np.testing.assert_allclose(
            slices.images[mine] / 255, loaded.images[used].clip(0, 1), atol=0.5 / 255 + 1e-6
        )
    assert slices.images.dtype == np.uint8
    (cached,) = (cohort.path / "cache").glob("train-*")
    assert cached.stat().st_mode == cohort.path.stat().st_mode


def test_split_without_healthy_slices(cohort):
    with pytest.raises(InputError, match=r"no healthy subject in split test \(0 scans\); add"):
        cohort.training_slices("test")
    with pytest.raises(
        InputError, match="split 'training': unknown; choose one of train, val, test"
    ):
        cohort.split("training")


def test_open_refuses_other_folders(cohort, tmp_path):
    with pytest.raises(InputError, match=r"gone: no such folder"):
        Cohort.open(tmp_path / "gone")
    with pytest.raises(InputError, match=r"in: holds no cohort\.json"):
        Cohort.open(tmp_path / "in")
    path = cohort.path / "cohort.json"
    meta = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(
        InputError, match=r"cohort\.json: cohort format 99, but this maediff reads 2"
    ):
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


def test_load_names_damaged_file(cohort):
    path = cohort.path / "a" / "image.json"
    whole = json.loads(path.read_text("utf-8"))
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
    ill = cohort.path / "ill" / "image.json"
    ill.write_text(json.dumps(json.loads(ill.read_text("utf-8")) | {"lesion_free": [True]}))
    with pytest.raises(InputError, match="describes 1 slices, but the image has"):
        cohort.load(cohort.rows[2])
    (cohort.path / "a" / "image.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        cohort.load(cohort.rows[0])


def test_import_is_light(cohort):
    code = (
        "import sys; from pathlib import Path; from maediff.cohort import Cohort; "
        f"Cohort.open(Path({str(cohort.path)!r})).training_slices('train'); "
        "heavy = ('SimpleITK', 'nilearn', 'matplotlib', 'torch'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
