"""Anomaly maps of other programs: on the scan's grid or the cohort's, refused by name where they do not fit."""

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
from maediff.evaluation.evaluate import evaluate
from maediff.evaluation.maps import check_maps, is_map_folder, read_map
from maediff.preparation.config import PreparationConfig
from maediff.preparation.registration import Alignment, RegistrationConfig, load_atlas
from maediff.scans.volume import slices_to_volume


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return Cohort.open(made_cohort(tmp_path_factory.mktemp("maps")))


@pytest.fixture
def subject(cohort):
    return next(cohort.load(row) for row in cohort.split("test") if not row.healthy)


def test_a_map_on_the_cohorts_grid_is_taken_as_it_is(subject, tmp_path):
    truth = subject.lesion.astype(np.float32)
    save(tmp_path / f"{subject.name}.nii.gz", slices_to_volume(truth), subject.affine)
    assert is_map_folder(tmp_path)
    np.testing.assert_array_equal(read_map(tmp_path, subject), truth)


@pytest.mark.parametrize(
    "name", ["{}.nii", "{}/anomaly_map.nii", "{}.nii.gz", "{}/anomaly_map.nii.gz"]
)
def test_maps_may_be_compressed_and_lie_a_rounding_beyond_one(subject, tmp_path, name):
    truth = subject.lesion.astype(np.float32)
    save(
        tmp_path / name.format(subject.name),
        slices_to_volume(truth * 1.000001 - 1e-6),
        subject.affine,
    )
    assert is_map_folder(tmp_path)
    check_maps(tmp_path, [subject], "T1w")
    found = read_map(tmp_path, subject)
    assert found.min() == 0 and found.max() <= 1
    np.testing.assert_allclose(found, truth, atol=2e-6)


def test_a_map_on_the_scans_own_grid_comes_to_the_same_place(cohort, subject, tmp_path):
    lesion = nib.load(cohort.path.parent / "scans" / subject.name / "lesion.nii.gz")
    (tmp_path / subject.name).mkdir()
    flipped = lesion.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
    data = np.asarray(flipped.dataobj, dtype=np.float32)
    save(tmp_path / subject.name / "anomaly_map.nii.gz", data, flipped.affine)
    found = read_map(tmp_path, subject) > 0.5
    assert 2 * (found & subject.lesion).sum() / (found.sum() + subject.lesion.sum()) > 0.97


def test_in_a_registered_cohort_a_map_on_the_scans_grid_comes_to_the_lesion_in_mni152(
    tmp_path, monkeypatch
):
    """The template's own brain, coarse, turned and shifted, is the scan, so its way back is known; the true lesion is
    the map.
    """
    atlas = load_atlas()
    from_atlas = oblique(np.eye(4))
    from_atlas[:3, 3] = [9, -31, 22]
    alignment = Alignment(np.linalg.inv(from_atlas), -0.5)
    monkeypatch.setattr(
        "maediff.preparation.steps.align_to_atlas", lambda volume, brain, quick: alignment
    )
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
    steps = PreparationConfig(registration=RegistrationConfig(enabled=True))
    assert (
        preprocess(
            [tmp_path / "m.csv"], tmp_path / "cohort", modality="T1w", steps=steps, run=QUIET
        )
        == 0
    )
    cohort = Cohort.open(tmp_path / "cohort")
    s = cohort.load(cohort.rows[0])
    assert np.abs(s.affine - s.affine_to_scan).max() > 10
    save(tmp_path / "maps" / "a.nii.gz", lesion.astype(np.float32), affine)
    for source in (Path(cohort.rows[0].source), None):
        found = read_map(tmp_path / "maps", s, source)
        assert average_precision_score(s.lesion.ravel(), found.ravel()) > 0.95
        assert 2 * (s.lesion & (found > 0.5)).sum() / (s.lesion.sum() + (found > 0.5).sum()) > 0.8
    save(tmp_path / "maps" / "a.nii.gz", slices_to_volume(s.lesion.astype(np.float32)), s.affine)
    np.testing.assert_array_equal(
        read_map(tmp_path / "maps", s, Path(cohort.rows[0].source)), s.lesion
    )


def test_maps_that_do_not_fit_are_refused_by_name(cohort, subject, tmp_path):
    with pytest.raises(InputError, match=f"no anomaly map of {subject.name}"):
        check_maps(tmp_path, [subject], "T1w")
    data = slices_to_volume(subject.images.clip(0, 1))
    elsewhere, turned = subject.affine.copy(), subject.affine.copy()
    elsewhere[:3, 3] += 300
    turned[:2, :2] = np.array([[1.0, -1.0], [1.0, 1.0]])
    for change, affine, said in [
        (data * 7, subject.affine, "values 0 to 7"),
        (data / data.max() * 1.0001, subject.affine, r"values 0 to 1\.0001"),
        (data - 0.001, subject.affine, r"values -0\.001"),
        (data, elsewhere, "does not cover the brain"),
        (data, turned, "does not cover the brain"),
    ]:
        save(tmp_path / f"{subject.name}.nii.gz", change, affine)
        with pytest.raises(InputError, match=said):
            read_map(tmp_path, subject)


def test_a_map_on_a_third_grid_is_refused_while_the_scan_is_there(cohort, subject, tmp_path):
    """One of 4 mm, say, or one moved to a template: it holds the brain and has the axes, and is still another grid."""
    source = next(Path(row.source) for row in cohort.rows if row.name == subject.name)
    data = slices_to_volume(subject.images.clip(0, 1))[::2, ::2]
    coarse = subject.affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    coarse[:2, 3] += subject.affine[:2, :2] @ [0.5, 0.5]
    save(tmp_path / f"{subject.name}.nii.gz", data, coarse)
    with pytest.raises(
        InputError,
        match=rf"{subject.name}\.nii\.gz: a map of .* of 4 x 4 x 8 mm, .* neither .*image",
    ):
        read_map(tmp_path, subject, source)
    assert (
        read_map(tmp_path, subject, tmp_path / "moved_away.nii.gz").shape == subject.images.shape
    )
    scan = nib.load(source)
    save(tmp_path / f"{subject.name}.nii.gz", np.zeros(scan.shape, np.float32), scan.affine)
    assert not read_map(tmp_path, subject, source).any()


def test_maps_are_refused_before_anything_is_written(cohort, tmp_path):
    """A map of the right size, five millimetres off: its grid is told by where it lies."""
    for row in cohort.split("val") + cohort.split("test"):
        s = cohort.load(row)
        moved = s.affine.copy()
        moved[0, 3] += 5 if row.name == cohort.split("test")[-1].name else 0
        save(
            tmp_path / "maps" / f"{row.name}.nii.gz", slices_to_volume(s.images.clip(0, 1)), moved
        )
    with pytest.raises(InputError, match=r"neither the grid .* but lies up to 5 mm off; resample"):
        evaluate([tmp_path / "maps"], cohort.path, tmp_path / "eval", quiet=True)
    assert not (tmp_path / "eval").exists()


def test_maps_of_another_contrast_are_refused(subject, tmp_path):
    (tmp_path / "detect.json").write_text('{"modality": "FLAIR"}')
    with pytest.raises(InputError, match="maps of FLAIR scans, but the cohort holds T1w"):
        check_maps(tmp_path, [subject], "T1w")
    for content in ("[]", '{"moda'):
        (tmp_path / "detect.json").write_text(content)
        with pytest.raises(
            InputError, match=r"detect\.json: .*damaged .*; run `maediff detect` again"
        ):
            check_maps(tmp_path, [subject], "T1w")


def test_perfect_maps_score_one_and_empty_ones_are_scored_too(cohort, tmp_path):
    for row in cohort.split("val") + cohort.split("test"):
        s = cohort.load(row)
        lesion = np.zeros(s.images.shape) if s.lesion is None else s.lesion
        for name, maps in (("perfect", lesion), ("empty", 0 * lesion)):
            save(
                tmp_path / name / f"{s.name}.nii.gz",
                slices_to_volume(maps.astype(np.float32)),
                s.affine,
            )
    summary = evaluate(
        [tmp_path / "perfect", tmp_path / "empty"], cohort.path, tmp_path / "eval", quiet=True
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
        workers=2,
        quiet=True,
    )
    for name in ("scores.csv", "table.md"):  # processes side by side change nothing
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "eval" / name).read_text()
    shutil.copytree(tmp_path / "perfect", tmp_path / "bright")
    with pytest.raises(InputError, match="named like the baseline"):
        evaluate([tmp_path / "bright"], cohort.path, tmp_path / "eval2", quiet=True)
