"""Scans of any kind to a cohort on the model's grid, scan by scan.

    find_scans -> read_volume, read_mask -> prepare -> write_subject  (for each scan)
               -> qc.csv, manifest.csv, cohort.json

A scan that fails is logged with its reason and the other scans are done, even if the scan kills
its process (`workers`). Resuming keeps a finished scan if its input files, the settings and the
version of maediff are the same.

The health of a scan is the column "healthy" of a manifest; an empty cell is unknown.
Without that column, a scan with a lesion mask is healthy if the mask is empty. A scan without a
lesion mask counts as healthy, because most cohorts serve to train a healthy model.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.cohort.cohort import COHORT_FORMAT, Cohort
from maediff.cohort.writer import write_cohort, write_subject
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output, write_table
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.threads import use_threads
from maediff.core.progress import Progress
from maediff.core.reading import load_json
from maediff.core.shards import (
    finish_shard,
    forget_shards,
    hash_names,
    open_shared_folder,
    read_shards,
    start_shard,
)
from maediff.core.types import MODALITIES, VolumeMask
from maediff.preparation.config import PreparationConfig
from maediff.preparation.picture import write_picture
from maediff.preparation.prepare import prepare
from maediff.preparation.quality.flags import describe_flags
from maediff.preparation.steps import Tools
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask
from maediff.scans.parallel import run_scans
from maediff.scans.ray_engine import describe_missing_results
from maediff.scans.read import identity, read_volume
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume

logger = logging.getLogger(__name__)

QC_COLUMNS = (
    "name",
    "status",
    "flag_codes",
    "flags",
    "brain_ml",
    "lesion_ml",
    "scale",
    "slices",
    "saturated_share",
    "lesion_outside_brain_share",
    "brain_mask",
    "empty_share",
    "atlas_overlap",
    "atlas_coverage",
    "atlas_stretch",
    "atlas_information",
    "atlas_correlation",
    "atlas_turned",
    "notes",
)

REF_KEYS = ("subject", "session", "dataset", "split", "healthy", "healthy_is_stated")
"""Fields of a scan that a shard stores for the manifest, besides its paths."""


@hold_locks()
def preprocess(
    inputs: Sequence[Path],
    out: Path,
    *,
    modality: str | None = None,
    layout: str = "auto",
    series: str | None = None,
    fold: int = 0,
    lesion_free_margin: int = 1,
    preparation: PreparationConfig | None = None,
    tools: Tools | None = None,
    run: RunOptions = DEFAULT_RUN,
) -> int:
    """Prepare scans and write them as a cohort.

    Args:
        inputs: files, folders, BIDS datasets or manifests, as for `find_scans`.
        out: folder of the cohort.
        modality: T1w, T2w or FLAIR; None takes it from the names of the scans.
        layout: as for `find_scans`.
        series: as for `find_scans`.
        fold: as for `find_scans`.
        lesion_free_margin: number of original slices next to a lesion that training does not use.
        preparation: settings between scan and model; None uses the defaults of the modality.
        tools: replacements for brain extraction, N4 and registration.
        run: workers, threads, resume, overwrite, quiet, shard and engine. Each worker is a
            process, which needs about 1.6 GB with deepbet.

    Returns:
        Number of scans that failed. If all scans failed, there is no cohort. A shard writes no
        cohort; `merge_shards` does, after all shards.

    Raises:
        InputError: the inputs as a whole cannot be used; `out` exists or holds an input.

    Example:
        >>> preprocess([Path("scans")], Path("cohort"), modality="T1w")  # doctest: +SKIP
    """
    refs = find_scans(inputs, modality, layout=layout, series=series, fold=fold, unique=True)
    refuse_inputs_inside_output(Path(out), list(map(Path, inputs)))
    return preprocess_scans(
        refs,
        Path(out),
        modality=modality,
        lesion_free_margin=lesion_free_margin,
        preparation=preparation,
        tools=tools,
        run=run,
    )


@hold_locks()
def preprocess_scans(
    refs: Sequence[ScanRef],
    out: Path,
    *,
    modality: str | None = None,
    lesion_free_margin: int = 1,
    preparation: PreparationConfig | None = None,
    tools: Tools | None = None,
    run: RunOptions = DEFAULT_RUN,
) -> int:
    """Prepare scans that were found already, and write them as a cohort.

    Args:
        refs: scans of `find_scans`.
        out: see `preprocess`.
        modality: see `preprocess`.
        lesion_free_margin: see `preprocess`.
        preparation: see `preprocess`.
        tools: see `preprocess`.
        run: see `preprocess`.

    Returns:
        See `preprocess`.

    Raises:
        InputError: the scans as a whole cannot be used; `out` exists or holds a scan.
    """
    if lesion_free_margin < 0:
        raise InputError(f"`lesion_free_margin={lesion_free_margin}`: give 0 or more slices")
    modality = modality or find_modality(refs)
    if modality not in MODALITIES:  # a manifest may list PDw scans
        raise InputError(
            f"modality {modality}: no model uses it; choose one of {', '.join(MODALITIES)}"
        )
    refuse_inputs_inside_output(out, [file for ref in refs for file in ref.files])
    threads = use_threads(run.threads, run.workers)
    if run.engine == "ray":
        threads = run.threads or 1  # of a task
    if run.shard is None:
        fresh_folder(out, overwrite=run.overwrite, resume=run.resume)
    else:
        open_shared_folder(out, run.shard, overwrite=run.overwrite, resume=run.resume)
    config = (preparation or PreparationConfig()).for_modality(modality)
    settings = _collect_settings(config, lesion_free_margin)
    _check_same_settings(out, settings)
    _check_same_scans(out, refs)
    order = [ref.name for ref in refs]
    # Data set and subject decide the shard; split and health, which an option may set, the cohort.
    scans = [f"{ref.dataset}/{ref.subject} {ref.name} {ref.split} {ref.healthy}" for ref in refs]
    common = {"command": "preprocess", "scans": hash_names(scans), **settings}
    common["maediff"] = __version__
    if run.shard is not None:
        start_shard(out, run.shard, common, resume=run.resume)
        refs = [ref for ref in refs if run.shard.owns(ref.dataset, ref.subject)]
    # The folder is no cohort until this run has finished.
    (out / "cohort.json").unlink(missing_ok=True)
    shutil.rmtree(out / "cache", ignore_errors=True)
    preprocess_scan = partial(
        _preprocess_scan, out=out, settings=settings, config=config, tools=tools
    )
    outcomes = run_scans(preprocess_scan, refs, run.workers, threads=threads, engine=run.engine)
    done, qc = _collect_outcomes(refs, outcomes, out, quiet=run.quiet)
    if run.shard is None:
        _write_tables(out, qc, done, {**settings, "maediff": __version__})
        forget_shards(out)
    else:
        stored = {ref.name: _describe_ref(ref) for ref in done}
        finish_shard(out, run.shard, common, {"order": order, "qc": qc, "done": stored})
    return len(refs) - len(done)


def _collect_settings(config: PreparationConfig, lesion_free_margin: int) -> dict[str, Any]:
    """Return the settings of a cohort, as in cohort.json."""
    parts = config.settings()
    return {
        "format": COHORT_FORMAT,
        "modality": config.modality,
        "grid": parts.pop("grid"),
        "normalise": parts.pop("normalise"),
        "lesion_free_margin": lesion_free_margin,
        **parts,
    }


def _collect_outcomes(
    refs: Sequence[ScanRef], outcomes: Iterable[Any], out: Path, *, quiet: bool
) -> tuple[list[ScanRef], dict[str, list[Any]]]:
    """Show the progress of scans, and remove the folders of those that fail.

    Args:
        refs: the scans.
        outcomes: for each scan, the result of `_preprocess_scan`, or the reason of its failure.
        out: folder of the cohort.
        quiet: show no progress.

    Returns:
        The finished scans, and the line of qc.csv of each scan, by name.
    """
    done: list[ScanRef] = []
    qc: dict[str, list[Any]] = {}
    with Progress("preprocess", len(refs), quiet=quiet) as progress:
        for ref, outcome in zip(refs, outcomes, strict=True):
            if not isinstance(outcome, str) and not (out / ref.name / "image.json").is_file():
                outcome = describe_missing_results(ref)
            if isinstance(outcome, str):
                shutil.rmtree(out / ref.name, ignore_errors=True)
                progress.advance(f"{ref.name} failed: {outcome}", failed=True)
                failed = {"name": ref.name, "status": "failed", "flags": outcome}
                qc[ref.name] = _make_qc_line(failed)
                continue
            finished, record = outcome
            done.append(finished)
            progress.advance(describe_prepared(ref.name, record))
            texts = {
                "name": ref.name,
                "status": "flagged" if record["flags"] else "ok",
                "flag_codes": ", ".join(record.get("flag_codes", [])),
                "flags": "; ".join(record["flags"]),
                "notes": "; ".join(record["notes"]),
            }
            qc[ref.name] = _make_qc_line({**record, **texts})
    return done, qc


def merge_shards(out: Path) -> int:
    """Write the tables and cohort.json of a cohort that several shards prepared.

    Args:
        out: folder of the cohort.

    Returns:
        Number of scans that failed. If all scans failed, there is no cohort.

    Raises:
        InputError: a shard is missing or has not finished; names it.
    """
    records = read_shards(out)
    settings = {k: v for k, v in records[0]["settings"].items() if k not in ("command", "scans")}
    qc = {name: line for record in records for name, line in record["qc"].items()}
    done = {name: values for record in records for name, values in record["done"].items()}
    order = records[0]["order"]
    refs = [_read_ref(done[name]) for name in order if name in done]
    _write_tables(out, {name: qc[name] for name in order}, refs, settings)
    return len(qc) - len(refs)


def _write_tables(
    out: Path, qc: Mapping[str, Sequence[Any]], done: Sequence[ScanRef], meta: Mapping[str, Any]
) -> None:
    """Write qc.csv and, if a scan was finished, manifest.csv and cohort.json."""
    write_table(out / "qc.csv", QC_COLUMNS, list(qc.values()))
    if not done:
        return
    splits = write_cohort(out, done, {**meta, "n_failed": len(qc) - len(done)})
    logger.info("split of %s", splits.describe())
    for shortage in splits.list_shortages():
        logger.warning("%s: %s", out, shortage)


def _describe_ref(ref: ScanRef) -> dict[str, Any]:
    """Return what the manifest needs of a finished scan, as values for JSON."""
    values: dict[str, Any] = {key: getattr(ref, key) for key in REF_KEYS}
    lesion_mask = None if ref.lesion_mask is None else str(ref.lesion_mask)
    return {**values, "image": str(ref.image.absolute()), "lesion_mask": lesion_mask}


def _read_ref(values: Mapping[str, Any]) -> ScanRef:
    """Return the scan that `_describe_ref` described."""
    lesion_mask = None if values["lesion_mask"] is None else Path(values["lesion_mask"])
    return ScanRef(**{**values, "image": Path(values["image"]), "lesion_mask": lesion_mask})


def describe_prepared(name: str, record: Mapping[str, Any]) -> str:
    """Return a line about a prepared scan, its flags first.

    Args:
        name: name of the scan.
        record: the numbers of quality control, as in image.json.
    """
    flags = f"FLAGGED ({' | '.join(describe_flags(record))}), " if record["flags"] else ""
    lesion = record.get("lesion_ml")
    lesion = f", lesion {lesion:.1f} ml" if lesion else ""
    return f"{name}: {flags}brain {record['brain_ml']:.0f} ml{lesion}, {record['slices']} slices"


def _make_qc_line(values: Mapping[str, Any]) -> list[Any]:
    """Return a line of qc.csv; a missing value is an empty cell."""
    return [values.get(column, "") for column in QC_COLUMNS]


def _preprocess_scan(
    ref: ScanRef,
    out: Path,
    settings: Mapping[str, Any],
    config: PreparationConfig,
    tools: Tools | None,
) -> tuple[ScanRef, dict[str, Any]]:
    """Prepare and write a scan unless it is finished; return it with its health and record."""
    started = time.monotonic()
    key = {
        **settings,
        **identity(ref),
        "maediff": __version__,
        "healthy": [ref.healthy, ref.healthy_is_stated],
        "extra": ref.extra,
        "lesion_labels": ref.lesion_labels,
    }
    stored = _read_finished(out / ref.name, key, with_lesion=ref.lesion_mask is not None)
    if stored is not None:
        return replace(ref, healthy=stored["healthy"]), stored["record"]
    shutil.rmtree(out / ref.name, ignore_errors=True)
    volume = read_volume(ref)
    brain, lesion = _read_masks(ref, volume)
    healthy = ref.healthy
    if healthy is None and not ref.healthy_is_stated:
        healthy = lesion is None or not lesion.any()
    finished = replace(ref, healthy=healthy)
    scan = prepare(
        volume,
        config,
        brain=brain,
        lesion=lesion,
        lesion_free_margin=settings["lesion_free_margin"],
        t1=ref.t1,
        t1_series=ref.t1_series,
        tools=tools,
    )
    prepared = scan.on_grid
    write_picture(out / ref.name / "qc.png", volume, scan.on_scan.brain)
    prepared.record["seconds"] = round(time.monotonic() - started, 1)
    write_subject(out, finished, prepared, key)
    return finished, prepared.record


def _read_finished(
    folder: Path, key: Mapping[str, Any], *, with_lesion: bool
) -> dict[str, Any] | None:
    """Return image.json of a scan that was finished with the same `key`; otherwise None."""
    names = ("image", "brain_mask", "lesion_mask") if with_lesion else ("image", "brain_mask")
    if not all((folder / f"{name}.nii.gz").is_file() for name in names):
        return None
    try:
        stored = load_json(folder / "image.json")
        if stored["settings"] != json.loads(json.dumps(key)):
            return None
        return {"healthy": stored["healthy"], "record": stored["record"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged


def _read_masks(ref: ScanRef, volume: Volume) -> tuple[VolumeMask | None, VolumeMask | None]:
    """Return the brain mask and the lesion mask of a scan; None for a missing mask.

    Raises:
        InputError: a mask cannot be used, or the lesion mask contradicts the manifest.
    """
    brain = lesion = None
    if ref.brain_mask is not None:
        brain = read_mask(ref.brain_mask, volume, allow_empty=False)
    if ref.lesion_mask is not None:
        lesion = read_mask(ref.lesion_mask, volume, labels=ref.lesion_labels)
    if lesion is not None and ref.healthy is not None and lesion.any() == ref.healthy:
        content = "holds a lesion" if lesion.any() else "holds no lesion"
        raise InputError(
            f"{ref.lesion_mask}: {content}, but the manifest has healthy={int(ref.healthy)}; "
            "correct one of them, or leave the cell empty"
        )
    return brain, lesion


def find_modality(refs: Sequence[ScanRef]) -> str:
    """Return the only contrast in the names of the scans.

    Raises:
        InputError: the names state no contrast, or several.
    """
    modalities = {ref.modality for ref in refs if not ref.problem}
    if len(modalities) == 1 and modalities <= {*MODALITIES}:
        return str(modalities.pop())
    names = " and ".join(sorted(str(name) for name in modalities if name)) or "none of them"
    raise InputError(
        f"{refs[0].image}{' and others' if len(refs) > 1 else ''}: the file names give no single "
        f"modality ({names}); use `modality={'|'.join(MODALITIES)}`"
    )


def _check_same_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to resume a cohort that has other settings."""
    try:
        stored = read_json(out / "cohort.json")
    except InputError:
        # Missing or damaged: image.json of each scan still decides whether the scan is finished.
        return
    for name, value in json.loads(json.dumps(settings)).items():
        if stored.get(name, value) != value:
            raise InputError(
                f"{out}: was made with {name} {stored.get(name)}, but {name} is {value} now; "
                "use `overwrite=True` to start again, or choose another folder"
            )


def _check_same_scans(out: Path, refs: Sequence[ScanRef]) -> None:
    """Log scans of a finished cohort that leave it, and refuse to replace all of them."""
    try:
        earlier = {row.name for row in Cohort.open(out).rows}
    except InputError:  # not finished, or damaged
        return
    lost = sorted(earlier - {ref.name for ref in refs})
    if not lost:
        return
    listed = f"{', '.join(lost[:5])}{' ...' if len(lost) > 5 else ''}"
    if len(lost) == len(earlier):
        raise InputError(
            f"{out}: a cohort of {len(lost)} other scan(s) ({listed}); choose another folder, or "
            "give the inputs that it was made of"
        )
    finding = "%s: %d scan(s) are not in the inputs and leave the cohort: %s"
    logger.warning(finding, out, len(lost), listed)
