"""A scan and its masks on the model's grid, with intensities on the model's scale.

    brain: the given mask, or all of a stripped scan that is not background
    image: 0 and 1 at the 1st and 99th percentile of the brain, at most 2, 0 outside the brain

Findings such as a brain of unusual size or many saturated voxels are recorded and flagged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maediff.core.errors import InputError
from maediff.preparation.background import (
    GIVEN,
    ZERO_BACKGROUND,
    Gap,
    background_value,
    brain_from_background,
    extend_over_gaps,
)
from maediff.preparation.grid import (
    Grid,
    GridConfig,
    atlas_grid,
    lesion_free_slices,
    model_grid,
    to_grid,
)
from maediff.preparation.intensities import (
    NormaliseConfig,
    compute_deciles,
    floor_intensity,
    intensity_range,
    normalise,
    standardise,
)
from maediff.preparation.quality.flags import Flag
from maediff.scans.volume import Volume

BRAIN_ML = (800, 2200)
SATURATED_SHARE = 0.04  # beyond the share that the high percentile leaves above it
BEYOND_GRID_SHARE = 0.02


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan on the model's grid.

    Args:
        image: intensities in [0, CEILING], 1 at the 99th percentile, 0 outside the brain.
        brain: brain mask.
        lesion: lesion mask; None without one.
        grid: the grid.
        lesion_free: true for each slice without lesion nearby; None without a lesion mask.
        record: numbers, flags (`Flag`) and notes for qc.csv, image.json and summary.json.
    """

    image: Float[np.ndarray, "x y z"]
    brain: Bool[np.ndarray, "x y z"]
    lesion: Bool[np.ndarray, "x y z"] | None
    grid: Grid
    lesion_free: Bool[np.ndarray, " z"] | None
    record: dict[str, Any]


def prepare_scan(
    volume: Volume,
    brain: Bool[np.ndarray, "x y z"] | None = None,
    lesion: Bool[np.ndarray, "x y z"] | None = None,
    grid_config: GridConfig | None = None,
    normalise_config: NormaliseConfig | None = None,
    lesion_free_margin: int = 1,
    *,
    brain_from: str = GIVEN,
    to_atlas: Float[np.ndarray, "4 4"] | None = None,
    filled: Sequence[Gap] = (),
) -> Prepared:
    """Resample a scan and its masks to the model's grid and normalise its intensities.

    Args:
        volume: the scan.
        brain: brain mask; None for a skull-stripped scan, which `brain_from_background` masks.
        lesion: lesion mask.
        grid_config: the grid; None uses the default.
        normalise_config: the intensity scale; None uses the default.
        lesion_free_margin: slices of the scan beside a lesion that do not count as lesion-free.
        brain_from: origin of `brain`, for the record.
        to_atlas: mm of the scan -> mm of MNI152; None for an unregistered scan.
        filled: gaps of the scan that were interpolated. Beside a lesion, they are not lesion-free.

    Raises:
        InputError: no `brain` for a raw scan with skull, an empty brain mask, or one whose size
            is no size of a brain.
    """
    grid_config = grid_config or GridConfig()
    normalise_config = normalise_config or NormaliseConfig()
    if brain is None:
        brain, brain_from = brain_from_background(volume), ZERO_BACKGROUND
    grid = (
        model_grid(volume, brain, grid_config)
        if to_atlas is None
        else atlas_grid(to_atlas, grid_config)
    )
    on_grid = to_grid(brain, volume.affine, grid, "majority")
    if not on_grid.any():
        raise InputError(
            f"{volume.source}: no brain is left on the model's grid; check the brain mask"
        )
    image, intensities, saturated = _scale_intensities(
        volume, brain, on_grid, grid, normalise_config
    )
    brain_ml = round(float(brain.sum()) * (volume.voxel_mm3 / 1000), 1)
    flags = []
    if grid.scale != 1.0:
        flags.append(Flag("brain-scaled", "scaled to fit"))
    if not BRAIN_ML[0] <= brain_ml <= BRAIN_ML[1]:
        flags.append(
            Flag("brain-volume", f"brain volume out of {BRAIN_ML[0]} to {BRAIN_ML[1]} ml")
        )
    flags += saturated
    if to_atlas is not None and on_grid.sum() * grid.cell_ml < (1 - BEYOND_GRID_SHARE) * brain_ml:
        flags.append(Flag("beyond-grid", "brain reaches beyond the grid"))
    lesion_on_grid = free = None
    lesion_numbers: dict[str, float] = {}
    if lesion is not None:
        lesion_on_grid = to_grid(lesion, volume.affine, grid, "majority")
        reach = extend_over_gaps(lesion, filled)
        free = lesion_free_slices(reach, volume.affine, grid, lesion_free_margin)
        lesion_numbers, outside = _measure_lesion(volume, brain, lesion)
        flags += outside
    record = {
        "brain_mask": brain_from,
        "brain_ml": brain_ml,
        "scale": round(grid.scale, 4),
        "slices": grid.shape[2],
        "scan_shape": list(volume.data.shape),
        "scan_spacing_mm": [round(float(size), 4) for size in volume.spacing_mm],
        **intensities,
        "notes": list(grid.notes),
        "flags": flags,
        **lesion_numbers,
    }
    return Prepared(image, on_grid, lesion_on_grid, grid, free, record)


def _scale_intensities(
    volume: Volume,
    brain: Bool[np.ndarray, "x y z"],
    on_grid: Bool[np.ndarray, "gx gy gz"],
    grid: Grid,
    config: NormaliseConfig,
) -> tuple[Float[np.ndarray, "gx gy gz"], dict[str, Any], list[Flag]]:
    """Resample a scan to the grid, on the model's scale.

    Args:
        volume: the scan.
        brain: its brain mask.
        on_grid: the brain mask on the grid.
        grid: the grid.
        config: the intensity scale.

    Returns:
        The image; the entries of the record: `intensity_range`, `saturated_share` and, with
        landmarks, `deciles`; and a flag if many voxels are saturated.
    """
    floor = floor_intensity(volume.data, brain, background_value(volume.data), config)
    masked = np.where(brain, volume.data - floor, 0).astype(np.float32)
    resampled = to_grid(masked, volume.affine, grid, "linear")
    intensities = intensity_range(resampled, on_grid, config, name=str(volume.source))
    image = normalise(resampled, on_grid, intensities)
    deciles = compute_deciles(image, on_grid) if config.landmarks else []
    if deciles:
        standardised = standardise(image, deciles, config)
        image = np.where(on_grid, standardised, 0).astype(np.float32)
    saturated = float(np.mean(image[on_grid] >= 1.0))
    record: dict[str, Any] = {
        "intensity_range": [value + floor for value in intensities],
        "saturated_share": round(saturated, 4),
    }
    if deciles:
        record["deciles"] = deciles
    flags = []
    if saturated > 1 - config.high_percentile / 100 + SATURATED_SHARE:
        flags.append(Flag("saturated", "many saturated voxels"))
    return image, record, flags


def _measure_lesion(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], lesion: Bool[np.ndarray, "x y z"]
) -> tuple[dict[str, float], list[Flag]]:
    """Return the volume of a lesion and its share outside the brain; flag a large share."""
    outside = float((lesion & ~brain).sum()) / max(1.0, float(lesion.sum()))
    numbers = {
        "lesion_ml": round(float(lesion.sum()) * (volume.voxel_mm3 / 1000), 3),
        "lesion_outside_brain_share": round(outside, 4),
    }
    flags = []
    if outside > 0.5:
        flags.append(Flag("lesion-outside", "most of the lesion is outside the brain mask"))
    return numbers, flags
