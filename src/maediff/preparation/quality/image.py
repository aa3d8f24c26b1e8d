"""Quality of the image itself: noise, signal in the air, contrast agent, lost slices.

    noise          second differences in flat tissue, as a share of the brain's range: 1.4826 x
                   their median magnitude / sqrt(6), mean over the axes
    air_signal     mean brightness of the air beside the upper half of the brain, along x or y,
                   whichever is brighter, as a share of the brain's median
    bright_share   T1w: share of the brain above 1.3 times its 99th percentile
    empty_slices   slices of one value in the head (`background.fill_empty_slices`)

A second difference of independent noise, v[i-1] - 2 v[i] + v[i+1], has sqrt(6) times its standard
deviation. Flat tissue is the third of the inner brain in which the blurred image has the smallest
gradient, so folds and edges do not count.
Ghosts and motion spread signal along the phase-encoding axis, beyond the head (Giannelli et al.
2010, https://doi.org/10.1118/1.3442407). The axis is unknown, so both are measured.
A contrast agent makes vessels, choroid plexus and dura brighter than white matter, which is the
brightest tissue of a healthy T1w. Fresh blood and fat are bright too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from maediff.preparation.background import Gap, find_gaps
from maediff.preparation.quality.config import QualityConfig
from maediff.preparation.quality.flags import Flag
from maediff.scans.volume import Volume

FLAT_SHARE = 1 / 3
AIR_MM, AIR_CELL_MM = 25.0, 4.0  # scalp ends 20 mm from the brain in its upper half
BRIGHT_LEVEL = 1.3
MIN_CELLS = 200


def measure_noise(image: Float[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"]) -> float:
    """Return the noise in flat tissue; NaN if there is too little tissue.

    Args:
        image: intensities on the model's grid, 1 at the 99th percentile of the brain.
        brain: brain mask.
    """
    box = tuple(ndimage.find_objects(brain.astype(np.uint8))[0]) if brain.any() else None
    if box is None:
        return float("nan")
    image, brain = image[box], brain[box]
    inner = ndimage.binary_erosion(brain, iterations=3)
    if inner.sum() < MIN_CELLS:
        return float("nan")
    smooth = ndimage.gaussian_filter(image, 2.0)
    gradient = np.sqrt(sum(part**2 for part in np.gradient(smooth)))
    flat = inner & (gradient <= np.quantile(gradient[inner], FLAT_SHARE))
    spreads = []
    for axis in range(3):
        middle = [slice(None)] * 3
        middle[axis] = slice(1, -1)
        differences = np.diff(image, 2, axis=axis)[flat[tuple(middle)]]
        spreads.append(1.4826 * float(np.median(np.abs(differences))))
    return float(np.mean(spreads) / np.sqrt(6))


def take_cells(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], cell_mm: float
) -> tuple[
    Float[np.ndarray, "a b c"],
    Bool[np.ndarray, "a b c"],
    Int[np.ndarray, " 3"],
    Int[np.ndarray, " k"],
]:
    """Return every n-th voxel of a scan and of its brain mask, for measures of large objects.

    Args:
        volume: the scan.
        brain: its brain mask.
        cell_mm: distance of the voxels, at least that of the scan's voxels.

    Returns:
        The voxels of the scan, those of the mask, the steps n along each axis, and the slices
        with brain.
    """
    steps = np.maximum(1, np.round(cell_mm / volume.spacing_mm).astype(int))
    part = tuple(slice(None, None, int(step)) for step in steps)
    data, inside = volume.data[part], brain[part]
    return data, inside, steps, np.flatnonzero(inside.any(axis=(0, 1)))


def measure_air_signal(volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> float:
    """Return the brightness of the air beside the brain; NaN if the scan shows too little air.

    Args:
        volume: a scan with skull.
        brain: its brain mask.
    """
    data, inside, steps, heights = take_cells(volume, brain, AIR_CELL_MM)
    if len(heights) < 2:
        return float("nan")
    upper = slice(int(heights[len(heights) // 2]), int(heights[-1]) + 1)
    data, inside = data[:, :, upper], inside[:, :, upper]
    distance = ndimage.distance_transform_edt(~inside, sampling=volume.spacing_mm * steps)
    air = distance > AIR_MM
    levels = []
    for axis in (0, 1):
        beside = air & np.broadcast_to(inside.any(axis=axis, keepdims=True), air.shape)
        if beside.sum() >= MIN_CELLS:
            levels.append(float(data[beside].mean()))
    tissue = float(np.median(data[inside]))
    return max(levels) / tissue if levels and tissue > 0 else float("nan")


def measure_bright_share(
    image: Float[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"]
) -> float:
    """Return the share of the brain of a T1w that is far brighter than white matter.

    Args:
        image: intensities on the model's grid, 1 at the 99th percentile of the brain.
        brain: brain mask.
    """
    return float((image[brain] > BRIGHT_LEVEL).mean()) if brain.any() else 0.0


def check_image(
    image: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    modality: str,
    config: QualityConfig,
) -> tuple[dict[str, Any], list[Flag]]:
    """Return numbers on the model's grid, and a flag for each number out of range.

    Args:
        image: intensities, 1 at the 99th percentile of the brain.
        brain: brain mask.
        modality: contrast of the scan.
        config: limits.
    """
    record: dict[str, Any] = {}
    flags = []
    noise = measure_noise(image, brain)
    if np.isfinite(noise):
        record["noise"] = round(noise, 4)
        if noise > config.max_noise:
            flags.append(
                Flag(
                    "noise",
                    f"noise is {noise:.1%} of the brain's range ({config.max_noise:.0%} at most)",
                )
            )
    if modality == "T1w":
        share = measure_bright_share(image, brain)
        record["bright_share"] = round(share, 5)
        if share > config.max_bright_share:
            finding = f"{share:.2%} of the brain is far brighter than white matter"
            flags.append(Flag("contrast-agent", f"{finding}: contrast agent, blood or fat"))
    return record, flags


def check_air(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], modality: str, config: QualityConfig
) -> tuple[dict[str, Any], list[Flag]]:
    """Return `air_signal` of a scan with skull, and a flag if it is large.

    Args:
        volume: a scan with skull.
        brain: its brain mask.
        modality: contrast of the scan.
        config: limits.
    """
    limit = config.max_air_t2w_flair if modality in ("T2w", "FLAIR") else config.max_air
    signal = measure_air_signal(volume, brain)
    if not np.isfinite(signal):
        return {}, []
    flags = []
    if signal > limit:
        flags.append(
            Flag(
                "ghosting",
                f"the air beside the head has {signal:.1%} of the brain's brightness "
                f"({limit:.0%} at most): ghosts, motion or noise",
            )
        )
    return {"air_signal": round(signal, 4)}, flags


def check_slices(
    brain: Bool[np.ndarray, "x y z"], filled: Sequence[Gap]
) -> tuple[dict[str, Any], list[Flag]]:
    """Return the number of empty slices within the brain, and a flag if there is one.

    Args:
        brain: brain mask.
        filled: gaps that were interpolated before the brain was found; a mask that was given may
            have the same gaps.
    """
    n_filled = sum(map(len, filled))
    known = {(gap.axis, index) for gap in filled for index in range(gap.start, gap.stop)}
    left = {
        (axis, index)
        for axis in range(3)
        for start, stop in find_gaps(np.asarray(brain.any(axis=tuple({0, 1, 2} - {axis}))))
        for index in range(start, stop)
    }
    n_left = len(left - known)
    record = {"empty_slices": n_filled + n_left}
    flags = []
    if n_filled:
        flags.append(
            Flag("empty-slices", f"{n_filled} empty slice(s) in the head, interpolated here")
        )
    if n_left:
        flags.append(Flag("empty-slices", f"{n_left} empty slice(s) within the brain"))
    return record, flags
