"""Score anything that gives a residual for a subject: predictions in, rows of scores and their summary out.

    residual -> anomaly map -> AUPRC
        -> mask at a threshold from labelled calibration subjects     -> Dice, lesions found, false positives
        -> mask at a threshold from healthy voxels only               -> Dice, rates on healthy scans
        -> mask at a threshold from healthy scans' scores             -> Dice, flagged scans
        -> mask at the threshold that suits the scored subjects best  -> oracle Dice

all of it post-processed and, in columns that end in `_unfiltered`, of the raw residual.
Every contender, baselines included, goes through the same post-processing.
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

from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, anomaly_mask, residual_map
from maediff.anomaly.snapshots import Snapshot, pick_slices, save_slices
from maediff.cohort.cohort import SubjectSlices
from maediff.core.errors import InputError
from maediff.core.types import Map
from maediff.evaluation.measures import COLUMNS, measure, pooled_curve, voxel_ml
from maediff.evaluation.metrics import (
    lesion_counts,
    lesion_outside_brain,
    reconstruction_l1,
    reconstruction_psnr,
    reconstruction_ssim,
)
from maediff.evaluation.summary import summarise
from maediff.evaluation.thresholds import NAN, Case, choose_thresholds

Predict = Callable[[SubjectSlices], tuple[Map, Map | None]]
UNFILTERED = "_unfiltered"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ScoringConfig:
    """What an evaluation chooses.

    Args:
        fpr: share of healthy voxels that the healthy-calibrated threshold may mark.
        scan_fpr: share of new healthy scans that the conformal threshold may flag, on average.
        n_snapshots: subjects kept for the report's pictures: the first by name, ill and healthy in turn.
        postprocess: between residual and mask, the same for all; None: the runs' own where they agree on one
            (`TrainedMethod.postprocess`), else the default.
    """

    fpr: float = 0.01
    scan_fpr: float = 0.1
    n_snapshots: int = 8
    postprocess: PostprocessConfig | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fpr < 1 or not 0 < self.scan_fpr < 1:
            raise ValueError(
                f"fpr {self.fpr} and scan_fpr {self.scan_fpr} are shares: give numbers between 0 and 1"
            )
        if self.n_snapshots < 0:
            raise ValueError(
                f"n_snapshots={self.n_snapshots}: how many subjects to keep pictures of, 0 or more"
            )


DEFAULT_SCORING = ScoringConfig()


@plain_dataclass(frozen=True)
class Contender:
    """Something to score: `predict` gives a subject's residual and, if it has one, its healthy reference."""

    name: str
    group: str
    predict: Predict
    seed: int | None = None
    trained: bool = True
    filtered: bool = False
    """The residuals are post-processed already, so they get no other blur or filter."""
    first_steps: Mapping[str, float] = field(default_factory=dict)
    """Fields of the post-processing that only this contender's residual needs."""


class Scores(NamedTuple):
    """Rows of `scores.csv`; the part of `summary.json` that follows from predictions alone; `curves.json`."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    curves: dict[str, Any]


def score(
    contenders: Sequence[Contender],
    calibrate: Sequence[SubjectSlices],
    scored: Sequence[SubjectSlices],
    config: ScoringConfig = DEFAULT_SCORING,
    *,
    seed: int = 0,
    slices: Path | None = None,
    progress: Callable[[str], None] | None = None,
    workers: int = 1,
    people: Mapping[str, str] | None = None,
) -> Scores:
    """Everything that predictions say.

    Args:
        calibrate: subjects that thresholds are chosen on; may be `scored` itself, which is optimistic.
        slices: folder for the slices that a report shows.
        progress: called with a contender's name when it is done.
        workers: contenders scored at once, each in a process with one thread; 1 stays in this process.
        people: by name of the scan, whose it is; unless given, every scan is another person's.
    """
    rows: list[dict[str, Any]] = []
    extras: dict[str, dict[str, Any]] = {}
    curves: dict[str, Any] = {}
    whose = {s.name: s.name for s in [*calibrate, *scored]} | dict(people or {})
    tasks = (delayed(_score_one)(c, calibrate, scored, config, slices, whose) for c in contenders)
    inner = {"inner_max_num_threads": 1} if workers > 1 else {}
    with parallel_config(backend="loky" if workers > 1 else "sequential", n_jobs=workers, **inner):
        results = Parallel(return_as="generator")(tasks)
        for contender, found in zip(contenders, results, strict=True):
            rows += found.rows
            extras[contender.name], curves[contender.name] = found.summary, found.curves
            if progress is not None:
                progress(contender.name)
    return Scores(rows, summarise(rows, extras, seed), curves)


def _score_one(
    contender: Contender,
    calibrate: Sequence[SubjectSlices],
    scored: Sequence[SubjectSlices],
    config: ScoringConfig,
    slices: Path | None,
    people: Mapping[str, str],
) -> Scores:
    """The rows of one contender, what is not per subject, and its curves; writes the slices that a report shows."""
    subjects = {id(s): s for s in [*calibrate, *scored]}
    predictions = {key: _predict(contender, s) for key, s in subjects.items()}
    rows = [_row(contender, s, predictions[id(s)][1], people[s.name]) for s in scored]
    extra: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    chosen = replace(config.postprocess or DEFAULT, **contender.first_steps)
    plain = replace(chosen, median_size=1, smooth_mm=(), times_intensity=0.0, symmetry=0.0)
    variants = {"": plain} if contender.filtered else {"": chosen, UNFILTERED: plain}
    for suffix, post in variants.items():
        cases = {
            key: Case(
                s,
                residual_map(predictions[key][0], s.brain, s.spacing_mm, post, s.images),
                people[s.name],
            )
            for key, s in subjects.items()
        }
        own = [cases[id(s)] for s in scored]
        thresholds, about, dices = choose_thresholds(
            [cases[id(s)] for s in calibrate], own, config.fpr, config.scan_fpr, post
        )
        lesions: dict[str, list] = {"subject": [], "volume_ml": [], "found": []}
        for case, row in zip(own, rows, strict=True):
            columns, its_lesions = measure(case, thresholds, post)
            row |= {f"{column}{suffix}": value for column, value in columns.items()}
            lesions["subject"] += [case.subject.name] * len(its_lesions["found"])
            lesions["volume_ml"] += its_lesions["volume_ml"]
            lesions["found"] += its_lesions["found"]
        pooled, precision_recall = pooled_curve(own)
        known = {
            name: None if math.isnan(value) else value
            for name, value in asdict(thresholds).items()
        }
        extra |= {f"auprc_pooled{suffix}": pooled, f"thresholds{suffix}": known}
        if suffix:
            continue
        extra |= about
        curves = {
            "precision_recall": precision_recall,
            "dice_by_threshold": dices,
            "lesions": lesions,
        }
        if slices is not None:
            shown = thresholds.healthy if math.isnan(thresholds.label) else thresholds.label
            for s in _shown(scored, config.n_snapshots):
                _keep_slices(
                    slices / contender.name,
                    s,
                    cases[id(s)].anomaly,
                    predictions[id(s)][1],
                    shown,
                    post,
                )
    if contender.filtered:  # nobody knows these maps without their filter
        extra |= {f"auprc_pooled{UNFILTERED}": None, f"thresholds{UNFILTERED}": None}
        rows = [row | {f"{column}{UNFILTERED}": NAN for column in COLUMNS} for row in rows]
    return Scores(rows, extra, curves)


def _predict(contender: Contender, s: SubjectSlices) -> tuple[Map, Map | None]:
    """Residual and healthy reference."""
    residual, reference = contender.predict(s)
    if residual.shape != s.brain.shape:
        raise InputError(
            f"{contender.name}, {s.name}: a map of {residual.shape}, but the cohort has {s.brain.shape}"
        )
    if not np.isfinite(residual[s.brain]).all():
        raise InputError(f"{contender.name}, {s.name}: the anomaly map holds NaN or infinity")
    return residual, reference


def _row(
    contender: Contender, s: SubjectSlices, reference: Map | None, person: str
) -> dict[str, Any]:
    """What a line of `scores.csv` says of the scan and of the reference; nan where a value has no meaning."""
    truth = None if s.lesion is None else s.lesion & s.brain
    drawn = reference if s.healthy else None
    images = s.images.clip(0, 1)
    return {
        "method": contender.name,
        "group": contender.group,
        "seed": contender.seed,
        "trained": contender.trained,
        "subject": s.name,
        "person": person,
        "healthy": s.healthy,
        "lesion_kind": s.extra.get("lesion_kind", ""),
        "lesion_ml": NAN if truth is None else float(truth.sum()) * voxel_ml(s),
        "lesions": NAN if truth is None else float(lesion_counts(truth, truth).lesions),
        "lesion_outside_brain": NAN
        if s.lesion is None
        else lesion_outside_brain(s.lesion, s.brain),
        "brain_voxels": float(s.brain.sum()),
        "l1": NAN if drawn is None else reconstruction_l1(images, drawn, s.brain),
        "psnr": NAN if drawn is None else reconstruction_psnr(images, drawn, s.brain),
        "ssim": NAN if drawn is None else reconstruction_ssim(images, drawn, s.brain),
    }


def _keep_slices(
    folder: Path,
    s: SubjectSlices,
    anomaly: Map,
    reference: Map | None,
    threshold: float,
    post: PostprocessConfig,
) -> None:
    mask = anomaly_mask(anomaly, s.brain, threshold, s.spacing_mm, post)
    chosen = pick_slices(s.brain, np.zeros_like(s.brain) if s.lesion is None else s.lesion)
    spacing = (float(s.spacing_mm[0]), float(s.spacing_mm[1]), float(s.spacing_mm[2]))
    whole = Snapshot(s.slice_ids, s.images, anomaly, s.brain, mask, spacing, reference, s.lesion)
    save_slices(folder / f"{s.name}.npz", whole, chosen)


def _shown(scored: Sequence[SubjectSlices], count: int) -> list[SubjectSlices]:
    """The first subjects by name, those with a lesion and those without in turn."""
    ordered = sorted(scored, key=lambda s: s.name)
    with_lesion = [s for s in ordered if s.lesion is not None and s.lesion.any()]
    without = [s for s in ordered if s.lesion is None or not s.lesion.any()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(with_lesion, without))
    return [s for s in in_turn if s is not None][:count]
