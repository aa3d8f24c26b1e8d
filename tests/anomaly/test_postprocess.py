"""Residual to anomaly map and mask, against scipy and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import ellipsoid
from maediff.anomaly.postprocess import (
    PostprocessConfig,
    anomaly_mask,
    apply_changes,
    check_symmetry,
    eroded_brain,
    min_voxels,
    remove_small,
    residual_map,
)
from maediff.core.config import SettingsError
from maediff.core.errors import InputError

SPACING = (2.0, 2.0, 2.0)
PLAIN = PostprocessConfig(median_size=1, erosion_iterations=0, min_volume_mm3=0)


@pytest.fixture
def residual():
    return np.random.default_rng(0).random((12, 20, 18)).astype(np.float32)


@pytest.mark.parametrize(
    ("spacing", "size"),
    [(SPACING, (5, 5, 5)), ((2.0, 2.0, 3.0), (5, 5, 5)), ((2.0, 2.0, 5.0), (1, 5, 5))],
)
def test_median_filter_matches_scipy(residual, spacing, size):
    brain = ellipsoid(
        radii=(7, 11, 10)
    )  # touches the edges of the field of view: mirrored as scipy does
    expected = np.where(brain, ndimage.median_filter(np.where(brain, residual, 0), size), 0)
    np.testing.assert_array_equal(residual_map(residual, brain, spacing), expected)


def test_map_ignores_values_outside_brain(residual):
    brain = ellipsoid()
    elsewhere = np.where(brain, residual, 7.0).astype(np.float32)
    np.testing.assert_array_equal(
        residual_map(elsewhere, brain, SPACING), residual_map(residual, brain, SPACING)
    )


def test_map_range_and_type(residual):
    brain = ellipsoid()
    out = residual_map(3 * residual - 1, brain, SPACING, PLAIN)
    assert out.dtype == np.float32
    assert out.min() == 0
    assert out.max() == 1
    assert not residual_map(residual, np.zeros_like(brain), SPACING).any()


def test_blur_keeps_constant_and_small_lesion(residual):
    brain, blurred = ellipsoid(), PostprocessConfig(median_size=1, smooth_mm=(4.0,))
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


def test_blur_follows_spacing(residual):
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


def test_geometric_mean_of_blurs():
    brain = ellipsoid()
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


def test_first_blur_keeps_a_lesion_and_reduces_grain():
    rng = np.random.default_rng(0)
    brain = np.ones((1, 60, 60), dtype=bool)
    brain[:, :20] = False
    residual = np.where(brain, np.abs(0.2 * rng.normal(size=brain.shape)).clip(0, 0.4), 0.9)
    residual = residual.astype(np.float32)
    residual[:, 20:32, 40:52] = 0.5
    config = PostprocessConfig(median_size=1, first_smooth_mm=4.0)
    plain = residual_map(residual, brain, SPACING, PostprocessConfig(median_size=1))
    blurred = residual_map(residual, brain, SPACING, config)
    healthy = (slice(None), slice(40, None), slice(0, 36))
    assert blurred[healthy].std() < 0.3 * plain[healthy].std()
    assert blurred[0, 26, 46] == pytest.approx(0.5, abs=0.02)
    assert blurred[healthy].mean() == pytest.approx(plain[healthy].mean(), rel=0.1)
    level = np.where(brain, 0.7, 0).astype(np.float32)  # the background does not leak in
    np.testing.assert_allclose(residual_map(level, brain, SPACING, config)[brain], 0.7, rtol=1e-5)


def test_first_blur_stays_in_the_slice():
    brain = np.ones((3, 20, 20), dtype=bool)
    residual = np.zeros(brain.shape, dtype=np.float32)
    residual[1] = 1
    config = PostprocessConfig(median_size=1, first_smooth_mm=4.0)
    blurred = residual_map(residual, brain, SPACING, config)
    np.testing.assert_allclose(blurred, residual, atol=1e-6)


def test_first_power_comes_before_the_blur(residual):
    brain, images = np.ones(residual.shape, dtype=bool), 2 * np.ones_like(residual)
    images[..., ::2] = 0.5
    first = PostprocessConfig(median_size=1, first_power=2.0)
    weighted = residual_map(residual, brain, SPACING, first, images)
    np.testing.assert_array_equal(weighted, (residual * images**2).clip(0, 1))
    capped = replace(first, first_ceiling=1.0)
    weighted = residual_map(residual, brain, SPACING, capped, images)
    np.testing.assert_array_equal(weighted, (residual * images.clip(0, 1) ** 2).clip(0, 1))
    blurred = residual_map(residual, brain, SPACING, replace(first, smooth_mm=(2.0,)), images)
    by_hand = residual_map(
        (residual * images**2).clip(0, 1),
        brain,
        SPACING,
        PostprocessConfig(median_size=1, smooth_mm=(2.0,)),
    )
    np.testing.assert_array_equal(blurred, by_hand)
    with pytest.raises(ValueError, match="first_power"):
        residual_map(residual, brain, SPACING, first)


def test_times_intensity(residual):
    brain, images = (
        ellipsoid(),
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


def test_symmetry_by_hand():
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


def test_symmetry_between_blur_and_intensity(residual):
    brain, images = (
        ellipsoid(),
        np.random.default_rng(1).uniform(0, 1.5, residual.shape).astype(np.float32),
    )
    blurred = residual_map(
        residual, brain, SPACING, PostprocessConfig(median_size=1, smooth_mm=(2.0,))
    )
    shared = np.minimum(blurred, np.where(brain, blurred[:, :, ::-1], 0))
    post = PostprocessConfig(median_size=1, smooth_mm=(2.0,), symmetry=0.5, times_intensity=2)
    found = residual_map(residual, brain, SPACING, post, images)
    np.testing.assert_allclose(found, ((blurred - shared / 2) * images**2).clip(0, 1), atol=1e-6)


def test_symmetry_needs_registered_scans():
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"symmetry {wrong}"):
            PostprocessConfig(symmetry=wrong)
    half = PostprocessConfig(symmetry=0.5)
    check_symmetry(half, True, "here")
    check_symmetry(PostprocessConfig(), False, "here")
    with pytest.raises(
        InputError, match=r"here: postprocess\.symmetry 0\.5 .*`postprocess\.symmetry=0`"
    ):
        check_symmetry(half, False, "here")


def test_apply_changes():
    config = apply_changes(PostprocessConfig(median_size=3), {"smooth_mm": 2})
    assert config == PostprocessConfig(median_size=3, smooth_mm=(2,))
    assert apply_changes(config, None) == config
    with pytest.raises(SettingsError, match=r"postprocess: size: unknown setting"):
        apply_changes(config, {"size": 5})


def test_single_slice(residual):
    brain = np.ones((1, 20, 18), dtype=bool)
    expected = ndimage.median_filter(residual[0], 5)
    np.testing.assert_array_equal(residual_map(residual[:1], brain, SPACING)[0], expected)


def test_erosion_within_slice():
    brain = np.zeros((3, 9, 9), dtype=bool)
    brain[1] = True  # alone in its slice: 3-D erosion would take all of it
    expected = np.zeros_like(brain)
    expected[1, 3:6, 3:6] = True
    np.testing.assert_array_equal(eroded_brain(brain), expected)


def test_small_components_are_removed():
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
def test_min_voxels(spacing, voxels):
    assert min_voxels(spacing) == voxels


def test_threshold_is_strict():
    anomaly = np.full((3, 12, 12), 0.5, dtype=np.float32)
    brain = np.ones(anomaly.shape, dtype=bool)
    assert not anomaly_mask(anomaly, brain, 0.5, SPACING).any()
    np.testing.assert_array_equal(anomaly_mask(anomaly, brain, 0.49, SPACING), eroded_brain(brain))
    np.testing.assert_array_equal(
        anomaly_mask(anomaly, brain, 0.5 - 1e-9, SPACING), eroded_brain(brain)
    )  # in doubles


def test_regions_grow_from_their_core():
    anomaly = np.zeros((1, 3, 12), dtype=np.float32)
    anomaly[0, 1] = [0.6, 0.9, 0.9, 0.6, 0.4, 0.6, 0.0, 0.6, 0.6, 0.0, 0.9, 0.6]
    brain = np.ones(anomaly.shape, dtype=bool)
    settings = {"erosion_iterations": 0, "min_volume_mm3": 16.0}  # two voxels

    def masked(extent):
        config = PostprocessConfig(extent=extent, **settings)
        return np.flatnonzero(anomaly_mask(anomaly, brain, 0.8, SPACING, config)[0, 1]).tolist()

    assert masked(1.0) == [1, 2]
    assert masked(0.7) == [0, 1, 2, 3]
    # The gap at 0.4 is bridged. A core of one voxel (10) is too small, and 7 and 8 have none.
    assert masked(0.45) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "wrong",
    [
        {"median_size": 4},
        {"erosion_iterations": -1},
        {"min_volume_mm3": -1.0},
        {"extent": 0.0},
        {"extent": 1.1},
        {"size": 5},
    ],
)
def test_invalid_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PostprocessConfig(**wrong)


def test_single_precision_changes_no_limit():
    spacing = [float(np.float32(value)) for value in (1.0000001, 0.9999999, 1.0000002)]
    assert min_voxels(spacing, PostprocessConfig(min_volume_mm3=64)) == 64
    rng = np.random.default_rng(0)
    residual = rng.random((6, 9, 9)).astype(np.float32)
    brain = np.ones(residual.shape, dtype=bool)
    config = PostprocessConfig(thick_slice_mm=3.0)
    maps = [residual_map(residual, brain, (2.0, 2.0, z), config) for z in (3.0, 3.0000002)]
    np.testing.assert_array_equal(*maps)
