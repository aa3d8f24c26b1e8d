"""The model's grid: size, position and spacing, in the scan's own frame and in MNI152."""

import numpy as np
import pytest

from helpers.brains import ball, made_brain, made_volume, oblique
from helpers.heads import atlas_brain
from maediff.core.errors import InputError
from maediff.preparation.grid import (
    ATLAS_BOX_MM,
    Grid,
    GridConfig,
    atlas_grid,
    lesion_free_slices,
    model_grid,
    to_grid,
)
from maediff.preparation.onto_grid import prepare_scan

CONFIG = GridConfig()
TO_ATLAS = oblique(np.diag([1.1, 1.05, 1.15, 1.0]))


def positions_mm(mask, affine):
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def test_two_millimetre_voxels_are_not_interpolated():
    data, brain, affine = made_brain()
    prepared = prepare_scan(made_volume(data, affine))
    assert prepared.image.shape[:2] == (96, 96)
    assert prepared.brain.sum() == brain.sum()
    moved = to_grid(data, affine, prepared.grid, "linear")
    np.testing.assert_array_equal(np.sort(moved[moved > 0]), np.sort(data[data > 0]))
    assert prepared.record["scale"] == 1.0


@pytest.mark.parametrize("turn", range(0, 90, 7))
def test_oblique_affine_in_single_precision(turn):
    """Voxels of such a header measure 1.9999999 or 2.0000002 mm."""
    data, brain, affine = made_brain()
    c, s = np.cos(np.deg2rad(turn / 4)), np.sin(np.deg2rad(turn / 4))
    exact = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine
    rounded = exact.astype(np.float32).astype(np.float64)
    prepared = prepare_scan(made_volume(data, rounded))
    assert prepared.brain.sum() == brain.sum()
    to_scan = np.linalg.inv(exact) @ prepared.grid.affine
    np.testing.assert_allclose(to_scan[:3, 3], np.round(to_scan[:3, 3]), atol=1e-3)


def test_brain_in_the_middle_and_in_every_slice():
    data, _, affine = made_brain(shape=(80, 80, 50))
    prepared = prepare_scan(made_volume(np.roll(data, (6, -4, 2), axis=(0, 1, 2)), affine))
    for axis in (0, 1):
        filled = np.flatnonzero(prepared.brain.any(axis=tuple({0, 1, 2} - {axis})))
        assert abs(filled[0] + filled[-1] - 95) <= 1
    assert prepared.brain.any(axis=(0, 1)).all()


@pytest.mark.parametrize(
    "spacing",
    [(1.0, 1.0, 1.0), (0.94, 0.94, 6.5), (1.5, 1.5, 1.5), (2.0, 1.0, 3.0), (3.0, 2.5, 1.2)],
)
@pytest.mark.parametrize("turned", [False, True])
def test_lesion_keeps_its_place(spacing, turned):
    shape = tuple(round(136 / step) for step in spacing)
    data, _, affine = made_brain(shape, spacing)
    affine = oblique(affine) if turned else affine
    centre = affine[:3, :3] @ (np.array(shape) * [0.6, 0.4, 0.55]) + affine[:3, 3]
    lesion = ball(shape, affine, centre, 12.0)
    prepared = prepare_scan(made_volume(data, affine), lesion=lesion)
    np.testing.assert_allclose(
        positions_mm(prepared.lesion, prepared.grid.affine).mean(axis=0),
        positions_mm(lesion, affine).mean(axis=0),
        atol=0.4,
    )
    volume_ml = prepared.lesion.sum() * np.prod(prepared.grid.spacing_mm) / 1000
    assert abs(volume_ml - lesion.sum() * np.prod(spacing) / 1000) < 1.0
    thick = spacing[2] > 3
    np.testing.assert_allclose(
        prepared.grid.spacing_mm, [2, 2, spacing[2] if thick else 2], atol=1e-6
    )


def test_thick_slices_are_kept():
    data, brain, affine = made_brain((136, 136, 22), (1.0, 1.0, 5.0))
    prepared = prepare_scan(made_volume(data, affine))
    with_brain = np.flatnonzero(brain.any(axis=(0, 1)))
    assert prepared.grid.shape[2] == len(with_brain)
    origin = (np.linalg.inv(affine) @ prepared.grid.affine)[2, 3]
    assert origin == pytest.approx(with_brain[0])


def test_long_brain_is_scaled_and_flagged():
    data, brain, affine = made_brain((80, 120, 50), radii_mm=(60.0, 105.0, 42.0))
    prepared = prepare_scan(made_volume(data, affine))
    assert prepared.grid.scale == pytest.approx(190 / 210, abs=0.02)
    assert prepared.grid.spacing_mm[0] == pytest.approx(prepared.grid.spacing_mm[1])
    assert prepared.grid.spacing_mm[1] == pytest.approx(2 / prepared.grid.scale)
    assert prepared.grid.spacing_mm[2] == pytest.approx(2)
    assert "scaled to fit" in prepared.record["flags"] and "208 mm" in prepared.record["notes"][0]
    volume_mm3 = prepared.brain.sum() * np.prod(prepared.grid.spacing_mm)
    assert volume_mm3 == pytest.approx(brain.sum() * 8, rel=0.01)  # nothing was cropped


@pytest.mark.parametrize("degrees", [5, 20, -12])
def test_brain_of_a_sheared_scan_has_its_true_volume(degrees):
    data, brain, affine = made_brain()
    sheared = affine.copy()
    sheared[1, 2] += affine[2, 2] * np.tan(np.radians(degrees))
    prepared = prepare_scan(made_volume(data, sheared))
    assert prepared.record["brain_ml"] == pytest.approx(brain.sum() * 8 / 1000, abs=0.1)
    on_grid_mm3 = prepared.brain.sum() * np.prod(prepared.grid.spacing_mm)
    assert on_grid_mm3 == pytest.approx(brain.sum() * 8, rel=0.02)


@pytest.mark.parametrize("wrong", ["empty", "sagittal", "metres wide"])
def test_impossible_brains(wrong):
    data, brain, affine = made_brain()
    if wrong == "empty":
        brain = np.zeros_like(brain)
    elif wrong == "sagittal":
        data, brain = data[30:31], brain[30:31]
    else:
        affine = affine @ np.diag([5.0, 5, 5, 1])
    with pytest.raises(InputError, match=r"scan\.nii\.gz: the brain"):
        prepare_scan(made_volume(data, affine), brain)


@pytest.mark.parametrize("wrong", [{"max_brain_mm": 200}, {"spacing_mm": 0}, {"spicing_mm": 2}])
def test_wrong_settings(wrong):
    with pytest.raises((ValueError, TypeError)):
        GridConfig(**wrong)


@pytest.mark.parametrize(
    "spacing",
    [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.0, 5.0), (1.5, 1.5, 1.5), (1.0, 1.0, 2.7)],
)
@pytest.mark.parametrize("margin", [0, 2])
def test_lesion_free_slices(spacing, margin):
    """A free slice does not change with slices that contain lesion, nor with their neighbours."""
    shape = tuple(round(136 / step) for step in spacing)
    data, brain, affine = made_brain(shape, spacing)
    grid = model_grid(made_volume(data, affine), brain, CONFIG)
    first = shape[2] // 2
    lesion = np.zeros(shape, dtype=bool)
    lesion[40, 40, first : first + 3] = True  # too small for the grid, but it counts
    free = lesion_free_slices(lesion, affine, grid, margin)
    assert free.any() and not free.all()
    changed = data.copy()
    changed[:, :, max(0, first - margin) : first + 3 + margin] += 1000
    before, after = (to_grid(values, affine, grid, "linear") for values in (data, changed))
    same = np.isclose(before, after).all(axis=(0, 1))
    assert not (free & ~same).any()
    assert (same & ~free).sum() <= 4  # few more slices than necessary


def test_lesion_free_slices_by_hand():
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    grid = Grid((96, 96, 8), affine)
    lesion = np.zeros((40, 40, 8), dtype=bool)
    lesion[5, 5, 3:5] = True
    free = lesion_free_slices(lesion, affine, grid, 1)
    np.testing.assert_array_equal(free, [True, True, False, False, False, False, True, True])
    without_margin = lesion_free_slices(lesion, affine, grid, 0)
    np.testing.assert_array_equal(without_margin, ~lesion.any(axis=(0, 1)))
    assert lesion_free_slices(np.zeros_like(lesion), affine, grid, 1).all()


@pytest.mark.parametrize("height", [-78.0, -84.0, -120.0, 300.0])
def test_a_lesion_beyond_the_atlas_grid_leaves_all_slices_free(height):
    grid = atlas_grid(np.eye(4), CONFIG)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[2, 3] = height
    lesion = np.ones((1, 1, 1), dtype=bool)
    assert lesion_free_slices(lesion, affine, grid, 1).all()


def test_lesion_free_slices_in_atlas():
    data, brain, affine = made_brain((68, 68, 50), (2.0, 2.0, 2.0))
    grid = atlas_grid(TO_ATLAS, CONFIG)
    lesion = np.zeros(brain.shape, dtype=bool)
    lesion[30, 34, 20:22] = True
    free = lesion_free_slices(lesion, affine, grid, 1)
    changed = data.copy()
    changed[30, 34, 19:23] += 1000  # the lesion with a margin of one slice
    before, after = (to_grid(values, affine, grid, "linear") for values in (data, changed))
    same = np.isclose(before, after).all(axis=(0, 1))
    assert free.any() and not (free & ~same).any()
    assert (same & ~free).sum() <= 8


def test_midsagittal_plane_of_atlas_in_the_middle():
    grid = atlas_grid(np.eye(4), CONFIG)
    columns = np.arange(grid.shape[0])
    x_mm = grid.atlas_affine[0, 0] * columns + grid.atlas_affine[0, 3]
    np.testing.assert_allclose(x_mm, -x_mm[::-1])


def test_slice_heights():
    _, brain, affine = made_brain((60, 72, 20), (2.0, 2.0, 6.0))
    flat = model_grid(made_volume(brain, affine), brain, CONFIG)
    for grid in (flat, atlas_grid(TO_ATLAS, CONFIG)):
        x, y, z = grid.shape
        lowest = grid.affine @ [(x - 1) / 2, (y - 1) / 2, 0, 1]
        highest = grid.affine @ [(x - 1) / 2, (y - 1) / 2, z - 1, 1]
        heights = grid.slice_heights_mm
        assert len(heights) == z
        np.testing.assert_allclose([heights[0], heights[-1]], [lowest[2], highest[2]])
    np.testing.assert_allclose(np.diff(flat.slice_heights_mm), 6.0)


@pytest.mark.slow
def test_brain_of_atlas_fits():
    data, brain, affine = atlas_brain(step=1)
    for axis, (low, high) in enumerate(ATLAS_BOX_MM):
        filled = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) + affine[axis, 3]
        assert low <= filled[0] - 0.5 <= low + 1 and high - 1 <= filled[-1] + 0.5 <= high
    grid = atlas_grid(np.eye(4), CONFIG)
    prepared = prepare_scan(made_volume(data, affine), brain, to_atlas=np.eye(4))
    assert grid.shape == prepared.image.shape == (96, 96, 78)
    assert prepared.brain.sum() * 8 == pytest.approx(brain.sum(), rel=0.01)
    assert "brain reaches beyond the grid" not in prepared.record["flags"]
    shift = np.eye(4)
    shift[0, 3] = 60
    cut = prepare_scan(made_volume(data, affine), brain, to_atlas=shift)
    assert "brain reaches beyond the grid" in cut.record["flags"]
