"""A scan on the model's grid, with its masks and its intensities on one scale: what a model is given.

    brain: given, or of a stripped scan what is not background
    image: [0, 1] between the 1st and 99th percentile in the brain, up to 2 beyond the latter, 0 outside the brain

What is out of the ordinary (a brain of an odd size, many saturated voxels, ...) is recorded and flagged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from maediff.core.errors import InputError
from maediff.preparation.background import background_value, brain_from_background
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
    dark_end,
    deciles_of,
    intensity_range,
    normalise,
    standardise,
)
from maediff.scans.volume import Volume

SATURATED_SHARE = 0.05
BEYOND_GRID_SHARE = 0.02


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan ready for a model, as volumes on `grid`.

    Args:
        image: in [0, CEILING], 1 at the 99th percentile, 0 outside the brain.
        lesion_free: per slice, whether no lesion is in or near what it was made from; None without a lesion mask.
        record: numbers for quality control and provenance.
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
    brain_from: str = "given",
    to_atlas: Float[np.ndarray, "4 4"] | None = None,
) -> Prepared:
    """`volume` on the model's grid, normalised, with its masks.

    Args:
        brain: None for a skull-stripped scan, whose brain is then `brain_from_background`.
        lesion_free_margin: original slices to leave out beside a lesion.
        brain_from: where `brain` comes from, for the record.
        to_atlas: mm of the scan -> mm of MNI152, for a grid that lies there.

    Raises:
        InputError: a raw scan with skull and no `brain`, an empty brain, or one that cannot be a brain's size.
    """
    grid_config, normalise_config = (
        grid_config or GridConfig(),
        normalise_config or NormaliseConfig(),
    )
    if brain is None:
        brain, brain_from = brain_from_background(volume), "from the zero background"
    grid = (
        model_grid(volume, brain, grid_config)
        if to_atlas is None
        else atlas_grid(to_atlas, grid_config)
    )
    on_grid = to_grid(brain, volume.affine, grid, "majority")
    floor = dark_end(volume.data, brain, background_value(volume.data), normalise_config)
    resampled = to_grid(
        np.where(brain, volume.data - floor, 0).astype(np.float32), volume.affine, grid, "linear"
    )
    if not on_grid.any():
        raise InputError(
            f"{volume.source}: nothing of the brain is left on the model's grid; check the brain mask"
        )
    intensities = intensity_range(resampled, on_grid, normalise_config, name=str(volume.source))
    image = normalise(resampled, on_grid, intensities)
    deciles = deciles_of(image, on_grid) if normalise_config.landmarks else []
    if deciles:
        image = np.where(on_grid, standardise(image, deciles, normalise_config), 0).astype(
            np.float32
        )
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    saturated = float(np.mean(image[on_grid] >= 1.0))
    record: dict[str, Any] = {
        "brain_mask": brain_from,
        "brain_ml": round(float(brain.sum()) * voxel_ml, 1),
        "scale": round(grid.scale, 4),
        "slices": grid.shape[2],
        "scan_shape": list(volume.data.shape),
        "scan_spacing_mm": [round(float(size), 4) for size in volume.spacing_mm],
        "intensity_range": [value + floor for value in intensities],
        "saturated_share": round(saturated, 4),
        "notes": list(grid.notes),
        "flags": [],
    }
    if deciles:
        record["deciles"] = deciles
    if grid.scale != 1.0:
        record["flags"].append("scaled to fit")
    if not 800 <= record["brain_ml"] <= 2200:
        record["flags"].append("brain volume out of 800 to 2200 ml")
    if saturated > SATURATED_SHARE:
        record["flags"].append("many saturated voxels")
    if to_atlas is not None:
        kept = on_grid.sum() * abs(np.linalg.det(grid.affine[:3, :3])) / 1000
        if kept < (1 - BEYOND_GRID_SHARE) * record["brain_ml"]:
            record["flags"].append("brain reaches beyond the grid")
    lesion_on_grid = free = None
    if lesion is not None:
        lesion_on_grid = to_grid(lesion, volume.affine, grid, "majority")
        free = lesion_free_slices(lesion, volume.affine, grid, lesion_free_margin)
        record["lesion_ml"] = round(float(lesion.sum()) * voxel_ml, 3)
        outside = float((lesion & ~brain).sum()) / max(1.0, float(lesion.sum()))
        record["lesion_outside_brain_share"] = round(outside, 4)
        if outside > 0.5:
            record["flags"].append("most of the lesion lies outside the brain mask")
    return Prepared(image, on_grid, lesion_on_grid, grid, free, record)
