"""Scan in; anomaly map, anomaly mask, healthy reference, brain mask and summary out, on the scan's own grid.

    DETECT/<subject>/{anomaly_map,anomaly_mask,healthy_reference,brain_mask}.nii.gz, summary.json, slices.npz
    DETECT/<subject>/anomaly_mask.dcm, viewer.html                    DICOM SEG, slice viewer, where they were asked for
    DETECT/detect.json    what all of them share: model, threshold, settings, versions

Regions and volumes in summary.json are those on the model's grid; each of them is marked in the mask, too, even where
the scan's slices are so thick that the mask takes up more room than the region does.

A subject's folder appears when it is whole: it is written under a hidden name and moved into place. `made_from` in
summary.json, a hash of the settings and of the input files' identity, tells whether it is still what a resumed run
would make.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maediff import __version__
from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask, changed, check_symmetry
from maediff.anomaly.regions import find_regions
from maediff.anomaly.score import scan_score
from maediff.anomaly.snapshots import Snapshot, pick_slices, save_slices
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output, write_json
from maediff.detection.detector import find_anomalies
from maediff.detection.to_scan import mask_from_grid
from maediff.detection.viewer import write_viewer
from maediff.methods import Method
from maediff.models.card import show_terms
from maediff.models.catalogue import marks, pick
from maediff.models.folder import config_of
from maediff.models.model import load_model
from maediff.models.operating_point import (
    own_postprocess,
    own_threshold,
    threshold_at,
    threshold_for_scans,
)
from maediff.models.reference import run_folders
from maediff.preparation.config import RECORDED, StepsConfig, is_registered, settings_of, steps_of
from maediff.preparation.picture import write_picture
from maediff.scans.dicom.segmentation import check_dicom_seg, write_dicom_seg
from maediff.scans.nifti import read_mask, write_on_scan_grid
from maediff.scans.parallel import progress, run_scans
from maediff.scans.read import identity, read_volume
from maediff.scans.reference import ScanRef
from maediff.scans.volume import slices_to_volume

logger = logging.getLogger(__name__)
IMAGES = ("anomaly_map", "anomaly_mask", "healthy_reference", "brain_mask")


def detect(
    refs: Sequence[ScanRef],
    out: Path,
    *,
    model: str | None = None,
    modality: str | None = None,
    threshold: float | None = None,
    fpr: float | None = None,
    scan_fpr: float | None = None,
    brain_mask: Path | None = None,
    steps: StepsConfig | None = None,
    dicom_seg: bool = False,
    viewer: bool = False,
    image_of: Callable[[ScanRef, str], Path] | None = None,
    post: Mapping[str, Any] | None = None,
    batch_size: int = 16,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> int:
    """Write results for each scan to `out`; returns how many scans failed, each named in the log with its reason.

    Args:
        model: a run folder or a shipped model's name; `RUN@t_test=125` changes settings at test, `RUN_A+RUN_B`
            averages their references. None picks the shipped model for the contrast that `modality` or the files'
            names tell, and says so.
        threshold: of the anomaly mask; None takes the one for `scan_fpr` or `fpr` from the run's calibration, or the
            run's own (`operating_point.own_threshold`) where neither is given.
        fpr: share of healthy voxels above the threshold, as counted on the run's healthy val scans; no promise.
        scan_fpr: share of new healthy scans of the same population that is flagged at most, on average.
        brain_mask: for a single scan, instead of one that is extracted.
        steps: how brains are extracted and checked; N4 and registration are those of the model's cohort.
        post: changes to the model's own post-processing, by field of `PostprocessConfig`.
        dicom_seg: write the mask as DICOM SEG, too; every scan has to be DICOM.
        viewer: write viewer.html, too, a page to move through the scan in, some megabytes and seconds for each.
        image_of: where an image of `IMAGES` lies that was moved away once its scan was done.
        workers: scans done at once, each in a process with one thread.
        resume: keep what was made from the same files with the same settings and is all there, make the rest.

    Raises:
        InputError: no model for the contrast, no threshold to be had, an output folder that exists or holds an input.
    """
    if brain_mask is not None and len(refs) != 1:
        raise InputError(
            f"--brain-mask {brain_mask}: for one scan, but {len(refs)} were found; use a manifest CSV"
        )
    if brain_mask is not None and not brain_mask.is_file():
        raise InputError(f"--brain-mask {brain_mask}: no such file; check the path")
    if dicom_seg:
        check_dicom_seg(refs)
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"--threshold {threshold}: give a number from 0 to 1")
    if sum(value is not None for value in (threshold, fpr, scan_fpr)) > 1:
        raise InputError("--threshold, --fpr and --scan-fpr: give one of them")
    model, why = (model, "given with --model") if model else _pick_model(refs, modality)
    device = resolve_device(device)
    method, info = load_model(model, device)
    expected, marked = (
        info["cohort"]["modality"],
        marks(config_of(method).get("0") or config_of(method)),
    )
    logger.info("%s marks %s", info["name"], marked)
    if modality is not None and modality != expected:
        raise InputError(
            f"{model}: a model for {expected}, and --modality says {modality}; choose another --model"
        )
    if modality is None and all(ref.modality not in (None, "other", expected) for ref in refs):
        raise _other_contrast(refs[0], info["name"], expected)
    postprocess = changed(own_postprocess(model), post)
    check_symmetry(postprocess, is_registered(info["cohort"]), model)
    about: dict[str, Any] = {"given": True}
    if scan_fpr is not None:
        threshold, about = threshold_for_scans(
            model, config_of(method), scan_fpr, step=info["step"], post=postprocess
        )
    elif fpr is not None:
        threshold, about = threshold_at(
            model, config_of(method), fpr, step=info["step"], post=postprocess
        )
    elif threshold is None:
        threshold, about = own_threshold(
            model, config_of(method), step=info["step"], post=postprocess
        )
    refs = [replace(ref, brain_mask=brain_mask or ref.brain_mask) for ref in refs]
    refuse_inputs_inside_output(
        out, [*run_folders(model), *(file for ref in refs for file in ref.files)]
    )
    fresh_folder(out, overwrite=overwrite, resume=resume)
    for leftover in out.glob(".*.tmp-*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    asked = steps or StepsConfig()
    shared = {
        "model": info["name"],
        "model_from": why,
        "terms": " ".join(filter(None, map(show_terms, run_folders(model)))),
        "marks": marked,
        "method": info["method"],
        "modality": expected,
        "threshold": threshold,
        "threshold_from": about,
        "seed": seed,
        "config": config_of(method),
        "postprocess": asdict(postprocess),
        "grid": info["cohort"]["grid"],
        "normalise": info["cohort"]["normalise"],
        "model_step": info["step"],
        **{key: info["cohort"].get(key, {}) for key in RECORDED},
        "versions": {"maediff": __version__, "torch": torch.__version__, "numpy": np.__version__},
        **{key: settings_of(asked)[key] for key in ("brain", "qc")},
        "dicom_seg": dicom_seg,
        "viewer": viewer,
    }
    _check_same(out / "detect.json", shared)
    write_json(out / "detect.json", shared)
    steps_here = replace(steps_of(shared), brain=asked.brain, qc=asked.qc)
    # another process loads the model once instead of being sent it with every scan
    load = partial(_model, model, device, time.time_ns()) if workers > 1 else lambda: method
    one = partial(
        _one,
        out=out,
        load=load,
        shared=shared,
        image_of=image_of,
        any_name=modality is not None,
        post=postprocess,
        batch_size=batch_size,
        device=device,
        steps=steps_here,
    )
    failures: dict[str, str] = {}
    outcomes = run_scans(one, refs, workers, threads=1)
    for ref, failed in zip(
        refs, progress(outcomes, "detect", len(refs), quiet=quiet), strict=True
    ):
        if failed is not None:
            failures[ref.name] = _without_folders(failed, ref)
            logger.error("%s failed: %s", ref.name, failed)
    if failures:
        write_json(out / "detect.json", {**shared, "failures": failures})
    return len(failures)


def _pick_model(refs: Sequence[ScanRef], modality: str | None) -> tuple[str, str]:
    """The shipped model for the scans' contrast, and why it is that one.

    Raises:
        InputError: the contrast is not known or not the same for all, or there is no model for it.
    """
    told = sorted({ref.modality for ref in refs if ref.modality not in (None, "other")} - {None})
    if modality is None and len(told) != 1:
        what = (
            f"the scans are {' and '.join(told)}"
            if told
            else f"{refs[0].image}: the name tells no contrast"
        )
        raise InputError(f"{what}; say which with --modality T1w, T2w or FLAIR, or give --model")
    contrast = modality or told[0]
    name, _ = pick(contrast)
    why = f"chosen because {'--modality says' if modality else 'the names of the files say'} {contrast}"
    logger.info("model: %s, %s", name, why)
    return name, why


def _check_same(path: Path, shared: dict[str, Any]) -> None:
    """Refuse to go on in a folder that was made with other settings."""
    if path.is_file():
        known = read_json(path, remedy="choose another folder or add --overwrite")
        changed = [
            key for key, value in json.loads(json.dumps(shared)).items() if known.get(key) != value
        ]
        if changed:
            raise InputError(
                f"{path.parent}: was made with another {', '.join(changed)}; choose another folder or add --overwrite"
            )


@lru_cache(maxsize=1)
def _model(reference: str, device: str, call: int) -> Method:  # noqa: ARG001
    """The model, loaded once in a process and for each `call` of detect."""
    return load_model(reference, device)[0]


def _made_from(ref: ScanRef, shared: dict[str, Any]) -> str:
    """Hexadecimal; a hash, because summaries go to others and paths do not."""
    return hashlib.sha256(
        json.dumps([shared, identity(replace(ref, lesion_mask=None))]).encode()
    ).hexdigest()


def _other_contrast(ref: ScanRef, model: str, expected: str) -> InputError:
    return InputError(
        f"{ref.image}: {ref.modality} by its name, but {model} is a model for {expected}; add --modality {expected} if "
        "the name is wrong"
    )


def _without_folders(text: str, ref: ScanRef) -> str:
    """A message for what goes to others: a scan's files by name, not by where they lie."""
    for path in ref.files:
        text = text.replace(f"{path.parent}{os.sep}", "")
    return text


def _is_done(folder: Path, made_from: str, files: Sequence[Path]) -> bool:
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        return bool(summary["made_from"] == made_from) and all(path.is_file() for path in files)
    except (OSError, ValueError, KeyError, TypeError):  # absent or damaged
        return False


def _one(
    ref: ScanRef,
    out: Path,
    load: Callable[[], Method],
    shared: dict[str, Any],
    image_of: Callable[[ScanRef, str], Path] | None,
    any_name: bool,
    **how: Any,
) -> None:
    """Do one scan, or find it done."""
    made_from = _made_from(ref, shared)
    folder = out / ref.name
    files = [image_of(ref, kind) if image_of else folder / f"{kind}.nii.gz" for kind in IMAGES]
    wanted = {
        "slices.npz": True,
        "anomaly_mask.dcm": shared["dicom_seg"],
        "viewer.html": shared["viewer"],
    }
    files += [folder / name for name, is_wanted in wanted.items() if is_wanted]
    if _is_done(folder, made_from, files):
        return  # only with resume
    shutil.rmtree(folder, ignore_errors=True)
    expected = shared["modality"]
    if ref.modality not in (None, "other", expected) and not any_name:
        raise _other_contrast(ref, shared["model"], expected)
    _detect_one(ref, out, load(), shared, made_from=made_from, **how)


def _detect_one(
    ref: ScanRef,
    out: Path,
    method: Method,
    shared: dict[str, Any],
    post: PostprocessConfig,
    batch_size: int,
    device: str,
    steps: StepsConfig,
    made_from: str,
) -> None:
    volume = read_volume(ref)
    given = (
        None if ref.brain_mask is None else read_mask(ref.brain_mask, volume, allow_empty=False)
    )
    found = find_anomalies(
        volume,
        method,
        shared,
        post,
        brain=given,
        steps=steps,
        t1=ref.t1,
        t1_series=ref.t1_series,
        seed=shared["seed"],
        batch_size=batch_size,
        device=device,
    )
    spacing, grid, record = found.spacing_mm, found.prepared.grid, found.prepared.record
    mask = anomaly_mask(found.anomaly, found.brain, shared["threshold"], spacing, post)
    regions = find_regions(slices_to_volume(found.anomaly), slices_to_volume(mask), grid.affine)
    voxel_ml = abs(float(np.linalg.det(grid.affine[:3, :3]))) / 1000
    on_scan = {
        "anomaly_map": found.anomaly_map,
        "anomaly_mask": mask_from_grid(slices_to_volume(mask), grid, volume),
        "healthy_reference": found.healthy_reference,
        "brain_mask": found.brain_mask,
    }
    summary = {
        "subject": ref.name,
        "model": shared["model"],
        "model_from": shared["model_from"],
        "modality": shared["modality"],
        "score": scan_score(found.anomaly, found.brain, spacing, post),
        "threshold": shared["threshold"],
        "volume_ml": float(mask.sum()) * voxel_ml,
        "regions": [asdict(region) for region in regions],
        "qc": {**record, "notes": [_without_folders(note, ref) for note in record["notes"]]},
        "versions": shared["versions"],
        "scan": ref.image.name,
        "made_from": made_from,
    }
    folder = out / f".{ref.name}.tmp-{os.getpid()}"
    try:
        for name, data in on_scan.items():
            write_on_scan_grid(folder / f"{name}.nii.gz", data, volume)
        ids = np.arange(len(found.images))
        whole = Snapshot(
            ids,
            found.images,
            found.anomaly,
            found.brain,
            mask,
            spacing,
            found.reference,
            z_mm=grid.slice_heights_mm,
        )
        save_slices(folder / "slices.npz", whole, pick_slices(found.brain, found.anomaly))
        if found.stepped.extracted or record["flags"]:
            write_picture(folder / "qc.png", volume, found.stepped.brain)
        if shared["dicom_seg"]:
            write_dicom_seg(
                folder / "anomaly_mask.dcm", on_scan["anomaly_mask"], volume, ref, shared["model"]
            )
        if shared["viewer"]:
            write_viewer(
                folder / "viewer.html", volume, found.anomaly_map, shared["threshold"], ref.name
            )
        write_json(folder / "summary.json", summary)
        os.replace(folder, out / ref.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
