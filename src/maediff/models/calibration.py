"""The calibration of a model: the content of calibration.json, read and checked.

    fprs, thresholds             thresholds[i] is the smallest residual at which masks hold a
                                 share of at most fprs[i] of the healthy voxels
    scan_scores                  score of each healthy scan, one scan per person
    scan_ml                      scan_ml[i][j] is the volume that thresholds[i] detects in the
                                 healthy scan j, ml; a scan is flagged if it is above 0
    sensitivity                  {level: {threshold, rule}} for the levels low, default and high
                                 (`anomaly.sensitivity`)
    default_fpr                  rate that overrides the level default; without both, DEFAULT_FPR
    default_threshold            {value, chosen_on}: overrides the default rate, in models whose
                                 healthy scans come from other scanners than most users' scans
    reconstruction               errors of the reconstruction in the healthy scans
                                 (`models.reconstruction`)
    config, postprocess,         settings, preparation and training step that the thresholds are
    preparation, step            valid for; older versions store no preparation

`maediff train` and `maediff calibrate` write the file.
A model with other settings has other residuals, so the stored thresholds are not valid for it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import inf, isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from maediff.anomaly.postprocess import PostprocessConfig, apply_changes
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.models.reconstruction import HealthyReconstructions, read_reconstructions
from maediff.models.thresholds import (
    CALIBRATE,
    DEFAULT_FPR,
    NoThresholds,
    Thresholds,
    is_rate,
)
from maediff.preparation.config import PreparationConfig

RECALIBRATE = "use `threshold`, or calibrate the model again"
MAX_THRESHOLD = 1.0
"""Highest residual, and so the highest threshold of the residual and score of a scan."""
POSTPROCESS = TypeAdapter(PostprocessConfig)


@dataclass(frozen=True)
class Calibration:
    """The content of calibration.json.

    Args:
        path: the file.
        postprocess: post-processing that the thresholds are valid for; the model's default.
        default_fpr: rate that the model uses by default.
        stored: the whole content.
        reconstructions: errors in the healthy scans; None if the file stores none.
    """

    path: Path
    postprocess: PostprocessConfig
    default_fpr: float
    stored: Mapping[str, Any]
    reconstructions: HealthyReconstructions | None = None

    @property
    def chosen_fpr(self) -> float | None:
        """Default rate that a person chose for the model; None if its healthy scans give it."""
        return self.default_fpr if "default_fpr" in self.stored else None

    def thresholds(
        self,
        model: str,
        config: Mapping[str, Any],
        step: int,
        postprocess: PostprocessConfig,
        preparation: PreparationConfig,
    ) -> Thresholds | NoThresholds:
        """Return the thresholds, if they are valid for a model.

        Args:
            model: name of the model, for messages.
            config: settings of the method.
            step: training step of the weights.
            postprocess: post-processing that the model is used with.
            preparation: preparation of the model's scans.
        """
        chosen = self.stored.get("default_threshold")
        if chosen is not None and not is_chosen_threshold(chosen):
            return NoThresholds(
                f"{self.path}: damaged (default_threshold {chosen}); {RECALIBRATE}"
            )
        try:
            calibrated = {
                "step": self.stored["step"],
                "postprocess": asdict(self.postprocess),
                **dict(self.stored["config"]),
            }
            thresholds = Thresholds(
                model=model,
                path=self.path,
                by_fpr=_read_rates(self.stored["fprs"], self.stored["thresholds"]),
                scan_scores=(scores := _read_scores(self.stored.get("scan_scores") or [])),
                source=_read_source(self.stored),
                n_scans=_read_count(self.stored, "n_scans"),
                n_voxels=_read_count(self.stored, "n_voxels"),
                default_fpr=self.default_fpr,
                default_threshold=chosen,
                scan_ml=_read_volumes(self.stored, len(scores)),
                levels=_read_levels(self.stored.get("sensitivity") or {}),
            )
            prepared = self.stored.get("preparation")
            unlike: list[str] = []
            if prepared is not None:
                unlike = PreparationConfig.from_record(prepared).differences(preparation)
        except (ValueError, LookupError, TypeError) as error:
            return NoThresholds(f"{self.path}: damaged ({error}); {RECALIBRATE}")
        current = {"step": step, "postprocess": asdict(postprocess), **config}
        changed = [key for key, value in current.items() if calibrated.get(key) != value]
        if changed == ["step"] and not unlike:
            return NoThresholds(
                f"{self.path}: is of an earlier training step than the weights; finish the "
                "training with `resume=True`, or "
                f"{CALIBRATE.format(model=model)}"
            )
        if changed := [*changed, *unlike]:
            return NoThresholds(
                f"{self.path}: was made with other settings of {', '.join(changed)}; use "
                f"`threshold`, or {CALIBRATE.format(model=model)}"
            )
        return thresholds

    def completed(
        self, config: Mapping[str, Any], first_steps: Mapping[str, float]
    ) -> "Calibration":
        """Return the calibration with its stored settings in their present form.

        Args:
            config: complete settings of the method.
            first_steps: fields of `PostprocessConfig` that older versions stored with the
                settings of the method.
        """
        return replace(
            self,
            postprocess=apply_changes(self.postprocess, first_steps),
            stored={**self.stored, "config": config},
        )


def read_calibration(folder: Path) -> Calibration | None:
    """Read FOLDER/calibration.json; return None if there is no such file.

    Raises:
        InputError: the file, its post-processing, its default rate or its reconstruction is
            damaged.
    """
    path = folder / "calibration.json"
    if not path.exists():
        return None
    remedy = "delete it to use the default post-processing, or calibrate the model again"
    stored = read_json(path, remedy=remedy)
    try:
        postprocess = POSTPROCESS.validate_python(stored.get("postprocess"))
    except ValueError:
        raise InputError(
            f"{path}: its post-processing is missing or damaged ({stored.get('postprocess')}); "
            f"{remedy}"
        ) from None
    levels = stored.get("sensitivity")
    level = levels.get("default") if isinstance(levels, Mapping) else None
    rate = level.get("fpr", DEFAULT_FPR) if isinstance(level, Mapping) else DEFAULT_FPR
    rate = stored.get("default_fpr", rate)
    if not is_rate(rate):
        raise InputError(f"{path}: damaged (default_fpr {rate}); {RECALIBRATE}")
    try:
        reconstructions = read_reconstructions(stored)
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); {RECALIBRATE}") from None
    return Calibration(path, postprocess, float(rate), stored, reconstructions)


def is_chosen_threshold(value: Any) -> bool:
    """Return True for a valid `default_threshold`: a number above 0 and below 1, and its scans."""
    return (
        isinstance(value, Mapping)
        and value.keys() == {"value", "chosen_on"}
        and isinstance(value["chosen_on"], str)
        and isinstance(value["value"], float)
        and 0 < value["value"] < 1
    )


def _read_rates(fprs: Any, thresholds: Any) -> dict[float, float]:
    """Return the threshold of each rate; ValueError if the values are no such lists."""
    for values in (fprs, thresholds):
        if not isinstance(values, list) or not all(
            type(value) in (float, int) for value in values
        ):
            raise ValueError("its fprs and thresholds are no lists of numbers")
    if len(fprs) != len(thresholds) or len(set(fprs)) != len(fprs):
        raise ValueError(
            f"{len(thresholds)} thresholds for {len(set(fprs))} different rates in {len(fprs)}"
        )
    by_rate = dict(zip(map(float, fprs), map(float, thresholds), strict=True))
    _check_rates(by_rate)
    return by_rate


def _read_source(stored: Mapping[str, Any]) -> str:
    """Return the kind of the healthy voxels; ValueError or LookupError if it is no text."""
    if not isinstance(stored["source"], str):
        raise ValueError(f"source {stored['source']!r}, expected a text")
    return stored["source"]


def _read_count(stored: Mapping[str, Any], name: str) -> int:
    """Return an entry that counts; ValueError or LookupError if it is no whole number from 0."""
    value = stored[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} {value!r}, expected a whole number of 0 or more")
    return value


def _check_rates(by_rate: Mapping[float, float]) -> None:
    """Refuse thresholds that no calibration writes.

    A threshold of 0 is possible for a high rate: residuals of one sign are 0 in many voxels.

    Args:
        by_rate: threshold of the residual by voxel-wise false-positive rate.

    Raises:
        ValueError: no rate, a rate outside of 0 to 1, a threshold that is negative, above
            MAX_THRESHOLD or no number, or a higher threshold for a higher rate.
    """
    if not by_rate:
        raise ValueError("it holds no rate")
    rates = sorted(by_rate)
    if not all(0 < rate < 1 for rate in rates):
        raise ValueError(f"rates {rates[0]:g} to {rates[-1]:g}, expected between 0 and 1")
    for rate, threshold in by_rate.items():
        if not 0 <= threshold <= MAX_THRESHOLD:
            raise ValueError(
                f"threshold {threshold:g} for the rate {rate:g}, expected 0 to {MAX_THRESHOLD:g}"
            )
    for rate, higher in pairwise(rates):
        if by_rate[rate] < by_rate[higher]:
            raise ValueError(
                f"threshold {by_rate[higher]:g} for the rate {higher:g}, but only "
                f"{by_rate[rate]:g} for the lower rate {rate:g}"
            )


def _read_volumes(stored: Mapping[str, Any], n_scans: int) -> dict[float, tuple[float, ...]]:
    """Return the volume in each healthy scan by rate; ValueError for other values."""
    rows = stored.get("scan_ml") or []
    if not rows:
        return {}
    values = [_read_scores(row, inf) for row in rows]
    volumes = dict(zip(map(float, stored["fprs"]), values, strict=True))
    if any(len(row) != n_scans for row in volumes.values()):
        raise ValueError(f"its scan_ml has not {n_scans} scans")
    return volumes


def _read_levels(levels: Any) -> dict[str, dict[str, Any]]:
    """Return the levels of sensitivity; ValueError, LookupError or TypeError for other values."""
    read: dict[str, dict[str, Any]] = {
        name: {"threshold": float(level["threshold"]), "rule": str(level["rule"])}
        for name, level in dict(levels).items()
    }
    for name, level in read.items():
        if not 0 <= level["threshold"] <= MAX_THRESHOLD:
            raise ValueError(
                f"threshold {level['threshold']:g} of the sensitivity {name}, expected 0 to "
                f"{MAX_THRESHOLD:g}"
            )
    return read


def _read_scores(values: Any, highest: float = MAX_THRESHOLD) -> tuple[float, ...]:
    """Return scores or volumes; ValueError if one is no number from 0 to `highest`."""
    if not isinstance(values, list) or not all(isinstance(value, float | int) for value in values):
        raise ValueError("its scan_scores or scan_ml are no numbers")
    if wrong := [value for value in values if not (0 <= value <= highest and isfinite(value))]:
        raise ValueError(f"scan score or volume {wrong[0]:g}, expected 0 to {highest:g}")
    return tuple(map(float, values))
