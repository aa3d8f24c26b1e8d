"""Score trained runs, and the simple baselines beside them, on a cohort.

EVAL/  scores.csv    a row per run and subject
       summary.json  means, intervals, groups pooled over seeds, paired differences, and what was chosen
       table.md      the same for people
       curves.json   by run: precision against recall, Dice against threshold, lesions with volume and whether found
       slices/<run>/<subject>.npz   a few slices for the report
"""

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from maediff import __version__
from maediff.anomaly.postprocess import (
    DEFAULT,
    PostprocessConfig,
    apply_changes,
    check_symmetry,
    first_steps_of,
    without_first_steps,
)
from maediff.anomaly.thresholds import scans_needed
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.config import flatten
from maediff.core.device import resolve_device, resolve_precision
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_json, write_text
from maediff.core.types import Map
from maediff.evaluation.admission import (
    calibrated_on_seen,
    check_runs,
    check_unseen,
    map_folders,
    prepared_otherwise,
    subjects_of,
)
from maediff.evaluation.contenders import Predictor, load_method, untrained
from maediff.evaluation.maps import already_filtered, check_maps, read_map
from maediff.evaluation.scoring import DEFAULT_SCORING, Contender, ScoringConfig, score
from maediff.evaluation.table import markdown_table
from maediff.methods.registry import BASELINES
from maediff.preparation.config import PreparationConfig
from maediff.scans.reference import subject_in_dataset


def evaluate(
    runs: Sequence[str | Path],
    cohort: Path,
    out: Path,
    *,
    calibrate_split: str = "val",
    score_split: str = "test",
    config: ScoringConfig = DEFAULT_SCORING,
    post: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    precision: str = "fp32",
    batch_size: int = 16,
    workers: int = 1,
    overwrite: bool = False,
    notes: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Score `runs` and the baselines on a split of `cohort`, write all to `out` and return the summary.

    Args:
        runs: run folders of `maediff train`, as `load_model` takes them (`RUN@s=48` for settings at test,
            `RUN_A+RUN_B` for the mean of their references), and folders of anomaly maps, as `map_folder` takes them;
            the folder's name and what follows the @ name them in every table.
        calibrate_split: where thresholds are chosen: on labelled subjects, and on healthy ones.
        score_split: where everything is measured.
        post: changes to the post-processing, by field of `PostprocessConfig`.
        seed: of the noise at test and of the bootstrap.
        precision: of the runs' predictions: fp32, bf16, or `auto`, which is bf16 where the processor has it.
        workers: runs scored at once, each in a process of its own with one thread.
        notes: to stand first under the tables.

    Raises:
        InputError: a run or maps of another contrast than the cohort's, a run that was trained on scored subjects,
            names that collide, a split without subjects, a subject in two splits, an output folder that exists.
    """
    device = resolve_device(device)
    bf16 = resolve_precision(precision, device) == "bf16"
    opened = Cohort.open(cohort)
    folders = map_folders(runs)
    runs = [run for run in runs if Path(run) not in folders.values()]
    models = check_runs(runs, opened, taken=folders)
    if score_split != "train":
        check_unseen(models, opened, score_split)
    own = {name: without_first_steps(model.postprocess) for name, model in models.items()}
    first = {name: first_steps_of(model.postprocess) for name, model in models.items()}
    shared = len(set(own.values())) == 1 and not folders
    base = config.postprocess or (next(iter(own.values())) if shared else DEFAULT)
    chosen = apply_changes(base, post)
    registered = PreparationConfig.from_record(opened.meta).registered
    check_symmetry(chosen, registered, str(cohort))
    config = replace(config, postprocess=chosen)
    calibrate, scored, remarks = subjects_of(opened, calibrate_split, score_split)
    remarks += [] if shared else _otherwise_in_use(own, chosen)
    remarks += calibrated_on_seen(models, opened, calibrate_split)
    infos = {name: model.record() for name, model in models.items()}
    groups = group_names(infos)
    contenders, left_out = untrained(opened, seed, batch_size, device)
    for reference, (name, info) in zip(runs, infos.items(), strict=True):
        predict = Predictor(
            partial(load_method, reference, device), seed, batch_size, device, bf16
        )
        contenders.append(
            Contender(
                name,
                groups[name],
                predict,
                info["seed"],
                first_steps={k: v for k, v in first[name].items() if k not in (post or {})},
            )
        )
    sources = {row.name: Path(row.source) for row in opened.rows}
    for name, folder in folders.items():
        if name in BASELINES:
            raise InputError(
                f"{folder}: named like the baseline {name!r}, so tables would mix them; rename it"
            )
        check_maps(folder, [*calibrate, *scored], opened.meta["modality"], sources)
        filtered = already_filtered(folder)
        contenders.append(
            Contender(name, name, partial(_read, folder, sources), filtered=filtered)
        )
    refuse_inputs_inside_output(
        out,
        [
            cohort,
            *folders.values(),
            *(path for model in models.values() for path in model.folders),
        ],
    )
    fresh_folder(out, overwrite=overwrite)
    with Progress(disable=quiet, transient=True, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(contenders))
        rows, summary, curves = score(
            contenders,
            calibrate,
            scored,
            config,
            seed=seed,
            slices=out / "slices",
            progress=lambda name: bar.update(task, advance=1, description=name),
            workers=workers,
            people={
                row.name: f"{row.dataset}/{subject_in_dataset(row.dataset, row.subject)}"
                for row in opened.rows
            },
        )
    settings = {
        "modality": opened.meta["modality"],
        "calibrate_split": calibrate_split,
        "score_split": score_split,
        "seed": seed,
        "precision": "bf16" if bf16 else "fp32",
        "config": asdict(config),
        "cohort_hash": opened.hash,
        "runs": infos,
        "version": __version__,
    }
    config_hash = hashlib.sha256(
        json.dumps(settings, sort_keys=True, default=str).encode()
    ).hexdigest()
    summary |= settings | {"config_hash": config_hash, "cohort": str(cohort)}
    summary["notes"] = [
        *notes,
        *remarks,
        *left_out,
        *prepared_otherwise(models, opened),
        *_notes(summary, config),
    ]
    write_text(out / "scores.csv", _as_csv(rows))
    write_text(out / "table.md", markdown_table(summary))
    write_json(out / "curves.json", curves)
    write_json(out / "summary.json", summary)
    return summary


def group_names(infos: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Group of each run: its method, and where runs of a method differ in more than the seed, what differs.

    pddpm (s 48, seed 0), pddpm (s 48, seed 1), pddpm (s 16, seed 0) -> "pddpm s=48" twice, "pddpm s=16"
    """
    flat = {}
    for name, info in infos.items():
        flat[name] = flatten(
            {"train": info.get("train") or {}, "cohort": (info.get("cohort") or {}).get("hash")}
        )
        flat[name] |= flatten(info["config"]) | {"init": info.get("init")}
    groups = {}
    for name, info in infos.items():
        alike = [flat[other] for other in infos if infos[other]["method"] == info["method"]]
        keys = sorted(
            {key for found in alike for key in found} - {"train.calibration_scans"}
        )  # no part of the weights
        differing = [
            key
            for key in keys
            if len({json.dumps(found.get(key), default=str) for found in alike}) > 1
        ]
        groups[name] = " ".join(
            [info["method"], *(f"{key}={_short(flat[name].get(key))}" for key in differing)]
        )
    return groups


def _otherwise_in_use(
    own: Mapping[str, PostprocessConfig], chosen: PostprocessConfig
) -> list[str]:
    """A remark on runs that bring a post-processing, where all are scored with another."""
    unlike = [name for name, post in own.items() if post not in (DEFAULT, chosen)]
    return [
        f"{name} brings its own post-processing, which `maediff detect` uses. Because the others bring another, it is "
        "scored here with that of all; alone, or with --set postprocess.KEY=VALUE, it is scored with its own."
        for name in unlike
    ]


def _read(folder: Path, sources: Mapping[str, Path], s: SubjectSlices) -> tuple[Map, None]:
    return read_map(folder, s, sources.get(s.name)), None


def _notes(summary: Mapping[str, Any], config: ScoringConfig) -> list[str]:
    post = config.postprocess or DEFAULT
    mean = "the geometric mean of " if post.smooth_mean == "geometric" else ""
    blur = (
        f"{mean}a Gaussian of {' and one of '.join(f'{mm:g}' for mm in post.smooth_mm)} mm, "
        if post.smooth_mm
        else ""
    )
    blur += (
        f"less {post.symmetry:.0%} of what both sides of the brain share, "
        if post.symmetry
        else ""
    )
    blur += f"times x^{post.times_intensity:g}, " if post.times_intensity else ""
    thick = f" (within the slice where slices are over {post.thick_slice_mm:g} mm apart)"
    median = (
        f"median filter {post.median_size}{thick}" if post.median_size > 1 else "no median filter"
    )
    n = summary["n_subjects"]
    of_scans = (
        f" with {summary['n_scans']} scans, each person's mean counted once"
        if summary["n_scans"] != n
        else ""
    )
    notes = [
        f"{n} subject{'s' * (n != 1)}{of_scans}: {summary['n_lesion']} with a lesion, {summary['n_healthy']} healthy. "
        "Brackets: 95 % bootstrap interval over subjects (Clopper-Pearson for flagged scans).",
        f"Post-processing, the same for all: {blur or 'no blur, '}{median}; none of it where `raw residual` is said, "
        "and no second one of maps that `maediff detect` made. For masks, the brain eroded "
        f"{post.erosion_iterations} times in the slice and components under {post.min_volume_mm3:g} mm3 removed.",
        "Dice: at the threshold best on labelled calibration subjects. Healthy threshold: "
        f"{config.fpr:.2%} of healthy voxels lie above it, voxel-wise and empirical. Oracle: the one threshold "
        "that is best on the scored subjects themselves, which nobody has in practice.",
    ]
    conformal = next(iter(summary["methods"].values()))["conformal"]
    scans, possible = conformal["n_scans"], conformal["smallest_alpha"]
    if possible <= config.scan_fpr:
        notes.append(
            f"Conformal threshold: from the scores of {scans} healthy calibration scans, so that on average over "
            f"calibration sets at most {config.scan_fpr:.1%} of new healthy scans of the same population are flagged."
        )
    else:
        notes.append(
            f"No conformal threshold: {config.scan_fpr:.1%} of scans needs {scans_needed(config.scan_fpr)} healthy "
            f"calibration scans, one a person, and there are {scans}"
            + (f"; {possible:.2%} is possible (--set scan_fpr={possible:.4g})." if scans else ".")
        )
    if any(
        m["healthy_source"] == "lesion-free slices of patients"
        for m in summary["methods"].values()
    ):
        notes.append(
            "No healthy subject to calibrate on: the healthy threshold is from lesion-free slices of patients."
        )
    return notes


def _short(value: Any) -> str:
    text = json.dumps(value, default=str).replace('"', "").replace(" ", "")
    return text if len(text) <= 24 else text[:8]


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, bool | np.bool_):
            return "true" if value else "false"
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([cell(value) for value in row.values()] for row in rows)
    return text.getvalue()
