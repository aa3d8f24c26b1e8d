"""Thresholds that an evaluation chooses on its calibration split."""

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

NAN = float("nan")


@dataclass(frozen=True)
class Thresholds:
    """The operating points of a contender; nan where one cannot be had."""

    label: float
    healthy: float
    conformal: float
    oracle: float


@dataclass(frozen=True, eq=False)
class Case:
    """A subject and its anomaly map; `person` tells whose scan it is."""

    subject: SubjectSlices
    anomaly: Map
    person: str


def choose_thresholds(
    calibrate: Sequence[Case],
    scored: Sequence[Case],
    fpr: float,
    scan_fpr: float,
    post: PostprocessConfig,
) -> tuple[Thresholds, dict[str, Any], dict[str, list[float]]]:
    """The thresholds, where they come from, and the mean Dice of the scored subjects at many thresholds."""
    from_subjects = any(c.subject.healthy for c in calibrate)
    healthy = [
        (
            c.anomaly,
            eroded_brain(c.subject.brain, post)
            & (c.subject.lesion_free[:, None, None] | from_subjects),
        )
        for c in calibrate
        if (c.subject.healthy if from_subjects else c.subject.lesion is not None)
    ]
    healthy = [(anomaly, inside) for anomaly, inside in healthy if inside.any()]
    source = (
        "healthy subjects" if from_subjects else "lesion-free slices of patients"
    )  # what patients have left
    from_healthy = NAN
    if healthy:
        from_healthy = threshold_from_healthy(
            [anomaly for anomaly, _ in healthy], [b for _, b in healthy], fpr
        )
    people = {
        c.person: c for c in reversed(calibrate) if c.subject.healthy
    }  # the first scan of each
    scores = [
        scan_score(c.anomaly, c.subject.brain, c.subject.spacing_mm, post) for c in people.values()
    ]
    try:
        conformal = conformal_threshold(scores, scan_fpr)
    except ValueError:  # too few scans for this rate; `about` says which rate they would do for
        conformal = NAN
    label = _best(*_dice(calibrate, post))
    tried, curve = _dice(scored, post, also=(label, from_healthy, conformal))
    about = {
        "healthy_source": source if healthy else None,
        "conformal": {
            "alpha": scan_fpr,
            "n_scans": len(scores),
            "smallest_alpha": smallest_alpha(len(scores)),
        },
    }
    return (
        Thresholds(label, from_healthy, conformal, _best(tried, curve)),
        about,
        {"threshold": tried.tolist(), "dice": curve.tolist()},
    )


def _dice(
    cases: Sequence[Case], post: PostprocessConfig, also: Sequence[float] = ()
) -> tuple[np.ndarray, np.ndarray]:
    labelled = [(c, c.subject.lesion) for c in cases if c.subject.lesion is not None]
    return dice_by_threshold(
        [c.anomaly for c, _ in labelled],
        [lesion for _, lesion in labelled],
        [c.subject.brain for c, _ in labelled],
        [c.subject.spacing_mm for c, _ in labelled],
        post,
        also=also,
    )


def _best(thresholds: np.ndarray, curve: np.ndarray) -> float:
    return float(thresholds[int(curve.argmax())]) if len(curve) else NAN
