"""Regions of an anomaly mask."""

import numpy as np
import pytest

from maediff.anomaly.regions import find_regions


def test_regions_by_hand():
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
