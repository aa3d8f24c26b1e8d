"""Connected components of a mask: what belongs together, in which box it lies, and a list of an anomaly mask's."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.anomaly.components import CONNECTIVITY


@dataclass(frozen=True)
class Region:
    """A connected component of an anomaly mask; `center_mm` is its centre of mass in the scan's RAS+ mm."""

    volume_ml: float
    peak: float
    center_mm: tuple[float, float, float]


def find_regions(
    anomaly_map: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
) -> list[Region]:
    """The components of `mask`, largest first; map and mask as RAS+ volumes, `affine` from their voxels to mm."""
    labels, count = ndimage.label(mask, CONNECTIVITY)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    regions = []
    for label, box in enumerate(ndimage.find_objects(labels, count), start=1):
        inside = labels[box] == label
        center = [at.mean() + part.start for at, part in zip(np.nonzero(inside), box, strict=True)]
        x, y, z = (round(float(mm), 2) for mm in affine[:3, :3] @ center + affine[:3, 3])
        volume_ml = round(float(inside.sum()) * voxel_ml, 4)
        regions.append(Region(volume_ml, float(anomaly_map[box][inside].max()), (x, y, z)))
    return sorted(regions, key=lambda region: -region.volume_ml)
