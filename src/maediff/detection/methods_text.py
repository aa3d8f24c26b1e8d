"""Methods paragraph of a detection, for papers."""

from collections.abc import Mapping
from typing import Any

PAPER = (
    "Xu, Wang and Du (2024), MAEDiff: Masked Autoencoder-enhanced Diffusion Models for "
    "Unsupervised Anomaly Detection in Brain Images, arXiv:2401.10561"
)


def describe_methods(shared: Mapping[str, Any]) -> str:
    """Describe the processing of the scans as a paragraph to paste.

    Args:
        shared: content of detect.json.
    """
    versions, grid, post = shared["versions"], shared["grid"], shared["postprocess"]
    sentences = [
        f"{shared['modality']} scans were processed with maediff {versions['maediff']} "
        f"(torch {versions['torch']}), with the model {shared['model']} "
        f"(method {shared['method']}).",
        f"Brains were extracted from scans with skull (tool: {shared['brain']['tool']}).",
    ]
    if shared.get("bias", {}).get("enabled"):
        sentences.append("The bias field was corrected with N4.")
    if shared.get("registration", {}).get("enabled"):
        sentences.append("Scans were registered to MNI152 with an affine transform.")
    sentences += [
        f"Slices had {grid['size']} x {grid['size']} pixels of {grid['spacing_mm']:g} mm.",
        "The model reconstructed each slice as if it were healthy.",
        f"The anomaly map shows {shared['marks']}.",
        *_describe_filters(post),
        *_describe_unit(shared),
        f"The anomaly mask holds voxels above {shared['threshold']:.3g} "
        f"({_describe_origin(shared['threshold_from'])}).",
        f"The brain mask was eroded {post['erosion_iterations']} times in the slice before "
        f"thresholding, and components under {post['min_volume_mm3']:g} mm3 were removed.",
        *_describe_growth(post),
        f"The random seed was {shared['seed']}.",
    ]
    if shared["method"] == "maediff":
        sentences.append(f"The method follows {PAPER}.")
    return " ".join(sentences)


def _describe_filters(post: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each filter of the residual that is enabled."""
    sentences = []
    if post.get("first_smooth_mm"):
        sentences.append(
            f"The residual was blurred in the slice (Gaussian, {post['first_smooth_mm']:g} mm)."
        )
    if post.get("first_power"):
        sentences.append(
            f"The residual was multiplied by the intensity{_describe_power(post['first_power'])} "
            f"(intensities above {post['first_ceiling']:g} counted as {post['first_ceiling']:g}; "
            "1 is the 99th percentile of the brain)."
        )
    if post["smooth_mm"]:
        widths = ", ".join(f"{width:g}" for width in post["smooth_mm"])
        sentences.append(
            f"The residual was blurred (Gaussian, standard deviations {widths} mm, "
            f"{post['smooth_mean']} mean)."
        )
    if post["symmetry"]:
        sentences.append(
            f"A share of {post['symmetry']:g} of its left-right symmetric part was subtracted."
        )
    if post["times_intensity"]:
        power = _describe_power(post["times_intensity"])
        sentences.append(f"The result was multiplied by the intensity{power}.")
    if post["median_size"] > 1:
        sentences.append(f"A median filter of {post['median_size']} voxels was applied.")
    return sentences


def _describe_power(power: float) -> str:
    """Return an exponent in words; empty for 1."""
    return "" if power == 1 else f" to the power of {power:g}"


def _describe_growth(post: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the growth of the regions, if they grow."""
    extent = post.get("extent", 1.0)
    if extent == 1:
        return []
    return [
        f"Regions were then extended to the connected voxels above {extent:.0%} of the threshold "
        "(hysteresis)."
    ]


def _describe_unit(shared: Mapping[str, Any]) -> list[str]:
    """Return a sentence about the unit of the anomaly map, if it has one."""
    if shared.get("scale") is None:
        return []
    return [
        f"The map was divided by {shared['scale']:.4g}, the default threshold of the model, so "
        "values above 1 exceed it."
    ]


def _describe_origin(origin: Mapping[str, Any]) -> str:
    """Describe the origin of a threshold, from `Threshold.origin`."""
    source = origin.get("source", "healthy scans")
    if "sensitivity" in origin:
        return f"sensitivity {origin['sensitivity']}: {origin['rule']}, from {source}"
    if "scan_fpr" in origin:
        return f"at most {origin['scan_fpr']:.2%} of new healthy scans flagged, split conformal"
    if "fpr" in origin:
        return f"masks hold at most {origin['fpr']:.3%} of the voxels of {source}"
    if "chosen_on" in origin:
        return f"default of the model, chosen on {origin['chosen_on']}"
    return "chosen by the user"
