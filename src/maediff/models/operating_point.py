"""Operating points of a run from healthy val scans, kept beside the weights.

    RUN/calibration.json   thresholds[i]: the smallest value that at most a share fprs[i] of the healthy voxels exceeds
                           scan_scores: the score of each healthy scan, one scan a person
                           default_fpr: the rate of `detect` where nobody names one; absent: DEFAULT_FPR
                           default_threshold: {value, chosen_on}, which stands before that rate in shipped models whose
                           healthy scans are of other scanners than those of most users; absent: none

Written when training ends, read by `detect --fpr` (voxel-wise, empirical) and `detect --scan-fpr` (split conformal: at
most that share of new healthy scans of the same population is flagged, see `calibration`). It holds for the test
settings and post-processing that it names; the latter is what `detect` and `evaluate` take unless told otherwise.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from maediff.anomaly.postprocess import (
    DEFAULT,
    PostprocessConfig,
)
from maediff.anomaly.thresholds import (
    conformal_threshold,
)
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.models.folder import complete, read_config
from maediff.models.reference import run_folders, split_mean, split_reference

logger = logging.getLogger(__name__)
FPRS = tuple(
    rate
    for power in range(-5, 0)
    for digit in (1, 1.5, 2, 3, 4, 5, 7)
    if (rate := float(f"{digit}e{power}")) <= 0.5
)
DEFAULT_FPR = 0.01
POST = TypeAdapter(PostprocessConfig)
ANEW = "give --threshold, or finish the training anew"
OWN = "take thresholds from healthy scans with `maediff calibrate {run} --cohort HEALTHY -o NEW`"


def own_postprocess(reference: str | Path) -> PostprocessConfig:
    """The post-processing that a model was calibrated with; the default where there is no calibration, and for a mean
    of models that differ in it.

    Raises:
        InputError: a calibration that cannot be read.
    """
    found = set()
    for folder in run_folders(reference):
        path, remedy = (
            folder / "calibration.json",
            "delete it to go on with the default post-processing",
        )
        if not path.exists():
            found.add(DEFAULT)
            continue
        stored = read_json(path, remedy=remedy).get("postprocess")
        try:
            found.add(POST.validate_python(stored))
        except ValueError:
            raise InputError(
                f"{path}: its post-processing is missing or damaged ({stored}); {remedy}"
            ) from None
    return found.pop() if len(found) == 1 else DEFAULT


def own_fpr(reference: str | Path) -> float:
    """The share of healthy voxels above the threshold where nobody names one: the model's own, or DEFAULT_FPR.

    Raises:
        InputError: a calibration that cannot be read, or a rate in it that is none.
    """
    path = run_folders(reference)[0] / "calibration.json"
    stored = (
        read_json(path, remedy=ANEW).get("default_fpr", DEFAULT_FPR)
        if path.is_file()
        else DEFAULT_FPR
    )
    if not is_rate(stored):
        raise InputError(f"{path}: damaged (default_fpr {stored}); {ANEW}")
    return float(stored)


def is_rate(value: Any) -> bool:
    """Whether it is a rate that calibrations hold a threshold for."""
    return isinstance(value, float) and FPRS[0] <= value <= FPRS[-1]


def at_most(thresholds: Mapping[float, float], fpr: float) -> tuple[float, float]:
    """The highest calibrated rate that is no more than `fpr`, and its threshold; `thresholds` by rate."""
    rate = max(rate for rate in thresholds if rate <= fpr + 1e-12)
    return rate, thresholds[rate]


def threshold_at(
    run: str, config: dict[str, Any], fpr: float, *, step: int, post: PostprocessConfig = DEFAULT
) -> tuple[float, dict[str, Any]]:
    """The threshold for a voxel-wise, empirical false-positive rate, and where it comes from.

    `fpr` of the latter is the highest calibrated rate that is no more than what was asked for; `n_marked` of the
    `n_scores` healthy calibration scans have something marked at that threshold.

    Args:
        config: the method's config as it will predict, `step` that of its weights and `post` what follows; they
            have to be what was calibrated.

    Raises:
        InputError: no calibration, one of other test settings, or a rate outside its range.
    """
    stored, path = _stored(run, config, step, post)
    try:
        thresholds = dict(
            zip(map(float, stored["fprs"]), map(float, stored["thresholds"]), strict=True)
        )
        about = {key: stored[key] for key in ("source", "n_scans", "n_voxels")}
        scores = [float(score) for score in stored.get("scan_scores") or []]
        lowest, highest = min(thresholds), max(thresholds)
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); {ANEW}") from None
    if not lowest <= fpr <= highest:
        raise InputError(
            f"--fpr {fpr}: calibrated rates are {lowest} to {highest}; give one of them, or --threshold"
        )
    rate, threshold = at_most(thresholds, fpr)
    return threshold, {"fpr": rate, **about, **_marked(scores, threshold)}


def own_threshold(
    run: str, config: dict[str, Any], *, step: int, post: PostprocessConfig = DEFAULT
) -> tuple[float, dict[str, Any]]:
    """The threshold where nobody names one or a rate, and where it comes from: the model's own, chosen on scans with
    lesions (`chosen_on` says which), or that of its own rate.

    Args: as for `threshold_at`.

    Raises:
        InputError: as for `threshold_at`; a threshold that is none.
    """
    of_rate = threshold_at(run, config, own_fpr(run), step=step, post=post)
    stored, path = _stored(run, config, step, post)
    own = stored.get("default_threshold")
    if own is None:
        return of_rate
    if not is_own_threshold(own):
        raise InputError(f"{path}: damaged (default_threshold {own}); {ANEW}")
    return own["value"], {
        "chosen_on": own["chosen_on"],
        **_marked(stored.get("scan_scores") or [], own["value"]),
    }


def is_own_threshold(own: Any) -> bool:
    """Whether it is a `default_threshold`: a value between 0 and 1, and on what it was chosen."""
    return (
        isinstance(own, Mapping)
        and own.keys() == {"value", "chosen_on"}
        and isinstance(own["chosen_on"], str)
        and isinstance(own["value"], float)
        and 0 < own["value"] < 1
    )


def _marked(scores: Sequence[float], threshold: float) -> dict[str, int]:
    """How many of the healthy calibration scans have something marked; nothing where there is none."""
    return (
        {"n_marked": sum(score > threshold for score in scores), "n_scores": len(scores)}
        if scores
        else {}
    )


def threshold_for_scans(
    run: str,
    config: dict[str, Any],
    scan_fpr: float,
    *,
    step: int,
    post: PostprocessConfig = DEFAULT,
) -> tuple[float, dict[str, Any]]:
    """The threshold that at most a share `scan_fpr` of new healthy scans exceeds, and where it comes from.

    Raises:
        InputError: as for `threshold_at`; no healthy val scan, or too few of them for this rate.
    """
    stored, path = _stored(run, config, step, post)
    scores = stored.get("scan_scores")
    if not isinstance(scores, list) or not scores:
        raise InputError(
            f"{path}: holds no scores of healthy scans, so --scan-fpr has nothing to stand on; "
            f"{OWN.format(run=run)}, or give --threshold or --fpr"
        )
    if not all(isinstance(score, float | int) for score in scores):
        raise InputError(f"{path}: damaged (its scan_scores are no numbers); {ANEW}")
    try:
        threshold = conformal_threshold(scores, scan_fpr)
    except ValueError as error:
        raise InputError(
            f"--scan-fpr {scan_fpr:g}: {error}; give one that can, or {OWN.format(run=run)} of more people"
        ) from None
    return threshold, {"scan_fpr": scan_fpr, "source": "healthy scans", "n_scans": len(scores)}


def _stored(
    run: str, config: dict[str, Any], step: int, post: PostprocessConfig
) -> tuple[dict[str, Any], Path]:
    """RUN/calibration.json, if it is of these settings."""
    if len(split_mean(run)) > 1:
        raise InputError(
            f"{run}: the mean of runs is not calibrated; give --threshold instead of a rate"
        )
    path = split_reference(run)[0] / "calibration.json"
    if not path.is_file():
        raise InputError(
            f"{path}: absent, because the run saw no healthy val scan, or was trained with train.calibration_scans=0; "
            f"give --threshold, or {OWN.format(run=run)}"
        )
    stored = read_json(path, remedy=ANEW)
    try:
        known = {
            "step": stored["step"],
            "postprocess": asdict(POST.validate_python(stored["postprocess"])),
        }
        known |= complete(read_config(path.parent), dict(stored["config"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error}); {ANEW}") from None
    wanted = {"step": step, "postprocess": asdict(post), **config}
    if changed := [key for key, value in wanted.items() if known.get(key) != value]:
        raise InputError(
            f"{path}: was made with other settings of {', '.join(changed)}; give --threshold, or {OWN.format(run=run)}"
        )
    return stored, path
