"""Thresholds of a model from healthy scans, read from its calibration.json.

    fprs, thresholds             thresholds[i] is the smallest value that at most a share fprs[i]
                                 of the healthy voxels exceeds
    scan_scores                  score of each healthy scan, one scan per person
    default_fpr                  rate that `detect` uses by default; DEFAULT_FPR if absent
    default_threshold            {value, chosen_on}: overrides the default rate, in models whose
                                 healthy scans come from other scanners than most users' scans
    config, postprocess, step    settings that the thresholds are valid for

`maediff train` and `maediff calibrate` write the file.
A model with other settings has other residuals, so the stored thresholds are not valid for it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from maediff.anomaly.postprocess import PostprocessConfig, apply_changes
from maediff.anomaly.thresholds import conformal_threshold
from maediff.core.errors import InputError
from maediff.core.files import read_json

FPRS = tuple(
    rate
    for power in range(-5, 0)
    for digit in (1, 1.5, 2, 3, 4, 5, 7)
    if (rate := float(f"{digit}e{power}")) <= 0.5
)
"""Voxel-wise false-positive rates for which every calibration stores a threshold."""
DEFAULT_FPR = 0.01
RECALIBRATE = "use `threshold`, or calibrate the model again"
CALIBRATE = (
    "take thresholds from healthy scans with `maediff calibrate {model} --cohort HEALTHY -o NEW`"
)
POSTPROCESS = TypeAdapter(PostprocessConfig)


@dataclass(frozen=True)
class Threshold:
    """A threshold of the anomaly map, and its origin.

    Args:
        value: 0 to 1.
        origin: rate and scans behind the value, as in `threshold_from` of detect.json.
    """

    value: float
    origin: Mapping[str, Any]

    @classmethod
    def given(cls, value: float) -> "Threshold":
        """Return a threshold that the caller chose.

        Raises:
            InputError: `value` is no number from 0 to 1.
        """
        if not 0 <= value <= 1:
            raise InputError(f"`threshold={value}`: give a number from 0 to 1")
        return cls(value, {"given": True})


@dataclass(frozen=True)
class Thresholds:
    """Thresholds from healthy scans.

    Args:
        model: name of the model, for messages.
        path: calibration.json.
        by_fpr: threshold by voxel-wise false-positive rate.
        scan_scores: score of each healthy scan; empty if no whole scan was healthy.
        source: kind of the healthy voxels behind `by_fpr`.
        n_scans: number of their scans.
        n_voxels: number of these voxels.
        default_fpr: rate that `default` uses.
        default_threshold: {value, chosen_on}, which overrides the default rate.
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

    def default(self) -> Threshold:
        """Return the model's own threshold, or the threshold for its default rate."""
        if self.default_threshold is None:
            return self.at_fpr(self.default_fpr)
        value = float(self.default_threshold["value"])
        chosen_on = self.default_threshold["chosen_on"]
        return Threshold(value, {"chosen_on": chosen_on, **self._count_flagged(value)})

    def at_fpr(self, fpr: float) -> Threshold:
        """Return the threshold for a voxel-wise, empirical false-positive rate.

        The threshold is that of the highest calibrated rate that does not exceed `fpr`; `origin`
        records this rate.

        Raises:
            InputError: `fpr` is outside the calibrated rates.
        """
        lowest, highest = min(self.by_fpr), max(self.by_fpr)
        if not lowest <= fpr <= highest:
            raise InputError(
                f"`fpr={fpr}`: calibrated rates are {lowest} to {highest}; choose one of them, or "
                "use `threshold`"
            )
        rate, value = at_most(self.by_fpr, fpr)
        scans = {"source": self.source, "n_scans": self.n_scans, "n_voxels": self.n_voxels}
        return Threshold(value, {"fpr": rate, **scans, **self._count_flagged(value)})

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
        try:
            value = conformal_threshold(self.scan_scores, scan_fpr)
        except ValueError as error:
            raise InputError(
                f"`scan_fpr={scan_fpr:g}`: {error}; choose a possible share, or "
                f"{CALIBRATE.format(model=self.model)} of more people"
            ) from None
        scans = {"source": "healthy scans", "n_scans": len(self.scan_scores)}
        return Threshold(value, {"scan_fpr": scan_fpr, **scans})

    def _count_flagged(self, value: float) -> dict[str, int]:
        """Count the healthy calibration scans in which a threshold detects a region.

        Returns:
            `n_marked` and `n_scores`; empty without scores.
        """
        if not self.scan_scores:
            return {}
        n_flagged = sum(score > value for score in self.scan_scores)
        return {"n_marked": n_flagged, "n_scores": len(self.scan_scores)}


@dataclass(frozen=True)
class NoThresholds:
    """Thresholds of a model without a valid calibration: every request raises `reason`.

    Args:
        reason: the finding and the remedy.
    """

    reason: str

    def default(self) -> Threshold:
        """Raise an InputError with the reason."""
        raise InputError(self.reason)

    def at_fpr(self, fpr: float) -> Threshold:
        """Raise an InputError with the reason."""
        raise InputError(self.reason)

    def at_scan_fpr(self, scan_fpr: float) -> Threshold:
        """Raise an InputError with the reason."""
        raise InputError(self.reason)


@dataclass(frozen=True)
class Calibration:
    """The content of calibration.json.

    Args:
        path: the file.
        postprocess: post-processing that the thresholds are valid for; the model's default.
        default_fpr: rate that the model uses by default.
        stored: the whole content.
    """

    path: Path
    postprocess: PostprocessConfig
    default_fpr: float
    stored: Mapping[str, Any]

    def thresholds(
        self, model: str, config: Mapping[str, Any], step: int, postprocess: PostprocessConfig
    ) -> Thresholds | NoThresholds:
        """Return the thresholds, if they are valid for a model.

        Args:
            model: name of the model, for messages.
            config: settings of the method.
            step: training step of the weights.
            postprocess: post-processing that the model is used with.
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
                scan_scores=_read_scores(self.stored.get("scan_scores") or []),
                source=self.stored["source"],
                n_scans=self.stored["n_scans"],
                n_voxels=self.stored["n_voxels"],
                default_fpr=self.default_fpr,
                default_threshold=chosen,
            )
        except (ValueError, LookupError, TypeError) as error:
            return NoThresholds(f"{self.path}: damaged ({error}); {RECALIBRATE}")
        current = {"step": step, "postprocess": asdict(postprocess), **config}
        if changed := [key for key, value in current.items() if calibrated.get(key) != value]:
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
        InputError: the file, its post-processing or its default rate is damaged.
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
    rate = stored.get("default_fpr", DEFAULT_FPR)
    if not is_rate(rate):
        raise InputError(f"{path}: damaged (default_fpr {rate}); {RECALIBRATE}")
    return Calibration(path, postprocess, float(rate), stored)


def is_rate(value: Any) -> bool:
    """True for a rate within the rates that every calibration stores."""
    return isinstance(value, float) and FPRS[0] <= value <= FPRS[-1]


def is_chosen_threshold(value: Any) -> bool:
    """True for a valid `default_threshold`: a number above 0 and below 1, and its scans."""
    return (
        isinstance(value, Mapping)
        and value.keys() == {"value", "chosen_on"}
        and isinstance(value["chosen_on"], str)
        and isinstance(value["value"], float)
        and 0 < value["value"] < 1
    )


def at_most(thresholds: Mapping[float, float], fpr: float) -> tuple[float, float]:
    """Return the highest calibrated rate that does not exceed `fpr`, and its threshold."""
    rate = max(rate for rate in thresholds if rate <= fpr + 1e-12)
    return rate, thresholds[rate]


def _read_rates(fprs: Any, thresholds: Any) -> dict[float, float]:
    """Return thresholds by rate; ValueError or TypeError if the values are no such lists."""
    by_rate = dict(zip(map(float, fprs), map(float, thresholds), strict=True))
    if not by_rate:
        raise ValueError("it holds no rate")
    return by_rate


def _read_scores(values: Any) -> tuple[float, ...]:
    """Return scores; ValueError if the value is no list of numbers."""
    if not isinstance(values, list) or not all(isinstance(value, float | int) for value in values):
        raise ValueError("its scan_scores are no numbers")
    return tuple(values)
