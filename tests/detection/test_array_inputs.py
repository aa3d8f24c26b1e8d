"""Detection in arrays: any voxel order gives the same map, and bad arguments are refused."""

import numpy as np
import pytest

from helpers.brains import made_brain, save
from helpers.runs import made_run
from maediff.core.errors import InputError
from maediff.detection.detector import load
from maediff.scans.read import read_scan


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return load(made_run(tmp_path_factory.mktemp("run") / "run"), device="cpu")


@pytest.fixture
def brain():
    data, inside, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    inside = inside.copy()
    inside[:25] = False  # the mask is not symmetric, so a mirrored one would show
    return data.astype(np.float32), inside, affine


def flip_x(array, affine):
    """Return an array and its affine with the first axis reversed (LAS for RAS)."""
    flip = np.diag([-1.0, 1.0, 1.0, 1.0])
    flip[0, 3] = array.shape[0] - 1
    return array[::-1].copy(), affine @ flip


def test_voxel_order_of_array_and_mask_does_not_matter(detector, brain):
    data, inside, affine = brain
    expected = detector.detect(data, affine=affine, brain_mask=inside, threshold=0.2)
    flipped, flipped_affine = flip_x(data, affine)
    mask = flip_x(inside, affine)[0]
    found = detector.detect(flipped, affine=flipped_affine, brain_mask=mask, threshold=0.2)
    np.testing.assert_array_equal(found.brain_mask, expected.brain_mask)
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
    np.testing.assert_array_equal(expected.brain_mask, inside)


def test_array_mask_of_a_file_has_the_order_of_the_file(detector, brain, tmp_path):
    data, inside, affine = brain
    flipped, flipped_affine = flip_x(data, affine)
    path = save(tmp_path / "scan_T1w.nii.gz", flipped, flipped_affine)
    mask = flip_x(inside, affine)[0]
    found = detector.detect(path, brain_mask=mask, threshold=0.2)
    np.testing.assert_array_equal(found.brain_mask, inside)
    volume = read_scan(path)  # a Volume is RAS+, and so is its mask
    found = detector.detect(volume, brain_mask=inside, threshold=0.2)
    np.testing.assert_array_equal(found.brain_mask, inside)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brain_mask": np.ones((3, 3, 3), dtype=bool)}, "`brain_mask`: .*3, 3, 3.* voxels"),
        ({"brain_mask": np.zeros((60, 72, 12), dtype=bool)}, "`brain_mask`: empty"),
        ({"modality": "FLAIR"}, "a model for T1w"),
        ({"affine": None}, "`affine`"),
        ({"threshold": 0.2, "fpr": 0.01}, "only one"),
        ({"threshold": 1.5}, "threshold"),
    ],
)
def test_bad_arguments(detector, brain, capsys, arguments, message):
    data, _, affine = brain
    with pytest.raises(InputError, match=message):
        detector.detect(data, **{"affine": affine, **arguments})
    assert capsys.readouterr().out == ""


def test_save_keeps_a_folder_of_somebody_else(detector, brain, tmp_path):
    data, inside, affine = brain
    found = detector.detect(data, affine=affine, brain_mask=inside, threshold=0.2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="mine: exists and holds no result"):
        found.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").is_file()
    assert found.save(tmp_path / "new") == tmp_path / "new"
    assert found.save(tmp_path / "new") == tmp_path / "new"  # its own result is replaced
