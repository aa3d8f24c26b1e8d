"""The four thresholds of a method, on made scans."""

import math

import pytest

from helpers.scores import SPACING, made_scan
from maediff.anomaly.postprocess import PostprocessConfig, eroded_brain, residual_map
from maediff.anomaly.score import scan_score
from maediff.evaluation.metrics import dice_by_threshold
from maediff.evaluation.thresholds import HEALTHY_SCANS, HEALTHY_SLICES, Case, choose_thresholds

DEFAULT = PostprocessConfig()


def made_cases(scans):
    return [Case(scan=s, anomaly=residual_map(s.images, s.brain, SPACING)) for s in scans]


def choose(calibrate, scored, fpr=0.01, scan_fpr=0.1):
    return choose_thresholds(made_cases(calibrate), made_cases(scored), fpr, scan_fpr, DEFAULT)


def test_label_threshold_is_from_calibration_scans(calibrate, scored):
    choice = choose(calibrate, scored)
    (case,) = made_cases(calibrate[1:])
    tried, curve = dice_by_threshold(
        [case.anomaly], [case.scan.lesion], [case.scan.brain], [SPACING]
    )
    assert choice.thresholds.label == tried[curve.argmax()]


def test_oracle_is_from_scored_scans(calibrate, scored):
    choice = choose(calibrate, scored)
    best = max(choice.dice_curve["dice"])
    at = choice.dice_curve["threshold"].index(choice.thresholds.oracle)
    assert choice.dice_curve["dice"][at] == best
    assert choice.thresholds.label in choice.dice_curve["threshold"]


def test_healthy_threshold_is_from_healthy_scans(calibrate, scored):
    choice = choose(calibrate, scored)
    (case,) = made_cases(calibrate[:1])
    above = case.anomaly[eroded_brain(case.scan.brain)] > choice.thresholds.healthy
    assert above.mean() == pytest.approx(0.01, abs=0.001)
    assert choice.healthy_source == HEALTHY_SCANS


def test_healthy_threshold_falls_back_to_lesion_free_slices(calibrate, scored):
    choice = choose(calibrate[1:], scored)
    (case,) = made_cases(calibrate[1:])
    inside = eroded_brain(case.scan.brain) & case.scan.lesion_free[:, None, None]
    above = case.anomaly[inside] > choice.thresholds.healthy
    assert above.mean() == pytest.approx(0.01, abs=0.002)
    assert choice.healthy_source == HEALTHY_SLICES


def test_conformal_threshold_is_a_score_of_a_healthy_scan(calibrate, scored):
    healthy = [made_scan(f"k{i}", healthy=True, seed=20 + i) for i in range(5)]
    choice = choose([*healthy, calibrate[1]], scored, scan_fpr=0.25)
    assert choice.conformal == {"alpha": 0.25, "n_scans": 5, "smallest_alpha": 0.1667}
    scores = [scan_score(c.anomaly, c.scan.brain, SPACING, DEFAULT) for c in made_cases(healthy)]
    assert choice.thresholds.conformal == max(scores)  # floor(6 / 4) of 6 may be above


def test_conformal_threshold_uses_one_scan_per_person(scored):
    people = ("one", "one", "two", "two", "three")
    healthy = [
        made_scan(f"k{i}", healthy=True, seed=20 + i, person=person)
        for i, person in enumerate(people)
    ]
    choice = choose(healthy, scored, scan_fpr=0.25)
    assert choice.conformal["n_scans"] == 3
    first = made_cases([healthy[0], healthy[2], healthy[4]])
    scores = [scan_score(c.anomaly, c.scan.brain, SPACING, DEFAULT) for c in first]
    assert choice.thresholds.conformal == max(scores)


def test_conformal_threshold_needs_enough_scans(calibrate, scored):
    assert math.isnan(choose(calibrate, scored).thresholds.conformal)  # 0.1 needs nine


def test_no_calibration_scan(scored):
    choice = choose([], scored)
    assert math.isnan(choice.thresholds.label) and math.isnan(choice.thresholds.healthy)
    assert choice.healthy_source is None
    assert 0 < choice.thresholds.oracle < 1


def test_no_lesion(calibrate):
    choice = choose(calibrate[:1], calibrate[:1])
    assert math.isnan(choice.thresholds.label) and math.isnan(choice.thresholds.oracle)
    assert choice.dice_curve == {"threshold": [], "dice": []}
