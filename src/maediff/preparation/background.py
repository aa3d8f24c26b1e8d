"""The brain mask of a stripped scan, from its background."""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.core.errors import InputError
from maediff.scans.volume import Volume

# A stripped brain fills at most 0.49 of its bounding box and leaves its corners empty (ds002748, lgg, mslub); a head
# fills 0.55 to 1 and 5 to 10 litres, or has noise in the corners (ixi10, ds000011). A brain has 0.9 to 1.9 litres.
CORNER_SHARE, HEAD_ML, LARGE_ML, HEAD_SHARE = 0.2, 4500.0, 2500.0, 0.51


BACKGROUND_SHARE = 0.9


class RawScanError(InputError):
    """A scan that still has its skull, where a stripped one is needed."""


def brain_from_background(volume: Volume) -> Bool[np.ndarray, "x y z"]:
    """The brain of a skull-stripped scan: the largest piece of voxels that are not zero, with its holes filled.

    Zero is the background of every stripping tool, and what became of it where whole volumes were rescaled afterwards
    (z-scores) is `background_value`. Bias correction and interpolation leave a few negative voxels in
    the brain (0.2 % of mslub's), so the sign does not decide; magnitudes below a thousandth of the brightest are
    background, which takes the far ringing of a spline away.

    Raises:
        RawScanError: the scan looks raw, by its noise in the corners, its volume or how it fills its bounding box.
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
    volume_ml = float(brain.sum() * np.prod(volume.spacing_mm)) / 1000
    large = volume_ml > HEAD_ML or (volume_ml > LARGE_ML and box.mean() > HEAD_SHARE)
    if large or corners.mean() > CORNER_SHARE:
        raise RawScanError(
            f"{volume.source}: raw scan with skull, or a background that is not zero ({volume_ml:.0f} ml "
            "of non-zero voxels); give a stripped scan, or a brain_mask in a manifest CSV"
        )
    return np.asarray(brain, dtype=bool)


def background_value(data: Float[np.ndarray, "x y z"]) -> float:
    """The value that nearly all voxels at the left, right, front and back end of the volume share; 0 if none does."""
    sides = np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel()])
    values, counts = np.unique(sides, return_counts=True)
    most = counts.argmax()
    return float(values[most]) if counts[most] >= BACKGROUND_SHARE * len(sides) else 0.0
