"""Volumes for the report's viewer: scan, healthy reference, anomaly map and mask.

    volumes.npz    layers (4, x, y, z) uint8: scan and reference 0 to 255 between `low` and `high`,
                   map 0 to 255 between 0 and `top`, mask 0 or 1
                   affine from voxels to mm; to_mni from mm to mm of MNI152, if registered

The volumes are cropped to the brain and resampled to cubes along the scan's own axes. A cube is at
least 1 mm wide, not smaller than the scan's voxels, and so large that a volume has at most
MAX_VOXELS.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.core.reading import DAMAGED_NPZ
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume

LAYERS = ("scan", "reference", "map", "mask")
MAX_VOXELS = 1_500_000
MIN_VOXEL_MM = 1.0
MARGIN_MM = 4.0
WINDOW = (0.1, 99.9)  # percentiles of the brain's intensities that become black and white


@dataclass(frozen=True, eq=False)
class ViewerVolumes:
    """The content of volumes.npz.

    Args:
        layers: the volumes in the order of `LAYERS`.
        affine: voxels -> mm in RAS+.
        low, high: intensities of the scan that become 0 and 255.
        top: value of the anomaly map that becomes 255.
        to_mni: mm of the scan -> mm of MNI152; None if the scan was not registered.
    """

    layers: UInt8[np.ndarray, "4 x y z"]
    affine: Float[np.ndarray, "4 4"]
    low: float
    high: float
    top: float
    to_mni: Float[np.ndarray, "4 4"] | None = None

    def save(self, path: Path) -> None:
        """Write the volumes to `path`, atomically."""
        arrays: dict[str, Any] = {
            "layers": self.layers,
            "affine": self.affine,
            "scale": np.array([self.low, self.high, self.top]),
        }
        if self.to_mni is not None:
            arrays["to_mni"] = self.to_mni
        with atomic_path(path) as temporary:
            _write_arrays(temporary, arrays)


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file as numpy does, but with the fastest level of compression."""
    with ZipFile(path, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)


def make_volumes(
    volume: Volume,
    images: Mapping[str, Shaped[np.ndarray, "x y z"]],
    threshold: float,
    to_mni: Float[np.ndarray, "4 4"] | None,
) -> ViewerVolumes:
    """Return what the viewer shows of a scan.

    Args:
        volume: the scan.
        images: anomaly_map, anomaly_mask, healthy_reference and brain_mask on the scan's grid.
        threshold: of the anomaly map.
        to_mni: mm of the scan -> mm of MNI152; None if the scan was not registered.
    """
    brain, affine = images["brain_mask"], volume.affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    inside = np.argwhere(brain)
    margin = MARGIN_MM / spacing
    first = np.maximum(inside.min(axis=0) - margin, 0)
    last = np.minimum(inside.max(axis=0) + margin, np.array(brain.shape) - 1)
    extent_mm = (last - first + 1) * spacing
    step_mm = max(
        MIN_VOXEL_MM, float(spacing.min()), math.cbrt(float(np.prod(extent_mm)) / MAX_VOXELS)
    )
    shape = np.maximum(1, np.floor(extent_mm / step_mm)).astype(int)
    # Voxels of the viewer -> voxels of the scan; both count from voxel centres.
    to_scan = np.eye(4)
    to_scan[:3, :3] = np.diag(step_mm / spacing)
    to_scan[:3, 3] = first - 0.5 + 0.5 * step_mm / spacing

    def place(data: np.ndarray, order: Any) -> np.ndarray:
        return np.asarray(resample(data, to_scan, shape.tolist(), order))

    low, high = (float(value) for value in np.percentile(volume.data[brain], WINDOW))
    high = max(high, low + 1e-6)
    top = max(2 * threshold, float(images["anomaly_map"].max()), 1e-3)

    def to_bytes(data: np.ndarray, black: float, white: float) -> UInt8[np.ndarray, "x y z"]:
        scaled = np.clip((data - black) / (white - black), 0, 1)
        return np.round(255 * scaled).astype(np.uint8)

    return ViewerVolumes(
        layers=np.stack(
            [
                to_bytes(place(volume.data, "linear"), low, high),
                to_bytes(place(images["healthy_reference"], "linear"), low, high),
                to_bytes(place(images["anomaly_map"], "linear"), 0.0, top),
                place(images["anomaly_mask"], "nearest").astype(np.uint8),
            ]
        ),
        affine=affine @ to_scan,
        low=low,
        high=high,
        top=top,
        to_mni=to_mni,
    )


def load_volumes(path: Path) -> ViewerVolumes:
    """Read volumes.npz.

    Raises:
        InputError: the file is missing, damaged or something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            low, high, top = (float(value) for value in stored["scale"])
            to_mni = stored["to_mni"] if "to_mni" in stored.files else None
            return ViewerVolumes(stored["layers"], stored["affine"], low, high, top, to_mni)
    except DAMAGED_NPZ as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); detect again"
        ) from None
