"""Scans of any kind -> a cohort on the model's grid, scan by scan.

    find_scans -> read_volume, read_mask -> run_steps -> prepare_scan -> write_subject ... -> manifest.csv, qc.csv,
    cohort.json

A scan that fails is named and the rest goes on, also where it takes its process down (`workers`). Scans that are done
already, from the same files with the same settings and version, are not done again (`resume`); half-done ones are.

Whether a scan is healthy: what the manifest's `healthy` column says (empty: unknown). Without that column, a scan with
a lesion mask is healthy if the mask is empty, and a scan without one is taken as healthy, because that is what a
training cohort is made of.
"""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.cohort.cohort import COHORT_FORMAT
from maediff.cohort.writer import write_cohort, write_subject
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output, write_table
from maediff.core.types import MODALITIES
from maediff.preparation.config import PreparationConfig
from maediff.preparation.picture import write_picture
from maediff.preparation.prepare import prepare
from maediff.preparation.steps import Tools
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_mask
from maediff.scans.parallel import progress, run_scans
from maediff.scans.read import identity, read_volume
from maediff.scans.reference import ScanRef

logger = logging.getLogger(__name__)

QC_COLUMNS = (
    "name",
    "status",
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
    workers: int = 1,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Write the cohort `out` and return how many scans failed; with every scan failed there is no cohort.

    Args:
        layout, series, fold: as for `find_scans`.
        lesion_free_margin: original slices beside a lesion that do not count as lesion-free.
        preparation: every choice between scan and model; None uses the defaults of the contrast.
        tools: replacements for brain extraction, N4 and registration.
        workers: scans done at once, a process each; with deepbet each takes about 1.5 GB.
        quiet: no progress bar.

    Raises:
        InputError: the inputs as a whole cannot be used, or `out` exists or holds one of them.
    """
    if lesion_free_margin < 0:
        raise InputError(
            f"--lesion-free-margin {lesion_free_margin}: a number of slices, 0 or more"
        )
    refs = find_scans(inputs, modality, layout=layout, series=series, fold=fold, unique=True)
    modality = modality or _common_modality(refs)
    if modality not in MODALITIES:  # PDw, for which there are manifests only
        raise InputError(
            f"modality {modality}: no cohort is made of it; choose one of {', '.join(MODALITIES)}"
        )
    refuse_inputs_inside_output(
        Path(out), [*map(Path, inputs), *(file for ref in refs for file in ref.files)]
    )
    out = fresh_folder(Path(out), overwrite=overwrite, resume=resume)
    config = (preparation or PreparationConfig()).for_modality(modality)
    parts = config.settings()
    settings: dict[str, Any] = {
        "format": COHORT_FORMAT,
        "modality": modality,
        "grid": parts.pop("grid"),
        "normalise": parts.pop("normalise"),
        "lesion_free_margin": lesion_free_margin,
        **parts,
    }
    _check_same_settings(out, settings)
    (out / "cohort.json").unlink(missing_ok=True)  # no cohort until this run is through
    shutil.rmtree(out / "cache", ignore_errors=True)
    done: list[ScanRef] = []
    qc: list[list[Any]] = []
    outcomes = run_scans(
        partial(_one, out=out, settings=settings, config=config, tools=tools), refs, workers
    )
    for ref, outcome in zip(
        refs, progress(outcomes, "preprocess", len(refs), quiet=quiet), strict=True
    ):
        if isinstance(outcome, str):
            shutil.rmtree(out / ref.name, ignore_errors=True)
            logger.error("%s failed: %s", ref.name, outcome)
            qc.append([ref.name, "failed", outcome, *[""] * (len(QC_COLUMNS) - 3)])
            continue
        finished, record = outcome
        done.append(finished)
        status = "flagged" if record["flags"] else "ok"
        qc.append(
            [
                ref.name,
                status,
                "; ".join(record["flags"]),
                *(record.get(key, "") for key in QC_COLUMNS[3:-1]),
                "; ".join(record["notes"]),
            ]
        )
    write_table(out / "qc.csv", QC_COLUMNS, qc)
    if done:
        write_cohort(
            out, done, {**settings, "maediff": __version__, "n_failed": len(refs) - len(done)}
        )
    return len(refs) - len(done)


def _one(
    ref: ScanRef,
    out: Path,
    settings: Mapping[str, Any],
    config: PreparationConfig,
    tools: Tools | None,
) -> tuple[ScanRef, dict[str, Any]]:
    """Do one scan, or find it done; returns it with `healthy` filled in, and its record."""
    started = time.monotonic()
    key = {
        **settings,
        **identity(ref),
        "maediff": __version__,
        "healthy": [ref.healthy, ref.healthy_is_stated],
        "extra": ref.extra,
        "lesion_labels": ref.lesion_labels,
    }
    kinds = ("image", "brain_mask", *(["lesion_mask"] if ref.lesion_mask else []))
    if all((out / ref.name / f"{kind}.nii.gz").is_file() for kind in kinds):
        try:
            known = json.loads((out / ref.name / "image.json").read_text(encoding="utf-8"))
            if known["settings"] == json.loads(json.dumps(key)):
                return replace(ref, healthy=known["healthy"]), known["record"]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # absent or damaged: do it again
    shutil.rmtree(out / ref.name, ignore_errors=True)
    volume = read_volume(ref)
    brain = (
        None if ref.brain_mask is None else read_mask(ref.brain_mask, volume, allow_empty=False)
    )
    lesion = (
        None
        if ref.lesion_mask is None
        else read_mask(ref.lesion_mask, volume, labels=ref.lesion_labels)
    )
    if lesion is not None and ref.healthy is not None and lesion.any() == ref.healthy:
        raise InputError(
            f"{ref.lesion_mask}: {'holds' if lesion.any() else 'holds no'} lesion, and the manifest says "
            f"healthy={int(ref.healthy)}; correct one of them, or leave healthy empty"
        )
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
    if scan.on_scan.extracted or prepared.record["flags"]:
        write_picture(out / ref.name / "qc.png", volume, scan.on_scan.brain)
    prepared.record["seconds"] = round(time.monotonic() - started, 1)
    write_subject(out, finished, prepared, key)
    return finished, prepared.record


def _common_modality(refs: Sequence[ScanRef]) -> str:
    found = {ref.modality for ref in refs if not ref.problem}
    if len(found) == 1 and found <= {*MODALITIES}:
        return str(found.pop())
    told = " and ".join(sorted(str(name) for name in found if name)) or "none of them"
    raise InputError(
        f"{refs[0].image}{' and others' if len(refs) > 1 else ''}: the file names tell no single modality "
        f"({told}); say it with --modality {'|'.join(MODALITIES)}"
    )


def _check_same_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Refuse to resume a cohort that was made in another way."""
    try:
        known = read_json(out / "cohort.json")
    except InputError:
        return  # absent or damaged: it is written anew, and each scan's image.json tells whether that one is done
    for name, value in json.loads(json.dumps(settings)).items():
        if known.get(name, value) != value:
            raise InputError(
                f"{out}: was made with {name} {known.get(name)}, now asked for {value}; add --overwrite "
                "to start anew, or choose another folder"
            )
