"""Quality of the brain mask: skull, scalp and fluid at its edge, and its share of the head.

    vertex_ml     volume of very bright and of black voxels in the mask, within 6 mm of its edge in
                  the upper quarter of the brain: fluid, scalp and skull
    bright_ml     the very bright voxels of these alone; T1w and FLAIR, where fluid is dark
    head_share    volume of the mask / volume of the head, from the middle of the brain upwards
    scalp_ml      volume of the mask within 6 mm of the air, from the middle of the brain upwards;
                  scans with slices of 3 mm at most, because thicker slices blur the skin

The first two are measured on the model's grid, the others in a scan with skull:

    air | scalp and skull, 9 to 17 mm | brain, about 0.6 of the head

experiments/quality has the values of healthy scans, and of masks that were damaged on purpose.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.preparation.background import background_value
from maediff.preparation.quality.config import QualityConfig
from maediff.preparation.quality.flags import Flag
from maediff.preparation.quality.image import take_cells
from maediff.scans.volume import Volume

MIN_PIECE_SHARE = 0.96
"""Smallest largest piece of a brain mask; in healthy scans it has over 0.99."""
VERTEX_MM, DARK_LEVEL = 6.0, 0.05
BRIGHT_LEVEL = {"T1w": 1.0, "T2w": 0.8, "FLAIR": 1.0}
"""Level of very bright voxels by contrast: fluid in T2w, and fat in all of them."""
HEAD_CELL_MM, HEAD_LEVEL, CLOSING_CELLS = 4.0, 0.15, 3
SKIN_MM, MAX_SLICE_MM = 6.0, 3.0
SKULL_SHARE = 0.3
"""Smallest volume outside the mask, as a share of the brain, in a scan with skull.

A head has at least 0.47 of the brain's volume around the upper half of the brain alone.
"""


def measure_vertex(
    image: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, " 3"],
    bright_level: float,
) -> tuple[float, float]:
    """Return the volumes of black and of very bright voxels at the upper edge of the mask, in ml.

    Args:
        image: intensities on the model's grid, 1 at the 99th percentile of the brain.
        brain: brain mask.
        spacing_mm: voxel size.
        bright_level: intensity above which a voxel is very bright.
    """
    heights = np.flatnonzero(brain.any(axis=(0, 1)))
    if not len(heights):
        return 0.0, 0.0
    bottom = int(np.ceil(heights[0] + 0.75 * (heights[-1] - heights[0])))
    margin = max(0, bottom - int(np.ceil(VERTEX_MM / spacing_mm[2])))
    inside = np.pad(brain[:, :, margin:], ((1, 1), (1, 1), (0, 1)))
    depth = ndimage.distance_transform_edt(inside, sampling=spacing_mm)[1:-1, 1:-1, :-1]
    rim = brain[:, :, bottom:] & (depth[:, :, bottom - margin :] <= VERTEX_MM)
    levels = image[:, :, bottom:][rim]
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    dark, bright = ((levels < DARK_LEVEL).sum(), (levels > bright_level).sum())
    return float(dark) * voxel_ml, float(bright) * voxel_ml


def check_outline(
    image: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    spacing_mm: Float[np.ndarray, " 3"],
    modality: str,
    config: QualityConfig,
) -> tuple[dict[str, Any], list[Flag]]:
    """Return `vertex_ml` and `bright_ml`, and a flag if one of them is large.

    Args:
        image: intensities on the model's grid, 1 at the 99th percentile of the brain.
        brain: brain mask.
        spacing_mm: voxel size.
        modality: contrast of the scan.
        config: limits.
    """
    if modality not in BRIGHT_LEVEL:
        return {}, []
    limit_ml = {
        "T1w": config.max_vertex_t1w_ml,
        "T2w": config.max_vertex_ml,
        "FLAIR": config.max_vertex_flair_ml,
    }[modality]
    dark_ml, bright_ml = measure_vertex(image, brain, spacing_mm, BRIGHT_LEVEL[modality])
    total_ml = dark_ml + bright_ml
    record: dict[str, Any] = {"vertex_ml": round(total_ml, 1)}
    finding = ""
    if total_ml > limit_ml:
        finding = f"{total_ml:.0f} ml of fluid, skull or scalp at the vertex"
    if modality != "T2w":
        record["bright_ml"] = round(bright_ml, 1)
        if bright_ml > config.max_bright_ml:
            finding = f"{bright_ml:.0f} ml of very bright voxels at the vertex: scalp"
    return record, [Flag("brain-outline", finding)] if finding else []


def check_pieces(brain: Bool[np.ndarray, "x y z"]) -> list[Flag]:
    """Return a flag if the brain mask has several large pieces, for example beside lost slices.

    Args:
        brain: brain mask on the scan's grid.
    """
    labels, count = ndimage.label(brain)
    if count < 2:
        return []
    sizes = np.bincount(labels.ravel())[1:]
    share = float(sizes.max() / sizes.sum())
    if share >= MIN_PIECE_SHARE:
        return []
    finding = f"the brain mask is in pieces, the largest has {share:.0%} of it"
    return [Flag("brain-pieces", finding)]


def shows_skull(volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> bool:
    """Return True if a scan shows much besides the brain: it has not been skull-stripped.

    Args:
        volume: the scan.
        brain: its brain mask.
    """
    if not brain.any():
        return False
    # The distance from the background, which may be bright (z-scores).
    signal = np.abs(volume.data - background_value(volume.data))
    shown = signal > HEAD_LEVEL * np.median(signal[brain])
    return int((shown & ~brain).sum()) > SKULL_SHARE * int(brain.sum())


def measure_head(volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> tuple[float, float]:
    """Return `head_share` and `scalp_ml` of a scan with skull.

    The head is the largest object above `HEAD_LEVEL` of the brain's median, with holes filled in
    each slice. Air starts at its surface, but not at the border of the field of view.

    Args:
        volume: a scan with skull, in RAS+.
        brain: its brain mask.

    Returns:
        NaN for both if the mask has fewer than two slices; NaN for `scalp_ml` if the slices are
        thick, or the field of view holds no air.
    """
    data, inside, steps, heights = take_cells(volume, brain, HEAD_CELL_MM)
    if len(heights) < 2:
        return float("nan"), float("nan")
    signal = np.abs(data - background_value(volume.data))
    head = inside | (signal > HEAD_LEVEL * np.median(signal[inside]))
    labels, _ = ndimage.label(head)
    head = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    upper = slice(int(heights[0] + heights[-1]) // 2, None)
    inside = inside[:, :, upper]
    head = np.stack([_fill_plane(plane) for plane in np.moveaxis(head[:, :, upper], 2, 0)], -1)
    share = float(inside.sum()) / float((head | inside).sum())
    if volume.spacing_mm.max() > MAX_SLICE_MM or head.all():
        return share, float("nan")
    sizes_mm = volume.spacing_mm * steps
    near = inside & (ndimage.distance_transform_edt(head, sampling=sizes_mm) <= SKIN_MM)
    return share, float(near.sum() * volume.voxel_mm3 * np.prod(steps)) / 1000


def check_head(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], config: QualityConfig
) -> tuple[dict[str, Any], list[Flag]]:
    """Return `head_share` and `scalp_ml` of a scan with skull, and flags for unusual values.

    Args:
        volume: a scan with skull.
        brain: its brain mask.
        config: limits.
    """
    share, scalp_ml = measure_head(volume, brain)
    if not np.isfinite(share):
        return {}, []
    record: dict[str, Any] = {"head_share": round(share, 3)}
    flags = []
    if not config.min_head_share <= share <= config.max_head_share:
        finding = (
            f"the mask fills {share:.1%} of the upper head "
            f"({config.min_head_share:.0%} to {config.max_head_share:.0%} in healthy scans)"
        )
        flags.append(Flag("brain-volume", finding))
    if np.isfinite(scalp_ml):
        record["scalp_ml"] = round(scalp_ml, 1)
        if scalp_ml > config.max_scalp_ml:
            finding = f"{scalp_ml:.0f} ml of the mask are within {SKIN_MM:.0f} mm of the air"
            flags.append(Flag("brain-outline", f"{finding}: scalp or skull"))
    return record, flags


def _fill_plane(plane: Bool[np.ndarray, "x y"]) -> Bool[np.ndarray, "x y"]:
    """Return a slice of the head with gaps closed and holes filled: skull, sinuses, fluid."""
    size = CLOSING_CELLS
    closed = ndimage.binary_closing(np.pad(plane, size), iterations=size)
    return np.asarray(ndimage.binary_fill_holes(closed)[size:-size, size:-size])
