"""The brain mask of a skull-stripped scan, from its background."""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.core.errors import InputError
from maediff.scans.volume import Volume

# Limits between stripped brains and heads, from ds002748, lgg, mslub, ixi10 and ds000011.
# A stripped brain fills at most 0.49 of its bounding box, and the corners of the box are empty.
# A head fills 0.55 to 1 of its box and has 5 to 10 litres, or has noise in the corners.
# A brain has 0.9 to 1.9 litres.
CORNER_SHARE = 0.2
HEAD_ML = 4500.0
LARGE_HEAD_ML = 2500.0
HEAD_SHARE = 0.51

BACKGROUND_SHARE = 0.9
"""Share of the voxels at the sides of a volume that must have the background value."""


class RawScanError(InputError):
    """A scan that still has its skull, where a stripped one is needed."""


def brain_from_background(volume: Volume) -> Bool[np.ndarray, "x y z"]:
    """Return the brain of a skull-stripped scan: its largest object, with holes filled.

    Stripping tools set the background to zero.
    If the whole volume was rescaled afterwards, for example to z-scores, the background is
    `background_value`.
    Bias correction and interpolation leave a few negative voxels in the brain (0.2 % in mslub), so
    magnitudes are compared, not signs.
    Magnitudes below a thousandth of the brightest are background; they include the distant ringing
    of spline interpolation.

    Raises:
        RawScanError: noise in the corners, the volume, or the share of its bounding box show that
            the scan still has its skull.
    """
    magnitude = np.abs(volume.data - background_value(volume.data))
    brain = magnitude > 1e-3 * np.percentile(magnitude[magnitude > 0], 99.9)
    labels, count = ndimage.label(brain)
    if count > 1:
        brain = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    brain = ndimage.binary_fill_holes(brain)
    box = brain[ndimage.find_objects(brain.astype(np.uint8))[0]]
    margin_x, margin_y = (math.ceil(size / 10) for size in box.shape[:2])
    corners = np.concatenate(
        [
            box[x, y].ravel()
            for x in (slice(margin_x), slice(-margin_x, None))
            for y in (slice(margin_y), slice(-margin_y, None))
        ]
    )
    volume_ml = float(brain.sum() * volume.voxel_mm3) / 1000
    large = volume_ml > HEAD_ML or (volume_ml > LARGE_HEAD_ML and box.mean() > HEAD_SHARE)
    if large or corners.mean() > CORNER_SHARE:
        raise RawScanError(
            f"{volume.source}: raw scan with skull, or a background that is not zero "
            f"({volume_ml:.0f} ml of non-zero voxels); give a stripped scan, or a brain mask in a "
            "manifest CSV"
        )
    return np.asarray(brain, dtype=bool)


def background_value(data: Float[np.ndarray, "x y z"]) -> float:
    """Return the value of nearly all voxels at the left, right, front and back ends; else 0."""
    sides = np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel()])
    values, counts = np.unique(sides, return_counts=True)
    most = counts.argmax()
    return float(values[most]) if counts[most] >= BACKGROUND_SHARE * len(sides) else 0.0
