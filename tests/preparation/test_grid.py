from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import ball, made_brain, oblique, save
from maediff.core.errors import InputError
from maediff.core.types import CEILING
from maediff.detection.to_scan import from_grid, mask_from_grid
from maediff.preparation.background import brain_from_background
from maediff.preparation.grid import (
    Grid,
    GridConfig,
    atlas_grid,
    lesion_free_slices,
    model_grid,
    to_grid,
)
from maediff.preparation.intensities import NormaliseConfig, intensity_range, normalise
from maediff.preparation.onto_grid import prepare_scan
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask, read_nifti
from maediff.scans.volume import Volume

CONFIG = GridConfig()


def volume_of(data, affine):
    return Volume(
        np.asarray(data, dtype=np.float32), affine, Path("scan.nii.gz"), data.shape, affine
    )


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def places(mask, affine):
    return np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]


def test_two_millimetre_scans_are_moved_but_not_interpolated():
    data, brain, affine = made_brain()
    prepared = prepare_scan(volume_of(data, affine))
    assert prepared.image.shape[:2] == (96, 96)
    assert prepared.brain.sum() == brain.sum()
    moved = to_grid(data, affine, prepared.grid, "linear")
    np.testing.assert_array_equal(np.sort(moved[moved > 0]), np.sort(data[data > 0]))
    assert prepared.record["scale"] == 1.0 and prepared.record["flags"] == [
        "brain volume out of 800 to 2200 ml"
    ]


@pytest.mark.parametrize("turn", range(0, 90, 7))
def test_nor_is_an_oblique_scan_whose_affine_was_rounded_to_single_precision(turn):
    """As headers hold it: its voxels measure 1.9999999 or 2.0000002 mm."""
    data, brain, affine = made_brain()
    c, s = np.cos(np.deg2rad(turn / 4)), np.sin(np.deg2rad(turn / 4))
    rounded = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine
    prepared = prepare_scan(volume_of(data, rounded.astype(np.float32).astype(np.float64)))
    assert prepared.brain.sum() == brain.sum()
    to_scan = np.linalg.inv(rounded) @ prepared.grid.affine  # voxel to voxel
    np.testing.assert_allclose(to_scan[:3, 3], np.round(to_scan[:3, 3]), atol=1e-3)


def test_the_brain_lies_in_the_middle_and_every_slice_holds_some():
    data, _, affine = made_brain(shape=(80, 80, 50))
    prepared = prepare_scan(volume_of(np.roll(data, (6, -4, 2), axis=(0, 1, 2)), affine))
    for axis in (0, 1):
        where = np.flatnonzero(prepared.brain.any(axis=tuple({0, 1, 2} - {axis})))
        assert abs(where[0] + where[-1] - 95) <= 1
    assert prepared.brain.any(axis=(0, 1)).all()


@pytest.mark.parametrize(
    "spacing",
    [(1.0, 1.0, 1.0), (0.94, 0.94, 6.5), (1.5, 1.5, 1.5), (2.0, 1.0, 3.0), (3.0, 2.5, 1.2)],
)
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_in_one_place_of_the_head_stays_there(spacing, turned):
    shape = tuple(round(136 / step) for step in spacing)
    data, _, affine = made_brain(shape, spacing)
    affine = oblique(affine) if turned else affine
    lesion = ball(
        shape, affine, affine[:3, :3] @ (np.array(shape) * [0.6, 0.4, 0.55]) + affine[:3, 3], 12.0
    )
    prepared = prepare_scan(volume_of(data, affine), lesion=lesion)
    centre = places(prepared.lesion, prepared.grid.affine).mean(axis=0)
    expected = places(lesion, affine).mean(axis=0)
    np.testing.assert_allclose(centre, expected, atol=0.4)
    volume_ml = prepared.lesion.sum() * np.prod(prepared.grid.spacing_mm) / 1000
    assert abs(volume_ml - lesion.sum() * np.prod(spacing) / 1000) < 1.0
    thick = spacing[2] > 3
    np.testing.assert_allclose(
        prepared.grid.spacing_mm, [2, 2, spacing[2] if thick else 2], atol=1e-6
    )


def test_thick_slices_are_kept_one_for_one():
    data, brain, affine = made_brain((136, 136, 22), (1.0, 1.0, 5.0))
    prepared = prepare_scan(volume_of(data, affine))
    kept = np.flatnonzero(brain.any(axis=(0, 1)))
    assert prepared.grid.shape[2] == len(kept)
    origin = (np.linalg.inv(affine) @ prepared.grid.affine)[2, 3]
    assert origin == pytest.approx(kept[0])


def test_a_long_brain_is_scaled_uniformly_in_the_slice_and_flagged():
    data, brain, affine = made_brain((80, 120, 50), radii_mm=(60.0, 105.0, 42.0))
    prepared = prepare_scan(volume_of(data, affine))
    scale = 190 / 210
    assert prepared.grid.scale == pytest.approx(scale, abs=0.02)
    assert prepared.grid.spacing_mm[0] == pytest.approx(prepared.grid.spacing_mm[1])
    assert prepared.grid.spacing_mm[1] == pytest.approx(2 / prepared.grid.scale)
    assert prepared.grid.spacing_mm[2] == pytest.approx(2)
    assert "scaled to fit" in prepared.record["flags"] and "208 mm" in prepared.record["notes"][0]
    volume_mm3 = prepared.brain.sum() * np.prod(prepared.grid.spacing_mm)
    assert volume_mm3 == pytest.approx(brain.sum() * 8, rel=0.01)  # nothing was cropped


def test_going_to_cells_twice_as_large_by_hand():
    affine, coarse = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = 0.5  # cell 0 covers voxels 0 and 1
    grid = Grid((2, 1, 1), coarse)
    data = np.zeros((4, 2, 2), dtype=bool)
    data[0, :, :] = True  # half of cell 0
    data[2, :, :] = True
    data[2, 0, 0] = False  # three eighths of cell 1
    np.testing.assert_array_equal(to_grid(data, affine, grid, "majority").ravel(), [True, False])
    back = from_grid(
        np.array([[[1.0]], [[3.0]]], dtype=np.float32),
        grid,
        volume_of(data * 1.0, affine),
        "nearest",
    )
    np.testing.assert_array_equal(back[:, 0, 0], [1, 1, 3, 3])
    back = from_grid(
        np.array([[[1.0]], [[3.0]]], dtype=np.float32),
        grid,
        volume_of(data * 1.0, affine),
        "linear",
    )
    np.testing.assert_allclose(back[:, 0, 0], [1, 1.5, 2.5, 3])


def test_smoothing_before_a_coarser_grid_keeps_the_mean_and_takes_the_checkerboard():
    checker = (np.indices((60, 60, 60)).sum(axis=0) % 2).astype(np.float32)
    coarse = np.diag([3.0, 3.0, 3.0, 1.0])
    coarse[:3, 3] = 10
    on_grid = to_grid(checker, np.eye(4), Grid((10, 10, 10), coarse), "linear")
    assert on_grid.mean() == pytest.approx(0.5, abs=1e-3)
    assert on_grid.std() < 0.02  # nearest, or linear alone, would give 0.5 here


def test_beyond_the_scan_and_beyond_the_grid_is_zero():
    far = np.eye(4)
    far[0, 3] = 100
    ones = np.ones((3, 3, 3), dtype=np.float32)
    for order in ("linear", "nearest", "majority"):
        assert not to_grid(ones, np.eye(4), Grid((3, 3, 3), far), order).any()


def _lesion_round_trip(shift_mm=(0, 0, 0)):
    """Dice of balls from 1.1 to 20 ml, taken from 1 mm to the model's grid and back, at places of every phase."""
    data, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    volume = volume_of(data, affine)
    grid = model_grid(volume, brain, CONFIG)
    shift = np.eye(4)
    shift[:3, 3] = shift_mm
    moved = Grid(grid.shape, shift @ grid.affine, grid.scale, grid.notes)
    scores = []
    for number, volume_ml in enumerate((1.1, 1.5, 3.0, 20.0)):
        lesion = ball(
            data.shape,
            affine,
            [10.0 + 0.3 * number, -13.7 + 0.45 * number, 5.2 * number - 8],
            volume_ml,
        )
        back = from_grid(to_grid(lesion, affine, grid, "majority"), moved, volume, "nearest")
        scores.append(dice(lesion, back))
    return scores


def test_a_lesion_mask_comes_back_from_the_grid_with_dice_of_at_least_90_percent():
    assert min(_lesion_round_trip()) >= 0.90


@pytest.mark.parametrize("shift_mm", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_half_a_voxel_of_the_models_grid_on_one_axis_would_be_seen(shift_mm):
    """1 mm: half of the model's 2 mm voxel, a whole one of the scan's."""
    assert min(_lesion_round_trip(shift_mm)) < 0.90


@pytest.mark.parametrize(
    "spacing",
    [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.0, 6.0), (6.0, 1.0, 1.0), (0.7, 3.0, 8.0)],
)
@pytest.mark.parametrize(
    "to_atlas", [np.eye(4), oblique(np.diag([1.1, 1.05, 1.15, 1.0]))], ids=["along", "turned"]
)
def test_no_component_of_a_mask_is_lost_on_the_scans_own_grid(spacing, to_atlas):
    shape = tuple(round(100 / step) for step in spacing)
    data, _, affine = made_brain(shape, spacing)
    grid, volume = atlas_grid(to_atlas, CONFIG), volume_of(data, affine)
    lost = 0
    for at in range(15):
        mask = np.zeros(grid.shape, dtype=bool)
        mask[40 + at : 42 + at, 46:50, 28 + at : 30 + at] = True  # 128 mm3 in MNI152
        mm3 = mask.sum() * np.linalg.det(grid.affine[:3, :3])
        nearest, result = (
            from_grid(mask, grid, volume, "nearest"),
            mask_from_grid(mask, grid, volume),
        )
        assert result.sum() * np.prod(spacing) >= mm3 / 2
        if nearest.sum() * np.prod(spacing) >= mm3 / 2:
            np.testing.assert_array_equal(result, nearest)
        else:
            lost += not nearest.any()
            apart = places(result, affine).mean(axis=0) - places(mask, grid.affine).mean(axis=0)
            assert (np.abs(apart) < np.array(spacing) / 2 + 0.5).all()
    assert (lost > 0) == (max(spacing) > 4)


def test_a_mask_between_two_thick_slices_by_hand():
    affine, fine = np.diag([1.0, 1.0, 6.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0])
    fine[:3, 3] = [0.5, 0.5, -2]  # a cell covers 2 x 2 pixels, and a third of a slice
    volume = volume_of(np.zeros((4, 4, 3)), affine)
    mask = np.zeros((2, 2, 9), dtype=bool)  # layers 1, 4 and 7 hold the slices' centres
    mask[0, 1, 2:4] = True  # ends the first slice and begins the second
    mask[1, 0, 5] = True
    expected = np.zeros((4, 4, 3), dtype=bool)
    expected[:2, 2:, :2] = True
    expected[2:, :2, 1] = True
    np.testing.assert_array_equal(mask_from_grid(mask, Grid(mask.shape, fine), volume), expected)
    mask[0, 1, 1] = True  # now its lower end is at a centre, which says enough
    expected[:2, 2:, 1] = False
    np.testing.assert_array_equal(mask_from_grid(mask, Grid(mask.shape, fine), volume), expected)


@pytest.mark.parametrize(
    "spacing",
    [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (1.0, 1.0, 5.0), (1.5, 1.5, 1.5), (1.0, 1.0, 2.7)],
)
@pytest.mark.parametrize("margin", [0, 2])
def test_lesion_free_slices_do_not_see_the_slices_with_lesion_nor_their_neighbours(
    spacing, margin
):
    shape = tuple(round(136 / step) for step in spacing)
    data, brain, affine = made_brain(shape, spacing)
    grid = model_grid(volume_of(data, affine), brain, CONFIG)
    first = shape[2] // 2
    lesion = np.zeros(shape, dtype=bool)
    lesion[40, 40, first : first + 3] = (
        True  # one voxel wide: too small for the grid, and still it counts
    )
    free = lesion_free_slices(lesion, affine, grid, margin)
    assert free.any() and not free.all()
    changed = data.copy()
    changed[:, :, max(0, first - margin) : first + 3 + margin] += 1000
    same = np.isclose(
        to_grid(data, affine, grid, "linear"), to_grid(changed, affine, grid, "linear")
    ).all(axis=(0, 1))
    assert not (free & ~same).any()
    assert (same & ~free).sum() <= 4  # and hardly more slices than needed are left out


@pytest.mark.parametrize(
    "spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (0.94, 0.94, 6.5), (2.0, 1.3, 2.5)]
)
def test_a_ramp_comes_back_from_the_grid_as_it_was(spacing):
    """Values are millimetres along an axis, so a shift of any size would show as just that difference."""
    shape = tuple(round(136 / step) for step in spacing)
    _, brain, affine = made_brain(shape, spacing)
    grid = model_grid(volume_of(brain, affine), brain, CONFIG)
    inside = ndimage.binary_erosion(brain, iterations=round(12 / min(spacing)))
    for axis in range(3):
        ramp = (np.indices(shape)[axis] * spacing[axis] + affine[axis, 3]).astype(np.float32)
        volume = volume_of(ramp, affine)
        back = from_grid(to_grid(ramp, affine, grid, "linear"), grid, volume, "linear")
        np.testing.assert_allclose(back[inside], ramp[inside], atol=0.02)


def test_lesion_free_by_hand_on_thick_slices():
    grid = Grid((96, 96, 8), np.diag([2.0, 2.0, 5.0, 1.0]))
    lesion = np.zeros((40, 40, 8), dtype=bool)
    lesion[5, 5, 3:5] = True
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    free = lesion_free_slices(lesion, affine, grid, 1)
    np.testing.assert_array_equal(free, [True, True, False, False, False, False, True, True])
    np.testing.assert_array_equal(
        lesion_free_slices(lesion, affine, grid, 0), ~lesion.any(axis=(0, 1))
    )
    assert lesion_free_slices(np.zeros_like(lesion), affine, grid, 1).all()


def test_normalise_by_hand():
    data = np.arange(101, dtype=np.float32).reshape(101, 1, 1) + 50
    brain = np.ones_like(data, dtype=bool)
    brain[0] = False
    result = normalise(data, brain, intensity_range(data, brain, NormaliseConfig(0, 100))).ravel()
    assert result[0] == 0 and result[1] == 0 and result[100] == 1
    assert result[51] == pytest.approx(50 / 99)
    clipped = normalise(
        data,
        np.ones_like(brain),
        intensity_range(data, np.ones_like(brain), NormaliseConfig(10, 90)),
    ).ravel()
    assert clipped[10] == 0 and clipped[90] == 1 and clipped[50] == pytest.approx(0.5)
    assert clipped[100] == pytest.approx(90 / 80)
    data[100] = 5000
    assert normalise(data, np.ones_like(brain), (60.0, 140.0)).max() == CEILING
    with pytest.raises(InputError, match=r"both 1; check"):
        intensity_range(np.ones_like(data), brain, NormaliseConfig(), "scan.nii.gz")


def test_brightness_and_contrast_of_the_scanner_do_not_matter():
    data, brain, affine = made_brain()
    one = prepare_scan(volume_of(data, affine), brain)
    other = prepare_scan(volume_of(np.where(brain, data * 7 + 30, 0), affine), brain)
    np.testing.assert_allclose(one.image, other.image, atol=1e-5)
    assert (
        one.image.min() == 0 and 1 < one.image.max() < CEILING and not one.image[~one.brain].any()
    )


@pytest.mark.parametrize(("outside", "atol"), [("scored, too", 1e-3), ("zero", 0.2)])
def test_z_scores_give_the_same_slices(outside, atol):
    data, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    one = prepare_scan(volume_of(data, affine))
    mean, sd = data[brain].mean(), data[brain].std()
    scored = (data - mean) / sd
    if (
        outside == "zero"
    ):  # mid-grey there; where black was is lost, and the dark end of the brain stands for it
        scored = np.where(brain, scored, 0)
    other = prepare_scan(volume_of(scored, affine), brain if outside == "zero" else None)
    np.testing.assert_array_equal(other.brain, one.brain)
    np.testing.assert_allclose(other.image, one.image, atol=atol)
    back = np.array(other.record["intensity_range"]) * sd + mean
    np.testing.assert_allclose(back, one.record["intensity_range"], atol=5)


def test_the_brain_of_a_stripped_scan_is_its_largest_piece_with_holes_filled():
    data, brain, affine = made_brain()
    spoilt = data.copy()
    spoilt[28:32, 30:34, 20:24] = 0  # a hole
    spoilt[40:42, 30:34, 20:24] = -5  # ringing inside
    spoilt[0, 0, 0] = 90  # a speck outside
    spoilt[1:4, 60, 40] = 1e-4  # far ringing of a spline
    np.testing.assert_array_equal(brain_from_background(volume_of(spoilt, affine)), brain)


def test_raw_scans_are_refused():
    data, brain, affine = made_brain((100, 110, 90), (2.0, 2.0, 2.0), radii_mm=(75.0, 95.0, 80.0))
    noise = np.random.default_rng(0).integers(1, 9, data.shape)
    head = made_brain((100, 110, 90), (2.0, 2.0, 2.0), radii_mm=(92.0, 107.0, 88.0))[1]
    skull = np.where(head, 90, 0)
    for raw in (np.where(brain, data, noise), np.where(brain, data, skull)):
        with pytest.raises(
            InputError, match=r"scan\.nii\.gz: raw scan with skull.*brain_mask in a manifest"
        ):
            prepare_scan(volume_of(raw, affine))
        assert prepare_scan(volume_of(raw, affine), brain).brain.any()  # with a mask it is fine
    slab = data[:, :, 43:47]
    assert prepare_scan(volume_of(slab, affine)).brain.any()  # few slices fill their box more


def test_one_slice_works():
    data, _, affine = made_brain()
    prepared = prepare_scan(volume_of(data[:, :, 25:26], affine))
    assert prepared.image.shape == (96, 96, 1) and 1 < prepared.image.max() < CEILING


def test_what_lies_outside_the_mask_does_not_bleed_into_the_brain():
    data, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    alone = prepare_scan(volume_of(data, affine), brain)
    with_skull = prepare_scan(volume_of(np.where(brain, data, 5000), affine), brain)
    np.testing.assert_array_equal(with_skull.image, alone.image)


@pytest.mark.parametrize("what", ["empty", "sagittal", "metres wide"])
def test_a_brain_that_cannot_be_one_is_refused_by_name(what):
    data, brain, affine = made_brain()
    if what == "empty":
        brain = np.zeros_like(brain)
    elif what == "sagittal":
        data, brain = data[30:31], brain[30:31]
    else:
        affine = affine @ np.diag([5.0, 5, 5, 1])
    with pytest.raises(InputError, match=r"scan\.nii\.gz: the brain"):
        prepare_scan(volume_of(data, affine), brain)


def test_configs_refuse_what_cannot_work():
    for wrong in ({"max_brain_mm": 200}, {"spacing_mm": 0}, {"spicing_mm": 2}):
        with pytest.raises((ValueError, TypeError)):
            GridConfig(**wrong)
    with pytest.raises(ValueError, match="low < high"):
        NormaliseConfig(50, 50)


def test_a_turned_grid_takes_a_ramp_there_and_back():
    """Values are millimetres along an axis: a shift, or axes mixed up, would show as just that difference."""
    _, brain, affine = made_brain((136, 136, 100), (1.0, 1.0, 1.0))
    to_atlas = oblique(np.diag([1.1, 1.05, 1.15, 1.0]))
    grid = atlas_grid(to_atlas, CONFIG)
    inside = ndimage.binary_erosion(brain, iterations=6)
    for axis in range(3):
        ramp = (np.indices(brain.shape)[axis] + affine[axis, 3]).astype(np.float32)
        on_grid = to_grid(ramp, affine, grid, "linear")
        back = from_grid(on_grid, grid, volume_of(ramp, affine), "linear")
        np.testing.assert_allclose(back[inside], ramp[inside], atol=0.05)


def test_the_midsagittal_plane_of_mni152_is_the_middle_of_a_registered_slice():
    grid = atlas_grid(np.eye(4), CONFIG)
    x = (
        grid.atlas_affine
        @ np.array(
            [np.arange(grid.shape[0]), *np.zeros((2, grid.shape[0])), np.ones(grid.shape[0])]
        )
    )[0]
    np.testing.assert_allclose(x, -x[::-1])


def test_slices_lie_at_the_height_that_the_affine_says():
    _, brain, affine = made_brain((60, 72, 20), (2.0, 2.0, 6.0))
    flat = model_grid(volume_of(brain.astype(np.float32), affine), brain, CONFIG)
    for turned in (flat, atlas_grid(oblique(np.diag([1.1, 1.05, 1.15, 1.0])), CONFIG)):
        x, y, z = turned.shape
        lowest = turned.affine @ [(x - 1) / 2, (y - 1) / 2, 0, 1]
        highest = turned.affine @ [(x - 1) / 2, (y - 1) / 2, z - 1, 1]
        heights = turned.slice_heights_mm
        assert len(heights) == z
        np.testing.assert_allclose([heights[0], heights[-1]], [lowest[2], highest[2]])
    np.testing.assert_allclose(np.diff(flat.slice_heights_mm), 6.0)


def test_the_same_head_stored_in_any_orientation_gives_the_same_slices(tmp_path):
    data, _, affine = made_brain((50, 64, 60), (2.0, 2.0, 1.5))
    images = [
        prepare_scan(read_nifti(save(tmp_path / f"{axes}.nii.gz", data, affine, axes))).image
        for axes in ("RAS", "LAS", "PSR")
    ]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


@pytest.mark.parametrize(
    ("folder", "modality", "raw"),
    [
        ("ds002748", "T1w", False),
        ("mslub", "T1w", False),
        ("mslub", "T2w", False),
        ("mslub", "FLAIR", False),
        ("lgg", "FLAIR", False),
        ("lgg", "T1w", False),
        ("ixi10", "T1w", True),
        ("ds000011", "T1w", True),
    ],
)
def test_real_scans_with_and_without_skull_are_told_apart(shared_data, folder, modality, raw):
    for ref in find_scans([shared_data / folder], modality)[:3]:
        volume = read_nifti(ref.image)
        if raw:
            with pytest.raises(InputError, match="raw scan with skull"):
                brain_from_background(volume)
        else:
            assert brain_from_background(volume).any()


def test_real_lesions_come_back_from_the_grid(shared_data):
    """Ten gliomas of 0.94 mm pixels, drawn by hand, some in heads that were scaled to fit."""
    for ref in [
        ref for ref in find_scans([shared_data / "lgg" / "flair.csv"]) if ref.split == "val"
    ]:
        volume = read_nifti(ref.image)
        brain, lesion = read_mask(ref.brain_mask, volume), read_mask(ref.lesion_mask, volume)
        prepared = prepare_scan(volume, brain, lesion)
        assert prepared.record["lesion_ml"] > 1
        assert (
            dice(lesion, from_grid(prepared.lesion, prepared.grid, volume, "nearest")) >= 0.90
        ), ref.name
