"""Score of a scan, against the mask that a threshold leaves."""

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import ellipsoid
from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask
from maediff.anomaly.score import scan_score

SPACING = (2.0, 2.0, 2.0)


@pytest.mark.parametrize("seed", range(5))
def test_mask_is_empty_at_score(seed):
    brain = ellipsoid(radii=(6, 10, 9))
    noise = np.random.default_rng(seed).random(brain.shape)
    anomaly = np.where(brain, ndimage.gaussian_filter(noise, 1), 0).astype(np.float32)
    score = scan_score(anomaly, brain, SPACING)
    below = float(np.nextafter(np.float32(score), np.float32(0)))
    assert not anomaly_mask(anomaly, brain, score, SPACING).any()
    assert anomaly_mask(anomaly, brain, below, SPACING).any()


def test_score_below_many_isolated_voxels():
    """Find a dim component among more than eight thousand isolated bright voxels."""
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


def test_score_without_component():
    brain = ellipsoid()
    assert scan_score(np.zeros(brain.shape, np.float32), brain, SPACING) == 0
    assert scan_score(np.ones(brain.shape, np.float32), np.zeros_like(brain), SPACING) == 0
    speck = np.zeros(brain.shape, np.float32)
    speck[6, 10, 9] = 1  # one voxel, smaller than any component kept
    assert scan_score(speck, brain, SPACING) == 0
