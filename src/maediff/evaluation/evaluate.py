"""Score trained models, anomaly maps and the simple baselines on a cohort.

EVAL/  scores.csv     one row per run and scan
       summary.json   means, intervals, groups pooled over seeds, paired differences, settings
       table.md       tables and notes, for people
       curves.json    by run: precision-recall, Dice by threshold, volumes of lesions found
       slices/<run>/<scan>.npz   a few slices for the report
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maediff import __version__
from maediff.anomaly.postprocess import (
    DEFAULT,
    OWN_STEPS,
    PostprocessConfig,
    apply_changes,
    check_symmetry,
    own_steps_of,
    without_own_steps,
)
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.config import build_config, flatten
from maediff.core.device import resolve_device, resolve_precision
from maediff.core.errors import InputError
from maediff.core.files import (
    fresh_folder,
    refuse_inputs_inside_output,
    write_json,
    write_table,
    write_text,
)
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.threads import use_threads
from maediff.core.progress import Progress
from maediff.core.shards import (
    SHARDS,
    Shard,
    finish_shard,
    open_shared_folder,
    read_shards,
    start_shard,
)
from maediff.core.text import hash_text
from maediff.core.types import Map
from maediff.evaluation.admission import (
    EvaluationScans,
    describe_other_postprocess,
    describe_other_preparation,
    describe_seen_calibration,
    find_map_folders,
    load_scans,
    read_models,
    refuse_seen_subjects,
)
from maediff.evaluation.contenders import (
    Predictor,
    StoredPredictions,
    load_method,
    make_baselines,
)
from maediff.evaluation.maps import check_maps, is_filtered, read_map
from maediff.evaluation.notes import describe_evaluation, describe_own_steps
from maediff.evaluation.scoring import (
    DEFAULT_SCORING,
    Contender,
    Scores,
    ScoringConfig,
    predict_safely,
    score,
)
from maediff.evaluation.table import markdown_table
from maediff.methods.registry import METHODS
from maediff.models.model import TrainedMethod
from maediff.preparation.config import PreparationConfig

PREDICTIONS = f"{SHARDS}/predictions"
"""Folder of the predictions of shards, in the folder of an evaluation."""
MAX_DIFFERENCES = 3
"""Settings that the name of a group lists at most; more say less than the name of the run."""


@hold_locks()
def evaluate(
    runs: str | Path | Sequence[str | Path],
    cohort: str | Path,
    out: str | Path,
    *,
    calibrate_split: str = "val",
    score_split: str = "test",
    scoring: ScoringConfig = DEFAULT_SCORING,
    postprocess: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    notes: Sequence[str] = (),
    run: RunOptions = DEFAULT_RUN,
) -> dict[str, Any]:
    """Score `runs` and the baselines on a split of a cohort, and write the results to `out`.

    Args:
        runs: models, as `read_model` accepts them (`RUN@s=48` for settings at test,
            `RUN_A+RUN_B` for the mean of their references), or folders of anomaly maps
            (`evaluation.maps`). The folder's name and the text after the @ are the run's name in
            every table.
        cohort: folder made by `preprocess`.
        out: folder for the results. It must be empty or not exist, unless `run` asks for
            `overwrite`.
        calibrate_split: split on which thresholds are chosen, from labels and from healthy scans.
        score_split: split on which everything is measured.
        scoring: rates, post-processing and number of snapshots.
        postprocess: changes to the post-processing, by field of `PostprocessConfig`.
        precision: precision of the models' predictions: "fp32", "bf16", or "auto": bf16 if the
            device has it.
        notes: first notes under the tables.
        run: device, seed (noise at test and bootstrap), batch size, workers (runs scored at once,
            each in a process), threads of each process, `overwrite`, `quiet` and `shard`.
            `resume` continues a shard. A shard predicts its scans; `merge_shards` scores them.

    Returns:
        The content of summary.json. A shard returns `shard` and `scans`, the names of its scans.

    Raises:
        InputError: a run, its maps or a split are invalid (`evaluation.admission`). For example, a
            run was trained on scored subjects. Or `out` exists or holds an input.

    Example:
        ```python
        summary = evaluate(["runs/maediff-0", "runs/maediff-1"], "cohort", "evaluation")
        print(summary["groups"]["maediff"]["auprc"]["mean"])
        ```
    """
    if run.resume and run.shard is None:
        raise InputError(
            "`resume=True`: only a shard of an evaluation can be continued; use `shard`, or "
            "leave out `resume`"
        )
    runs = [runs] if isinstance(runs, str | Path) else list(runs)
    out = Path(out)
    threads = use_threads(run.threads, run.workers)
    run = replace(run, device=resolve_device(run.device), threads=threads)
    plan, inputs = _make_plan(
        runs,
        Path(cohort),
        splits=(calibrate_split, score_split),
        scoring=scoring,
        postprocess=postprocess,
        precision=resolve_precision(precision, run.device),
        notes=notes,
        run=run,
    )
    refuse_inputs_inside_output(out, inputs)
    if run.shard is not None:
        return _predict_shard(plan, out, run, run.shard)
    fresh_folder(out, overwrite=run.overwrite)
    return _score_and_write(plan, out, run)


def merge_shards(out: Path, run: RunOptions = DEFAULT_RUN) -> dict[str, Any]:
    """Score the predictions of all shards of an evaluation, and write its results.

    The models are not needed, only the cohort.

    Args:
        out: folder that the shards share.
        run: `workers` and `quiet` apply.

    Returns:
        The content of summary.json.

    Raises:
        InputError: a shard is missing or has not finished, or the cohort has changed.
    """
    run = replace(run, threads=use_threads(run.threads, run.workers))
    record = read_shards(out)[0]
    settings = record["settings"]["evaluation"]
    given = Path(record["cohort"])
    opened = Cohort.open(given if given.is_dir() else Path(record["cohort_place"]))
    if opened.hash != settings["cohort_hash"]:
        raise InputError(
            f"{opened.path}: has changed since the shards of {out} made their predictions; "
            "evaluate again in another folder"
        )
    plan = _Plan(
        cohort=opened,
        scans=load_scans(opened, settings["calibrate_split"], settings["score_split"]),
        scoring=build_config(ScoringConfig, settings["config"], "evaluate"),
        contenders=[
            Contender(**entry, predict=StoredPredictions(out / PREDICTIONS / entry["name"]))
            for entry in record["settings"]["contenders"]
        ],
        settings=settings,
        notes=record["notes"],
    )
    return _score_and_write(plan, out, replace(run, seed=settings["seed"]))


@dataclass(frozen=True)
class _Plan:
    """Everything that an evaluation needs, after all checks.

    Args:
        cohort: the cohort.
        scans: the scans to calibrate on and to score.
        scoring: rates, post-processing and number of snapshots.
        contenders: runs, baselines and folders of maps.
        settings: the part of summary.json that describes the evaluation.
        notes: notes under the tables, except those that follow from the scores.
    """

    cohort: Cohort
    scans: EvaluationScans
    scoring: ScoringConfig
    contenders: list[Contender]
    settings: dict[str, Any]
    notes: list[str]


def _make_plan(
    runs: Sequence[str | Path],
    cohort: Path,
    *,
    splits: tuple[str, str],
    scoring: ScoringConfig,
    postprocess: Mapping[str, Any] | None,
    precision: Literal["fp32", "bf16"],
    notes: Sequence[str],
    run: RunOptions,
) -> tuple[_Plan, list[Path]]:
    """Check the arguments of `evaluate`; return the plan and the folders that it reads."""
    calibrate_split, score_split = splits
    opened = Cohort.open(cohort)
    folders = find_map_folders(runs)
    references = [reference for reference in runs if Path(reference) not in folders.values()]
    models = read_models(references, opened, used_names=folders)
    if score_split != "train":
        refuse_seen_subjects(models, opened, score_split)
    has_common, chosen = _choose_postprocess(models, folders, scoring, postprocess)
    check_symmetry(chosen, PreparationConfig.from_record(opened.meta).registered, str(opened.path))
    scoring = replace(scoring, postprocess=chosen)
    scans = load_scans(opened, calibrate_split, score_split)
    remarks = [*scans.notes]
    if not has_common:
        remarks += describe_other_postprocess(models, chosen)
    remarks += describe_seen_calibration(models, opened, calibrate_split)
    records = {name: model.record() for name, model in models.items()}
    contenders, baseline_notes = make_baselines(opened, run)
    own_steps = {
        name: {
            key: value
            for key, value in own_steps_of(model.postprocess).items()
            if key not in (postprocess or {})
        }
        for name, model in models.items()
    }
    groups = group_names({name: record | own_steps[name] for name, record in records.items()})
    for reference, (name, record) in zip(references, records.items(), strict=True):
        load = partial(load_method, reference, run.device)
        contenders.append(
            Contender(
                name=name,
                group=groups[name],
                predict=Predictor(load, run, precision=precision, name=name),
                seed=record["seed"],
                own_steps=own_steps[name],
            )
        )
    contenders += _make_map_contenders(folders, opened, scans)
    inputs = [opened.path, *folders.values()]
    inputs += [folder for model in models.values() for folder in model.folders]
    settings = {
        "modality": opened.meta["modality"],
        "calibrate_split": calibrate_split,
        "score_split": score_split,
        "seed": run.seed,
        "precision": precision,
        "config": asdict(scoring),
        "cohort_hash": opened.hash,
        "runs": records,
        "version": __version__,
    }
    all_notes = [
        *notes,
        *remarks,
        *baseline_notes,
        *describe_other_preparation(models, opened),
        *describe_own_steps({entry.name: entry.own_steps for entry in contenders}),
    ]
    return _Plan(opened, scans, scoring, contenders, settings, all_notes), inputs


def _score_and_write(plan: _Plan, out: Path, run: RunOptions) -> dict[str, Any]:
    """Score all contenders, write the files of the evaluation, and return summary.json."""
    scores = _score(plan.contenders, plan.scans, plan.scoring, out, run)
    text = json.dumps(plan.settings, sort_keys=True, default=str)
    config_hash = hash_text(text)
    place = {"config_hash": config_hash, "cohort": str(plan.cohort.path)}
    summary = scores.summary | plan.settings | place
    summary["notes"] = [*plan.notes, *describe_evaluation(summary, plan.scoring)]
    write_scores(out / "scores.csv", scores.rows)
    write_text(out / "table.md", markdown_table(summary))
    write_json(out / "curves.json", scores.curves)
    write_json(out / "summary.json", summary)
    return summary


def _predict_shard(plan: _Plan, out: Path, run: RunOptions, shard: Shard) -> dict[str, Any]:
    """Predict the scans of one shard with every contender, and keep the predictions in `out`.

    Returns:
        `shard` and `scans`, the names of its scans.
    """
    open_shared_folder(out, shard, overwrite=run.overwrite, resume=run.resume)
    contenders = [
        {field.name: getattr(entry, field.name) for field in fields(entry)}
        for entry in plan.contenders
    ]
    for described in contenders:
        del described["predict"]
    common = {"command": "evaluate", "evaluation": plan.settings, "contenders": contenders}
    start_shard(out, shard, common, resume=run.resume)
    rows = {row.name: row for row in plan.cohort.rows}
    scans = {scan.name: scan for scan in [*plan.scans.calibrate, *plan.scans.scored]}
    chosen = [
        scan for name, scan in scans.items() if shard.owns(rows[name].dataset, rows[name].subject)
    ]
    with Progress("predict", len(plan.contenders) * len(chosen), quiet=run.quiet) as progress:
        for entry in plan.contenders:
            stored = StoredPredictions(out / PREDICTIONS / entry.name)
            for scan in chosen:
                stored.keep(scan, partial(predict_safely, entry))
                progress.advance(f"{entry.name}, {scan.name}", detail=True)
    names = [scan.name for scan in chosen]
    cohort = plan.cohort.path
    results = {"scans": names, "cohort": str(cohort), "cohort_place": str(cohort.absolute())}
    finish_shard(out, shard, common, {**results, "notes": plan.notes})
    return {"shard": str(shard), "scans": names}


def group_names(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the group of each run: its method and what differs between runs of this method.

    A difference in the seed only is no difference. A run of its own with many differences, for
    example a shipped model, has its name instead.

        pddpm (s 48, seed 0), pddpm (s 48, seed 1), pddpm (s 16, seed 0)
        -> "pddpm s=48", "pddpm s=48", "pddpm s=16"

    Args:
        records: config.json of each run, and its own steps of post-processing.
    """
    flat = {}
    for name, record in records.items():
        train, cohort = record.get("train") or {}, record.get("cohort") or {}
        flat[name] = flatten({"train": train, "cohort": cohort.get("hash")})
        flat[name] |= flatten(record["config"]) | {"init": record.get("init")}
        flat[name].pop("train.calibration_scans", None)  # does not change the weights
        flat[name] |= {key: record[key] for key in OWN_STEPS if key in record}
    groups, many = {}, set()
    for name, record in records.items():
        same_method = [
            flat[other] for other in records if records[other]["method"] == record["method"]
        ]
        differing = []
        for key in sorted({key for settings in same_method for key in settings}):
            values = {json.dumps(settings.get(key), default=str) for settings in same_method}
            if len(values) > 1:
                differing.append(f"{key}={_abbreviate(flat[name].get(key))}")
        groups[name] = " ".join([record["method"], *differing])
        many |= {name} if len(differing) > MAX_DIFFERENCES else set()
    sizes = Counter(groups.values())
    return {
        name: name if name in many and sizes[group] == 1 else group
        for name, group in groups.items()
    }


def write_scores(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write scores.csv; a value that does not apply is an empty cell.

    Args:
        path: the file.
        rows: with the same keys, which become the header.
    """
    write_table(
        path, list(rows[0]), [[_format_csv(value) for value in row.values()] for row in rows]
    )


def _choose_postprocess(
    models: Mapping[str, TrainedMethod],
    folders: Mapping[str, Path],
    scoring: ScoringConfig,
    changes: Mapping[str, Any] | None,
) -> tuple[bool, PostprocessConfig]:
    """Return True if all runs have one post-processing, and the post-processing to use.

    The base is that of `scoring` or, without it, the common one of all runs, or else the default.
    First steps and growth do not count: each run keeps its own.
    """
    of_models = {without_own_steps(model.postprocess) for model in models.values()}
    has_common = len(of_models) == 1 and not folders
    base = scoring.postprocess or (next(iter(of_models)) if has_common else DEFAULT)
    return has_common, apply_changes(base, changes)


def _make_map_contenders(
    folders: Mapping[str, Path], cohort: Cohort, scans: EvaluationScans
) -> list[Contender]:
    """Return a contender for each folder of anomaly maps, after a check of all maps."""
    sources = {row.name: Path(row.source) for row in cohort.rows}
    contenders = []
    for name, folder in folders.items():
        check_maps(folder, [*scans.calibrate, *scans.scored], cohort.meta["modality"], sources)
        contenders.append(
            Contender(
                name=name,
                group=f"{name} (maps)" if name in METHODS else name,  # another than of runs
                predict=partial(_read_prediction, folder, sources),
                filtered=is_filtered(folder),
            )
        )
    return contenders


def _read_prediction(
    folder: Path, sources: Mapping[str, Path], scan: SubjectSlices
) -> tuple[Map, None]:
    """Return the map of a scan as a prediction without a healthy reference."""
    return read_map(folder, scan, sources.get(scan.name)), None


def _score(
    contenders: Sequence[Contender],
    scans: EvaluationScans,
    scoring: ScoringConfig,
    out: Path,
    run: RunOptions,
) -> Scores:
    """Score all contenders, and show the progress."""
    n_scans = len({id(scan) for scan in [*scans.calibrate, *scans.scored]})
    with Progress("evaluate", len(contenders) * n_scans, quiet=run.quiet) as progress:
        return score(
            contenders,
            scans.calibrate,
            scans.scored,
            scoring,
            seed=run.seed,
            slices=out / "slices",
            progress=progress,
            workers=run.workers,
            threads=run.threads or 1,
        )


def _abbreviate(value: Any) -> str:
    """Return a setting as short text, for the name of a group; two settings never share one."""
    text = json.dumps(value, default=str).replace('"', "").replace(" ", "")
    return text if len(text) <= 24 else f"{text[:8]}~{hash_text(text)[:6]}"


def _format_csv(value: Any) -> str:
    """Return a value as the text of a cell: empty for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
