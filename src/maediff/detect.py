"""Scan in; anomaly map, anomaly mask, healthy reference, brain mask and summary out, on the scan's own grid.

    DETECT/<subject>/{anomaly_map,anomaly_mask,healthy_reference,brain_mask}.nii.gz, summary.json, slices.npz
    DETECT/<subject>/anomaly_mask.dcm                                 DICOM SEG, where it was asked for
    DETECT/detect.json    what all of them share: model, threshold, settings, versions

A subject's folder appears when it is whole: it is written under a hidden name and moved into place.
"""

import json
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from maediff import __version__
from maediff.checkpoint import config_of, load_model, run_folders
from maediff.dicom import read_volume
from maediff.dicom_seg import check_dicom_seg, write_dicom_seg
from maediff.errors import InputError
from maediff.files import check_apart, fresh_folder, write_json
from maediff.grid import GridConfig, from_grid, prepare_scan
from maediff.inputs import ScanRef
from maediff.intensities import NormaliseConfig, standardise
from maediff.methods import Method, predict_volume
from maediff.operating_point import threshold_at, threshold_for_scans
from maediff.postprocess import DEFAULT, PostprocessConfig, anomaly_mask, find_regions, residual_map, scan_score
from maediff.quality import write_picture
from maediff.scans import read_mask, slices_to_volume, volume_to_slices, write_on_scan_grid
from maediff.settings import build_config, resolve_device
from maediff.shipped import pick, show_terms
from maediff.snapshots import Snapshot, pick_slices, save_slices
from maediff.steps import RECORDED, ZERO_BACKGROUND, StepsConfig, run_steps, steps_of

logger = logging.getLogger(__name__)
DEFAULT_FPR = 0.01


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
    post: PostprocessConfig = DEFAULT,
    batch_size: int = 16,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> int:
    """Write results for each scan to `out`; returns how many scans failed, each named in the log with its reason.

    Args:
        model: a run folder or a shipped model's name; `RUN@t_test=125` changes settings at test, `RUN_A+RUN_B`
            averages two references. None picks the
            shipped model for the contrast that `modality` or the files' names tell, and says so.
        threshold: of the anomaly mask; None takes the one for `scan_fpr` or `fpr` from the run's calibration.
        fpr: share of healthy voxels above the threshold, as counted on the run's healthy val scans; no promise.
        scan_fpr: share of new healthy scans of the same population that is flagged at most, on average.
        brain_mask: for a single scan, instead of one that is extracted.
        steps: how brains are extracted and checked; N4 and registration are those of the model's cohort.
        dicom_seg: write the mask as DICOM SEG, too; every scan has to be DICOM.

    Raises:
        InputError: no model for the contrast, no threshold to be had, an output folder that exists.
    """
    if brain_mask is not None and len(refs) != 1:
        raise InputError(f"--brain-mask {brain_mask}: for one scan, but {len(refs)} were found; use a manifest CSV")
    if dicom_seg:
        check_dicom_seg(refs)
    if sum(value is not None for value in (threshold, fpr, scan_fpr)) > 1:
        raise InputError("--threshold, --fpr and --scan-fpr: give one of them")
    model, why = (model, "--model") if model else _pick_model(refs, modality)
    device = resolve_device(device)
    method, info = load_model(model, device)
    expected = info["cohort"]["modality"]
    if modality is not None and modality != expected:
        raise InputError(f"{model}: a model for {expected}, and --modality says {modality}; choose another --model")
    about: dict[str, Any] = {"given": True}
    if scan_fpr is not None:
        threshold, about = threshold_for_scans(model, config_of(method), scan_fpr, step=info["step"], post=post)
    elif threshold is None:
        threshold, about = threshold_at(
            model, config_of(method), DEFAULT_FPR if fpr is None else fpr, step=info["step"], post=post
        )
    check_apart(out, [*run_folders(model), *(ref.image for ref in refs)])
    fresh_folder(out, overwrite=overwrite, resume=resume)
    for leftover in out.glob(".*.tmp-*"):  # of a run that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    shared = {
        "model": info["name"], "model_from": why, "terms": " ".join(filter(None, map(show_terms, run_folders(model)))),
        "method": info["method"], "modality": expected, "threshold": threshold,
        "threshold_from": about, "seed": seed, "config": config_of(method), "postprocess": asdict(post),
        "grid": info["cohort"]["grid"], "normalise": info["cohort"]["normalise"], "model_step": info["step"],
        **{key: info["cohort"].get(key, {}) for key in RECORDED},
        "versions": {"maediff": __version__, "torch": torch.__version__, "numpy": np.__version__},
        **({"dicom_seg": True} if dicom_seg else {}),
    }  # fmt: skip
    _check_same(out / "detect.json", shared)
    write_json(out / "detect.json", shared)
    asked = steps or StepsConfig()
    steps_here = replace(steps_of(shared), brain=asked.brain, qc=asked.qc)
    failures: dict[str, str] = {}
    for ref in track(refs, "detect", disable=quiet or len(refs) < 2, transient=True):
        if (out / ref.name / "summary.json").is_file():
            continue  # only with resume
        try:
            if ref.modality not in (None, "other", expected) and modality is None:
                raise InputError(
                    f"{ref.image}: {ref.modality} by its name, but {model} is a model for {expected}; "
                    f"add --modality {expected} if the name is wrong"
                )
            _detect_one(replace(ref, brain_mask=brain_mask or ref.brain_mask), out, method, shared, post, batch_size,
                        device, steps_here)  # fmt: skip
        except InputError as error:
            failures[ref.name] = str(error)
        except Exception as error:  # one scan never stops the rest
            logger.debug("%s", ref.name, exc_info=True)
            failures[ref.name] = f"{ref.image}: {type(error).__name__}: {error}"
        if ref.name in failures:
            logger.error("%s failed: %s", ref.name, failures[ref.name])
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
        what = f"the scans are {' and '.join(told)}" if told else f"{refs[0].image}: the name tells no contrast"
        raise InputError(f"{what}; say which with --modality T1w, T2w or FLAIR, or give --model")
    contrast = modality or told[0]
    name, card = pick(contrast)
    why = f"the model for {contrast}, which {'--modality says' if modality else 'the files are by their names'}"
    logger.info("model: %s, %s (%s)", name, why, card.summary)
    return name, why


def _check_same(path: Path, shared: dict[str, Any]) -> None:
    """Refuse to go on in a folder that was made with other settings."""
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path}: damaged ({error}); choose another folder or add --overwrite") from None
        changed = [key for key, value in json.loads(json.dumps(shared)).items() if known.get(key) != value]
        if changed:
            raise InputError(
                f"{path.parent}: was made with another {', '.join(changed)}; choose another folder or add --overwrite"
            )


def _detect_one(
    ref: ScanRef,
    out: Path,
    method: Method,
    shared: dict[str, Any],
    post: PostprocessConfig,
    batch_size: int,
    device: str,
    steps: StepsConfig,
) -> None:
    volume = read_volume(ref)
    given = None if ref.brain_mask is None else read_mask(ref.brain_mask, volume, allow_empty=False)
    normalise = build_config(NormaliseConfig, shared["normalise"], "normalise")
    stepped = run_steps(volume, given, steps, modality=shared["modality"], t1=ref.t1, t1_series=ref.t1_series)
    prepared = prepare_scan(
        stepped.volume,
        stepped.brain,
        None,
        build_config(GridConfig, shared["grid"], "grid"),
        normalise,
        brain_from=stepped.brain_from,
        to_atlas=stepped.to_atlas,
    )
    stepped.add_to(prepared)
    images, brain = volume_to_slices(prepared.image), volume_to_slices(prepared.brain)
    x, y, z = (float(size) for size in prepared.grid.spacing_mm)
    ids = np.arange(len(images))
    residual, reference = predict_volume(
        method, images, brain, ids, seed=shared["seed"], batch_size=batch_size, device=device
    )
    anomaly = residual_map(residual, brain, (x, y, z), post)
    mask = anomaly_mask(anomaly, brain, shared["threshold"], (x, y, z), post)
    regions = find_regions(slices_to_volume(anomaly), slices_to_volume(mask), prepared.grid.affine)
    voxel_ml = abs(float(np.linalg.det(prepared.grid.affine[:3, :3]))) / 1000
    low, high = prepared.record["intensity_range"]
    linear = standardise(reference, prepared.record.get("deciles", []), normalise, back=True)
    redrawn = slices_to_volume((low + (high - low) * linear) * brain)
    on_scan = {
        "anomaly_map": from_grid(slices_to_volume(anomaly), prepared.grid, volume, "linear"),
        "anomaly_mask": from_grid(slices_to_volume(mask), prepared.grid, volume, "nearest"),
        "healthy_reference": from_grid(redrawn, prepared.grid, volume, "linear"),
        "brain_mask": from_grid(prepared.brain, prepared.grid, volume, "nearest")
        if stepped.brain_from == ZERO_BACKGROUND and stepped.to_atlas is None else stepped.brain,
    }  # fmt: skip
    if stepped.bias_field is not None:  # redrawn with the scan's own shading
        on_scan["healthy_reference"] = on_scan["healthy_reference"] * stepped.bias_field
    on_scan["anomaly_map"] = np.where(on_scan["brain_mask"], on_scan["anomaly_map"], 0).astype(np.float32)
    summary = {
        "subject": ref.name,
        "model": shared["model"],
        "model_from": shared["model_from"],
        "modality": shared["modality"],
        "score": scan_score(anomaly, brain, (x, y, z), post),
        "threshold": shared["threshold"],
        "volume_ml": float(mask.sum()) * voxel_ml,
        "regions": [asdict(region) for region in regions],
        "qc": prepared.record,
        "versions": shared["versions"],
        "scan": ref.image.name,
    }
    folder = out / f".{ref.name}.tmp-{os.getpid()}"
    try:
        for name, data in on_scan.items():
            write_on_scan_grid(folder / f"{name}.nii.gz", data, volume)
        whole = Snapshot(ids, images, anomaly, brain, mask, (x, y, z), reference, None)
        save_slices(folder / "slices.npz", whole, pick_slices(brain, anomaly))
        if stepped.extracted or prepared.record["flags"]:
            write_picture(folder / "qc.png", volume, stepped.brain)
        if shared.get("dicom_seg"):
            write_dicom_seg(folder / "anomaly_mask.dcm", on_scan["anomaly_mask"], volume, ref, shared["model"])
        write_json(folder / "summary.json", summary)
        shutil.rmtree(out / ref.name, ignore_errors=True)
        os.replace(folder, out / ref.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
