"""Metrics against scikit-learn, scikit-image and by hand."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import average_precision_score, precision_recall_curve

from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask
from maediff.evaluation.metrics import (
    LesionCounts,
    auprc,
    average_precision,
    dice,
    dice_by_threshold,
    dice_curve,
    false_positive_rate,
    lesion_counts,
    lesion_outside_brain,
    lesions_found,
    precision_recall,
    reconstruction_l1,
    reconstruction_psnr,
    reconstruction_ssim,
    threshold_grid,
)

SPACING = (2.0, 2.0, 2.0)
PLAIN = PostprocessConfig(median_size=1, erosion_iterations=0, min_volume_mm3=0)


def best_threshold(*case, **more):
    tried, curve = dice_by_threshold(*case, **more)
    return tried[curve.argmax()] if len(curve) else math.nan


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    brain = np.zeros((6, 24, 24), dtype=bool)
    brain[:, 2:22, 3:21] = True
    lesion = np.zeros_like(brain)
    lesion[2:4, 8:13, 8:12] = True
    anomaly = np.where(brain, rng.random(brain.shape) * 0.6 + 0.4 * lesion, 0).astype(np.float32)
    return anomaly, lesion, brain


def test_auprc_equals_scikit_learn(case):
    anomaly, lesion, brain = case
    expected = average_precision_score(lesion[brain], anomaly[brain])
    assert auprc(anomaly, lesion, brain) == pytest.approx(expected, abs=1e-12)
    everywhere = auprc(anomaly, lesion, brain, all_voxels=True)
    assert everywhere == pytest.approx(
        average_precision_score(lesion.ravel(), anomaly.ravel()), abs=1e-12
    )


def test_precision_recall_equals_scikit_learn(case):
    anomaly, lesion, brain = case
    truth, score = lesion[brain], np.round(anomaly[brain], 2)  # with ties
    precision, recall = precision_recall(truth, score)
    p, r, _ = precision_recall_curve(truth, score)
    grows = np.flatnonzero(np.diff(r[::-1], prepend=0) > 0)
    np.testing.assert_allclose(recall, r[::-1][grows])
    np.testing.assert_allclose(precision, p[::-1][grows])
    expected = average_precision_score(truth, score)
    assert average_precision(truth, score) == pytest.approx(expected, abs=1e-12)
    zero = np.where(truth, 0, score)  # positives tie with the background
    everything = average_precision_score(
        np.append(truth, np.zeros(50, bool)), np.append(zero, np.zeros(50))
    )
    assert average_precision(truth, zero, background=50) == pytest.approx(everything, abs=1e-12)


def test_auprc_with_ties_by_hand():
    # scores 3: one of one right; 2: three voxels, one right -> precision 2/4; recall 1/2 each
    truth = np.array([1, 0, 0, 1], dtype=bool).reshape(1, 1, 4)
    score = np.array([3, 2, 2, 2], dtype=np.float32).reshape(1, 1, 4)
    assert auprc(score, truth, np.ones_like(truth)) == pytest.approx(0.5 * 1 + 0.5 * 0.5)


def test_lesion_outside_brain(case):
    anomaly, lesion, brain = case
    beyond = lesion.copy()
    beyond[0, 0, :10] = True
    assert auprc(anomaly, beyond, brain) == auprc(anomaly, lesion, brain)
    assert lesion_outside_brain(beyond, brain) == pytest.approx(10 / 50)
    assert lesion_outside_brain(lesion, brain) == 0
    assert math.isnan(auprc(anomaly, beyond & ~brain, brain))


def test_empty_lesion_and_empty_prediction(case):
    anomaly, lesion, brain = case
    nothing = np.zeros_like(lesion)
    assert math.isnan(auprc(anomaly, nothing, brain))
    assert math.isnan(lesion_outside_brain(nothing, brain))
    assert dice(nothing, lesion) == 0
    assert dice(lesion, nothing) == 0
    assert dice(nothing, nothing) == 1
    assert math.isnan(best_threshold([anomaly], [nothing], [brain], [SPACING]))
    assert math.isnan(best_threshold([], [], [], []))


def test_dice_by_hand():
    a = np.array([1, 1, 1, 0, 0], dtype=bool)
    b = np.array([0, 1, 1, 1, 1], dtype=bool)
    assert dice(a, b) == pytest.approx(2 * 2 / (3 + 4))


def test_lesion_counts_by_hand():
    truth, predicted = np.zeros((2, 3, 20, 20), dtype=bool)
    truth[1, 2:5, 2:5] = truth[1, 10:12, 10:12] = truth[0, 18, 18] = True  # three lesions
    predicted[1, 4:7, 4:7] = True  # touches the first
    predicted[2, 12, 12] = (
        True  # only a corner away from the second: overlap is none, so a false positive
    )
    predicted[0, 0, 15:] = True  # a false positive
    counts = lesion_counts(predicted, truth)
    assert (counts.lesions, counts.found, counts.false_positives) == (3, 1, 2)
    assert lesion_counts(~truth & False, truth).found == 0
    assert lesion_counts(predicted, ~truth & False) == LesionCounts(0, 0, 3)


def test_one_region_finds_two_lesions():
    truth = np.zeros((1, 1, 9), dtype=bool)
    truth[0, 0, [1, 7]] = True
    counts = lesion_counts(np.ones_like(truth), truth)
    assert (counts.lesions, counts.found, counts.false_positives) == (2, 2, 0)


def test_lesions_found_by_hand():
    truth, predicted = np.zeros((2, 3, 20, 20), dtype=bool)
    truth[0, 2, 2], truth[1, 10:12, 10:13], predicted[1, 11, 12] = True, True, True
    voxels, found = lesions_found(predicted, truth)
    assert (voxels.tolist(), found.tolist()) == ([1, 6], [False, True])
    assert lesions_found(predicted, ~truth & False)[0].size == 0


@pytest.mark.parametrize("extent", [1.0, 0.8, 0.35])
@pytest.mark.parametrize("min_volume_mm3", [0.0, 64.0])
def test_dice_curve_equals_dice_of_masks(case, extent, min_volume_mm3):
    anomaly, lesion, brain = case
    config = PostprocessConfig(erosion_iterations=1, extent=extent, min_volume_mm3=min_volume_mm3)
    thresholds = threshold_grid([anomaly], [brain], config)
    curve = dice_curve(anomaly, lesion, brain, thresholds, SPACING, config)
    expected = [dice(anomaly_mask(anomaly, brain, t, SPACING, config), lesion) for t in thresholds]
    np.testing.assert_allclose(curve, expected)
    assert np.all(np.diff(thresholds) > 0)


def test_best_threshold_separates(case):
    _, lesion, brain = case
    anomaly = np.where(lesion, 0.8, np.where(brain, 0.2, 0)).astype(np.float32)
    best = best_threshold([anomaly], [lesion], [brain], [SPACING], PLAIN)
    assert 0.2 <= best < 0.8
    assert dice(anomaly_mask(anomaly, brain, best, SPACING, PLAIN), lesion) == 1


def test_further_thresholds_are_tried():
    brain = np.ones((4, 10, 10), dtype=bool)
    lesion = np.zeros_like(brain)
    lesion[:2] = (
        True  # half of the brain: every quantile of the grid is inside it, and its mask is empty
    )
    anomaly = np.where(lesion, 0.8, 0.2).astype(np.float32)
    case = ([anomaly], [lesion], [brain], [SPACING], PLAIN)
    assert best_threshold(*case) == pytest.approx(0.8)
    assert best_threshold(*case, also=[0.5, math.nan]) == 0.5


def test_false_positive_rate(case):
    _, lesion, brain = case
    assert false_positive_rate(lesion, brain) == pytest.approx(40 / (6 * 20 * 18))


def test_reconstruction_scores_equal_scikit_image(case):
    image, _, brain = case
    other = np.clip(
        image + 0.1 * np.random.default_rng(1).standard_normal(image.shape), 0, 1
    ).astype(np.float32)
    everywhere = np.ones_like(brain)
    assert reconstruction_l1(image, other, everywhere) == pytest.approx(
        np.abs(image - other).mean(), rel=1e-5
    )
    expected = peak_signal_noise_ratio(image.astype(float), other.astype(float), data_range=1)
    assert reconstruction_psnr(image, other, everywhere) == pytest.approx(expected)
    inside = [
        structural_similarity(
            np.where(b, x, 0).astype(float),
            np.where(b, y, 0).astype(float),
            data_range=1,
            gaussian_weights=True,
            use_sample_covariance=False,
            full=True,
        )[1][b]
        for x, y, b in zip(image, other, brain, strict=True)
    ]
    assert reconstruction_ssim(image, other, brain) == pytest.approx(
        np.concatenate(inside).mean(), abs=1e-12
    )


def test_reconstruction_scores_ignore_background(case):
    image, _, brain = case
    elsewhere = np.where(brain, image, 0.7).astype(np.float32)
    assert reconstruction_l1(image, elsewhere, brain) == 0
    assert reconstruction_psnr(image, elsewhere, brain) == math.inf
    assert reconstruction_ssim(image, elsewhere, brain) == pytest.approx(1)
