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
        f"Brains were extracted from scans with skull (tool: {shared['brain']['tool']}"
        f"{_describe_t1(shared)}).",
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
        f"({describe_origin(shared['threshold_from'])}).",
        f"The brain mask was eroded {post['erosion_iterations']} times in the slice before "
        f"thresholding, and components under {post['min_volume_mm3']:g} mm3 were removed.",
        *_describe_growth(post),
        f"The random seed was {shared['seed']}.",
    ]
    if shared["method"] == "maediff":
        sentences.append(f"The method follows {PAPER}.")
    return " ".join(sentences)


def _describe_t1(shared: Mapping[str, Any]) -> str:
    """Return the role of the T1w in the brain extraction of other contrasts; empty for a T1w."""
    if shared["modality"] == "T1w" or not shared["brain"].get("from_t1"):
        return ""
    return "; the brain of the session's T1w, moved rigidly, where there was one"


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


def describe_origin(origin: Mapping[str, Any]) -> str:
    """Describe the origin of a threshold, from `Threshold.origin`."""
    n, kind = origin.get("n_scans", ""), str(origin.get("source", "healthy scans"))
    scans = f"{n} {kind.replace('scans', 'scan') if n == 1 else kind}".strip()
    if "sensitivity" in origin:
        return f"sensitivity {origin['sensitivity']}: {origin['rule']}, on {scans}"
    if "scan_fpr" in origin:
        rate = f"at most {origin['scan_fpr']:.2%} of new healthy scans flagged"
        return f"{rate}, split conformal on {scans}"
    if "fpr" in origin:
        return f"masks hold at most {origin['fpr']:.3%} of the voxels of {scans}"
    if "chosen_on" in origin:
        return f"default of the model, chosen on {origin['chosen_on']}"
    return "given by the user"


def describe_rule(rule: Mapping[str, Any] | None) -> str:
    """Return the rule of the combined map in words."""
    if not rule:
        return "none"
    power = rule["power"]
    kind = "geometric mean" if power == 0 else f"power mean with exponent {power:g}"
    weights = ", ".join(f"{name} {weight:g}" for name, weight in rule["weights"].items())
    weighted = f" (weights: {weights}, others 1)" if weights else ""
    return f"{kind} of the maps divided by their thresholds{weighted}"


def describe_combination(shared: Mapping[str, Any]) -> list[str]:
    """Describe the combined maps of sessions as a paragraph to paste; none without such maps.

    Args:
        shared: content of detect.json.
    """
    rule = shared.get("rule")
    if not rule:
        return []
    given = rule["threshold"]
    threshold = f"{given:g}" if given else "the threshold that its summary.json states"
    return [
        "The scans of each session were registered rigidly to its T1w, or without one to its "
        f"FLAIR. The combined map is the {describe_rule(rule)}, and the combined mask holds "
        f"voxels above {threshold}. Components under "
        f"{shared['postprocess']['min_volume_mm3']:g} mm3 were removed. In sessions with one "
        "contrast, the map and the further steps are those of the contrast."
    ]
