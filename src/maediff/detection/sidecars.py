"""JSON sidecars of the images of a detection: the meaning of an image, and its origin.

    anomaly_map.json   Description, Units, Sources, SpatialReference, Model, Threshold, Parameters

Keys that BIDS defines have its meaning (derivatives, common data types and metadata). `Sources`
holds the name of the scan's file without its folder, because results are given to other people.
A BIDS derivative replaces it by a BIDS URI.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from maediff import __version__
from maediff.detection.to_scan import MNI_SPACE

MNI_SUFFIX = "_mni"
MNI_IMAGES = tuple(
    f"{kind}{MNI_SUFFIX}" for kind in ("anomaly_map", "anomaly_mask", "healthy_reference")
)
"""Images in MNI152 that `Detection.save(mni=True)` adds."""
COMBINED = "combined_"
"""Start of the kind of an image of a session's combined result, for `describe_image`."""
OF_EVERY_IMAGE = ("SpatialReference", "Sources", "GeneratedBy")
"""Keys of a sidecar that do not depend on a model."""

_DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "anomaly_map": {
        "Description": "Anomaly map: post-processed residual between the scan and its healthy "
        "reference; 0 outside the brain mask",
        "SkullStripped": True,
        "Units": "1",
    },
    "anomaly_mask": {
        "Type": "Lesion",
        "Description": "Regions in which the anomaly map exceeds the threshold, extended to the "
        "connected voxels above postprocess.extent times the threshold",
    },
    "healthy_reference": {
        "Description": "The scan reconstructed as if it were healthy, in the scan's intensities",
        "SkullStripped": True,
        "Units": "arbitrary",
    },
    "brain_mask": {"Type": "Brain", "Description": "Brain mask that the detection used"},
    "combined_anomaly_map": {
        "Description": "Combined anomaly map of the session; 1 is the threshold of each contrast; "
        "0 outside the brain mask",
        "SkullStripped": True,
        "Units": "1",
    },
    "combined_anomaly_mask": {
        "Type": "Lesion",
        "Description": "Regions in which the combined anomaly map is above its threshold; with "
        "one contrast, they are extended as in the mask of this contrast",
    },
    "contrast_anomaly_map": {
        "Description": "Anomaly map of a contrast on the grid of the session; 1 is its threshold",
        "SkullStripped": True,
        "Units": "1",
    },
    "contrast_scan": {
        "Description": "Scan on the grid of the session",
        "SkullStripped": False,
        "Units": "arbitrary",
    },
}


def describe_image(kind: str) -> dict[str, Any]:
    """Return the entries of a sidecar that depend only on the kind of image.

    Args:
        kind: "anomaly_map", "anomaly_mask", "healthy_reference" or "brain_mask", or the first
            three followed by "_mni". For images of a session: "contrast_anomaly_map",
            "contrast_scan", or `COMBINED` before "anomaly_map", "anomaly_mask" (both also with
            "_mni") or "brain_mask".
    """
    kind = kind.removeprefix(COMBINED) if kind == f"{COMBINED}brain_mask" else kind
    entries = dict(_DESCRIPTIONS[kind.removesuffix(MNI_SUFFIX)])
    if kind.endswith(MNI_SUFFIX):
        entries["Description"] += "; registered to MNI152 with an affine transform"
        entries["SpatialReference"] = MNI_SPACE
    return entries


def make_sidecar(
    kind: str,
    summary: Mapping[str, Any],
    origin: Mapping[str, Any],
    parameters: Mapping[str, Any],
    sources: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the sidecar of an image.

    Args:
        kind: see `describe_image`.
        summary: content of summary.json.
        origin: origin of the threshold (`Threshold.origin`).
        parameters: all that the image depends on besides scan and threshold.
        sources: names of the scans that the image was made from; by default that of the summary.
    """
    return {
        "SpatialReference": summary["scan"],
        **describe_image(kind),
        "Sources": list(sources or [summary["scan"]]),
        "GeneratedBy": [{"Name": "maediff", "Version": __version__}],
        "Model": summary["model"],
        "Modality": summary["modality"],
        "Threshold": summary["threshold"],
        "ThresholdFrom": dict(origin),
        "Parameters": dict(parameters),
        **(describe_unit(summary) if kind.startswith("anomaly_map") else {}),
    }


def describe_unit(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a sidecar about the unit of an anomaly map; empty for a residual.

    Args:
        summary: content of summary.json.
    """
    if summary.get("scale") is None:
        return {}
    return {
        "ResidualScale": summary["scale"],
        "ResidualScaleDescription": "1 in the map is the model's default threshold; the map times "
        "ResidualScale is the residual, 0 to 1",
    }
