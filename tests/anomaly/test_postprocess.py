"""Residual -> map -> mask -> score, against scipy and by hand."""

import numpy as np
import pytest
from scipy import ndimage

from maediff.anomaly.components import bounding_box, linked_voxels
from maediff.anomaly.postprocess import (
    PostprocessConfig,
    anomaly_mask,
    check_symmetry,
    eroded_brain,
    min_voxels,
    remove_small,
    residual_map,
)
from maediff.anomaly.regions import find_regions
from maediff.anomaly.score import scan_score
from maediff.core.errors import InputError
from maediff.preparation.config import is_registered

SPACING = (2.0, 2.0, 2.0)
PLAIN = PostprocessConfig(median_size=1, erosion_iterations=0, min_volume_mm3=0)


def ball(shape=(12, 20, 18), center=(6, 10, 9), radii=(5, 9, 8)):
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, center, radii, strict=True)) <= 1


@pytest.fixture
def residual():
    return np.random.default_rng(0).random((12, 20, 18)).astype(np.float32)


@pytest.mark.parametrize(
    ("spacing", "size"),
    [(SPACING, (5, 5, 5)), ((2.0, 2.0, 3.0), (5, 5, 5)), ((2.0, 2.0, 5.0), (1, 5, 5))],
)
def test_map_is_scipys_median_filter_inside_the_brain(residual, spacing, size):
    brain = ball(
        radii=(7, 11, 10)
    )  # touches the edges of the field of view: mirrored as scipy does
    expected = np.where(brain, ndimage.median_filter(np.where(brain, residual, 0), size), 0)
    np.testing.assert_array_equal(residual_map(residual, brain, spacing), expected)


def test_map_ignores_what_is_drawn_outside_the_brain(residual):
    brain = ball()
    elsewhere = np.where(brain, residual, 7.0).astype(np.float32)
    np.testing.assert_array_equal(
        residual_map(elsewhere, brain, SPACING), residual_map(residual, brain, SPACING)
    )


def test_map_is_clipped_and_float32_and_zero_without_brain(residual):
    brain = ball()
    out = residual_map(3 * residual - 1, brain, SPACING, PLAIN)
    assert out.dtype == np.float32
    assert out.min() == 0
    assert out.max() == 1
    assert not residual_map(residual, np.zeros_like(brain), SPACING).any()


def test_a_blur_keeps_what_is_even_and_small_lesions_which_the_median_filter_takes(residual):
    brain, blurred = ball(), PostprocessConfig(median_size=1, smooth_mm=(4.0,))
    np.testing.assert_allclose(
        residual_map(np.full_like(residual, 0.3), brain, SPACING, blurred), 0.3 * brain, atol=1e-6
    )
    lesion = np.zeros_like(residual)
    lesion[6, 10, 9] = 1
    assert not residual_map(lesion, brain, SPACING).any()
    found = residual_map(lesion, brain, SPACING, blurred)
    assert np.unravel_index(found.argmax(), found.shape) == (6, 10, 9)
    spread, share = (
        ndimage.gaussian_filter(a.astype(float), 2, mode="constant") for a in (lesion, brain)
    )
    np.testing.assert_allclose(found, np.where(brain, spread / share, 0), atol=1e-6)
    thick = residual_map(lesion, brain, (2.0, 2.0, 5.0), blurred)
    assert np.flatnonzero(thick.any(axis=(1, 2))).tolist() == [6]


def test_a_blur_in_millimetres_follows_the_spacing_of_each_axis(residual):
    brain = np.ones_like(residual, dtype=bool)
    found = residual_map(
        residual, brain, (1.0, 2.0, 3.0), PostprocessConfig(median_size=1, smooth_mm=(3.0,))
    )
    weights = ndimage.gaussian_filter(brain.astype(float), (1, 1.5, 3), mode="constant")
    expected = (
        ndimage.gaussian_filter(residual.astype(float), (1, 1.5, 3), mode="constant") / weights
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    narrow, wide = (
        residual_map(residual, brain, SPACING, PostprocessConfig(1, smooth_mm=mm)) for mm in (2, 6)
    )
    both = residual_map(residual, brain, SPACING, PostprocessConfig(1, smooth_mm=(2, 6)))
    np.testing.assert_allclose(both, (narrow + wide) / 2, atol=1e-6)


def test_the_geometric_mean_of_blurs_keeps_what_stands_out_at_each_scale():
    brain = ball()
    residual = np.where(brain, np.random.default_rng(0).uniform(0, 0.1, brain.shape), 0).astype(
        np.float32
    )
    one = {
        mm: residual_map(residual, brain, SPACING, PostprocessConfig(1, smooth_mm=(mm,)))
        for mm in (2, 6)
    }

    def geometric(*mm):
        post = PostprocessConfig(1, smooth_mm=mm, smooth_mean="geometric")
        return residual_map(residual, brain, SPACING, post)

    np.testing.assert_allclose(geometric(6), one[6], atol=1e-7)
    np.testing.assert_allclose(geometric(2, 6), np.sqrt(one[2] * one[6]), atol=1e-6)
    np.testing.assert_allclose(geometric(2, 6, 6), (one[2] * one[6] ** 2) ** (1 / 3), atol=1e-6)
    spot = np.zeros_like(residual)
    spot[brain.shape[0] // 2, brain.shape[1] // 2, brain.shape[2] // 2] = 1
    halo, narrow = (
        residual_map(
            spot, brain, SPACING, PostprocessConfig(1, smooth_mm=(1, 12), smooth_mean=mean)
        )
        for mean in ("arithmetic", "geometric")
    )
    far = brain.shape[0] // 2, brain.shape[1] // 2, brain.shape[2] // 2 + 6
    assert halo[far] > 1e-5 > 100 * narrow[far]


def test_times_intensity_multiplies_after_the_blur_and_needs_the_images(residual):
    brain, images = (
        ball(),
        np.random.default_rng(1).uniform(0, 1.5, residual.shape).astype(np.float32),
    )
    blur = PostprocessConfig(median_size=1, smooth_mm=(2.0,))
    both = PostprocessConfig(median_size=1, smooth_mm=(2.0,), times_intensity=2.0)
    expected = (residual_map(residual, brain, SPACING, blur) * images**2).clip(0, 1)
    np.testing.assert_allclose(
        residual_map(residual, brain, SPACING, both, images), expected, atol=1e-6
    )
    with pytest.raises(ValueError, match="needs the scan's images"):
        residual_map(residual, brain, SPACING, both)
    with pytest.raises(ValueError, match=r"smooth_mm \[-1.0\]"):
        PostprocessConfig(smooth_mm=(-1.0,))


def test_symmetry_takes_off_a_share_of_what_both_sides_have():
    brain = np.ones((1, 1, 6), dtype=bool)
    brain[..., 0] = False  # its counterpart, the last, has nothing to be compared with
    residual = np.array([[[0.0, 0.4, 0.2, 0.6, 0.1, 0.8]]], dtype=np.float32)
    found = residual_map(residual, brain, SPACING, PostprocessConfig(median_size=1, symmetry=0.5))
    np.testing.assert_allclose(found, [[[0.0, 0.35, 0.1, 0.5, 0.05, 0.8]]], atol=1e-6)
    whole = residual_map(residual, brain, SPACING, PostprocessConfig(median_size=1, symmetry=1))
    np.testing.assert_allclose(whole, [[[0.0, 0.3, 0.0, 0.4, 0.0, 0.8]]], atol=1e-6)
    signed = residual_map(
        np.where(residual == 0.6, -0.6, residual),
        brain,
        SPACING,
        PostprocessConfig(1, symmetry=0.5),
    )
    np.testing.assert_allclose(
        signed[..., 2], 0.2, atol=1e-6
    )  # nothing is added where the other side is below zero


def test_symmetry_comes_after_the_blur_and_before_the_intensity(residual):
    brain, images = (
        ball(),
        np.random.default_rng(1).uniform(0, 1.5, residual.shape).astype(np.float32),
    )
    blurred = residual_map(
        residual, brain, SPACING, PostprocessConfig(median_size=1, smooth_mm=(2.0,))
    )
    shared = np.minimum(blurred, np.where(brain, blurred[:, :, ::-1], 0))
    post = PostprocessConfig(median_size=1, smooth_mm=(2.0,), symmetry=0.5, times_intensity=2)
    found = residual_map(residual, brain, SPACING, post, images)
    np.testing.assert_allclose(found, ((blurred - shared / 2) * images**2).clip(0, 1), atol=1e-6)


def test_symmetry_is_a_share_and_wants_registered_scans():
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"symmetry {wrong}"):
            PostprocessConfig(symmetry=wrong)
    half = PostprocessConfig(symmetry=0.5)
    check_symmetry(half, is_registered({"registration": {"enabled": True}}), "here")
    check_symmetry(PostprocessConfig(), is_registered({}), "here")
    for cohort in ({}, {"registration": None}, {"registration": {"enabled": False}}):
        with pytest.raises(InputError, match=r"here: postprocess\.symmetry 0\.5 .*symmetry=0"):
            check_symmetry(half, is_registered(cohort), "here")


def test_one_slice_is_filtered_within_itself(residual):
    brain = np.ones((1, 20, 18), dtype=bool)
    expected = ndimage.median_filter(residual[0], 5)
    np.testing.assert_array_equal(residual_map(residual[:1], brain, SPACING)[0], expected)


def test_erosion_stays_within_the_slice():
    brain = np.zeros((3, 9, 9), dtype=bool)
    brain[1] = True  # alone in its slice: 3-D erosion would take all of it
    expected = np.zeros_like(brain)
    expected[1, 3:6, 3:6] = True
    np.testing.assert_array_equal(eroded_brain(brain), expected)


def test_small_components_go_and_diagonal_neighbours_count():
    mask = np.zeros((4, 12, 12), dtype=bool)
    mask[0, 0, :8] = True  # 8 voxels of 8 mm3 = 64 mm3: stays
    mask[3, 6, :4] = True  # 7 voxels: goes
    mask[3, 7, 5:8] = True
    kept = remove_small(mask, SPACING)
    assert kept[0].sum() == 8
    assert kept[3].sum() == 0
    mask[3, 7, 4] = True  # touches the four at an edge: 8 voxels
    assert remove_small(mask, SPACING)[3].sum() == 8


@pytest.mark.parametrize(
    ("spacing", "voxels"),
    [
        (SPACING, 8),
        ((2.0, 2.0, 5.0), 4),
        ((1.0, 1.0, 1.0), 64),
        ((10.0, 10.0, 10.0), 1),
        ((1.6, 1.6, 2.5), 10),
        ((1.9999999, 2.0, 2.0), 8),
    ],
)
def test_smallest_component_in_voxels(spacing, voxels):
    assert min_voxels(spacing) == voxels


def test_threshold_is_strict():
    anomaly = np.full((3, 12, 12), 0.5, dtype=np.float32)
    brain = np.ones(anomaly.shape, dtype=bool)
    assert not anomaly_mask(anomaly, brain, 0.5, SPACING).any()
    np.testing.assert_array_equal(anomaly_mask(anomaly, brain, 0.49, SPACING), eroded_brain(brain))
    np.testing.assert_array_equal(
        anomaly_mask(anomaly, brain, 0.5 - 1e-9, SPACING), eroded_brain(brain)
    )  # in doubles


@pytest.mark.parametrize("seed", range(5))
def test_score_is_where_the_mask_becomes_empty(seed):
    brain = ball(radii=(6, 10, 9))
    noise = np.random.default_rng(seed).random(brain.shape)
    anomaly = np.where(brain, ndimage.gaussian_filter(noise, 1), 0).astype(np.float32)
    score = scan_score(anomaly, brain, SPACING)
    below = float(np.nextafter(np.float32(score), np.float32(0)))
    assert not anomaly_mask(anomaly, brain, score, SPACING).any()
    assert anomaly_mask(anomaly, brain, below, SPACING).any()


def test_score_is_found_below_the_highest_voxels_too():
    """Eight thousand isolated bright voxels, and one dimmer component."""
    brain = np.ones((41, 40, 40), dtype=bool)
    anomaly = np.zeros(brain.shape, np.float32)
    anomaly[::2, ::2, ::2] = 0.5 + 0.5 * np.random.default_rng(0).random(
        (21, 20, 20), dtype=np.float32
    )
    anomaly[21:24, 21:24, 21:24] = np.float32(0.3)
    plain = PostprocessConfig(median_size=1, erosion_iterations=0, min_volume_mm3=80)
    assert scan_score(anomaly, brain, SPACING, plain) == np.float32(0.3)
    ties = np.full(brain.shape, 0.25, np.float32)
    assert scan_score(ties, brain, SPACING, plain) == 0.25


def test_linked_voxels_by_hand():
    voxels, pairs = linked_voxels(np.array([0, 3, 9, 0, 7, 8]).reshape(1, 1, 6))
    assert voxels.tolist() == [2, 5, 4, 1]
    assert [sorted(pair) for pair in pairs.tolist()] == [[1, 2], [0, 3]]
    cube = linked_voxels(np.ones((2, 2, 2), dtype=np.float32))[1]
    assert (
        len({tuple(sorted(pair)) for pair in cube.tolist()}) == len(cube) == 8 * 7 / 2
    )  # all are neighbours
    assert linked_voxels(np.zeros((2, 2, 2)))[1].shape == (0, 2)


def test_score_of_nothing_is_zero():
    brain = ball()
    assert scan_score(np.zeros(brain.shape, np.float32), brain, SPACING) == 0
    assert scan_score(np.ones(brain.shape, np.float32), np.zeros_like(brain), SPACING) == 0
    speck = np.zeros(brain.shape, np.float32)
    speck[6, 10, 9] = 1  # one voxel, smaller than any component kept
    assert scan_score(speck, brain, SPACING) == 0


def test_regions_in_millilitres_and_scanner_space():
    mask = np.zeros((8, 10, 6), dtype=bool)
    mask[2, 8, 4] = True
    mask[5:7, 2:4, 0:2] = True  # 8 voxels, their centre at 5.5, 2.5, 0.5
    anomaly = np.where(mask, 0.3, 0).astype(np.float32)
    anomaly[6, 2, 1] = 0.9
    affine = np.array([[2.0, 0, 0, -10], [0, 2, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1]])
    large, small = find_regions(anomaly, mask, affine)
    assert large.volume_ml == pytest.approx(0.064)
    assert large.peak == pytest.approx(0.9)
    assert large.center_mm == pytest.approx((1.0, -15.0, 6.0))
    assert small.volume_ml == pytest.approx(0.008)
    assert small.center_mm == pytest.approx((-6.0, -4.0, 13.0))
    assert find_regions(anomaly, np.zeros_like(mask), affine) == []


def test_bounding_box_of_nothing_is_empty():
    assert np.zeros((3, 4, 5))[bounding_box(np.zeros((3, 4, 5), dtype=bool))].size == 0


@pytest.mark.parametrize(
    "wrong",
    [{"median_size": 4}, {"erosion_iterations": -1}, {"min_volume_mm3": -1.0}, {"size": 5}],
)
def test_what_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PostprocessConfig(**wrong)
