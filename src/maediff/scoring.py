"""Score anything that gives a residual for a subject: predictions in, rows of scores and their summary out.

    residual -> anomaly map -> AUPRC
        -> mask at a threshold from labelled calibration subjects     -> Dice
        -> mask at a threshold from healthy voxels only               -> Dice, rates on healthy scans
        -> mask at the threshold that suits the scored subjects best  -> oracle Dice

Every contender, baselines included, goes through the same post-processing.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed, parallel_config
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maediff import metrics
from maediff.calibration import threshold_from_healthy
from maediff.cohort import SubjectSlices
from maediff.errors import InputError
from maediff.postprocess import (
    DEFAULT,
    Map,
    PostprocessConfig,
    anomaly_mask,
    eroded_brain,
    residual_map,
    scan_score,
)
from maediff.snapshots import Snapshot, pick_slices, save_slices
from maediff.summary import summarise

NAN = float("nan")
Predict = Callable[[SubjectSlices], tuple[Map, Map | None]]
Maps = dict[int, tuple[Map, Map | None, float]]  # by id of the subject: anomaly map, reference, unfiltered AUPRC


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ScoringConfig:
    """What an evaluation chooses.

    Args:
        fpr: share of healthy voxels that the healthy-calibrated threshold may mark.
        n_snapshots: subjects kept for the report's pictures: the first by name, ill and healthy in turn.
        postprocess: between residual and mask.
    """

    fpr: float = 0.01
    n_snapshots: int = 8
    postprocess: PostprocessConfig = DEFAULT


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
    """The residuals have seen a median filter already, so they get no other."""


@plain_dataclass(frozen=True)
class Thresholds:
    """The three operating points of a contender; nan where one cannot be had."""

    label: float
    healthy: float
    oracle: float


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
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of `scores.csv` and the part of `summary.json` that follows from predictions alone.

    Args:
        calibrate: subjects that thresholds are chosen on; may be `scored` itself, which is optimistic.
        slices: folder for the slices that a report shows.
        progress: called with a contender's name when it is done.
        workers: contenders scored at once, each in a process with one thread; 1 stays in this process.
    """
    rows: list[dict[str, Any]] = []
    extras: dict[str, dict[str, Any]] = {}
    tasks = (delayed(_score_one)(contender, calibrate, scored, config, slices) for contender in contenders)
    inner = {"inner_max_num_threads": 1} if workers > 1 else {}
    with parallel_config(backend="loky" if workers > 1 else "sequential", n_jobs=workers, **inner):
        results = Parallel(return_as="generator")(tasks)
        for contender, (its_rows, extra) in zip(contenders, results, strict=True):
            rows += its_rows
            extras[contender.name] = extra
            if progress is not None:
                progress(contender.name)
    return rows, summarise(rows, extras, seed)


def _score_one(
    contender: Contender,
    calibrate: Sequence[SubjectSlices],
    scored: Sequence[SubjectSlices],
    config: ScoringConfig,
    slices: Path | None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of one contender, and what is not per subject; writes the slices that a report shows."""
    maps: Maps = {}
    for s in {id(s): s for s in [*calibrate, *scored]}.values():
        maps[id(s)] = _predict(contender, s, config, scored=any(s is other for other in scored))
    thresholds, healthy_source = _thresholds(maps, calibrate, scored, config)
    rows = [_row(contender, s, *maps[id(s)], thresholds, config) for s in scored]
    extra = {
        "auprc_pooled": _pooled(maps, scored),
        "thresholds": {k: None if math.isnan(v) else v for k, v in asdict(thresholds).items()},
        "healthy_source": healthy_source,
    }
    if slices is not None:
        shown = thresholds.healthy if math.isnan(thresholds.label) else thresholds.label
        for s in _shown(scored, config.n_snapshots):
            anomaly, reference, _ = maps[id(s)]
            mask = anomaly_mask(anomaly, s.brain, shown, s.spacing_mm, config.postprocess)
            chosen = pick_slices(s.brain, np.zeros_like(s.brain) if s.lesion is None else s.lesion)
            spacing = (float(s.spacing_mm[0]), float(s.spacing_mm[1]), float(s.spacing_mm[2]))
            whole = Snapshot(s.slice_ids, s.images, anomaly, s.brain, mask, spacing, reference, s.lesion)
            save_slices(slices / contender.name / f"{s.subject}.npz", whole, chosen)
    return rows, extra


def _predict(
    contender: Contender, s: SubjectSlices, config: ScoringConfig, *, scored: bool
) -> tuple[Map, Map | None, float]:
    """Anomaly map, healthy reference, and the AUPRC without the median filter."""
    residual, reference = contender.predict(s)
    if residual.shape != s.brain.shape:
        raise InputError(
            f"{contender.name}, {s.subject}: a map of {residual.shape}, but the cohort has {s.brain.shape}"
        )
    if not np.isfinite(residual[s.brain]).all():
        raise InputError(f"{contender.name}, {s.subject}: the anomaly map holds NaN or infinity")
    unfiltered = NAN
    if scored and s.lesion is not None and not contender.filtered:
        unfiltered = metrics.auprc(residual, s.lesion, s.brain)
    post = replace(config.postprocess, median_size=1) if contender.filtered else config.postprocess
    return residual_map(residual, s.brain, s.spacing_mm, post), reference, unfiltered


def _thresholds(
    maps: Maps,
    calibrate: Sequence[SubjectSlices],
    scored: Sequence[SubjectSlices],
    config: ScoringConfig,
) -> tuple[Thresholds, str | None]:
    post = config.postprocess

    def best(subjects: Sequence[SubjectSlices], also: Sequence[float] = ()) -> float:
        labelled = [(s, s.lesion) for s in subjects if s.lesion is not None]
        return metrics.best_dice_threshold(
            [maps[id(s)][0] for s, _ in labelled],
            [lesion for _, lesion in labelled],
            [s.brain for s, _ in labelled],
            [s.spacing_mm for s, _ in labelled],
            post,
            also=also,
        )

    healthy = [(maps[id(s)][0], eroded_brain(s.brain, post)) for s in calibrate if s.healthy]
    source = "healthy subjects" if healthy else None
    if not healthy:  # no healthy subject of this contrast: what patients have left
        healthy = [
            (maps[id(s)][0], eroded_brain(s.brain, post) & s.lesion_free[:, None, None])
            for s in calibrate
            if s.lesion is not None
        ]
        healthy = [(m, inside) for m, inside in healthy if inside.any()]
        source = "lesion-free slices of patients" if healthy else None
    from_healthy = NAN
    if healthy:
        from_healthy = threshold_from_healthy([m for m, _ in healthy], [b for _, b in healthy], config.fpr)
    label = best(calibrate)
    return Thresholds(label, from_healthy, oracle=best(scored, also=(label, from_healthy))), source


def _row(
    contender: Contender,
    s: SubjectSlices,
    anomaly: Map,
    reference: Map | None,
    unfiltered: float,
    thresholds: Thresholds,
    config: ScoringConfig,
) -> dict[str, Any]:
    """One line of `scores.csv`; nan where a value has no meaning for this subject."""
    post, brain = config.postprocess, s.brain
    truth = None if s.lesion is None else s.lesion & brain
    voxel_ml = float(np.prod([float(mm) for mm in s.spacing_mm])) / 1000
    masks = {
        name: anomaly_mask(anomaly, brain, value, s.spacing_mm, post)
        for name, value in asdict(thresholds).items()
        if not math.isnan(value)
    }
    row: dict[str, Any] = dict.fromkeys(
        (
            "auprc",
            "auprc_unfiltered",
            "auprc_all_voxels",
            "dice",
            "dice_healthy_calibrated",
            "dice_oracle",
            "lesions",
            "lesions_found",
            "lesion_recall",
            "false_positives",
            "fpr_healthy",
            "flagged_healthy",
            "fpr_healthy_label_calibrated",
            "flagged_healthy_label_calibrated",
            "l1",
            "psnr",
            "ssim",
        ),
        NAN,
    )
    if truth is not None and truth.any():
        row["auprc"] = metrics.auprc(anomaly, truth, brain)
        row["auprc_unfiltered"] = unfiltered
        row["auprc_all_voxels"] = metrics.auprc(anomaly, truth, brain, all_voxels=True)
        for column, name in (
            ("dice", "label"),
            ("dice_healthy_calibrated", "healthy"),
            ("dice_oracle", "oracle"),
        ):
            if name in masks:
                row[column] = metrics.dice(masks[name], truth)
        if "label" in masks:
            counts = metrics.lesion_counts(masks["label"], truth)
            row |= {
                "lesions": float(counts.lesions),
                "lesions_found": float(counts.found),
                "lesion_recall": counts.found / counts.lesions,
                "false_positives": float(counts.false_positives),
            }
    if s.healthy:
        for suffix, name in (("", "healthy"), ("_label_calibrated", "label")):
            if name in masks:
                row[f"fpr_healthy{suffix}"] = metrics.false_positive_rate(masks[name], brain)
                row[f"flagged_healthy{suffix}"] = float(masks[name].any())
        if reference is not None:
            row["l1"] = metrics.reconstruction_l1(s.images, reference, brain)
            row["psnr"] = metrics.reconstruction_psnr(s.images, reference, brain)
            row["ssim"] = metrics.reconstruction_ssim(s.images, reference, brain)
    return {
        "method": contender.name,
        "group": contender.group,
        "seed": contender.seed,
        "trained": contender.trained,
        "subject": s.subject,
        "healthy": s.healthy,
        "lesion_kind": s.extra.get("lesion_kind", ""),
        "lesion_ml": NAN if truth is None else float(truth.sum()) * voxel_ml,
        "lesion_outside_brain": NAN if s.lesion is None else metrics.lesion_outside_brain(s.lesion, brain),
        "scan_score": scan_score(anomaly, brain, s.spacing_mm, post),
        **row,
    }


def _pooled(maps: Maps, scored: Sequence[SubjectSlices]) -> float | None:
    """Average precision over the brain voxels of all subjects with a lesion, as if they were one scan."""
    with_lesion = [(s, s.lesion) for s in scored if s.lesion is not None and (s.lesion & s.brain).any()]
    if not with_lesion:
        return None
    return metrics.average_precision(
        np.concatenate([lesion[s.brain] for s, lesion in with_lesion]),
        np.concatenate([maps[id(s)][0][s.brain] for s, _ in with_lesion]),
    )


def _shown(scored: Sequence[SubjectSlices], count: int) -> list[SubjectSlices]:
    """The first subjects by name, those with a lesion and those without in turn."""
    ordered = sorted(scored, key=lambda s: s.subject)
    with_lesion = [s for s in ordered if s.lesion is not None and s.lesion.any()]
    without = [s for s in ordered if s.lesion is None or not s.lesion.any()]
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(with_lesion, without))
    return [s for s in in_turn if s is not None][:count]
