"""Scores of one scan under one post-processing, at the thresholds of its method.

threshold   scores at its mask
label       Dice, lesions found, false positives; rates on healthy scans
healthy     Dice; rates on healthy scans
conformal   Dice; flagged scans, healthy or with a lesion
oracle      Dice
none        AUPRC, score of the scan
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask
from maediff.anomaly.score import scan_score
from maediff.core.types import Mask
from maediff.evaluation.metrics import (
    auprc,
    dice,
    false_positive_rate,
    lesion_counts,
    lesions_found,
    precision_recall,
)
from maediff.evaluation.thresholds import Case, MethodThresholds

RECALLS = np.linspace(0.01, 1, 100)
"""Recalls at which the report's curves hold the precision."""
DICE_THRESHOLDS = {
    "dice": "label",
    "dice_healthy_calibrated": "healthy",
    "dice_conformal": "conformal",
    "dice_oracle": "oracle",
}
"""Column -> threshold of its mask."""
SCORE_COLUMNS = (
    "auprc",
    "auprc_all_voxels",
    *DICE_THRESHOLDS,
    "lesions_found",
    "lesion_recall",
    "false_positives",
    "false_positives_healthy",
    "fpr_healthy",
    "flagged_healthy",
    "fpr_healthy_label_calibrated",
    "flagged_healthy_label_calibrated",
    "flagged_healthy_conformal",
    "flagged_ill_conformal",
    "scan_score",
)
"""Columns of scores.csv for each post-processing."""


@dataclass(frozen=True)
class LesionList:
    """The lesions of a scan, one by one; empty without a threshold from labels.

    Args:
        volume_ml: volume of each lesion in the scan.
        found: True if the mask at the threshold `label` contains a voxel of the lesion.
    """

    volume_ml: tuple[float, ...] = ()
    found: tuple[bool, ...] = ()


def measure(
    case: Case, thresholds: MethodThresholds, config: PostprocessConfig
) -> tuple[dict[str, float], LesionList]:
    """Return SCORE_COLUMNS of a scan, NaN where a column does not apply, and its lesions.

    Args:
        case: the scan and its anomaly map.
        thresholds: a NaN threshold gives no mask.
        config: post-processing.
    """
    scan, anomaly, brain = case.scan, case.anomaly, case.scan.brain
    row = dict.fromkeys(SCORE_COLUMNS, math.nan)
    lesions = LesionList()
    truth = None if scan.lesion is None else scan.lesion & brain
    masks = {
        name: anomaly_mask(anomaly, brain, value, scan.spacing_mm, config)
        for name, value in asdict(thresholds).items()
        if not math.isnan(value)
    }
    if truth is not None and truth.any():
        row["auprc"] = row["auprc_all_voxels"] = auprc(anomaly, truth, brain)
        if (anomaly[truth] <= 0).any():  # otherwise the background does not change AUPRC
            row["auprc_all_voxels"] = auprc(anomaly, truth, brain, all_voxels=True)
        for column, name in DICE_THRESHOLDS.items():
            if name in masks:
                row[column] = dice(masks[name], truth)
        if "label" in masks:
            voxels, found = lesions_found(masks["label"], truth)
            row["lesions_found"] = float(found.sum())
            row["lesion_recall"] = float(found.mean())
            row["false_positives"] = _count_false_positives(masks["label"], truth)
            lesions = LesionList(
                volume_ml=tuple((voxels * scan.voxel_ml).tolist()), found=tuple(found.tolist())
            )
        if "conformal" in masks:
            row["flagged_ill_conformal"] = float(masks["conformal"].any())
    if scan.healthy:
        for suffix, name in (("", "healthy"), ("_label_calibrated", "label")):
            if name in masks:
                row[f"fpr_healthy{suffix}"] = false_positive_rate(masks[name], brain)
                row[f"flagged_healthy{suffix}"] = float(masks[name].any())
        if "label" in masks:
            row["false_positives_healthy"] = _count_false_positives(
                masks["label"], np.zeros_like(brain)
            )
        if "conformal" in masks:
            row["flagged_healthy_conformal"] = float(masks["conformal"].any())
    row["scan_score"] = scan_score(anomaly, brain, scan.spacing_mm, config)
    return row, lesions


def _count_false_positives(predicted: Mask, truth: Mask) -> float:
    return float(lesion_counts(predicted, truth).false_positives)


def pooled_curve(scored: Sequence[Case]) -> tuple[float | None, dict[str, list[float]]]:
    """Return AUPRC and precision at RECALLS over the brain voxels of all scans with a lesion.

    The voxels are pooled as if all scans were one, so large lesions have more weight.

    Returns:
        None and an empty curve if no scan has a lesion in the brain.
    """
    with_lesion = [(case, case.scan.lesion) for case in scored if case.scan.lesion is not None]
    with_lesion = [
        (case, lesion) for case, lesion in with_lesion if (lesion & case.scan.brain).any()
    ]
    if not with_lesion:
        return None, {"recall": [], "precision": []}
    truth = np.concatenate([lesion[case.scan.brain] for case, lesion in with_lesion])
    scores = np.concatenate([case.anomaly[case.scan.brain] for case, _ in with_lesion])
    precision, recall = precision_recall(truth, scores)
    at = np.searchsorted(recall, RECALLS - 1e-9)
    average = float(np.diff(recall, prepend=0.0) @ precision)
    return average, {"recall": RECALLS.tolist(), "precision": precision[at].tolist()}
