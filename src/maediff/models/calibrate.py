"""Thresholds of a model from healthy scans.

    calibrate_folder    write FOLDER/calibration.json from the healthy scans of a cohort
                        (`maediff train` calls it)
    calibrate           copy a model, with thresholds from all healthy people of a cohort
                        (`maediff calibrate`)

The network does not change.
A threshold is valid only for scans like those that it was computed from, so another scanner needs
its own calibration.
"""

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maediff.anomaly.postprocess import (
    PostprocessConfig,
    check_symmetry,
    eroded_brain,
    residual_map,
)
from maediff.anomaly.reconstruction import blur_error, reconstruction_error
from maediff.anomaly.score import scan_score
from maediff.anomaly.sensitivity import (
    LOW_RATE,
    MAX_ML,
    detected_ml,
    find_default_rate,
    find_high_rate,
    find_low_threshold,
    has_guarantee,
)
from maediff.anomaly.thresholds import CALIBRATION_SCANS, threshold_from_healthy
from maediff.cohort.cohort import Cohort, Row
from maediff.cohort.splits import person_code
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import (
    fresh_folder,
    refuse_inputs_inside_output,
    write_json,
    write_text,
)
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.progress import Progress
from maediff.core.types import Map, Mask
from maediff.methods import predict_volume
from maediff.models.card import read_card
from maediff.models.card_text import render_card
from maediff.models.folder import write_config
from maediff.models.model import TrainedMethod, read_model
from maediff.models.reconstruction import HealthyReconstructions
from maediff.models.reference import model_and_settings
from maediff.models.thresholds import FPRS
from maediff.preparation.config import SHARED, PreparationConfig

logger = logging.getLogger(__name__)
# Files that only training and its report need.
NOT_COPIED = shutil.ignore_patterns("optimizer-*.pt", "report.html", ".*")
MAX_SCANS = 200
DEFAULT_RULE = f"0 ml in the median healthy scan, at most {MAX_ML:g} ml in nine of ten"
HIGH_RULE = f"at most {MAX_ML:g} ml in the median healthy scan"
LOW_RULE = f"at most {LOW_RATE:.0%} of new healthy scans are flagged, split conformal"


@hold_locks()
def calibrate(
    model: str | Path,
    cohort: str | Path,
    out: str | Path,
    *,
    postprocess: Mapping[str, Any] | None = None,
    max_scans: int = MAX_SCANS,
    run: RunOptions = DEFAULT_RUN,
) -> dict[str, Any]:
    """Write a copy of a model with thresholds from your own healthy scans.

    Args:
        model: see `read_model`. Settings at test, as in `RUN@t_test=125`, become the copy's own.
        cohort: a cohort of `maediff preprocess`; its healthy scans of all splits are used.
        out: folder of the copy.
        postprocess: changes to the model's post-processing, by field of `PostprocessConfig`; they
            become the copy's own.
        max_scans: healthy scans used at most, one per person, the first by name.
        run: device, seed, overwrite and quiet are used.

    Returns:
        The content of OUT/calibration.json.

    Raises:
        InputError: a mean of models; a cohort of another contrast or preparation; no healthy scan
            of a person that the model did not learn from; `out` exists.
    """
    cohort, out = Path(cohort), Path(out)
    trained = read_model(model)
    if trained.parts:
        raise InputError(f"{model}: the mean of models cannot be calibrated; give one model")
    opened = Cohort.open(cohort)
    differing = trained.preparation.differences(PreparationConfig.from_record(opened.meta))
    if differing:
        raise InputError(
            f"{cohort}: has another {', '.join(differing)} than the scans of {model}, so no "
            f"threshold would be valid; preprocess the scans with `like={str(model)!r}`"
        )
    rows = unseen_healthy(opened, trained)
    if not rows:
        raise InputError(
            f"{cohort}: no healthy scan of a person that {model} was not trained on; add scans "
            "with healthy=1 in the manifest"
        )
    seen = {row.subject for row in opened.rows if row.healthy and _has_seen(trained, row)}
    if seen:
        logger.warning(
            "%s: %d person(s) left out, because %s was trained on them: %s",
            cohort,
            len(seen),
            trained.name,
            ", ".join(sorted(seen)),
        )
    chosen = trained.with_postprocess(postprocess).postprocess
    refuse_inputs_inside_output(out, [trained.folder, cohort])
    fresh_folder(out, overwrite=run.overwrite)
    # The copy appears when it is complete: a killed calibration must leave no model that has the
    # thresholds of another. Its folder has the same name, which messages quote.
    hidden = out / f".copy.tmp-{os.getpid()}"
    copy = hidden / out.resolve().name
    try:
        shutil.copytree(trained.folder, copy, ignore=NOT_COPIED)
        record = trained.settings.record
        write_config(copy, {key: value for key, value in record.items() if key != "format"})
        calibration = calibrate_folder(
            copy,
            opened,
            rows=rows,
            device=resolve_device(run.device),
            postprocess=chosen,
            seed=run.seed,
            max_scans=max_scans,
            default_fpr=trained.chosen_fpr,
            quiet=run.quiet,
        )
        if calibration is None:
            raise InputError(
                f"{cohort}: erosion removes all of its brains; lower "
                "`postprocess.erosion_iterations`"
            )
        is_same = chosen == trained.postprocess and not model_and_settings(model)[1]
        _rename_card(copy, keep_scores=is_same)
        # config.json makes the folder a model, so it comes last.
        for path in sorted(copy.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, out / path.name)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    shutil.rmtree(hidden)
    return calibration


def _rename_card(folder: Path, *, keep_scores: bool) -> None:
    """Give the card of a copy the name of the copy, and describe its own thresholds.

    Args:
        folder: the copy; a run has no card.
        keep_scores: false if the copy has other settings than the model that was scored.
    """
    if not (folder / "card.json").is_file():
        return
    card = read_card(folder)
    card = replace(card, name=folder.name, scores=card.scores if keep_scores else ())
    write_json(folder / "card.json", asdict(card))
    write_text(folder / "MODEL_CARD.md", render_card(card, folder))


def unseen_healthy(cohort: Cohort, model: TrainedMethod) -> list[Row]:
    """Return the healthy scans, of any split, of people that the model did not learn from."""
    return [row for row in cohort.rows if row.healthy and not _has_seen(model, row)]


def _has_seen(model: TrainedMethod, row: Row) -> bool:
    """True if a model learned from the person of a scan."""
    return person_code(row.dataset, row.subject) in model.learned_from


def calibrate_folder(
    folder: str | Path,
    cohort: Cohort,
    *,
    rows: Sequence[Row] | None = None,
    device: str = "cpu",
    postprocess: PostprocessConfig | None = None,
    seed: int = 0,
    max_scans: int = CALIBRATION_SCANS,
    default_fpr: float | None = None,
    quiet: bool = False,
) -> dict[str, Any] | None:
    """Write the thresholds of a model to its calibration.json.

    If no scan is healthy, the healthy voxels come from lesion-free slices of patients, and the
    file records this. Such slices cannot replace healthy scans, so there are no scan scores then.

    Args:
        folder: folder of the model.
        cohort: the cohort.
        rows: scans to use; None uses the val split of `cohort`, without people that the model
            learned from.
        device: device of the network.
        postprocess: None uses the model's own post-processing.
        seed: seed of the noise at test.
        max_scans: scans used at most, one per person, the first by name.
        default_fpr: rate that `detect` uses by default, unless it detects more in the healthy
            scans than the rule of the level default allows. None uses the rate of this level.
        quiet: show no progress.

    Returns:
        The content of the file; None if there is no healthy scan and no lesion-free slice.

    Raises:
        InputError: `postprocess` has a symmetry, and the cohort is not registered.
    """
    model = read_model(folder, device)
    post = postprocess or model.postprocess
    registered = PreparationConfig.from_record(cohort.meta).registered
    check_symmetry(post, registered, str(cohort.path))
    if rows is None:
        rows = _unseen(cohort.split("val"), model)
    rows = sorted(rows, key=lambda row: row.name)
    healthy = [row for row in rows if row.healthy]
    # The first scan of each person, by name.
    people = {person_code(row.dataset, row.subject): row for row in reversed(healthy or rows)}
    n_scans = min(len(people), max_scans)
    people_text = "1 person" if n_scans == 1 else f"{n_scans} people"
    logger.info("calibrating %s on the scans of %s", Path(folder).name, people_text)
    scans = _measure_scans(
        model,
        cohort,
        list(reversed(people.values())),
        post,
        seed=seed,
        max_scans=max_scans,
        quiet=quiet,
    )
    if not scans:
        return None
    maps, brains = [scan.residual for scan in scans], [scan.inside for scan in scans]
    thresholds = [threshold_from_healthy(maps, brains, fpr, post.extent) for fpr in FPRS]
    calibration: dict[str, Any] = {
        "source": "healthy scans" if healthy else "lesion-free slices of patients",
        "n_scans": len(maps),
        "n_voxels": int(sum(brain.sum() for brain in brains)),
        "config": model.config,
        "postprocess": asdict(post),
        "preparation": {
            key: model.settings.cohort[key]
            for key in ("modality", *SHARED)
            if key in model.settings.cohort
        },
        "step": model.step,
        "cohort_hash": cohort.hash,
        "fprs": list(FPRS),
        "thresholds": thresholds,
        "scan_scores": [scan.score for scan in scans if scan.score is not None],
    }
    if default_fpr is not None:
        calibration["default_fpr"] = default_fpr
    if healthy:
        volumes = [
            detected_ml(
                scan.residual, scan.inside, scan.spacing_mm, scan.voxel_ml, thresholds, post
            )
            for scan in scans
        ]
        calibration["scan_ml"] = [list(row) for row in zip(*volumes, strict=True)]
        calibration |= _choose_levels(calibration)
        measured = [
            scan.errors for scan in scans if scan.errors and np.isfinite(scan.errors).all()
        ]
        if measured:
            errors, blur_errors = zip(*measured, strict=True)
            calibration["reconstruction"] = HealthyReconstructions(errors, blur_errors).record()
    write_json(model.folder / "calibration.json", calibration)
    return calibration


def _unseen(rows: Sequence[Row], model: TrainedMethod) -> list[Row]:
    """Return the scans of people that a model did not learn from; log how many others there are.

    A model that a training started from may have learned from people of the cohort's val split.
    """
    unseen = [row for row in rows if not _has_seen(model, row)]
    if len(unseen) < len(rows):
        logger.warning(
            "%d of %d val scans show people that the initial model learned from; they are not "
            "used for thresholds",
            len(rows) - len(unseen),
            len(rows),
        )
    return unseen


@dataclass(frozen=True, eq=False)
class _MeasuredScan:
    """A scan of a calibration.

    Args:
        residual: post-processed residual.
        inside: voxels that count: the eroded brain in lesion-free slices.
        spacing_mm: voxel size along x and y, and distance of slices.
        voxel_ml: volume of a voxel in the scan, ml.
        score: score of the scan; None if the scan is not healthy.
        errors: `reconstruction_error` and `blur_error`; None if the scan is not healthy.
    """

    residual: Map
    inside: Mask
    spacing_mm: tuple[float, float, float]
    voxel_ml: float
    score: float | None = None
    errors: tuple[float, float] | None = None


def _measure_scans(
    model: TrainedMethod,
    cohort: Cohort,
    rows: Sequence[Row],
    post: PostprocessConfig,
    *,
    seed: int,
    max_scans: int,
    quiet: bool,
) -> list[_MeasuredScan]:
    """Apply a model to the first `max_scans` scans that have a voxel to count."""
    scans: list[_MeasuredScan] = []
    with Progress("calibrate", min(len(rows), max_scans), quiet=quiet) as progress:
        for row in rows:
            if len(scans) == max_scans:
                break
            scan = cohort.load(row)
            inside = eroded_brain(scan.brain, post) & scan.lesion_free[:, None, None]
            if not inside.any():
                continue
            residual, reference = predict_volume(
                model.method,
                scan.images,
                scan.brain,
                scan.slice_ids,
                seed=seed,
                device=model.device,
                name=f"{model.name}, scan {row.name}",
            )
            residual = residual_map(residual, scan.brain, scan.spacing_mm, post, scan.images)
            score = errors = None
            if row.healthy:
                score = scan_score(residual, scan.brain, scan.spacing_mm, post)
                error = reconstruction_error(scan.images, reference, scan.brain)
                errors = error, blur_error(scan.images, scan.brain)
            measured = _MeasuredScan(
                residual, inside, scan.spacing_mm, scan.voxel_ml, score, errors
            )
            scans.append(measured)
            progress.advance(row.name, detail=True)
    return scans


def _choose_levels(calibration: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of calibration.json about the levels of sensitivity.

    Args:
        calibration: rates, thresholds, scan_scores and scan_ml; default_fpr is optional.

    Returns:
        `sensitivity`; `default_fpr`, if it was given; and `default_threshold`, if no stored rate
        detects as little as the level default allows.
    """
    thresholds = dict(zip(calibration["fprs"], calibration["thresholds"], strict=True))
    volumes = {  # a threshold of 0 would detect every voxel with a residual
        rate: ml
        for rate, ml in zip(calibration["fprs"], calibration["scan_ml"], strict=True)
        if thresholds[rate] > 0
    }
    scores = calibration["scan_scores"]
    none_flagged = {"threshold": float(max(scores)), "rule": "no healthy scan is flagged"}
    levels: dict[str, Any] = {
        level: none_flagged
        if rate is None
        else {"threshold": thresholds[rate], "fpr": rate, "rule": rule}
        for level, rate, rule in (
            ("default", find_default_rate(volumes), DEFAULT_RULE),
            ("high", find_high_rate(volumes), HIGH_RULE),
        )
    }
    levels["low"] = none_flagged
    if has_guarantee(len(scores)):
        levels["low"] = {"threshold": find_low_threshold(scores), "rule": LOW_RULE}
    entries: dict[str, Any] = {"sensitivity": levels}
    rate = levels["default"].get("fpr")
    if rate is None:
        chosen_on = "its healthy scans, so that none of them is flagged"
        entries["default_threshold"] = {"value": none_flagged["threshold"], "chosen_on": chosen_on}
    elif "default_fpr" in calibration:
        entries["default_fpr"] = min(rate, calibration["default_fpr"])
    return entries
