"""Levels of sensitivity, from volumes in healthy scans that are written out."""

import numpy as np
import pytest

from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask
from maediff.anomaly.sensitivity import (
    HealthyVolumes,
    detected_ml,
    find_default_rate,
    find_high_rate,
    find_low_threshold,
    has_guarantee,
    summarise_volumes,
)


def test_median_and_nine_of_ten_of_healthy_volumes():
    assert summarise_volumes([0.0, 0.0, 1.0, 5.0]) == HealthyVolumes(0.5, 5.0)
    # Nine of ten scans have at most 8 ml; of eleven scans, ten must not exceed the volume.
    assert summarise_volumes(np.arange(10.0).tolist()) == HealthyVolumes(4.5, 8.0)
    assert summarise_volumes(np.arange(11.0).tolist()) == HealthyVolumes(5.0, 9.0)


def test_default_rate():
    ten = {
        1e-4: [0.0] * 10,
        1e-3: [0.0] * 8 + [2.0, 9.0],
        1e-2: [0.0] * 8 + [2.1, 9.0],
        1e-1: [0.0] * 4 + [1.0] * 6,
    }
    assert find_default_rate(ten) == 1e-3
    assert find_default_rate({0.1: [0.0, 1.0]}) is None
    assert (
        find_default_rate({0.1: [0.0, 0.0, 3.0]}) is None
    )  # of three scans, none may exceed 2 ml


def test_high_rate():
    assert find_high_rate({0.01: [0.0], 0.1: [2.0, 2.0, 90.0], 0.5: [2.0, 3.0, 90.0]}) == 0.1
    assert find_high_rate({0.01: [3.0]}) is None


def test_low_threshold():
    assert not has_guarantee(8) and has_guarantee(9)
    assert find_low_threshold(np.arange(9.0).tolist()) == 8  # (9 + 1) 0.1 = 1: the highest score
    assert find_low_threshold(np.arange(19.0).tolist()) == 17  # (19 + 1) 0.1 = 2: one scan above
    with pytest.raises(ValueError, match="cannot be guaranteed"):
        find_low_threshold([1.0])


def test_volumes_are_those_of_the_mask():
    rng = np.random.default_rng(0)
    anomaly = rng.random((3, 8, 8), dtype=np.float32)
    inside = np.ones(anomaly.shape, dtype=bool)
    config = PostprocessConfig(erosion_iterations=0, min_volume_mm3=64)
    spacing, thresholds = (2.0, 2.0, 4.0), (0.9, 0.5, 0.1)
    voxel_ml = 0.01  # less than the 0.016 of the grid, as in a scan that MNI152 enlarges
    expected = [
        anomaly_mask(anomaly, inside, value, spacing, config).sum() * voxel_ml
        for value in thresholds
    ]
    volumes = detected_ml(anomaly, inside, spacing, voxel_ml, thresholds, config)
    assert volumes == pytest.approx(expected)
    assert expected[0] < expected[1] < expected[2]
