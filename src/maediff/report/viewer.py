"""The slice viewer of a detection report: volumes and their description, for templates/viewer.js.

We wrote a small canvas viewer instead of embedding niivue. niivue comes in packages for notebooks,
which add 2 to 5 MB to each page, need WebGL, and cannot be steered from a page that is opened from
disk without their own front end.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from maediff.anomaly.postprocess import DEFAULT
from maediff.anomaly.snapshots import display_maximum
from maediff.detection.volumes import LAYERS, ViewerVolumes, load_volumes
from maediff.models.thresholds import IN_THRESHOLDS, OF_EACH_CONTRAST
from maediff.report.colours import COLOURS
from maediff.report.elements import Viewer

GZIP_LEVEL = 1  # level 6 takes three times as long and saves a tenth


def make_viewer(path: Path, summary: Mapping[str, Any]) -> Viewer | None:
    """Return the viewer of a scan, or None if its folder holds no volumes.

    Args:
        path: volumes.npz.
        summary: the scan's summary.json.

    Raises:
        InputError: volumes.npz is damaged.
    """
    if not path.is_file():
        return None
    volumes = load_volumes(path)
    shown = _describe_map("map", "the scan", "mask", summary["threshold"], summary)
    layers = dict(zip(LAYERS, volumes.layers, strict=True))
    return _make_viewer(volumes, summary, layers, {"maps": [shown]})


def make_session_viewer(
    folder: Path, summary: Mapping[str, Any], postprocess: Mapping[str, Mapping[str, Any]]
) -> Viewer | None:
    """Return the viewer of a session, with images, maps and masks of every contrast.

    Args:
        folder: folder of the session.
        summary: the session's summary.json.
        postprocess: settings of the masks of each contrast.

    Raises:
        InputError: a file of volumes is damaged.
    """
    if not (folder / "volumes.npz").is_file():
        return None
    combined, first = load_volumes(folder / "volumes.npz"), summary["grid_of"]
    contrasts = {
        contrast: load_volumes(folder / f"volumes_{contrast}.npz")
        for contrast in summary["contrasts"]
    }
    top = max(combined.top, *(each.top for each in contrasts.values()))
    layers = dict(zip(LAYERS, combined.layers, strict=True))
    layers["map"] = _rescale(combined, top)
    images = [["scan", first], ["reference", f"{first} healthy reference"]]
    ranges = {}
    steps = postprocess.get(first, {}) if len(contrasts) == 1 else {}
    maps = [_describe_map("map", "all contrasts", "mask", summary["threshold"], steps)]
    for contrast, volumes in contrasts.items():
        parts = dict(zip(LAYERS, volumes.layers, strict=True))
        layers[f"{contrast}-map"] = _rescale(volumes, top)
        layers[f"{contrast}-mask"] = parts["mask"]
        names = f"{contrast}-map", contrast, f"{contrast}-mask"
        maps.append(_describe_map(*names, 1.0, postprocess.get(contrast, {})))
        if contrast != first:
            layers[contrast], layers[f"{contrast}-reference"] = parts["scan"], parts["reference"]
            images += [
                [contrast, contrast],
                [f"{contrast}-reference", f"{contrast} healthy reference"],
            ]
            ranges[contrast] = [volumes.low, volumes.high]
    combined = replace(combined, top=top)
    more = {
        "images": images,
        "maps": maps,
        "ranges": ranges,
        "unit": "1 = threshold of each contrast",
    }
    return _make_viewer(combined, summary, layers, more)


def _describe_map(
    layer: str, name: str, mask: str, threshold: float, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the description of a map: its layer, name and mask, and how the mask was made.

    Args:
        layer: layer of the map.
        name: name in the list of maps.
        mask: layer of the mask.
        threshold: threshold of the mask.
        settings: `min_volume_mm3` and `extent` of the mask; missing entries have their defaults.
    """
    return {
        "layer": layer,
        "name": name,
        "mask": mask,
        "threshold": threshold,
        "extent": float(settings.get("extent", DEFAULT.extent)),
        "min_volume_mm3": float(settings.get("min_volume_mm3", DEFAULT.min_volume_mm3)),
    }


def _rescale(volumes: ViewerVolumes, top: float) -> UInt8[np.ndarray, "x y z"]:
    """Return the layer of the map with 255 at `top`."""
    layer = volumes.layers[LAYERS.index("map")].astype(np.float32)
    return np.asarray(np.round(layer * (volumes.top / top)), dtype=np.uint8)


def _make_viewer(
    volumes: ViewerVolumes,
    summary: Mapping[str, Any],
    layers: Mapping[str, UInt8[np.ndarray, "x y z"]],
    more: Mapping[str, Any],
) -> Viewer:
    """Return a viewer of `layers`; `more` are further entries of its description."""
    is_scaled = summary.get("unit") in (IN_THRESHOLDS, OF_EACH_CONTRAST)
    voxel_ml = abs(float(np.linalg.det(volumes.affine[:3, :3]))) / 1000
    info = {
        "shape": list(volumes.layers.shape[1:]),
        "layers": list(layers),
        "affine": volumes.affine.round(5).tolist(),
        "to_mni": None if volumes.to_mni is None else volumes.to_mni.round(6).tolist(),
        "low": volumes.low,
        "high": volumes.high,
        "top": volumes.top,
        "maximum": display_maximum(summary["threshold"], scaled=is_scaled),
        "unit": "1 = default threshold" if is_scaled else "residual",
        **more,
        "voxel_ml": voxel_ml,
        "regions": [
            {
                "volume_ml": region["volume_ml"],
                "peak": region["peak"],
                "center_mm": region["center_mm"],
                "mean": region.get("mean"),
                "location": region.get("location", ""),
                "mni_mm": region.get("mni_mm"),
            }
            for region in summary["regions"]
        ],
    }
    # Volumes are stored x fastest, as the viewer indexes them.
    raw = b"".join(np.ascontiguousarray(layer.T).tobytes() for layer in layers.values())
    packed = gzip.compress(raw, GZIP_LEVEL, mtime=0)
    return Viewer(_for_script(json.dumps(info)), base64.b64encode(packed).decode("ascii"))


def colour_table() -> str:
    """Return the 256 colours of the anomaly map, RGB bytes in base64."""
    return base64.b64encode(COLOURS.tobytes()).decode("ascii")


def _for_script(text: str) -> str:
    """Escape JSON so that no text in it can end the script element that holds it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
