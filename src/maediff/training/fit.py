"""One command from healthy scans to a calibrated model: preprocess, train, calibrate.

    OUT/           the model: a run folder with thresholds
    OUT-cohort/    the prepared scans

People of the split train train the network, and all other healthy people calibrate it.
A stopped call resumes: finished scans, training steps and the calibration are kept.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from maediff.anomaly.thresholds import smallest_alpha
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import find_modality, preprocess_scans
from maediff.cohort.splits import MIN_VAL, person_code
from maediff.core.config import take_group
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.models.calibrate import MAX_SCANS, calibrate_folder, unseen_healthy
from maediff.models.model import read_model
from maediff.preparation.config import PreparationConfig
from maediff.scans.inputs.find import find_scans
from maediff.training.train import check_request, train

logger = logging.getLogger(__name__)

ENOUGH_PEOPLE = 10
"""Number of people below which `FitReport.limits` states what cannot be guaranteed."""


@dataclass(frozen=True)
class FitReport:
    """The outcome of `fit`.

    Args:
        model: folder of the model.
        cohort: folder of the prepared scans.
        n_train: number of people that the network learned from.
        n_calibration: number of people whose scans gave the thresholds.
        n_failed: number of scans that could not be prepared.
        step: training steps done.
        steps: training steps planned.
        limits: what cannot be guaranteed with so few people; empty with ten or more.
    """

    model: Path
    cohort: Path
    n_train: int
    n_calibration: int
    n_failed: int
    step: int
    steps: int
    limits: tuple[str, ...]


def fit(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    method: str = "maediff",
    modality: str | None = None,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    max_time: str | int | float | None = None,
    preparation: PreparationConfig | None = None,
    run: RunOptions = DEFAULT_RUN,
) -> FitReport:
    """Make a model from healthy scans: prepare them, train a network, and calibrate it.

    Args:
        inputs: files, folders, BIDS datasets or manifests of healthy scans (see `find_scans`).
        out: folder of the model. The prepared scans are written beside it, to OUT-cohort.
        method: name of a trained method.
        modality: T1w, T2w or FLAIR; None takes it from the names of the scans.
        preset: see `train`.
        settings: see `train`.
        max_time: see `train`; it limits the training only.
        preparation: see `preprocess`.
        run: device, seed, workers, threads, engine, resume, overwrite and quiet; the other fields
            have no effect.

    Raises:
        InputError: too few people, `out` or OUT-cohort exists, or a cause for which
            one of the steps refuses its input.

    Example:
        >>> maediff.fit(["healthy_scans"], "model", modality="T1w")  # doctest: +SKIP
    """
    out = Path(out)
    cohort = out.with_name(f"{out.name}-cohort")
    paths = [Path(path) for path in inputs]
    # Unusable settings and inputs are refused before a folder is emptied.
    size = (preparation or PreparationConfig()).grid.size
    check = partial(
        check_request, method, out, size=size, settings=settings, max_time=max_time, run=run
    )
    preset = check(preset=preset, modality=modality or "")  # before the scans are searched
    refs = find_scans(paths, modality, unique=True)
    modality = modality or find_modality(refs)
    check(preset=preset, modality=modality)
    files = [*paths, *(file for ref in refs for file in ref.files)]
    for folder in (out, cohort):
        refuse_inputs_inside_output(folder, files)
    for folder in (out, cohort):
        fresh_folder(folder, overwrite=run.overwrite, resume=run.resume)
    resumed = replace(run, overwrite=False, resume=True, shard=None, devices=1, nodes=1)
    n_failed = preprocess_scans(
        refs, cohort, modality=modality, preparation=preparation, run=resumed
    )
    if not (cohort / "cohort.json").is_file():
        raise InputError(f"{cohort}: every scan failed; its qc.csv has the reasons")
    opened = Cohort.open(cohort)
    if not opened.split("train"):
        raise InputError(
            f"{cohort}: no subject is left to train on, because thresholds need {MIN_VAL}; give "
            f"scans of at least {MIN_VAL + 1} people, or a manifest with the column split"
        )
    # The calibration below uses more people than that of `train`.
    changed = {**(settings or {})}
    changed["train"] = {**take_group(changed, "train"), "calibration_scans": 0}
    result = train(
        method,
        cohort,
        out,
        preset=preset,
        settings=changed,
        max_time=max_time,
        run=resumed,
    )
    n_calibration = _calibrate(out, opened, run)
    n_train = len({person_code(row.dataset, row.subject) for row in opened.split("train")})
    limits = describe_limits(n_train, n_calibration)
    for limit in limits:
        logger.warning("%s", limit)
    return FitReport(
        model=out,
        cohort=cohort,
        n_train=n_train,
        n_calibration=n_calibration,
        n_failed=n_failed,
        step=int(result["step"]),
        steps=int(result["steps"]),
        limits=limits,
    )


def describe_limits(n_train: int, n_calibration: int) -> tuple[str, ...]:
    """Return what cannot be guaranteed for a model of few people; empty with ten or more.

    Args:
        n_train: number of people that the network learned from.
        n_calibration: number of people that calibrated it.
    """
    n_people = n_train + n_calibration
    if n_people >= ENOUGH_PEOPLE:
        return ()
    if not n_calibration:
        rate = "there are no thresholds; give `threshold` to detect, or calibrate the model"
    else:
        rate = (
            f"thresholds come from {n_calibration} "
            f"{'person' if n_calibration == 1 else 'people'}, so no rate of flagged healthy scans "
            f"below {smallest_alpha(n_calibration):.2g} can be guaranteed, and the default "
            "threshold may detect much in other healthy scans"
        )
    return (
        f"only {n_people} people: the network learned from {n_train}, so it may detect normal "
        "differences between people",
        f"only {n_people} people: {rate}",
        f"only {n_people} people: detection of lesions was not measured; score the model on "
        "scans with lesion masks (`maediff evaluate`)",
    )


def _calibrate(out: Path, cohort: Cohort, run: RunOptions) -> int:
    """Calibrate the model in `out`, unless its weights are calibrated; return the people used.

    Returns:
        0 if no healthy person is left, or if nothing was trained yet.
    """
    if not (out / "last" / "model.safetensors").is_file():
        return 0
    model = read_model(out)
    rows = unseen_healthy(cohort, model)
    if not rows:
        return 0
    path = out / "calibration.json"
    if path.is_file():
        stored = read_json(path, remedy="delete it")
        if stored.get("step") == model.step and stored.get("cohort_hash") == cohort.hash:
            return int(stored["n_scans"])
    calibration = calibrate_folder(
        out,
        cohort,
        rows=rows,
        device=resolve_device(run.device),
        seed=run.seed,
        max_scans=MAX_SCANS,
        quiet=run.quiet,
    )
    return 0 if calibration is None else int(calibration["n_scans"])
