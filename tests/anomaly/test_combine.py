from functools import partial

import numpy as np
import pytest

from maediff.anomaly.combine import CombineConfig, combine_maps

EQUAL = partial(CombineConfig, weights={})


def make_maps(**values: float) -> tuple[dict, dict]:
    maps = {name: np.full((1, 1, 2), value, np.float32) for name, value in values.items()}
    return maps, {name: np.ones((1, 1, 2), bool) for name in values}


@pytest.mark.parametrize(
    ("power", "expected"), [(1, 2.5), (0.5, 2.25), (0, 2.0), (-1, 1.6)], ids=str
)
def test_power_means_by_hand(power, expected):
    """4 and 1: mean 2.5, ((2 + 1) / 2)^2 = 2.25, sqrt(4) = 2, 2 / (1/4 + 1) = 1.6."""
    combined = combine_maps(*make_maps(T1w=4.0, FLAIR=1.0), EQUAL(power=power))
    np.testing.assert_allclose(combined, expected, rtol=1e-6)


@pytest.mark.parametrize("power", [-1, 0, 0.5, 1])
def test_one_contrast_keeps_its_map(power):
    maps, covered = make_maps(FLAIR=0.7)
    np.testing.assert_allclose(
        combine_maps(maps, covered, CombineConfig(power=power)), maps["FLAIR"], rtol=1e-6
    )


def test_weights_by_hand():
    """(3 * 4 + 1 * 2) / 4 = 3.5."""
    rule = CombineConfig(power=1, weights={"FLAIR": 3})
    combined = combine_maps(*make_maps(FLAIR=4.0, T1w=2.0), rule)
    np.testing.assert_allclose(combined, 3.5)


def test_uncovered_voxels_use_the_other_contrasts():
    maps, covered = make_maps(T1w=4.0, FLAIR=1.0)
    covered["T1w"][..., 1] = False
    combined = combine_maps(maps, covered, EQUAL(power=1))
    np.testing.assert_allclose(combined.ravel(), [2.5, 1.0])


def test_zero_where_no_contrast_covers():
    maps, covered = make_maps(T1w=4.0, FLAIR=1.0)
    for mask in covered.values():
        mask[..., 1] = False
    for power in (-1, 0, 0.5):
        assert combine_maps(maps, covered, CombineConfig(power=power))[0, 0, 1] == 0


@pytest.mark.parametrize("power", [-2, 0, 0.5, 1])
def test_above_1_needs_a_contrast_above_1(power):
    draws = np.random.default_rng(0).uniform(0, 2, (3, 4, 8, 8)).astype(np.float32)
    maps = dict(zip(("T1w", "T2w", "FLAIR"), draws, strict=True))
    covered = {name: np.ones(draws[0].shape, bool) for name in maps}
    combined = combine_maps(maps, covered, CombineConfig(power=power))
    assert (combined > 1).any()
    assert (draws.max(axis=0) >= combined - 1e-5).all()


@pytest.mark.parametrize(
    "settings", [{"power": 9}, {"weights": {"T1w": 0}}, {"threshold": 0}, {"rule": "sum"}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"out of range|above 0|rule"):
        CombineConfig(**settings)


def test_flair_counts_twice_by_default():
    """((2 * 2 + 1) / 3)^2 = 25 / 9."""
    combined = combine_maps(*make_maps(FLAIR=4.0, T1w=1.0))
    np.testing.assert_allclose(combined, 25 / 9, rtol=1e-6)


def test_zero_stays_zero():
    for power in (-1, 0, 0.5, 1):
        combined = combine_maps(*make_maps(FLAIR=0.0, T1w=0.0), CombineConfig(power=power))
        assert not combined.any()


def test_contrasts_of_maps_and_masks_must_agree():
    maps, covered = make_maps(T1w=1.0)
    with pytest.raises(ValueError, match="covered voxels of"):
        combine_maps(maps, {"FLAIR": covered["T1w"]})
