"""Anomaly maps of other programs: on the scan's grid or the cohort's, refused by name where they do not fit."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from made_scans import made_cohort, save
from maediff.cohort import Cohort
from maediff.errors import InputError
from maediff.evaluate import evaluate
from maediff.map_folder import check_maps, is_map_folder, read_map
from maediff.scans import slices_to_volume


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return Cohort.open(made_cohort(tmp_path_factory.mktemp("maps")))


@pytest.fixture
def subject(cohort):
    return next(cohort.load(row) for row in cohort.split("test") if not row.healthy)


def test_a_map_on_the_cohorts_grid_is_taken_as_it_is(subject, tmp_path):
    truth = subject.lesion.astype(np.float32)
    save(tmp_path / f"{subject.subject}.nii.gz", slices_to_volume(truth), subject.affine)
    assert is_map_folder(tmp_path)
    np.testing.assert_array_equal(read_map(tmp_path, subject), truth)


def test_a_map_on_the_scans_own_grid_comes_to_the_same_place(cohort, subject, tmp_path):
    lesion = nib.load(cohort.path.parent / "scans" / subject.subject / "lesion.nii.gz")
    (tmp_path / subject.subject).mkdir()
    flipped = lesion.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
    data = np.asarray(flipped.dataobj, dtype=np.float32)
    save(tmp_path / subject.subject / "anomaly_map.nii.gz", data, flipped.affine)
    found = read_map(tmp_path, subject) > 0.5
    assert 2 * (found & subject.lesion).sum() / (found.sum() + subject.lesion.sum()) > 0.97


def test_maps_that_do_not_fit_are_refused_by_name(cohort, subject, tmp_path):
    with pytest.raises(InputError, match=f"no anomaly map of {subject.subject}"):
        check_maps(tmp_path, [subject], "T1w")
    data = slices_to_volume(subject.images)
    elsewhere, turned = subject.affine.copy(), subject.affine.copy()
    elsewhere[:3, 3] += 300
    turned[:2, :2] = np.array([[1.0, -1.0], [1.0, 1.0]])
    for change, affine, said in [
        (data * 7, subject.affine, "values 0 to 7"),
        (data, elsewhere, "does not cover the brain"),
        (data, turned, "does not cover the brain|other axes"),
    ]:
        save(tmp_path / f"{subject.subject}.nii.gz", change, affine)
        with pytest.raises(InputError, match=said):
            read_map(tmp_path, subject)


def test_a_map_on_a_third_grid_is_refused_while_the_scan_is_there(cohort, subject, tmp_path):
    """One of 4 mm, say, or one moved to a template: it holds the brain and has the axes, and is still another grid."""
    source = next(Path(row.source) for row in cohort.rows if row.name == subject.subject)
    data = slices_to_volume(subject.images)[::2, ::2]
    coarse = subject.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    coarse[:2, 3] += subject.affine[:2, :2] @ [0.5, 0.5]
    save(tmp_path / f"{subject.subject}.nii.gz", data, coarse)
    with pytest.raises(
        InputError, match=rf"{subject.subject}\.nii\.gz: a map of .* of 4 x 4 x 8 mm, .* neither .*image"
    ):
        read_map(tmp_path, subject, source)
    assert read_map(tmp_path, subject, tmp_path / "moved_away.nii.gz").shape == subject.images.shape
    scan = nib.load(source)
    save(tmp_path / f"{subject.subject}.nii.gz", np.zeros(scan.shape, np.float32), scan.affine)
    assert not read_map(tmp_path, subject, source).any()


def test_maps_of_another_contrast_are_refused(subject, tmp_path):
    (tmp_path / "detect.json").write_text('{"modality": "FLAIR"}')
    with pytest.raises(InputError, match="maps of FLAIR scans, but the cohort holds T1w"):
        check_maps(tmp_path, [subject], "T1w")


def test_perfect_maps_score_one_and_empty_ones_are_scored_too(cohort, tmp_path):
    for row in cohort.split("val") + cohort.split("test"):
        s = cohort.load(row)
        lesion = np.zeros(s.images.shape) if s.lesion is None else s.lesion
        for name, maps in (("perfect", lesion), ("empty", 0 * lesion)):
            save(tmp_path / name / f"{s.subject}.nii.gz", slices_to_volume(maps.astype(np.float32)), s.affine)
    summary = evaluate([tmp_path / "perfect", tmp_path / "empty"], cohort.path, tmp_path / "eval", quiet=True)
    methods = summary["methods"]
    assert methods["perfect"]["auprc_unfiltered"]["mean"] == 1
    assert methods["perfect"]["auprc"]["mean"] > 0.9
    assert methods["empty"]["auprc"]["mean"] < 0.1
    assert methods["perfect"]["l1_healthy"] is None
    evaluate([tmp_path / "perfect", tmp_path / "empty"], cohort.path, tmp_path / "two", workers=2, quiet=True)
    for name in ("scores.csv", "table.md"):  # processes side by side change nothing
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "eval" / name).read_text()
    shutil.copytree(tmp_path / "perfect", tmp_path / "bright")
    with pytest.raises(InputError, match="named like the baseline"):
        evaluate([tmp_path / "bright"], cohort.path, tmp_path / "eval2", quiet=True)
