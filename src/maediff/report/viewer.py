"""The slice viewer of a detection report: volumes and their description, for templates/viewer.js.

We wrote a small canvas viewer instead of embedding niivue. niivue comes in packages for notebooks,
which add 2 to 5 MB to each page, need WebGL, and cannot be steered from a page that is opened from
disk without their own front end.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps

from maediff.detection.volumes import LAYERS, load_volumes
from maediff.report.elements import Viewer

GZIP_LEVEL = 6


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
    voxel_ml = abs(float(np.linalg.det(volumes.affine[:3, :3]))) / 1000
    least_ml = float(summary.get("min_volume_mm3", 64.0)) / 1000
    info = {
        "shape": list(volumes.layers.shape[1:]),
        "layers": list(LAYERS),
        "affine": volumes.affine.round(5).tolist(),
        "to_mni": None if volumes.to_mni is None else volumes.to_mni.round(6).tolist(),
        "low": volumes.low,
        "high": volumes.high,
        "top": volumes.top,
        "threshold": summary["threshold"],
        "voxel_ml": voxel_ml,
        "min_voxels": max(1, round(least_ml / voxel_ml)),
        "regions": [
            {
                "volume_ml": region["volume_ml"],
                "peak": region["peak"],
                "center_mm": region["center_mm"],
                "location": region.get("location", ""),
            }
            for region in summary["regions"]
        ],
    }
    # Volumes are stored x fastest, as the viewer indexes them.
    raw = b"".join(np.ascontiguousarray(layer.T).tobytes() for layer in volumes.layers)
    packed = gzip.compress(raw, GZIP_LEVEL, mtime=0)
    return Viewer(_for_script(json.dumps(info)), base64.b64encode(packed).decode("ascii"))


def colour_table() -> str:
    """Return the 256 colours of the anomaly map, RGB bytes in base64."""
    colours = np.round(255 * colormaps["inferno"](np.linspace(0, 1, 256))[:, :3])
    return base64.b64encode(colours.astype(np.uint8).tobytes()).decode("ascii")


def _for_script(text: str) -> str:
    """Escape JSON so that no text in it can end the script element that holds it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
