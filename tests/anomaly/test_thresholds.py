"""Thresholds from healthy scans: voxel-wise by hand, scan-wise on simulated scores."""

import numpy as np
import pytest

from maediff.anomaly.postprocess import anomaly_mask, residual_map
from maediff.anomaly.score import scan_score
from maediff.anomaly.thresholds import (
    conformal_threshold,
    scans_needed,
    smallest_alpha,
    threshold_from_healthy,
)
from maediff.evaluation.intervals import clopper_pearson
from maediff.scans.volume import volume_to_slices

SPACING = (2.0, 2.0, 2.0)


def volume(values):
    return np.asarray(values, dtype=np.float32).reshape(1, 1, -1)


@pytest.mark.parametrize(("fpr", "expected"), [(0.0, 10), (0.1, 9), (0.15, 9), (0.2, 8), (0.5, 5)])
def test_voxelwise_by_hand(fpr, expected):
    anomaly = volume(range(1, 11))
    assert threshold_from_healthy([anomaly], [anomaly > 0], fpr) == expected


def test_voxelwise_with_ties():
    anomaly = volume([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    # a threshold of 0 would leave four of ten voxels
    assert threshold_from_healthy([anomaly], [anomaly >= 0], 0.3) == 1
    assert threshold_from_healthy([anomaly], [anomaly >= 0], 0.4) == 0


def test_voxelwise_pools_subjects():
    a, b = volume([1, 2, 3, 99]), volume([4, 5, 6, 99])
    assert threshold_from_healthy([a, b], [a < 99, b < 99], 0.0) == 6
    rng = np.random.default_rng(0)
    maps = [rng.random((4, 20, 20)).astype(np.float32) for _ in range(3)]
    brains = [np.ones(m.shape, dtype=bool) for m in maps]
    threshold = threshold_from_healthy(maps, brains, 0.01)
    assert np.mean([m > threshold for m in maps]) == pytest.approx(0.01)


@pytest.mark.parametrize("extent", [0.3, 0.4, 0.7])
def test_voxelwise_rate_holds_for_masks_that_grow(extent):
    rng = np.random.default_rng(1)
    maps = [0.25 * rng.random((4, 20, 20)).astype(np.float32) for _ in range(3)]
    brains = [np.ones(m.shape, dtype=bool) for m in maps]
    assert (
        threshold_from_healthy([4 * m for m in maps], brains, 0.01, 0.5) == 1
    )  # no map exceeds 1
    for fpr in (0.001, 0.01, 0.2):
        threshold = threshold_from_healthy(maps, brains, fpr, extent)
        assert np.mean([m > extent * threshold for m in maps]) <= fpr
        lower = np.nextafter(np.float32(threshold_from_healthy(maps, brains, fpr)), np.float32(0))
        assert np.mean([m > lower for m in maps]) > fpr  # the smallest such threshold
        assert threshold == pytest.approx(threshold_from_healthy(maps, brains, fpr) / extent)


def test_voxelwise_invalid_input():
    anomaly = volume([1, 2])
    with pytest.raises(ValueError, match=r"fpr 1\.0"):
        threshold_from_healthy([anomaly], [anomaly > 0], 1.0)
    with pytest.raises(ValueError, match="healthy"):
        threshold_from_healthy([], [], 0.01)
    with pytest.raises(ValueError, match="healthy"):
        threshold_from_healthy([anomaly], [anomaly > 5], 0.01)


# ---- whole scans: split conformal


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(0.1, 9), (0.2, 8), (0.25, 8), (0.5, 5), (0.9, 1)],
)
def test_conformal_by_hand(alpha, expected):
    scores = np.array([3, 1, 9, 7, 5, 2, 8, 4, 6], dtype=float)
    # n = 9: the ceil((1 - alpha) 10)-th smallest
    assert conformal_threshold(scores, alpha) == expected


def test_smallest_rate():
    # (19 + 1) 0.05 is 1, although not in floating point
    assert conformal_threshold(np.arange(19, dtype=float), 0.05) == 18
    with pytest.raises(
        ValueError, match=r"alpha 0\.05 .* 18 healthy scans: .* 0\.0527, .* needs 19 scans"
    ):
        conformal_threshold(np.arange(18, dtype=float), 0.05)
    # the rate that the message names is possible
    assert conformal_threshold(np.arange(18, dtype=float), 0.0527) == 17
    for n in range(1, 200):
        assert conformal_threshold(np.arange(n, dtype=float), smallest_alpha(n)) == n - 1
        assert scans_needed(1 / (n + 1)) == n
    with pytest.raises(ValueError, match=r"0 healthy scans: the smallest possible is 1,"):
        conformal_threshold([], 0.1)
    for alpha in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match="is not a rate"):
            conformal_threshold(np.arange(50, dtype=float), alpha)


@pytest.mark.parametrize("n", [9, 23])
@pytest.mark.parametrize("alpha", [0.1, 0.34])
def test_coverage_over_many_calibration_sets(n, alpha):
    """Without ties the rate is floor((n + 1) alpha) / (n + 1) for every distribution of scores."""
    sets = 5_000
    draws = np.random.default_rng(n).gamma(0.5, size=(sets, n + 1))
    thresholds = np.array([conformal_threshold(scores, alpha) for scores in draws[:, :-1]])
    rate = (draws[:, -1] > thresholds).mean()
    expected = np.floor((n + 1) * alpha + 1e-9) / (n + 1)
    error = 4 * np.sqrt(expected * (1 - expected) / sets)
    assert expected <= alpha + 1e-9
    assert rate == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("n", [4, 9])
def test_coverage_with_ties(n):
    """Scores of healthy scans are often 0 or equal; the rate is then lower."""
    sets, alpha = 5_000, 0.2
    rng = np.random.default_rng(n)
    draws = np.where(rng.random((sets, n + 1)) < 0.5, 0, rng.integers(1, 5, (sets, n + 1)) / 10)
    rate = np.mean([row[-1] > conformal_threshold(row[:-1], alpha) for row in draws])
    assert rate <= alpha + 4 * np.sqrt(alpha * (1 - alpha) / sets)
    assert conformal_threshold(np.zeros(n), alpha) == 0  # all equal: no score is above


@pytest.mark.slow
def test_coverage_on_phantoms():
    """Calibrate on healthy phantoms of val and count flagged phantoms of test."""
    from maediff.synthetic.dataset import healthy_subject

    alpha, n = 0.2, 14
    anomalies, brains = [], []
    for split, count in (("val", n), ("test", 16)):
        for index in range(count):
            phantom = healthy_subject(split, index, "FLAIR")
            brain = volume_to_slices(phantom.brain)
            image = volume_to_slices(phantom.image) / np.percentile(
                phantom.image[phantom.brain], 99
            )
            anomalies.append(
                residual_map(
                    np.abs(image - np.median(image[brain])).astype(np.float32), brain, SPACING
                )
            )
            brains.append(brain)
    scores = np.array([scan_score(a, b, SPACING) for a, b in zip(anomalies, brains, strict=True)])
    assert len(np.unique(scores)) > 25
    threshold = conformal_threshold(scores[:n], alpha)
    flagged = [
        anomaly_mask(a, b, threshold, SPACING).any()
        for a, b in zip(anomalies[n:], brains[n:], strict=True)
    ]
    assert flagged == (scores[n:] > threshold).tolist()
    assert clopper_pearson(int(np.sum(flagged)), len(flagged), level=0.999).low <= alpha
    rng, rates = np.random.default_rng(0), []
    for _ in range(2000):  # the guarantee is an average over calibration sets
        drawn = rng.permutation(scores)
        rates.append((drawn[n:] > conformal_threshold(drawn[:n], alpha)).mean())
    assert np.mean(rates) == pytest.approx(3 / 15, abs=0.015)  # floor((n + 1) alpha) / (n + 1)
