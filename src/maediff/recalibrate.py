"""`maediff calibrate`: a model as it is, with thresholds from a site's own healthy scans.

    OUT/  the model's weights and settings, and a calibration.json from every healthy person of COHORT

The network is not changed. What a threshold promises (`operating_point`) holds for scans like those that it was taken
from, so another scanner wants its own.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maediff.anomaly.postprocess import changed
from maediff.checkpoint import load_model
from maediff.cohort.cohort import Cohort, Row
from maediff.cohort.splits import person_code
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import check_apart, fresh_folder
from maediff.operating_point import calibrate, own_fpr, own_postprocess
from maediff.preparation.config import scans_unlike
from maediff.references import split_mean, split_reference
from maediff.run_folder import read_config, trained_on, write_config

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
    check_apart(out, [folder, cohort_path])
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
