"""Thresholds of a model from healthy scans: by rate, by level of sensitivity, or its default.

    scale                        = residual at the model's default threshold
    threshold of the anomaly map = threshold of the residual / scale

`maediff.models.calibration` reads the stored thresholds from calibration.json.
A model whose calibration is not valid has `NoThresholds`, and its anomaly map shows the residual.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maediff.anomaly.sensitivity import SENSITIVITIES, Sensitivity, summarise_volumes
from maediff.anomaly.thresholds import conformal_threshold, scans_needed, smallest_alpha
from maediff.core.errors import InputError

FPRS = tuple(
    rate
    for power in range(-5, 0)
    for digit in (1, 1.5, 2, 3, 4, 5, 7)
    if (rate := float(f"{digit}e{power}")) <= 0.5
)
"""Voxel-wise false-positive rates for which every calibration stores a threshold."""
DEFAULT_FPR = 0.01
CALIBRATE = (
    "take thresholds from healthy scans with `maediff calibrate {model} --cohort HEALTHY -o NEW`"
)
IN_THRESHOLDS = "default threshold"
"""Unit of the anomaly map of a model with thresholds: 1 is its default threshold."""
OF_EACH_CONTRAST = "threshold of each contrast"
"""Unit of the combined map of a session: 1 is the threshold that each contrast was used with."""
IN_RESIDUAL = "residual"
"""Unit of the anomaly map of a model without thresholds: the post-processed residual, 0 to 1."""


@dataclass(frozen=True)
class Threshold:
    """A threshold of the anomaly map, and its origin.

    Args:
        value: threshold of the anomaly map, in the unit of the map.
        origin: rate and scans behind the value, as in `threshold_from` of detect.json.
        residual: the same threshold of the post-processed residual; equal to `value` for a model
            without a unit.
    """

    value: float
    origin: Mapping[str, Any]
    residual: float

    @classmethod
    def given(cls, value: float, scale: float | None = None) -> "Threshold":
        """Return a threshold that the caller chose.

        Args:
            value: threshold of the anomaly map.
            scale: residual at 1 in the unit of the map; None for a map of the residual itself.

        Raises:
            InputError: `value` is negative or not finite.
        """
        if not (math.isfinite(value) and value >= 0):
            raise InputError(
                f"`threshold={value}`: give a number of 0 or more; 1 is the model's default "
                "threshold"
            )
        return cls(value, {"given": True}, value * (1.0 if scale is None else scale))


@dataclass(frozen=True)
class Thresholds:
    """Thresholds from healthy scans.

    The stored values are residuals. A `Threshold` has the unit of the anomaly map, in which 1 is
    the default threshold.

    Args:
        model: name of the model, for messages.
        path: calibration.json.
        by_fpr: residual at the threshold, by voxel-wise false-positive rate.
        scan_scores: score of each healthy scan, as a residual; empty if no whole scan was healthy.
        source: kind of the healthy voxels behind `by_fpr`.
        n_scans: number of their scans.
        n_voxels: number of these voxels.
        default_fpr: rate that `default` uses.
        default_threshold: {value, chosen_on}, which overrides the default rate.
        scan_ml: volume in each healthy scan, ml, by rate; empty in calibrations of older versions.
        levels: {threshold, rule} of the levels of sensitivity; empty if `scan_ml` is.
    """

    model: str
    path: Path
    by_fpr: Mapping[float, float]
    scan_scores: tuple[float, ...]
    source: str
    n_scans: int
    n_voxels: int
    default_fpr: float = DEFAULT_FPR
    default_threshold: Mapping[str, Any] | None = None
    scan_ml: Mapping[float, tuple[float, ...]] = field(default_factory=dict)
    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def scale(self) -> float | None:
        """Residual at the default threshold, which is 1 in the unit of the anomaly map.

        None if this residual is 0, or if the default rate is not calibrated.
        """
        if self.default_threshold is not None:
            return float(self.default_threshold["value"])
        if not min(self.by_fpr) <= self.default_fpr <= max(self.by_fpr):
            return None
        return at_most(self.by_fpr, self.default_fpr)[1] or None

    def default(self) -> Threshold:
        """Return the model's own threshold, or the threshold for its default rate."""
        if self.default_threshold is None:
            return self.at_fpr(self.default_fpr)
        value = float(self.default_threshold["value"])
        chosen_on = self.default_threshold["chosen_on"]
        return self._scaled(value, {"chosen_on": chosen_on, **self.describe(value)})

    def at_sensitivity(self, sensitivity: str) -> Threshold:
        """Return the threshold of a level of sensitivity.

        Args:
            sensitivity: "default" is the model's default threshold. "low" is never below it, and
                "high" never above it.

        Raises:
            InputError: no such level, or the calibration holds no levels.
        """
        if sensitivity not in SENSITIVITIES:
            raise InputError(
                f"`sensitivity={sensitivity!r}`: choose one of {', '.join(SENSITIVITIES)}"
            )
        if sensitivity == "default":
            return self.default()
        if sensitivity not in self.levels:
            finding = "was made by an older version" if self.scan_scores else "has no healthy scan"
            raise InputError(
                f"{self.path}: {finding}, so it holds no threshold for "
                f"`sensitivity={sensitivity!r}`; {CALIBRATE.format(model=self.model)}, or use "
                "`threshold` or `fpr`"
            )
        level, limit = self.levels[sensitivity], self.default().residual
        value = (max if sensitivity == "low" else min)(float(level["threshold"]), limit)
        rule = level["rule"]
        if sensitivity == "high" and limit < float(level["threshold"]):
            rule = "the default of the model, which is more sensitive than this level"
        origin = {"sensitivity": sensitivity, "rule": rule}
        scans = {"source": self.source, "n_scans": self.n_scans}
        return self._scaled(value, {**origin, **scans, **self.describe(value)})

    def at_fpr(self, fpr: float) -> Threshold:
        """Return the threshold for a voxel-wise, empirical false-positive rate.

        The threshold is that of the highest calibrated rate that does not exceed `fpr`; `origin`
        records this rate.

        Raises:
            InputError: `fpr` is outside the calibrated rates, or its threshold is 0, at which
                every voxel with a residual would be detected.
        """
        lowest, highest = min(self.by_fpr), max(self.by_fpr)
        if not lowest <= fpr <= highest:
            raise InputError(
                f"`fpr={fpr}`: calibrated rates are {lowest} to {highest}; choose one of them, or "
                "use `threshold`"
            )
        rate, value = at_most(self.by_fpr, fpr)
        if value == 0:
            raise InputError(
                f"`fpr={fpr}`: the threshold of the rate {rate:g} is 0, so every voxel with a "
                "residual would be detected; choose a lower rate, or use `threshold`"
            )
        scans = {"source": self.source, "n_scans": self.n_scans, "n_voxels": self.n_voxels}
        return self._scaled(value, {"fpr": rate, **scans, **self.describe(value)})

    def at_scan_fpr(self, scan_fpr: float) -> Threshold:
        """Return the threshold that at most a share `scan_fpr` of new healthy scans exceeds.

        The guarantee is split conformal: it holds on average over calibration sets, for scans of
        the same population.

        Raises:
            InputError: there is no healthy calibration scan, or too few for this share.
        """
        if not self.scan_scores:
            raise InputError(
                f"{self.path}: holds no scores of healthy scans, so `scan_fpr={scan_fpr:g}` has "
                f"no basis; {CALIBRATE.format(model=self.model)}, or use `threshold` or `fpr`"
            )
        n_scans = len(self.scan_scores)
        if 0 < scan_fpr < 1 and scans_needed(scan_fpr) > n_scans:
            raise InputError(
                f"`scan_fpr={scan_fpr:g}`: {n_scans} healthy scan{'s' * (n_scans != 1)} cannot "
                f"guarantee this share; use {smallest_alpha(n_scans):.4g} or more, or "
                f"{CALIBRATE.format(model=self.model)} of {scans_needed(scan_fpr)} people"
            )
        try:
            value = conformal_threshold(self.scan_scores, scan_fpr)
        except ValueError as error:
            raise InputError(f"`scan_fpr={scan_fpr:g}`: {error}") from None
        scans = {"source": self.source, "n_scans": len(self.scan_scores)}
        return self._scaled(value, {"scan_fpr": scan_fpr, **scans, **self.describe(value)})

    def _scaled(self, residual: float, origin: Mapping[str, Any]) -> Threshold:
        """Return a threshold of the residual as a threshold of the anomaly map."""
        return Threshold(residual / (self.scale or 1.0), origin, residual)

    def describe(self, residual: float) -> dict[str, Any]:
        """Describe what a threshold detects in the healthy calibration scans.

        Args:
            residual: the threshold of the residual.

        Returns:
            `n_marked`, the number of scans in which it detects a region, of `n_scores` scans, and
            their ratio `share_flagged`; `healthy_ml_median` and `healthy_ml_p90`, the volume in
            the median scan and the volume that nine of ten scans do not exceed, in ml;
            `healthy_ml_exact`, False if these volumes are upper limits. Empty without healthy
            scans; without volumes for a calibration of an older version.
        """
        if not self.scan_scores:
            return {}
        n_flagged = sum(score > residual for score in self.scan_scores)
        counts = {
            "n_marked": n_flagged,
            "n_scores": len(self.scan_scores),
            "share_flagged": n_flagged / len(self.scan_scores),
        }
        return counts | self._describe_volumes(residual)

    def _describe_volumes(self, residual: float) -> dict[str, Any]:
        """Return the volumes of `describe`; empty without stored volumes for this threshold."""
        lower = [rate for rate in self.scan_ml if self.by_fpr[rate] <= residual]
        if not lower:
            return {}
        rate = min(lower)  # its threshold is the highest stored one that is not above `residual`
        volumes = [
            ml if score > residual else 0.0
            for ml, score in zip(self.scan_ml[rate], self.scan_scores, strict=True)
        ]
        summary = summarise_volumes(volumes)
        return {
            "healthy_ml_median": summary.median,
            "healthy_ml_p90": summary.nine_of_ten,
            "healthy_ml_exact": self.by_fpr[rate] == residual or not any(volumes),
        }


@dataclass(frozen=True)
class NoThresholds:
    """Thresholds of a model without a valid calibration: every request raises `reason`.

    Args:
        reason: the finding and the remedy.
    """

    reason: str

    @property
    def scale(self) -> None:
        """Return None: the anomaly map has no unit, and shows the residual."""
        return None

    def default(self) -> Threshold:
        """Raise an InputError with the reason."""
        raise InputError(self.reason)

    def at_fpr(self, fpr: float) -> Threshold:
        """Raise an InputError with the reason."""
        raise InputError(self.reason)

    def at_scan_fpr(self, scan_fpr: float) -> Threshold:
        """Raise an InputError with the reason."""
        raise InputError(self.reason)

    def at_sensitivity(self, sensitivity: str) -> Threshold:
        """Raise an InputError with the reason."""
        raise InputError(self.reason)

    def describe(self, residual: float) -> dict[str, Any]:
        """Return an empty dict: no healthy scan is known."""
        return {}


def check_one_choice(
    threshold: float | None,
    fpr: float | None,
    scan_fpr: float | None,
    sensitivity: Sensitivity | None,
) -> None:
    """Refuse more than one choice of a threshold.

    Args:
        threshold: see `Detector.threshold_for`.
        fpr: see `Detector.threshold_for`.
        scan_fpr: see `Detector.threshold_for`.
        sensitivity: see `Detector.threshold_for`.

    Raises:
        InputError: several of them are given.
    """
    if sum(value is not None for value in (threshold, fpr, scan_fpr, sensitivity)) > 1:
        raise InputError("`threshold`, `fpr`, `scan_fpr` and `sensitivity`: use only one of them")


def describe_healthy(origin: Mapping[str, Any]) -> str:
    """Describe in words what a threshold detects in the model's healthy calibration scans.

    Args:
        origin: `Threshold.origin`, or `threshold_from` of detect.json and summary.json.

    Returns:
        A phrase such as "0 ml in the median, at most 1.5 ml in nine of ten, regions in 3 of 18";
        empty if no healthy scan is known.

    Example:
        >>> describe_healthy({"n_marked": 1, "n_scores": 18})
        'regions in 1 of 18'
    """
    if not origin.get("n_scores"):
        return ""
    parts = []
    if "healthy_ml_median" in origin:
        limit = "" if origin.get("healthy_ml_exact", True) else "at most "
        parts = [
            f"{limit}{_format_ml(origin['healthy_ml_median'])} ml in the median",
            f"at most {_format_ml(origin['healthy_ml_p90'])} ml in nine of ten",
        ]
    return ", ".join([*parts, f"regions in {origin['n_marked']} of {origin['n_scores']}"])


def _format_ml(volume: float) -> str:
    """Return a volume with two significant digits, as in `0`, `0.064`, `1.5` and `12`."""
    return f"{volume:.2g}" if volume < 99.5 else f"{volume:.0f}"


def is_rate(value: Any) -> bool:
    """Return True for a rate within the rates that every calibration stores."""
    return isinstance(value, float) and FPRS[0] <= value <= FPRS[-1]


def at_most(thresholds: Mapping[float, float], fpr: float) -> tuple[float, float]:
    """Return the highest calibrated rate that does not exceed `fpr`, and its threshold."""
    rate = max(rate for rate in thresholds if rate <= fpr + 1e-12)
    return rate, thresholds[rate]
