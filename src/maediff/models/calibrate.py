"""`maediff calibrate`: a model as it is, with thresholds from a site's own healthy scans.

    OUT/  the model's weights and settings, and a calibration.json from every healthy person of COHORT

The network is not changed. What a threshold promises (`operating_point`) holds for scans like those that it was taken
from, so another scanner wants its own.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maediff.anomaly.postprocess import (
    PostprocessConfig,
    changed,
    check_symmetry,
    eroded_brain,
    residual_map,
)
from maediff.anomaly.score import scan_score
from maediff.anomaly.thresholds import CALIBRATION_SCANS, threshold_from_healthy
from maediff.cohort.cohort import Cohort, Row
from maediff.cohort.splits import person_code
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_json
from maediff.core.types import Map, Mask
from maediff.methods import predict_volume
from maediff.models.folder import config_of, read_config, trained_on, write_config
from maediff.models.model import load_model
from maediff.models.operating_point import DEFAULT_FPR, FPRS, own_fpr, own_postprocess
from maediff.models.reference import split_mean, split_reference
from maediff.preparation.config import is_registered, scans_unlike

LEFT_BEHIND = shutil.ignore_patterns(
    "optimizer-*.pt", "report.html", ".*"
)  # what only training and reading need
MAX_SCANS = 200


def unseen_healthy(cohort: Cohort, folder: Path) -> list[Row]:
    """The healthy scans, of any split, of people that the model in `folder` was not trained on."""
    seen = set(trained_on(folder))
    return [
        row
        for row in cohort.rows
        if row.healthy and person_code(row.dataset, row.subject) not in seen
    ]


def recalibrate(
    model: str,
    cohort_path: Path,
    out: Path,
    *,
    post: Mapping[str, Any] | None = None,
    max_scans: int = MAX_SCANS,
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the model to `out` with thresholds from the healthy scans of all splits, and return its calibration.

    Args:
        model: as `load_model` takes it; the settings in `RUN@t_test=125` become the model's own.
        post: changes to the model's own post-processing, by field of `PostprocessConfig`; they become its own, too.
        max_scans: healthy scans used at most, one a person, the first by name.

    Raises:
        InputError: a mean of models; a cohort of another contrast, or prepared otherwise than the model's scans; no
            healthy scan of a person that the model was not trained on.
    """
    if len(split_mean(model)) > 1:
        raise InputError(f"{model}: the mean of runs cannot be calibrated; give one model")
    _, info = load_model(model)
    folder, cohort = split_reference(model)[0], Cohort.open(cohort_path)
    if unlike := scans_unlike(info["cohort"], cohort.meta):
        raise InputError(
            f"{cohort_path}: has another {', '.join(unlike)} than the scans of {model}, so no threshold "
            f"would hold; preprocess the scans with --like {model}"
        )
    rows = unseen_healthy(cohort, folder)
    if not rows:
        raise InputError(
            f"{cohort_path}: no healthy scan of a person that {model} was not trained on; add scans with "
            "healthy=1 in the manifest"
        )
    chosen, rate = changed(own_postprocess(model), post), own_fpr(model)
    refuse_inputs_inside_output(out, [folder, cohort_path])
    fresh_folder(out, overwrite=overwrite)
    try:
        shutil.copytree(folder, out, ignore=LEFT_BEHIND, dirs_exist_ok=True)
        config = read_config(folder) | {"config": info["config"]}
        write_config(out, {key: value for key, value in config.items() if key != "format"})
        device = resolve_device(device)
        result = calibrate(
            out,
            cohort,
            rows=rows,
            post=chosen,
            max_scans=max_scans,
            device=device,
            seed=seed,
            rate=rate,
        )
        if result is None:
            raise InputError(
                f"{cohort_path}: erosion leaves none of its brains; lower postprocess.erosion_iterations"
            )
    except BaseException:  # no model whose thresholds are another's
        shutil.rmtree(out, ignore_errors=True)
        raise
    return result


logger = logging.getLogger(__name__)


def calibrate(
    run: str | Path,
    cohort: Cohort,
    *,
    rows: Sequence[Row] | None = None,
    device: str = "cpu",
    post: PostprocessConfig | None = None,
    seed: int = 0,
    max_scans: int = CALIBRATION_SCANS,
    rate: float = DEFAULT_FPR,
) -> dict[str, Any] | None:
    """Thresholds of a run from the healthy scans of `cohort`'s val split, written to RUN/calibration.json.

    Where none of them is healthy, the lesion-free slices of patients stand in for voxels, and the file says so; they
    cannot stand in for whole scans. None (and no file) where there is neither.

    Args:
        rows: scans to take instead of the val split.
        post: None: what the run was calibrated with before, else the default.
        max_scans: used at most, the first by name, one of each person.
        rate: what `detect` takes where nobody names one.
    """
    method, info = load_model(run, device)
    post = post or own_postprocess(run)
    check_symmetry(post, is_registered(cohort.meta), str(cohort.path))
    rows = sorted(cohort.split("val") if rows is None else rows, key=lambda row: row.name)
    healthy = [row for row in rows if row.healthy]
    maps: list[Map] = []
    brains: list[Mask] = []
    used: list[str] = []
    scores: list[float] = []
    people = {
        person_code(row.dataset, row.subject): row for row in reversed(healthy or rows)
    }  # the first scan of each
    logger.info(
        "calibrating %s on the scans of %d people", Path(run).name, min(len(people), max_scans)
    )
    for row in reversed(people.values()):
        if len(used) == max_scans:
            break
        scan = cohort.load(row)
        inside = eroded_brain(scan.brain, post) & scan.lesion_free[:, None, None]
        if inside.any():
            residual, _ = predict_volume(
                method, scan.images, scan.brain, scan.slice_ids, seed=seed, device=device
            )
            maps.append(residual_map(residual, scan.brain, scan.spacing_mm, post, scan.images))
            brains.append(inside)
            used.append(scan.subject)
            if healthy:
                scores.append(scan_score(maps[-1], scan.brain, scan.spacing_mm, post))
    if not used:
        return None
    result = {
        "source": "healthy scans" if healthy else "lesion-free slices of patients",
        "n_scans": len(used),
        "n_voxels": int(sum(brain.sum() for brain in brains)),
        "config": config_of(method),
        "postprocess": asdict(post),
        "step": info["step"],
        "fprs": list(FPRS),
        "thresholds": [threshold_from_healthy(maps, brains, fpr) for fpr in FPRS],
        "scan_scores": scores,
    }
    if rate != DEFAULT_FPR:
        result["default_fpr"] = rate
    write_json(split_reference(run)[0] / "calibration.json", result)
    return result
