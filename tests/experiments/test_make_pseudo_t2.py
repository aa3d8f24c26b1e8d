"""experiments/t2_like_scans/make_pseudo_t2.py on small made-up patients."""

import csv
import sys

import nibabel as nib
import numpy as np
import pytest

from helpers.scripts import load_script

pseudo_t2 = load_script("experiments/t2_like_scans/make_pseudo_t2.py")
SHAPE = (24, 24, 24)


def make_patient(folder, seed, gain=1.0):
    """Write T1, FLAIR, T2 = 2 FLAIR and masks of a brain in a zero background."""
    rng = np.random.default_rng(seed)
    brain = np.zeros(SHAPE, bool)
    brain[2:-2, 2:-2, 2:-2] = True
    lesion = np.zeros(SHAPE, bool)
    lesion[4:7, 4:7, 4:7] = True
    flair = np.where(brain, rng.uniform(50, 150, SHAPE), 0).astype(np.float32)
    volumes = {
        "T1": np.where(brain, gain * rng.uniform(50, 150, SHAPE), 0).astype(np.float32),
        "FLAIR": gain * flair,
        "T2": 2 * flair,
        "lesion_mask": lesion.astype(np.uint8),
        "brain_mask": brain.astype(np.uint8),
    }
    folder.mkdir(parents=True)
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    for name, volume in volumes.items():
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{name}.nii.gz")
    return volumes["T2"], brain


def write_manifest(path, image, splits):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(pseudo_t2.COLUMNS)
        for name, split in splits.items():
            files = [f"{name}/{part}.nii.gz" for part in (image, "brain_mask", "lesion_mask")]
            writer.writerow([name, *files, split, 0])
    return str(path)


@pytest.fixture
def arguments(tmp_path):
    """Write a paired patient and three others, of whom one is a val patient with both scans."""
    for number, name in enumerate(("paired", "a", "b", "c")):
        make_patient(tmp_path / name, number)
    flair = {"a": "train", "b": "val", "c": "val"}
    return [
        str(tmp_path / "paired"),
        write_manifest(tmp_path / "flair.csv", "FLAIR", flair),
        write_manifest(tmp_path / "t1.csv", "T1", {"a": "train", "b": "val"}),
        str(tmp_path / "out"),
    ]


def test_patients_of_the_split_get_a_scan_and_a_row(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(pseudo_t2.learn, "__defaults__", (4000,))
    assert pseudo_t2.main(arguments) == 0
    with (tmp_path / "out" / "manifest.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["subject"], row["image"], row["split"]) == ("b", "b/T2w.nii.gz", "val")
    assert row["lesion_mask"] == str((tmp_path / "b" / "lesion_mask.nii.gz").resolve())
    image = nib.load(tmp_path / "out" / row["image"])
    np.testing.assert_array_equal(image.affine, np.diag([1, 1, 3, 1]))
    truth = nib.load(tmp_path / "b" / "T2.nii.gz").get_fdata()
    brain = nib.load(tmp_path / "b" / "brain_mask.nii.gz").get_fdata() > 0
    estimate = image.get_fdata()
    assert (estimate[~brain] == 0).all()
    assert np.corrcoef(estimate[brain], truth[brain])[0, 1] > 0.99


def test_matched_percentiles_undo_a_change_of_scale():
    rng = np.random.default_rng(0)
    x, healthy = rng.uniform(10, 20, SHAPE), np.ones(SHAPE, bool)
    target = np.percentile(x, pseudo_t2.PERCENTILES)
    matched = pseudo_t2.match_percentiles(3 * x, healthy, target)
    np.testing.assert_allclose(matched, x, rtol=2e-3)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, "a", "8000 brain voxels"),
        (0, "absent", "T1.nii.gz"),
        (1, "absent.csv", "cannot be read"),
        (2, "flair-of-nobody.csv", "no patient of split 'val'"),
    ],
)
def test_bad_input_is_refused_in_one_line(arguments, tmp_path, capsys, position, value, message):
    write_manifest(tmp_path / "flair-of-nobody.csv", "T1", {"d": "val"})
    arguments[position] = str(tmp_path / value)
    with pytest.raises(SystemExit, match="2"):
        pseudo_t2.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_without_scikit_learn_the_extra_is_named(arguments, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(SystemExit, match="2"):
        pseudo_t2.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install -e '.[test]'" in line
