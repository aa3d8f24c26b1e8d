"""Anomaly maps of other programs, on the grid of the scan or of the cohort."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from helpers.brains import ball, made_cohort, oblique, save
from helpers.options import QUIET
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.evaluation.evaluate import evaluate
from maediff.evaluation.maps import check_maps, is_filtered, is_map_folder, read_map
from maediff.evaluation.metrics import dice
from maediff.preparation.atlas.template import load_atlas
from maediff.preparation.config import PreparationConfig
from maediff.preparation.registration import Alignment, RegistrationConfig
from maediff.preparation.steps import Tools
from maediff.scans.volume import slices_to_volume


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return Cohort.open(made_cohort(tmp_path_factory.mktemp("maps")))


@pytest.fixture
def scan(cohort):
    return next(cohort.load(row) for row in cohort.split("test") if not row.healthy)


def test_map_on_the_grid_of_the_cohort(scan, tmp_path):
    truth = scan.lesion.astype(np.float32)
    save(tmp_path / f"{scan.name}.nii.gz", slices_to_volume(truth), scan.affine)
    assert is_map_folder(tmp_path)
    np.testing.assert_array_equal(read_map(tmp_path, scan), truth)


@pytest.mark.parametrize(
    "name", ["{}.nii", "{}/anomaly_map.nii", "{}.nii.gz", "{}/anomaly_map.nii.gz"]
)
def test_file_names_and_rounding(scan, tmp_path, name):
    truth = scan.lesion.astype(np.float32)
    save(
        tmp_path / name.format(scan.name),
        slices_to_volume(truth * 1.000001 - 1e-6),
        scan.affine,
    )
    assert is_map_folder(tmp_path)
    check_maps(tmp_path, [scan], "T1w")
    values = read_map(tmp_path, scan)
    assert values.min() == 0 and values.max() <= 1
    np.testing.assert_allclose(values, truth, atol=2e-6)


def test_map_on_the_grid_of_the_scan(cohort, scan, tmp_path):
    lesion = nib.load(cohort.path.parent / "scans" / scan.name / "lesion.nii.gz")
    (tmp_path / scan.name).mkdir()
    flipped = lesion.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
    data = np.asarray(flipped.dataobj, dtype=np.float32)
    save(tmp_path / scan.name / "anomaly_map.nii.gz", data, flipped.affine)
    assert dice(read_map(tmp_path, scan) > 0.5, scan.lesion) > 0.97


def test_map_on_the_grid_of_a_registered_scan(tmp_path):
    """The scan is the template's own brain, coarse, rotated and shifted, so its way back is known.

    The true lesion is the map.
    """
    atlas = load_atlas()
    from_atlas = oblique(np.eye(4))
    from_atlas[:3, 3] = [9, -31, 22]
    alignment = Alignment(np.linalg.inv(from_atlas), -0.5)
    affine = from_atlas @ atlas.affine @ np.diag([3.0, 3.0, 3.0, 1.0])
    t1, brain = atlas.t1[::3, ::3, ::3], atlas.brain[::3, ::3, ::3]
    centre = (affine @ np.append(np.argwhere(brain).mean(axis=0) + np.array([8, -6, 4]), 1))[:3]
    lesion = ball(t1.shape, affine, centre, 20) & brain
    save(tmp_path / "scan.nii.gz", np.where(lesion, 1.2, t1 + 0.01) * brain, affine)
    for name, mask in (("brain", brain), ("lesion", lesion)):
        save(tmp_path / f"{name}.nii.gz", mask, affine)
    (tmp_path / "m.csv").write_text(
        "subject,image,brain_mask,lesion_mask\na,scan.nii.gz,brain.nii.gz,lesion.nii.gz\n"
    )
    failed = preprocess(
        [tmp_path / "m.csv"],
        tmp_path / "cohort",
        modality="T1w",
        preparation=PreparationConfig(registration=RegistrationConfig(enabled=True)),
        tools=Tools(align=lambda volume, brain, quick: alignment),
        run=QUIET,
    )
    assert failed == 0
    cohort = Cohort.open(tmp_path / "cohort")
    scan = cohort.load(cohort.rows[0])
    source = Path(cohort.rows[0].source)
    assert np.abs(scan.affine - scan.affine_to_scan).max() > 10
    save(tmp_path / "maps" / "a.nii.gz", lesion.astype(np.float32), affine)
    for given in (source, None):
        values = read_map(tmp_path / "maps", scan, given)
        assert average_precision_score(scan.lesion.ravel(), values.ravel()) > 0.95
        assert dice(values > 0.5, scan.lesion) > 0.8
    on_cohort_grid = slices_to_volume(scan.lesion.astype(np.float32))
    save(tmp_path / "maps" / "a.nii.gz", on_cohort_grid, scan.affine)
    np.testing.assert_array_equal(read_map(tmp_path / "maps", scan, source), scan.lesion)


def test_invalid_map_is_refused(cohort, scan, tmp_path):
    with pytest.raises(InputError, match=f"no anomaly map of {scan.name}"):
        check_maps(tmp_path, [scan], "T1w")
    data = slices_to_volume(scan.images.clip(0, 1))
    elsewhere, turned = scan.affine.copy(), scan.affine.copy()
    elsewhere[:3, 3] += 300
    turned[:2, :2] = np.array([[1.0, -1.0], [1.0, 1.0]])
    for values, affine, message in [
        (data * 7, scan.affine, "values 0 to 7"),
        (data / data.max() * 1.0001, scan.affine, r"values 0 to 1\.0001"),
        (data - 0.001, scan.affine, r"values -0\.001"),
        (data, elsewhere, "does not cover the brain"),
        (data, turned, "does not cover the brain"),
    ]:
        save(tmp_path / f"{scan.name}.nii.gz", values, affine)
        with pytest.raises(InputError, match=message):
            read_map(tmp_path, scan)


def test_map_on_another_grid_is_refused_if_the_scan_exists(cohort, scan, tmp_path):
    """A map with voxels of 4 mm, or on a template, covers the brain, but on another grid."""
    source = next(Path(row.source) for row in cohort.rows if row.name == scan.name)
    data = slices_to_volume(scan.images.clip(0, 1))[::2, ::2]
    coarse = scan.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    coarse[:2, 3] += scan.affine[:2, :2] @ [0.5, 0.5]
    save(tmp_path / f"{scan.name}.nii.gz", data, coarse)
    with pytest.raises(
        InputError,
        match=rf"{scan.name}\.nii\.gz: a map of .* of 4 x 4 x 8 mm, .* neither .*image",
    ):
        read_map(tmp_path, scan, source)
    assert read_map(tmp_path, scan, tmp_path / "moved_away.nii.gz").shape == scan.images.shape
    original = nib.load(source)
    zeros = np.zeros(original.shape, np.float32)
    save(tmp_path / f"{scan.name}.nii.gz", zeros, original.affine)
    assert not read_map(tmp_path, scan, source).any()


def test_refused_map_leaves_no_folder(cohort, tmp_path):
    """The map has the right size, but is shifted by five millimetres."""
    for row in cohort.split("val") + cohort.split("test"):
        scan = cohort.load(row)
        moved = scan.affine.copy()
        moved[0, 3] += 5 if row.name == cohort.split("test")[-1].name else 0
        volume = slices_to_volume(scan.images.clip(0, 1))
        save(tmp_path / "maps" / f"{row.name}.nii.gz", volume, moved)
    with pytest.raises(
        InputError, match=r"neither the grid .* but shifted by up to 5 mm; resample"
    ):
        evaluate([tmp_path / "maps"], cohort.path, tmp_path / "eval", run=QUIET)
    assert not (tmp_path / "eval").exists()


def test_maps_of_another_contrast(scan, tmp_path):
    assert not is_filtered(tmp_path)
    (tmp_path / "detect.json").write_text('{"modality": "FLAIR"}')
    assert is_filtered(tmp_path)
    with pytest.raises(InputError, match="maps of FLAIR scans, but the cohort holds T1w"):
        check_maps(tmp_path, [scan], "T1w")
    for content in ("[]", '{"moda'):
        (tmp_path / "detect.json").write_text(content)
        with pytest.raises(
            InputError, match=r"detect\.json: .*damaged .*; run `maediff detect` again"
        ):
            check_maps(tmp_path, [scan], "T1w")


def test_maps_of_detect_are_scaled_back(scan, tmp_path):
    """A map in units of the default threshold gives the residual."""
    residual = 0.5 * scan.lesion.astype(np.float32)
    units = slices_to_volume(residual / np.float32(0.1))
    save(tmp_path / f"{scan.name}.nii.gz", units, scan.affine)
    with pytest.raises(InputError, match="values 0 to 5, but anomaly maps hold 0 to 1"):
        read_map(tmp_path, scan)
    (tmp_path / "detect.json").write_text('{"modality": "T1w", "scale": 0.1}')
    np.testing.assert_allclose(read_map(tmp_path, scan), residual, rtol=1e-6)


def test_scores_of_perfect_and_empty_maps(cohort, tmp_path):
    for row in cohort.split("val") + cohort.split("test"):
        scan = cohort.load(row)
        lesion = np.zeros(scan.images.shape) if scan.lesion is None else scan.lesion
        for name, values in (("perfect", lesion), ("empty", 0 * lesion)):
            volume = slices_to_volume(values.astype(np.float32))
            save(tmp_path / name / f"{scan.name}.nii.gz", volume, scan.affine)
    summary = evaluate(
        [tmp_path / "perfect", tmp_path / "empty"], cohort.path, tmp_path / "eval", run=QUIET
    )
    methods = summary["methods"]
    assert methods["perfect"]["auprc_unfiltered"]["mean"] == 1
    assert methods["perfect"]["auprc"]["mean"] > 0.9
    assert methods["empty"]["auprc"]["mean"] < 0.1
    assert methods["perfect"]["l1_healthy"] is None
    evaluate(
        [tmp_path / "perfect", tmp_path / "empty"],
        cohort.path,
        tmp_path / "two",
        run=RunOptions(workers=2, quiet=True),
    )
    for name in ("scores.csv", "table.md"):  # processes change nothing
        assert (tmp_path / "two" / name).read_text("utf-8") == (
            tmp_path / "eval" / name
        ).read_text("utf-8")
    shutil.copytree(tmp_path / "perfect", tmp_path / "bright")
    with pytest.raises(InputError, match="named like the baseline"):
        evaluate([tmp_path / "bright"], cohort.path, tmp_path / "eval2", run=QUIET)
