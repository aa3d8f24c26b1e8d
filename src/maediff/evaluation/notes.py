"""Notes under the tables of an evaluation: how the scores were computed."""

from collections.abc import Mapping
from typing import Any

from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, own_steps_of
from maediff.anomaly.thresholds import scans_needed
from maediff.evaluation.scoring import ScoringConfig
from maediff.evaluation.thresholds import HEALTHY_SLICES


def describe_evaluation(summary: Mapping[str, Any], config: ScoringConfig) -> list[str]:
    """Return the notes on subjects, post-processing and thresholds.

    Args:
        summary: content of summary.json.
        config: the choices of the evaluation.
    """
    n_people, n_scans = summary["n_subjects"], summary["n_scans"]
    scans = (
        f" with {n_scans} scans; the mean of a person's scans counts once"
        if n_scans != n_people
        else ""
    )
    methods = summary["methods"].values()
    notes = [
        f"{n_people} subject{'s' * (n_people != 1)}{scans}: {summary['n_lesion']} with a lesion, "
        f"{summary['n_healthy']} healthy. Brackets: 95 % bootstrap interval over subjects "
        "(Clopper-Pearson for flagged scans).",
        "Post-processing, the same for all: "
        f"{_describe_postprocess(config.postprocess or DEFAULT)}",
        "Dice: at the threshold with the highest mean Dice on labelled calibration subjects. "
        f"Healthy threshold: masks hold at most {config.fpr:.2%} of healthy voxels. Oracle: the "
        "threshold with the highest mean Dice on the scored subjects themselves, which is unknown "
        "in practice.",
        _describe_conformal(next(iter(methods))["conformal"], config.scan_fpr),
    ]
    if any(method["healthy_source"] == HEALTHY_SLICES for method in methods):
        notes.append(
            "The calibration split has no healthy subject: the healthy threshold is from "
            "lesion-free slices of patients."
        )
    return notes


def _describe_postprocess(config: PostprocessConfig) -> str:
    """Return the steps from residual to anomaly map and mask, in words."""
    steps = _list_first_steps(own_steps_of(config))
    if config.smooth_mm:
        *blurs, last = (f"{mm:g}" for mm in config.smooth_mm)
        blurs_mm = f"{', '.join(blurs)} and {last}" if blurs else last
        filters = f"{config.smooth_mean} mean of Gaussian blurs" if blurs else "Gaussian blur"
        steps.append(f"{filters} of {blurs_mm} mm")
    else:
        steps.append("no blur")
    if config.symmetry:
        steps.append(f"minus {config.symmetry:.0%} of what both sides of the brain have in common")
    if config.times_intensity:
        steps.append(f"times the intensity to the power {config.times_intensity:g}")
    if config.median_size > 1:
        steps.append(
            f"median filter {config.median_size} (within the slice where slices are more than "
            f"{config.thick_slice_mm:g} mm apart)"
        )
    else:
        steps.append("no median filter")
    return (
        f"{', '.join(steps)}. The raw residual has none of it, and maps of `maediff detect` are "
        f"not post-processed twice. For masks, the brain is eroded {config.erosion_iterations} "
        f"times in the slice, and components under {config.min_volume_mm3:g} mm3 are removed."
        + (f" Regions grow to {config.extent:.0%} of the threshold." if config.extent < 1 else "")
    )


def describe_own_steps(own_steps: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return notes for each run with first steps of its own, or with regions that grow.

    Args:
        own_steps: run -> field in `OWN_STEPS` -> value.
    """
    notes = []
    for name, values in own_steps.items():
        if steps := _list_first_steps(values):
            notes.append(
                f"{name} has steps of its own before these, also in its raw residual: "
                f"{', '.join(steps)}."
            )
        if (extent := values.get("extent", 1.0)) < 1:
            notes.append(f"Regions of {name} grow to {extent:.0%} of the threshold.")
    return notes


def _list_first_steps(values: Mapping[str, Any]) -> list[str]:
    """Return the first steps of the post-processing in words; empty if they are disabled."""
    steps = []
    if smooth_mm := values.get("first_smooth_mm"):
        steps.append(f"Gaussian blur of {smooth_mm:g} mm within the slice")
    if power := values.get("first_power"):
        ceiling = values.get("first_ceiling", DEFAULT.first_ceiling)
        steps.append(f"times the intensity (at most {ceiling:g}) to the power {power:g}")
    return steps


def _describe_conformal(conformal: Mapping[str, Any], scan_fpr: float) -> str:
    """Return the meaning of the conformal threshold, or the reason why there is none.

    Args:
        conformal: `conformal` of any method in the summary.
        scan_fpr: the requested rate of flagged healthy scans.
    """
    n_scans, possible = conformal["n_scans"], conformal["smallest_alpha"]
    if possible <= scan_fpr:
        return (
            f"Conformal threshold: from the scores of {n_scans} healthy calibration scans. On "
            f"average over calibration sets, at most {scan_fpr:.1%} of new healthy scans of the "
            "same population are flagged."
        )
    remedy = f"; they allow {possible:.2%} (scan_fpr={possible:.4g})." if n_scans else "."
    return (
        f"No conformal threshold: a rate of {scan_fpr:.1%} needs {scans_needed(scan_fpr)} healthy "
        f"people, and the calibration split has {n_scans}{remedy}"
    )
