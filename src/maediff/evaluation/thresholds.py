"""Thresholds of a method, chosen on the calibration scans.

label       the highest mean Dice on labelled calibration scans, as usual in the field
healthy     at most a share `fpr` of the healthy calibration voxels exceeds it
conformal   at most a share `scan_fpr` of new healthy scans is flagged (split conformal)
oracle      the highest mean Dice on the scored scans: an upper limit, not a choice
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maediff.anomaly.postprocess import PostprocessConfig, eroded_brain
from maediff.anomaly.score import scan_score
from maediff.anomaly.thresholds import conformal_threshold, smallest_alpha, threshold_from_healthy
from maediff.cohort.cohort import SubjectSlices
from maediff.core.types import Map
from maediff.evaluation.metrics import dice_by_threshold

HEALTHY_SCANS, HEALTHY_SLICES = "healthy subjects", "lesion-free slices of patients"
"""Sources of the healthy threshold, as `healthy_source` in summary.json names them."""


@dataclass(frozen=True)
class MethodThresholds:
    """The four thresholds of a method, of its anomaly map in [0, 1]; NaN if unavailable."""

    label: float
    healthy: float
    conformal: float
    oracle: float


@dataclass(frozen=True, eq=False)
class Case:
    """A scan and its anomaly map."""

    scan: SubjectSlices
    anomaly: Map


@dataclass(frozen=True)
class ThresholdChoice:
    """Thresholds and their origin.

    Args:
        thresholds: the four thresholds.
        healthy_source: HEALTHY_SCANS or HEALTHY_SLICES; None without a healthy voxel.
        conformal: `alpha` (the rate), `n_scans` (healthy scans, one per person) and
            `smallest_alpha` (the smallest rate that they allow).
        dice_curve: `threshold` and `dice`: the mean Dice of the scored scans at many thresholds.
    """

    thresholds: MethodThresholds
    healthy_source: str | None
    conformal: dict[str, Any]
    dice_curve: dict[str, list[float]]


def choose_thresholds(
    calibrate: Sequence[Case],
    scored: Sequence[Case],
    fpr: float,
    scan_fpr: float,
    config: PostprocessConfig,
) -> ThresholdChoice:
    """Choose the thresholds of a method.

    Args:
        calibrate: scans that thresholds are chosen on.
        scored: scans that are measured; only the oracle uses their labels.
        fpr: largest share of healthy voxels in masks at the healthy threshold, in [0, 1).
        scan_fpr: share of new healthy scans above the conformal threshold, in (0, 1).
        config: post-processing.
    """
    healthy, source = _healthy_threshold(calibrate, fpr, config)
    first_scans = {case.scan.person: case for case in reversed(calibrate) if case.scan.healthy}
    scores = [
        scan_score(case.anomaly, case.scan.brain, case.scan.spacing_mm, config)
        for case in first_scans.values()
    ]
    try:
        conformal = conformal_threshold(scores, scan_fpr)
    except ValueError:  # too few scans; `smallest_alpha` is the rate that they allow
        conformal = math.nan
    label = _best_threshold(*_mean_dice(calibrate, config))
    tried, curve = _mean_dice(scored, config, also=(label, healthy, conformal))
    return ThresholdChoice(
        thresholds=MethodThresholds(
            label=label, healthy=healthy, conformal=conformal, oracle=_best_threshold(tried, curve)
        ),
        healthy_source=source,
        conformal={
            "alpha": scan_fpr,
            "n_scans": len(scores),
            "smallest_alpha": smallest_alpha(len(scores)),
        },
        dice_curve={"threshold": tried.tolist(), "dice": curve.tolist()},
    )


def _healthy_threshold(
    calibrate: Sequence[Case], fpr: float, config: PostprocessConfig
) -> tuple[float, str | None]:
    """Return the threshold from healthy voxels and their source.

    The voxels are those of healthy scans or, without a healthy scan, of lesion-free slices of
    scans with a lesion mask.
    """
    has_healthy_scan = any(case.scan.healthy for case in calibrate)
    maps, counted = [], []
    for case in calibrate:
        scan = case.scan
        if not (scan.healthy if has_healthy_scan else scan.lesion is not None):
            continue
        inside = eroded_brain(scan.brain, config)
        if not has_healthy_scan:
            inside = inside & scan.lesion_free[:, None, None]
        if inside.any():
            maps.append(case.anomaly)
            counted.append(inside)
    if not maps:
        return math.nan, None
    source = HEALTHY_SCANS if has_healthy_scan else HEALTHY_SLICES
    return threshold_from_healthy(maps, counted, fpr, config.extent), source


def _mean_dice(
    cases: Sequence[Case], config: PostprocessConfig, also: Sequence[float] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Return thresholds, and the mean Dice at each of them over scans with a lesion mask."""
    labelled = [(case, case.scan.lesion) for case in cases if case.scan.lesion is not None]
    return dice_by_threshold(
        [case.anomaly for case, _ in labelled],
        [lesion for _, lesion in labelled],
        [case.scan.brain for case, _ in labelled],
        [case.scan.spacing_mm for case, _ in labelled],
        config,
        also=also,
    )


def _best_threshold(thresholds: np.ndarray, curve: np.ndarray) -> float:
    """Return the threshold with the highest Dice; NaN without a threshold."""
    return float(thresholds[int(curve.argmax())]) if len(curve) else math.nan
