"""The healthy threshold, by hand."""

import numpy as np
import pytest

from maediff.calibration import threshold_from_healthy


def volume(values):
    return np.asarray(values, dtype=np.float32).reshape(1, 1, -1)


@pytest.mark.parametrize(("fpr", "expected"), [(0.0, 10), (0.1, 9), (0.15, 9), (0.2, 8), (0.5, 5)])
def test_by_hand(fpr, expected):
    anomaly = volume(range(1, 11))
    assert threshold_from_healthy([anomaly], [anomaly > 0], fpr) == expected


def test_at_most_the_share_lies_above_even_with_ties():
    anomaly = volume([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert threshold_from_healthy([anomaly], [anomaly >= 0], 0.3) == 1  # 0 would let four in ten through
    assert threshold_from_healthy([anomaly], [anomaly >= 0], 0.4) == 0


def test_pools_subjects_and_counts_brain_only():
    a, b = volume([1, 2, 3, 99]), volume([4, 5, 6, 99])
    assert threshold_from_healthy([a, b], [a < 99, b < 99], 0.0) == 6
    rng = np.random.default_rng(0)
    maps = [rng.random((4, 20, 20)).astype(np.float32) for _ in range(3)]
    brains = [np.ones(m.shape, dtype=bool) for m in maps]
    threshold = threshold_from_healthy(maps, brains, 0.01)
    assert np.mean([m > threshold for m in maps]) == pytest.approx(0.01)


def test_what_cannot_work_is_refused():
    anomaly = volume([1, 2])
    with pytest.raises(ValueError, match=r"fpr 1\.0"):
        threshold_from_healthy([anomaly], [anomaly > 0], 1.0)
    with pytest.raises(ValueError, match="healthy"):
        threshold_from_healthy([], [], 0.01)
    with pytest.raises(ValueError, match="healthy"):
        threshold_from_healthy([anomaly], [anomaly > 5], 0.01)
