"""Regions of an anomaly mask: its connected components, with volume, peak and position."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.anomaly.components import CONNECTIVITY


@dataclass(frozen=True)
class Region:
    """A connected component of an anomaly mask.

    Args:
        volume_ml: volume in ml.
        peak, mean: highest and mean value of the anomaly map in the region.
        center_mm: centre of mass in the RAS+ mm of the scan.
        mni_mm: centre of mass in MNI152, in mm; None if the scan is not registered.
        side, location: side and anatomical location of the centre; empty if the scan is not
            registered.
    """

    volume_ml: float
    peak: float
    center_mm: tuple[float, float, float]
    mean: float = 0.0
    mni_mm: tuple[float, float, float] | None = None
    side: str = ""
    location: str = ""


def find_regions(
    anomaly_map: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
) -> list[Region]:
    """Return the regions of `mask`, largest first.

    Args:
        anomaly_map: RAS+ volume.
        mask: anomaly mask on the grid of the map.
        affine: voxel -> mm.
    """
    labels, count = ndimage.label(mask, CONNECTIVITY)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    regions = []
    for label, box in enumerate(ndimage.find_objects(labels, count), start=1):
        inside = labels[box] == label
        center = [
            indices.mean() + part.start
            for indices, part in zip(np.nonzero(inside), box, strict=True)
        ]
        x, y, z = (round(float(mm), 2) for mm in affine[:3, :3] @ center + affine[:3, 3])
        regions.append(
            Region(
                volume_ml=round(float(inside.sum()) * voxel_ml, 4),
                peak=float(anomaly_map[box][inside].max()),
                center_mm=(x, y, z),
                mean=float(anomaly_map[box][inside].mean(dtype=np.float64)),
            )
        )
    return sorted(regions, key=lambda region: -region.volume_ml)
