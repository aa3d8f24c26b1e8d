"""Error of a reconstruction as a whole."""

import math

import numpy as np
import pytest

from maediff.anomaly.reconstruction import blur_error, reconstruction_error


@pytest.fixture
def scan():
    brain = np.zeros((2, 40, 40), dtype=bool)
    brain[:, 4:36, 4:36] = True
    images = np.random.default_rng(0).uniform(0.2, 0.8, brain.shape).astype(np.float32) * brain
    return images, brain


def test_by_hand(scan):
    images, brain = scan
    assert reconstruction_error(images, images, brain) == 0
    assert reconstruction_error(images, images + 0.25, brain) == pytest.approx(0.25)
    with_lesion = images.copy()
    with_lesion[:, 15:25, 15:25] = 1  # 15 % of the inner brain
    assert reconstruction_error(with_lesion, images, brain) == 0
    rim = images + np.where(brain & ~np.roll(brain, 2, axis=1), 0.5, 0).astype(np.float32)
    assert reconstruction_error(rim, images, brain) == 0  # the edge does not count
    assert reconstruction_error(images * 9, np.minimum(images * 9, 1), brain) == 0
    assert math.isnan(reconstruction_error(images, images, np.zeros_like(brain)))


def test_the_error_of_a_blur_is_the_distance_to_the_mean(scan):
    images, brain = scan
    flat = np.where(brain, np.float32(0.5), np.float32(0))
    assert blur_error(flat, brain) == pytest.approx(0, abs=1e-6)
    # Uniform noise in [0.2, 0.8]: the blur is its mean, 0.5, and the median distance is 0.15.
    assert blur_error(images, brain) == pytest.approx(0.15, abs=0.01)
