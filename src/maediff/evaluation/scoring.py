"""Scores of everything that returns a residual for a scan, and their summary.

    residual -> anomaly map -> AUPRC
        -> mask at the threshold from labelled calibration scans  -> Dice, lesions, false positives
        -> mask at the threshold from healthy voxels              -> Dice, rates on healthy scans
        -> mask at the threshold from scores of healthy scans     -> Dice, flagged scans
        -> mask at the best threshold of the scored scans         -> oracle Dice

Everything is computed twice: post-processed, and from the raw residual (`_unfiltered`).
All contenders, baselines included, have the same post-processing, except for the first steps and
the growth of regions of a model's own.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, field, replace
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed, parallel_config
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maediff.anomaly.postprocess import (
    DEFAULT,
    PostprocessConfig,
    anomaly_mask,
    residual_map,
    without_own_steps,
)
from maediff.anomaly.snapshots import Snapshot, pick_slices, save_slices
from maediff.cohort.cohort import SubjectSlices
from maediff.core.errors import InputError
from maediff.core.processes.process import pool_settings
from maediff.core.progress import Progress
from maediff.core.types import Map
from maediff.evaluation.measures import (
    SCORE_COLUMNS,
    LesionList,
    measure,
    pooled_curve,
)
from maediff.evaluation.metrics import (
    lesion_counts,
    lesion_outside_brain,
    reconstruction_l1,
    reconstruction_psnr,
    reconstruction_ssim,
)
from maediff.evaluation.summary import UNFILTERED, summarise
from maediff.evaluation.thresholds import Case, MethodThresholds, choose_thresholds

Predict = Callable[[SubjectSlices], tuple[Map, Map | None]]
"""A scan -> its residual and, if there is one, its healthy reference, both in [0, 1]."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ScoringConfig:
    """Choices of an evaluation; `maediff compare` writes `evaluate.` before their names.

    Args:
        fpr: largest share of healthy voxels in masks at the healthy threshold; our choice.
        scan_fpr: share of new healthy scans above the conformal threshold, as an average; our
            choice.
        n_snapshots: subjects whose slices are stored for the report: the first by name, with and
            without a lesion in turn.
        postprocess: post-processing of all residuals. None: the post-processing of the runs
            (`TrainedMethod.postprocess`) if all runs have the same, otherwise the default.
    """

    fpr: float = 0.01
    scan_fpr: float = 0.1
    n_snapshots: int = 8
    postprocess: PostprocessConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fpr < 1 or not 0 < self.scan_fpr < 1:
            raise ValueError(
                f"fpr {self.fpr} and scan_fpr {self.scan_fpr} are shares: "
                "give numbers between 0 and 1"
            )
        if self.n_snapshots < 0:
            raise ValueError(
                f"n_snapshots {self.n_snapshots} is a number of subjects: give 0 or more"
            )


DEFAULT_SCORING = ScoringConfig()


@plain_dataclass(frozen=True, kw_only=True)
class Contender:
    """A method to score.

    Args:
        name: name in tables, unique.
        group: name that runs share if they differ in the seed only.
        predict: returns residual and healthy reference of a scan.
        seed: training seed; None without one.
        trained: False for a baseline.
        filtered: True if the residuals are post-processed already. They get no second blur or
            filter, and there are no scores of the raw residual.
        own_steps: settings of the post-processing that belong to this contender (`OWN_STEPS`):
            the first steps, which apply to the raw residual too, and the growth of regions.
    """

    name: str
    group: str
    predict: Predict
    seed: int | None = None
    trained: bool = True
    filtered: bool = False
    own_steps: Mapping[str, Any] = field(default_factory=dict)


class Scores(NamedTuple):
    """Results of `score`.

    Args:
        rows: rows of scores.csv, one per contender and scored scan.
        summary: the part of summary.json that follows from the rows.
        curves: content of curves.json.
    """

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    curves: dict[str, Any]


@plain_dataclass(frozen=True)
class _Outcome:
    """Results of one contender.

    Args:
        rows: its rows of scores.csv.
        extra: its values in summary.json that do not follow from the rows.
        curves: its part of curves.json.
    """

    rows: list[dict[str, Any]]
    extra: dict[str, Any]
    curves: dict[str, Any]


def score(
    contenders: Sequence[Contender],
    calibrate: Sequence[SubjectSlices],
    scored: Sequence[SubjectSlices],
    config: ScoringConfig = DEFAULT_SCORING,
    *,
    seed: int = 0,
    slices: Path | None = None,
    progress: Progress | None = None,
    workers: int = 1,
    threads: int = 1,
) -> Scores:
    """Score all contenders on `scored`.

    Args:
        contenders: the methods to score.
        calibrate: scans that thresholds are chosen on. They may be `scored` itself, which makes
            Dice and rates optimistic.
        scored: scans that are measured.
        config: rates, post-processing and number of snapshots.
        seed: seed of the bootstrap.
        slices: folder for the slices that a report shows; None writes no slices.
        progress: advances by one for each scan that a contender predicted.
        workers: contenders scored at once, each in a process. 1 uses this process.
        threads: threads of each process, if there are several.

    Raises:
        InputError: a residual is not finite or has another shape than its scan.
    """
    rows: list[dict[str, Any]] = []
    extras: dict[str, dict[str, Any]] = {}
    curves: dict[str, Any] = {}
    n_scans = len({id(scan) for scan in [*calibrate, *scored]})
    in_process = workers == 1
    arguments = (calibrate, scored, config, slices)
    reported = progress if in_process else None
    do = delayed(_score_contender)
    tasks = (do(contender, *arguments, reported) for contender in contenders)
    settings = {"backend": "sequential"} if in_process else pool_settings(threads)
    with parallel_config(n_jobs=workers, **settings):
        outcomes = Parallel(return_as="generator")(tasks)
        for contender, outcome in zip(contenders, outcomes, strict=True):
            rows += outcome.rows
            extras[contender.name], curves[contender.name] = outcome.extra, outcome.curves
            if progress is not None:
                text = _describe_outcome(contender, outcome)
                progress.advance(text, by=0 if in_process else n_scans)
    return Scores(rows, summarise(rows, extras, seed), curves)


def _score_contender(
    contender: Contender,
    calibrate: Sequence[SubjectSlices],
    scored: Sequence[SubjectSlices],
    config: ScoringConfig,
    slices: Path | None,
    progress: Progress | None,
) -> _Outcome:
    """Score one contender, and write the slices that a report shows."""
    scans = {id(scan): scan for scan in [*calibrate, *scored]}  # a scan may be in both
    predictions = {}
    for key, scan in scans.items():
        predictions[key] = predict_safely(contender, scan)
        if progress is not None:
            progress.advance(f"{contender.name}, {scan.name}", detail=True)
    rows = [_describe_scan(contender, scan, predictions[id(scan)][1]) for scan in scored]
    extra: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    chosen = replace(config.postprocess or DEFAULT, **contender.own_steps)
    raw = replace(
        chosen, median_size=1, smooth_mm=(), times_intensity=0.0, symmetry=0.0, extent=1.0
    )
    variants = (
        {"": without_own_steps(raw)} if contender.filtered else {"": chosen, UNFILTERED: raw}
    )
    for suffix, postprocess in variants.items():
        cases = {
            key: Case(
                scan=scan,
                anomaly=residual_map(
                    predictions[key][0], scan.brain, scan.spacing_mm, postprocess, scan.images
                ),
            )
            for key, scan in scans.items()
        }
        scored_cases = [cases[id(scan)] for scan in scored]
        choice = choose_thresholds(
            [cases[id(scan)] for scan in calibrate],
            scored_cases,
            config.fpr,
            config.scan_fpr,
            postprocess,
        )
        lesions: dict[str, LesionList] = {}
        for case, row in zip(scored_cases, rows, strict=True):
            columns, lesions[case.scan.name] = measure(case, choice.thresholds, postprocess)
            row |= {f"{column}{suffix}": value for column, value in columns.items()}
        pooled, precision_recall = pooled_curve(scored_cases)
        extra[f"auprc_pooled{suffix}"] = pooled
        extra[f"thresholds{suffix}"] = _thresholds_or_none(choice.thresholds)
        if suffix:
            continue
        extra |= {"healthy_source": choice.healthy_source, "conformal": choice.conformal}
        curves = {
            "precision_recall": precision_recall,
            "dice_by_threshold": choice.dice_curve,
            "lesions": _join_lesions(lesions),
        }
        if slices is not None:
            label, healthy = choice.thresholds.label, choice.thresholds.healthy
            threshold = healthy if math.isnan(label) else label
            for scan in _choose_shown(scored, config.n_snapshots):
                case, reference = cases[id(scan)], predictions[id(scan)][1]
                _keep_slices(slices / contender.name, case, reference, threshold, postprocess)
    if contender.filtered:  # the raw residual of these maps is unknown
        extra |= {f"auprc_pooled{UNFILTERED}": None, f"thresholds{UNFILTERED}": None}
        rows = [
            row | {f"{column}{UNFILTERED}": math.nan for column in SCORE_COLUMNS} for row in rows
        ]
    return _Outcome(rows, extra, curves)


def _describe_outcome(contender: Contender, outcome: _Outcome) -> str:
    """Return a line about a scored contender: its mean AUPRC and the number of scans behind it."""
    values = [row["auprc"] for row in outcome.rows if not math.isnan(row["auprc"])]
    if not values:
        return f"{contender.name}: {len(outcome.rows)} healthy scans scored"
    return f"{contender.name}: AUPRC {np.mean(values):.3f}, mean of {len(values)} scans"


def _thresholds_or_none(thresholds: MethodThresholds) -> dict[str, float | None]:
    """Return the thresholds by name, with None for NaN."""
    return {
        name: None if math.isnan(value) else value for name, value in asdict(thresholds).items()
    }


def _join_lesions(lesions: Mapping[str, LesionList]) -> dict[str, list]:
    """Return the lesions of all scans as three lists: scan, volume in ml, found or not."""
    return {
        "subject": [name for name, listed in lesions.items() for _ in listed.found],
        "volume_ml": [volume for listed in lesions.values() for volume in listed.volume_ml],
        "found": [found for listed in lesions.values() for found in listed.found],
    }


def predict_safely(contender: Contender, scan: SubjectSlices) -> tuple[Map, Map | None]:
    """Return residual and healthy reference of a scan, after a check of the residual.

    Raises:
        InputError: the residual is not finite in the brain, or has another shape than the scan.
    """
    residual, reference = contender.predict(scan)
    if residual.shape != scan.brain.shape:
        raise InputError(
            f"{contender.name}, {scan.name}: the anomaly map has the shape {residual.shape}, but "
            f"the scan in the cohort has {scan.brain.shape}; give a map on the cohort's grid"
        )
    if not np.isfinite(residual[scan.brain]).all():
        raise InputError(
            f"{contender.name}, {scan.name}: the anomaly map holds NaN or infinity in the brain; "
            "check the method that made it"
        )
    return residual, reference


def _describe_scan(
    contender: Contender, scan: SubjectSlices, reference: Map | None
) -> dict[str, Any]:
    """Return the columns of scores.csv that need no threshold; NaN where a column does not apply.

    The reconstruction is compared with the scan only if the scan is healthy.
    """
    truth = None if scan.lesion is None else scan.lesion & scan.brain
    compared = reference if scan.healthy else None
    images = scan.images.clip(0, 1)
    return {
        "method": contender.name,
        "group": contender.group,
        "seed": contender.seed,
        "trained": contender.trained,
        "subject": scan.name,
        "person": scan.person,
        "healthy": scan.healthy,
        "lesion_kind": scan.extra.get("lesion_kind", ""),
        "lesion_ml": math.nan if truth is None else float(truth.sum()) * scan.voxel_ml,
        "lesions": math.nan if truth is None else float(lesion_counts(truth, truth).lesions),
        "lesion_outside_brain": math.nan
        if scan.lesion is None
        else lesion_outside_brain(scan.lesion, scan.brain),
        "brain_voxels": float(scan.brain.sum()),
        "l1": math.nan if compared is None else reconstruction_l1(images, compared, scan.brain),
        "psnr": math.nan
        if compared is None
        else reconstruction_psnr(images, compared, scan.brain),
        "ssim": math.nan
        if compared is None
        else reconstruction_ssim(images, compared, scan.brain),
    }


def _keep_slices(
    folder: Path,
    case: Case,
    reference: Map | None,
    threshold: float,
    postprocess: PostprocessConfig,
) -> None:
    """Write the slices of a scan that a report shows."""
    scan = case.scan
    x, y, z = (float(size) for size in scan.spacing_mm)
    whole = Snapshot(
        slice_ids=scan.slice_ids,
        image=scan.images,
        anomaly_map=case.anomaly,
        brain=scan.brain,
        mask=anomaly_mask(case.anomaly, scan.brain, threshold, scan.spacing_mm, postprocess),
        spacing_mm=(x, y, z),
        reference=reference,
        lesion=scan.lesion,
    )
    weight = np.zeros_like(scan.brain) if scan.lesion is None else scan.lesion
    save_slices(folder / f"{scan.name}.npz", whole, pick_slices(scan.brain, weight))


def _choose_shown(scored: Sequence[SubjectSlices], count: int) -> list[SubjectSlices]:
    """Return the first scans by name, with and without a lesion in turn."""
    ordered = sorted(scored, key=lambda scan: scan.name)
    with_lesion = [scan for scan in ordered if scan.lesion is not None and scan.lesion.any()]
    without = [scan for scan in ordered if scan.lesion is None or not scan.lesion.any()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(with_lesion, without))
    return [scan for scan in in_turn if scan is not None][:count]
