"""The model's grid for a scan, and resampling of volumes and masks to this grid.

    bounding box of the brain  ->  96 x 96 pixels of 2 mm in the slice, centred on the brain;
                                   every slice that contains brain

Slices thicker than 3 mm are kept; thinner ones are resampled to 2 mm.

The grid has the scan's own RAS+ axes, oblique or not.
Scan and grid therefore differ by a scaling and a shift along each axis, and no slice of the grid
mixes directions.
Edges of grid cells coincide with edges of the scan's voxels, so 1 mm voxels fill 2 mm cells
exactly.

All registered scans have one grid: 96 x 96 pixels of 2 mm in MNI152, and all 2 mm slices of its
brain.
Scan and grid then differ by an affine.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.preparation.resample import Order, kernel_radius, resample
from maediff.scans.volume import Volume, slice_spacing_mm

IN_PLANE_RANGE_MM = (20.0, 400.0)
# Outer edges of the brain of MNI152 along R, A and S.
ATLAS_BOX_MM = ((-73.0, 73.0), (-108.0, 74.0), (-73.0, 83.0))


@config(frozen=True, config=ConfigDict(extra="forbid"))
class GridConfig:
    """The model's grid; the defaults are our choice.

    `thick_slice_mm` and `max_brain_mm` have no effect on registered scans: every brain fits the
    grid in MNI152, whose slices are `spacing_mm` apart.

    Args:
        size: rows and columns of a slice.
        spacing_mm: pixel size, and distance between resampled slices.
        thick_slice_mm: slices that are further apart keep their distance.
        max_brain_mm: a longer brain in the slice is scaled down to this length, uniformly in the
            slice.
    """

    size: int = 96
    spacing_mm: float = 2.0
    thick_slice_mm: float = 3.0
    max_brain_mm: float = 190.0

    def __post_init__(self) -> None:
        if (
            self.size < 1
            or self.spacing_mm <= 0
            or not 0 < self.max_brain_mm <= self.size * self.spacing_mm
        ):
            raise ValueError(
                f"grid of {self.size} x {self.spacing_mm} mm with max_brain_mm "
                f"{self.max_brain_mm}: the largest brain has to fit inside the grid; lower "
                "max_brain_mm or enlarge the grid"
            )
        if self.thick_slice_mm <= 0:
            raise ValueError(
                f"thick_slice_mm={self.thick_slice_mm} is a distance of slices: give more than "
                "0 mm"
            )


@dataclass(frozen=True, eq=False)
class Grid:
    """The model's grid for one scan.

    Args:
        shape: number of cells along X, Y and Z.
        affine: cell of the grid -> mm in RAS+ of the scan, scaling included.
        scale: factor by which the brain is scaled in the slice to fit; 1.0 without scaling.
        notes: remarks for the user.
        atlas_affine: for a registered scan, cell of the grid -> mm of MNI152.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    scale: float = 1.0
    notes: list[str] = field(default_factory=list)
    atlas_affine: Float[np.ndarray, "4 4"] | None = None

    @property
    def own_affine(self) -> Float[np.ndarray, "4 4"]:
        """Cell -> mm of MNI152 for a registered scan, else mm of the scan."""
        return self.affine if self.atlas_affine is None else self.atlas_affine

    @property
    def spacing_mm(self) -> Float[np.ndarray, " 3"]:
        """Cell size along X, Y and Z; in mm of MNI152 for a registered scan."""
        return slice_spacing_mm(self.own_affine)

    @property
    def cell_ml(self) -> float:
        """Volume of a cell in the scan, in ml."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000

    @property
    def slice_heights_mm(self) -> Float[np.ndarray, " z"]:
        """Position of the centre of each slice along S, in mm of the scan."""
        middle = [(size - 1) / 2 for size in self.shape[:2]]
        return np.asarray(
            self.affine[2, :2] @ middle
            + self.affine[2, 2] * np.arange(self.shape[2])
            + self.affine[2, 3]
        )


def model_grid(volume: Volume, brain: Bool[np.ndarray, "x y z"], config: GridConfig) -> Grid:
    """Return the grid of an unregistered scan, centred on the bounding box of the brain.

    Args:
        volume: the scan.
        brain: its brain mask.
        config: size and spacing of the grid.

    Raises:
        InputError: the brain mask is empty, or its size in the slice is no size of a head.
    """
    if not brain.any():
        raise InputError(
            f"{volume.source}: the brain mask is empty; correct the mask, or leave it out"
        )
    spacing = volume.spacing_mm
    filled = [np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    first, last = np.array([(indices[0], indices[-1] + 1) for indices in filled]).T
    lengths_mm = (last - first) * spacing
    low, high = IN_PLANE_RANGE_MM
    if lengths_mm[:2].min() < low or lengths_mm[:2].max() > high:
        raise InputError(
            f"{volume.source}: the brain measures {lengths_mm[0]:.0f} x {lengths_mm[1]:.0f} mm in "
            f"the axial slice, expected {low:.0f} to {high:.0f}; check the voxel sizes and the "
            "orientation (a single sagittal or coronal slice cannot be used)"
        )
    longest_mm = float(lengths_mm[:2].max())
    scale = min(1.0, config.max_brain_mm / longest_mm)
    notes = []
    if scale < 1:
        notes.append(
            f"brain {longest_mm:.0f} mm long, scaled by {scale:.3f} in the slice to fit the grid"
        )
    thick = spacing[2] > config.thick_slice_mm + 1e-3  # headers have single precision
    in_plane = config.spacing_mm / scale
    cell = np.array([in_plane, in_plane, spacing[2] if thick else config.spacing_mm])
    count = np.array([config.size, config.size, max(1, math.ceil(lengths_mm[2] / cell[2] - 1e-3))])
    # The low edge of the first cell, in voxels from the scan's low edge. It coincides with an edge
    # of a voxel, unless voxels are larger than cells: rounding could then move the brain out of
    # the grid. A small part of the top slice may stay uncovered.
    start = (first + last) / 2 - count * cell / spacing / 2
    start[2] = first[2]
    # An oblique affine in single precision has voxels of 1.9999999 or 2.0000002 mm.
    tolerance = 1 + 1e-5
    start = np.where(spacing <= cell * tolerance, np.floor(start + 0.5 + 1e-4), start)
    to_scan = np.diag([*(cell / spacing), 1.0])
    to_scan[:3, 3] = start - 0.5 + cell / spacing / 2
    shape = (int(count[0]), int(count[1]), int(count[2]))
    return Grid(shape, volume.affine @ to_scan, scale, notes)


def atlas_grid(to_atlas: Float[np.ndarray, "4 4"], config: GridConfig) -> Grid:
    """Return the grid in MNI152, which all registered scans share.

    Args:
        to_atlas: mm of the scan -> mm of MNI152.
        config: the grid.
    """
    (left, right), (back, front), (bottom, top) = ATLAS_BOX_MM
    step, slices = config.spacing_mm, math.ceil((top - bottom) / config.spacing_mm - 1e-3)
    atlas_affine = np.diag([step, step, step, 1.0])
    atlas_affine[:3, 3] = [
        (left + right - (config.size - 1) * step) / 2,
        (back + front - (config.size - 1) * step) / 2,
        bottom + step / 2,
    ]
    affine = np.linalg.inv(to_atlas) @ atlas_affine
    return Grid((config.size, config.size, slices), affine, atlas_affine=atlas_affine)


def to_grid(
    data: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], grid: Grid, order: Order
) -> Shaped[np.ndarray, "gx gy gz"]:
    """Resample an array to the grid; 0 outside the array.

    Args:
        data: array or mask.
        affine: voxel of `data` -> mm of the scan.
        grid: the grid.
        order: see `resample.resample`.
    """
    return resample(data, np.linalg.inv(affine) @ grid.affine, grid.shape, order)


def lesion_free_slices(
    lesion: Bool[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], grid: Grid, margin: int
) -> Bool[np.ndarray, " gz"]:
    """Return the slices of the grid that are free of lesion.

    Slices are chosen by the lesion mask on the scan's own grid, so a lesion that is too small for
    the model's grid still counts.

    Args:
        lesion: lesion mask.
        affine: voxel of `lesion` -> mm of the scan.
        grid: the grid.
        margin: slices of the scan beside the lesion that do not count as free either.

    Returns:
        True for each slice that is computed from slices of the scan without lesion and margin.
    """
    to_scan = np.linalg.inv(affine) @ grid.affine
    if grid.atlas_affine is not None:
        return _find_lesion_free_rotated(lesion, to_scan, grid.shape[2], margin)
    reach = kernel_radius(to_scan[2, 2]) + 1 + margin
    with_lesion = np.flatnonzero(lesion.any(axis=(0, 1)))
    centres = to_scan[2, 2] * np.arange(grid.shape[2]) + to_scan[2, 3]
    near = np.abs(centres[:, None] - with_lesion) < reach - 1e-6
    return np.asarray(~near.any(axis=1), dtype=bool)


def _find_lesion_free_rotated(
    lesion: Bool[np.ndarray, "x y z"],
    to_scan: Float[np.ndarray, "4 4"],
    n_slices: int,
    margin: int,
) -> Bool[np.ndarray, " gz"]:
    """Do the same as `lesion_free_slices` for a grid whose axes differ from the scan's.

    Each lesion voxel is enlarged along the scan's axes by the reach of blur, interpolation and
    margin. Slices of the grid that it then touches are not free.
    """
    reach = np.array(
        [kernel_radius(float(step)) + 1 for step in np.linalg.norm(to_scan[:3, :3], axis=1)]
    )
    reach[2] += margin
    from_scan = np.linalg.inv(to_scan)
    heights = np.argwhere(lesion) @ from_scan[2, :3] + from_scan[2, 3]
    span = float(np.abs(from_scan[2, :3]) @ reach)
    free = np.ones(n_slices, dtype=bool)
    for height in np.unique(np.round(heights, 2)):
        low, high = max(0, math.ceil(height - span)), math.floor(height + span)
        free[low : max(0, high + 1)] = False  # below the grid, high is negative
    return free
