"""Threshold of the combined map of a session, from healthy people with several contrasts.

The threshold for a set of contrasts is the lowest, 0.4 or more, at which 14 healthy people have
0 ml in the median and at most 2 ml in nine of ten (experiments/session). Their T1w scans are
from ds002748. Their T2w and FLAIR are rendered from the T1w, because no healthy person here has
a scanned FLAIR.

The values are valid for the shipped models and their default thresholds. With other models or
thresholds, the threshold is 1, at which at least one contrast is above its own threshold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maediff.anomaly.combine import DEFAULT_RULE, CombineConfig
from maediff.core.errors import InputError
from maediff.core.types import Modality
from maediff.detection.detector import Detector

MODELS: dict[Modality, tuple[str, int]] = {
    "T1w": ("t1", 2000),
    "T2w": ("t2", 2130),
    "FLAIR": ("flair", 2288),
}
"""Name and training step of the models that the values belong to."""
VALUES: dict[frozenset[str], tuple[float, int]] = {
    frozenset({"T1w", "FLAIR"}): (0.45, 5),
    frozenset({"T1w", "T2w"}): (0.4, 1),
    frozenset({"T2w", "FLAIR"}): (0.45, 5),
    frozenset({"T1w", "T2w", "FLAIR"}): (0.4, 3),
}
"""Threshold by contrasts, and the number of the healthy people that have a region at it."""
PEOPLE = 14
SOURCE = "T1w scans of ds002748, T2w and FLAIR rendered from them"


@dataclass(frozen=True)
class CombinedThreshold:
    """Threshold of a combined map.

    Args:
        value: 1 is the threshold of each contrast.
        origin: healthy people behind the value, or the reason for the value 1.
    """

    value: float
    origin: Mapping[str, Any]


def choose_threshold(
    detectors: Mapping[Modality, Detector],
    thresholds: Mapping[Modality, float],
    rule: CombineConfig,
) -> CombinedThreshold:
    """Return the threshold of a session's combined map, and its origin.

    Args:
        detectors: detector of each contrast of the session.
        thresholds: threshold of the anomaly map of each contrast.
        rule: the rule; its own threshold has priority.
    """
    if rule.threshold is not None:
        return CombinedThreshold(rule.threshold, {"given": True})
    if len(thresholds) == 1:
        return CombinedThreshold(1.0, {"reason": "that of the only contrast"})
    if finding := _find_difference(detectors, thresholds, rule):
        return CombinedThreshold(1.0, {"reason": f"not calibrated for these contrasts, {finding}"})
    value, n_marked = VALUES[frozenset(thresholds)]
    origin = {"source": SOURCE, "n_scans": PEOPLE, "n_marked": n_marked}
    return CombinedThreshold(value, origin)


def _find_difference(
    detectors: Mapping[Modality, Detector],
    thresholds: Mapping[Modality, float],
    rule: CombineConfig,
) -> str:
    """Return why `VALUES` do not apply; empty if they apply."""
    if rule != DEFAULT_RULE:
        return "because of another rule"
    for contrast, detector in detectors.items():
        if detector.name != MODELS[contrast][0] or detector.model.step != MODELS[contrast][1]:
            return f"because {detector.name} is another model"
        try:
            default = detector.threshold_for().value
        except InputError:
            return f"because {detector.name} has other settings"
        if thresholds[contrast] != default:
            return f"because {detector.name} was used with another threshold"
    return ""
