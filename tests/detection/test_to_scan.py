"""From the model's grid back to the scan: positions, lesions and thin components are kept."""

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import ball, dice, made_brain, made_volume, oblique
from maediff.detection.to_scan import from_grid, mask_from_grid
from maediff.preparation.grid import Grid, GridConfig, atlas_grid, model_grid, to_grid
from maediff.preparation.onto_grid import prepare_scan
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask, read_nifti

CONFIG = GridConfig()
TO_ATLAS = oblique(np.diag([1.1, 1.05, 1.15, 1.0]))
HALF_CELLS_MM = [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)]  # cells are 2 mm


def positions_mm(mask, affine):
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def score_round_trips(make_grid, shift_mm=(0, 0, 0), volumes_ml=(1.1, 1.5, 3.0, 20.0)):
    """Return the Dice of balls at 1 mm, resampled to the grid and back.

    Args:
        make_grid: (volume, brain) -> grid.
        shift_mm: error of the grid's position on the way back, in the scan's frame.
        volumes_ml: volumes of the balls, whose centres are at every phase of a cell.
    """
    data, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    volume = made_volume(data, affine)
    grid = make_grid(volume, brain)
    shift = np.eye(4)
    shift[:3, 3] = shift_mm
    moved = Grid(grid.shape, shift @ grid.affine, grid.scale, atlas_affine=grid.atlas_affine)
    scores = []
    for number, volume_ml in enumerate(volumes_ml):
        centre = [10.0 + 0.3 * number, -13.7 + 0.45 * number, 5.2 * number - 8]
        lesion = ball(data.shape, affine, centre, volume_ml)
        on_grid = to_grid(lesion, affine, grid, "majority")
        scores.append(dice(lesion, from_grid(on_grid, moved, volume, "nearest")))
    return scores


def along_scan(volume, brain):
    return model_grid(volume, brain, CONFIG)


def in_atlas(volume, brain):
    return atlas_grid(TO_ATLAS, CONFIG)


@pytest.mark.parametrize("make_grid", [along_scan, in_atlas])
def test_lesion_round_trip(make_grid):
    assert min(score_round_trips(make_grid)) >= 0.90


@pytest.mark.parametrize("shift_mm", HALF_CELLS_MM)
@pytest.mark.parametrize("make_grid", [along_scan, in_atlas])
def test_shift_by_half_a_cell_would_be_noticed(make_grid, shift_mm):
    volumes_ml = (1.1, 1.5, 3.0, 20.0) if make_grid is along_scan else (1.1,)
    assert min(score_round_trips(make_grid, shift_mm, volumes_ml)) < 0.90


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (0.94, 0.94, 6.5), (2.0, 1.3, 2.5)]
)
def test_ramp_round_trip(spacing):
    """Values are mm along an axis, so a shift would appear as its size in mm."""
    shape = tuple(round(136 / step) for step in spacing)
    _, brain, affine = made_brain(shape, spacing)
    grid = model_grid(made_volume(brain, affine), brain, CONFIG)
    inside = ndimage.binary_erosion(brain, iterations=round(12 / min(spacing)))
    for axis in range(3):
        ramp = (np.indices(shape)[axis] * spacing[axis] + affine[axis, 3]).astype(np.float32)
        on_grid = to_grid(ramp, affine, grid, "linear")
        back = from_grid(on_grid, grid, made_volume(ramp, affine), "linear")
        np.testing.assert_allclose(back[inside], ramp[inside], atol=0.02)


def test_ramp_round_trip_in_atlas():
    _, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    grid = atlas_grid(TO_ATLAS, CONFIG)
    inside = ndimage.binary_erosion(brain, iterations=6)
    for axis in range(3):
        ramp = (np.indices(brain.shape)[axis] + affine[axis, 3]).astype(np.float32)
        on_grid = to_grid(ramp, affine, grid, "linear")
        back = from_grid(on_grid, grid, made_volume(ramp, affine), "linear")
        np.testing.assert_allclose(back[inside], ramp[inside], atol=0.05)


def test_cells_twice_as_large_by_hand():
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = 0.5  # cell 0 covers voxels 0 and 1
    grid, volume = Grid((2, 1, 1), coarse), made_volume(np.zeros((4, 2, 2)), np.eye(4))
    values = np.array([[[1.0]], [[3.0]]], dtype=np.float32)
    nearest = from_grid(values, grid, volume, "nearest")
    np.testing.assert_array_equal(nearest[:, 0, 0], [1, 1, 3, 3])
    linear = from_grid(values, grid, volume, "linear")
    np.testing.assert_allclose(linear[:, 0, 0], [1, 1.5, 2.5, 3])


@pytest.mark.parametrize(
    "spacing",
    [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.0, 6.0), (6.0, 1.0, 1.0), (0.7, 3.0, 8.0)],
)
@pytest.mark.parametrize("to_atlas", [np.eye(4), TO_ATLAS], ids=["along", "turned"])
def test_no_component_is_lost(spacing, to_atlas):
    shape = tuple(round(100 / step) for step in spacing)
    data, _, affine = made_brain(shape, spacing)
    grid, volume = atlas_grid(to_atlas, CONFIG), made_volume(data, affine)
    lost = 0
    for at in range(15):
        mask = np.zeros(grid.shape, dtype=bool)
        mask[40 + at : 42 + at, 46:50, 28 + at : 30 + at] = True  # 128 mm3 in MNI152
        mm3 = mask.sum() * np.linalg.det(grid.affine[:3, :3])
        nearest = from_grid(mask, grid, volume, "nearest")
        result = mask_from_grid(mask, grid, volume)
        assert result.sum() * np.prod(spacing) >= mm3 / 2
        if nearest.sum() * np.prod(spacing) >= mm3 / 2:
            np.testing.assert_array_equal(result, nearest)
        else:
            lost += not nearest.any()
            apart_mm = positions_mm(result, affine).mean(axis=0)
            apart_mm -= positions_mm(mask, grid.affine).mean(axis=0)
            assert (np.abs(apart_mm) < np.array(spacing) / 2 + 0.5).all()
    assert (lost > 0) == (max(spacing) > 4)


def test_mask_between_thick_slices_by_hand():
    affine, fine = np.diag([1.0, 1.0, 6.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0])
    fine[:3, 3] = [0.5, 0.5, -2]  # a cell covers 2 x 2 pixels, and a third of a slice
    volume = made_volume(np.zeros((4, 4, 3)), affine)
    mask = np.zeros((2, 2, 9), dtype=bool)  # layers 1, 4 and 7 hold the slices' centres
    mask[0, 1, 2:4] = True  # the end of the first slice and the start of the second
    mask[1, 0, 5] = True
    expected = np.zeros((4, 4, 3), dtype=bool)
    expected[:2, 2:, :2] = True
    expected[2:, :2, 1] = True
    np.testing.assert_array_equal(mask_from_grid(mask, Grid(mask.shape, fine), volume), expected)
    mask[0, 1, 1] = True  # the component now contains the centre of the first slice
    expected[:2, 2:, 1] = False
    np.testing.assert_array_equal(mask_from_grid(mask, Grid(mask.shape, fine), volume), expected)


def test_real_lesions(shared_data):
    """Ten gliomas with pixels of 0.94 mm, some in heads that were scaled to fit."""
    for ref in find_scans([shared_data / "lgg" / "flair.csv"]):
        if ref.split != "val":
            continue
        volume = read_nifti(ref.image)
        brain, lesion = read_mask(ref.brain_mask, volume), read_mask(ref.lesion_mask, volume)
        prepared = prepare_scan(volume, brain, lesion)
        assert prepared.record["lesion_ml"] > 1
        back = from_grid(prepared.lesion, prepared.grid, volume, "nearest")
        assert dice(lesion, back) >= 0.90, ref.name


def test_voxels_on_the_border_of_two_cells_go_to_one_side():
    """Centres of 1 mm voxels lie exactly between cells of 2 mm, despite rounding by a rotation."""
    turn = oblique(np.eye(4), (0.0, 0.0, 17.0))
    volume = made_volume(np.ones((24, 24, 24)), turn)
    grid = Grid((12, 12, 12), turn @ np.diag([2.0, 2.0, 2.0, 1.0]))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[4:7, 5:7, 3:6] = True
    expected = np.zeros((24, 24, 24), dtype=bool)
    expected[7:13, 9:13, 5:11] = True  # cell 4 is from 3.5 to 4.5 cells, voxels 7 to 9
    np.testing.assert_array_equal(mask_from_grid(mask, grid, volume), expected)
