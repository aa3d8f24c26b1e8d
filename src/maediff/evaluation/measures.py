"""What one contender's anomaly maps are worth under one post-processing: thresholds, then numbers for each subject.

threshold   from                                                          what it gives
label       labelled calibration subjects: highest mean Dice              the field's Dice
healthy     healthy calibration voxels: a share `fpr` lies above          Dice and rates without a label
conformal   scores of healthy calibration scans: a share `scan_fpr` of    Dice and rates with a guarantee
            new ones is flagged at most
oracle      the scored subjects themselves                                a ceiling
"""

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask
from maediff.anomaly.score import scan_score
from maediff.cohort.cohort import SubjectSlices
from maediff.evaluation.metrics import (
    auprc,
    dice,
    false_positive_rate,
    lesion_counts,
    lesions_found,
    precision_recall,
)
from maediff.evaluation.thresholds import NAN, Case, Thresholds

RECALLS = np.linspace(0.01, 1, 100)  # where precision is kept for the report's curves
DICES = {
    "dice": "label",
    "dice_healthy_calibrated": "healthy",
    "dice_conformal": "conformal",
    "dice_oracle": "oracle",
}
COLUMNS = (  # of scores.csv, for each post-processing
    "auprc",
    "auprc_all_voxels",
    *DICES,
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


def measure(
    case: Case, thresholds: Thresholds, post: PostprocessConfig
) -> tuple[dict[str, float], dict[str, list]]:
    """COLUMNS of one subject, nan where one has no meaning for it; and its lesions, one by one.

    The lesions: `volume_ml` of each, and whether it was `found` at the labelled threshold.
    """
    s, anomaly, brain = case.subject, case.anomaly, case.subject.brain
    row = dict.fromkeys(COLUMNS, NAN)
    lesions: dict[str, list] = {"volume_ml": [], "found": []}
    truth = None if s.lesion is None else s.lesion & brain
    masks = {
        name: anomaly_mask(anomaly, brain, value, s.spacing_mm, post)
        for name, value in asdict(thresholds).items()
        if not math.isnan(value)
    }
    if truth is not None and truth.any():
        row["auprc"] = row["auprc_all_voxels"] = auprc(anomaly, truth, brain)
        if (anomaly[truth] <= 0).any():  # only then does the background count
            row["auprc_all_voxels"] = auprc(anomaly, truth, brain, all_voxels=True)
        row |= {
            column: dice(masks[name], truth) for column, name in DICES.items() if name in masks
        }
        if "label" in masks:
            voxels, found = lesions_found(masks["label"], truth)
            row["lesions_found"] = float(found.sum())
            row["lesion_recall"] = float(found.mean())
            row["false_positives"] = float(lesion_counts(masks["label"], truth).false_positives)
            lesions = {"volume_ml": (voxels * voxel_ml(s)).tolist(), "found": found.tolist()}
        if "conformal" in masks:
            row["flagged_ill_conformal"] = float(masks["conformal"].any())
    if s.healthy:
        for suffix, name in (("", "healthy"), ("_label_calibrated", "label")):
            if name in masks:
                row[f"fpr_healthy{suffix}"] = false_positive_rate(masks[name], brain)
                row[f"flagged_healthy{suffix}"] = float(masks[name].any())
        if "label" in masks:
            nothing = np.zeros_like(brain)
            row["false_positives_healthy"] = float(
                lesion_counts(masks["label"], nothing).false_positives
            )
        if "conformal" in masks:
            row["flagged_healthy_conformal"] = float(masks["conformal"].any())
    row["scan_score"] = scan_score(anomaly, brain, s.spacing_mm, post)
    return row, lesions


def voxel_ml(s: SubjectSlices) -> float:
    """Volume of a voxel of the subject's grid."""
    return float(np.prod([float(mm) for mm in s.spacing_mm])) / 1000


def pooled_curve(scored: Sequence[Case]) -> tuple[float | None, dict[str, list[float]]]:
    """Over the brain voxels of all subjects with a lesion, as if they were one scan: AUPRC, and precision at RECALLS.

    None and an empty curve where no subject has a lesion.
    """
    with_lesion = [(c, c.subject.lesion) for c in scored if c.subject.lesion is not None]
    with_lesion = [(c, lesion) for c, lesion in with_lesion if (lesion & c.subject.brain).any()]
    if not with_lesion:
        return None, {"recall": [], "precision": []}
    truth = np.concatenate([lesion[c.subject.brain] for c, lesion in with_lesion])
    scores = np.concatenate([c.anomaly[c.subject.brain] for c, _ in with_lesion])
    precision, recall = precision_recall(truth, scores)
    at = np.searchsorted(recall, RECALLS - 1e-9)
    average = float(np.diff(recall, prepend=0.0) @ precision)
    return average, {"recall": RECALLS.tolist(), "precision": precision[at].tolist()}
