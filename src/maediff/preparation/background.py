"""The brain mask of a skull-stripped scan, from its background."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.core.errors import InputError
from maediff.scans.volume import Volume

GIVEN, ZERO_BACKGROUND = "given", "from the zero background"
"""Origins of brain masks that no tool estimated, in the records of scans."""
# Limits between stripped brains and heads, from ds002748, lgg, mslub, ixi10 and ds000011.
# A stripped brain fills at most 0.49 of its bounding box, and the corners of the box are empty.
# A head fills 0.55 to 1 of its box and has 5 to 10 litres, or has noise in the corners.
# A brain has 0.9 to 1.9 litres.
CORNER_SHARE = 0.2
HEAD_ML = 4500.0
LARGE_HEAD_ML = 2500.0
HEAD_SHARE = 0.51

MAX_FILLED_MM = 10.0
"""Longest gap of empty slices that is interpolated; two slices of 5 mm."""
MAX_GAP_MM = 30.0
"""Longest gap of empty slices within a brain; six slices of 5 mm."""
MIN_OVERLAP = 0.1
"""Overlap of the slices beside a gap, as a share of the larger: brains have over 0.5."""
PIECE_SHARE = 0.05
"""Smallest piece of a brain, as a share of the largest piece.

In 138 stripped scans of ds002748 and lgg, every other piece has less than 0.003.
"""
BACKGROUND_SHARE = 0.9
"""Share of the voxels at the sides of a volume that must have the background value."""


class RawScanError(InputError):
    """A scan that still has its skull, where a stripped one is needed."""


def brain_from_background(volume: Volume) -> Bool[np.ndarray, "x y z"]:
    """Return the brain of a skull-stripped scan: its large objects, with holes filled.

    Empty slices, which a damaged export leaves, do not separate objects: pieces on both sides
    belong to the brain, but the slices themselves do not (`bridge_empty_slices`).
    Other pieces belong to the brain if they are large (`PIECE_SHARE`): a long gap, or a slice that
    is not quite empty, must not halve the brain. `quality.check_pieces` flags them.

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
    bridged, empty = bridge_empty_slices(brain, volume.spacing_mm)
    labels, count = ndimage.label(bridged)
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        bridged = (sizes >= PIECE_SHARE * sizes.max())[labels]
    inside = ndimage.find_objects(bridged.astype(np.uint8))[0]  # all holes are in this box
    brain = bridged & ~empty
    brain[inside] = ndimage.binary_fill_holes(bridged[inside]) & ~empty[inside]
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


@dataclass(frozen=True)
class Gap:
    """Slices `start` to `stop` - 1 along an axis, between two other slices."""

    axis: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def fill_empty_slices(volume: Volume) -> tuple[Volume, list[Gap]]:
    """Interpolate slices without content, along any axis, between slices of the head.

    A slice is empty if all its voxels have one value. A lost slice would separate a stripped
    brain into pieces, and a dark band would look like an anomaly.

        slices  b  b  0  b  b      ->  b  b  (b + b) / 2  b  b
        slices  b  b  0 .. 0  b    ->  unchanged, if the gap is longer than `MAX_FILLED_MM`

    Args:
        volume: the scan.

    Returns:
        The scan, and the filled gaps. The scan is returned as it is if there is none.
    """
    data, filled = volume.data, []
    for axis in range(3):
        for start, stop in find_gaps(_find_slices_with_content(data, axis)):
            if (stop - start) * volume.spacing_mm[axis] > MAX_FILLED_MM:
                continue
            before, after = (np.take(data, index, axis) for index in (start - 1, stop))
            if not _overlap(*(_find_content(plane, volume.data) for plane in (before, after))):
                continue
            data = data.copy() if data is volume.data else data
            for index in range(start, stop):
                weight = (index - start + 1) / (stop - start + 1)
                part: list[Any] = [slice(None)] * 3
                part[axis] = index
                data[tuple(part)] = (1 - weight) * before + weight * after
            filled.append(Gap(axis, start, stop))
    return (replace(volume, data=data), filled) if filled else (volume, [])


def extend_over_gaps(
    mask: Bool[np.ndarray, "x y z"], gaps: Sequence[Gap]
) -> Bool[np.ndarray, "x y z"]:
    """Return a mask that also has, in filled slices, what the slices beside the gap have.

    Args:
        mask: a mask on the scan's grid.
        gaps: the filled gaps of the scan.
    """
    extended = mask.copy()
    for gap in gaps:
        inside = [slice(None)] * 3
        inside[gap.axis] = slice(gap.start, gap.stop)
        beside = np.take(mask, [gap.start - 1, gap.stop], gap.axis).any(gap.axis)
        extended[tuple(inside)] |= np.expand_dims(beside, gap.axis)
    return extended


def bridge_empty_slices(
    brain: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, " 3"]
) -> tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Close gaps of empty slices, along any axis, between two pieces of one brain.

    Gaps over `MAX_GAP_MM` stay, and so do gaps beside small objects (`_overlap`).

    Args:
        brain: mask of voxels that are not background.
        spacing_mm: voxel size.

    Returns:
        The mask with closed gaps, and the voxels of all closed slices.

    Example:
        >>> mask = np.array([1, 1, 0, 1, 0], dtype=bool).reshape(1, 1, 5)
        >>> bridged, empty = bridge_empty_slices(mask, np.ones(3))
        >>> bridged.ravel().astype(int).tolist(), empty.ravel().astype(int).tolist()
        ([1, 1, 1, 1, 0], [0, 0, 1, 0, 0])
    """
    bridged, empty = brain, np.zeros_like(brain)
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        for start, stop in find_gaps(np.asarray(brain.any(axis=others))):
            before, after = (np.take(bridged, index, axis) for index in (start - 1, stop))
            too_long = (stop - start) * spacing_mm[axis] > MAX_GAP_MM
            if too_long or not _overlap(before, after):
                continue
            bridged = bridged.copy() if bridged is brain else bridged
            gap = [slice(None)] * 3
            gap[axis] = slice(start, stop)
            bridged[tuple(gap)] = np.expand_dims(before & after, axis)
            empty[tuple(gap)] = True
    return bridged, empty


def find_gaps(filled: Bool[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """Return start and stop of each run of False between two True.

    Example:
        >>> find_gaps(np.array([False, True, False, False, True, False]))
        [(2, 4)]
    """
    indices = np.flatnonzero(filled)
    return [(int(left) + 1, int(right)) for left, right in pairwise(indices) if right - left > 1]


def _find_slices_with_content(
    data: Float[np.ndarray, "x y z"], axis: int
) -> Bool[np.ndarray, " n"]:
    """Return, for each slice along `axis`, whether it has two different values.

    Few voxels of each slice are compared first, because nearly all slices differ in them.
    """
    slices = np.moveaxis(data, axis, 0)
    few = slices[:, ::4, ::4].reshape(len(slices), -1)
    differ = few.min(axis=1) != few.max(axis=1)
    for index in np.flatnonzero(~differ):
        differ[index] = slices[index].min() != slices[index].max()
    return np.asarray(differ)


def _find_content(
    plane: Float[np.ndarray, "a b"], data: Float[np.ndarray, "x y z"]
) -> Bool[np.ndarray, "a b"]:
    """Return the voxels of a slice that are clearly not background."""
    magnitude = np.abs(plane - background_value(data))
    return np.asarray(magnitude > 0.1 * magnitude.max())


def _overlap(before: Bool[np.ndarray, "a b"], after: Bool[np.ndarray, "a b"]) -> bool:
    """Return True if two slices show one object, not a brain and a speck."""
    return bool((before & after).sum() > MIN_OVERLAP * max(before.sum(), after.sum()))


def background_value(data: Float[np.ndarray, "x y z"]) -> float:
    """Return the value of nearly all voxels at the left, right, front and back ends; else 0."""
    sides = np.concatenate([data[[0, -1]].ravel(), data[:, [0, -1]].ravel()])
    values, counts = np.unique(sides, return_counts=True)
    most = counts.argmax()
    return float(values[most]) if counts[most] >= BACKGROUND_SHARE * len(sides) else 0.0
