"""The model's grid for a scan, and volumes and masks onto it and back.

    brain's bounding box  ->  96 x 96 pixels of 2 mm in the slice, centred on it; every slice that holds brain
    slices thicker than 3 mm are kept as they are, thinner ones go to 2 mm

The grid keeps the scan's own RAS+ axes, oblique or not, so scan and grid differ by a scaling and a shift along each
axis and no slice mixes directions. Its cells share edges with the scan's voxels: 1 mm voxels fill 2 mm cells exactly.

A registered scan has the same grid as every other one: 96 x 96 pixels of 2 mm in MNI152, every 2 mm slice of its brain.
Scan and grid then differ by any affine; all else is the same.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.preparation.resample import Order, kernel_radius, resample
from maediff.scans.volume import Volume

IN_PLANE_RANGE_MM = (20.0, 400.0)
ATLAS_BOX_MM = (
    (-73.0, 73.0),
    (-108.0, 74.0),
    (-73.0, 83.0),
)  # MNI152's brain, outer edges along R, A and S


@config(frozen=True, config=ConfigDict(extra="forbid"))
class GridConfig:
    """The model's grid; the defaults are ours. The last two are for scans as they lie: on MNI152's grid, where
    registered scans go, every brain fits and slices are `spacing_mm` apart.

    Args:
        size: rows and columns of a slice.
        spacing_mm: pixel size, and distance of slices where they are resampled.
        thick_slice_mm: slices further apart than this keep their distance.
        max_brain_mm: a brain longer than this in the slice is scaled down to it, uniformly in the slice.
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
                f"grid of {self.size} x {self.spacing_mm} mm with max_brain_mm {self.max_brain_mm}: the "
                "largest brain has to fit inside the grid; lower max_brain_mm or enlarge the grid"
            )
        if self.thick_slice_mm <= 0:
            raise ValueError(
                f"thick_slice_mm={self.thick_slice_mm} is a distance of slices: give more than 0 mm"
            )


@dataclass(frozen=True, eq=False)
class Grid:
    """The model's grid for one scan.

    Args:
        affine: voxel of the grid -> mm in RAS+, as they are in the head (scaling included).
        scale: what the brain was multiplied by in the slice to fit; 1.0 where it fits.
        notes: what a reader should know.
        atlas_affine: for a registered scan, voxel of the grid -> mm of MNI152.
    """

    shape: tuple[int, int, int]
    affine: Float[np.ndarray, "4 4"]
    scale: float = 1.0
    notes: list[str] = field(default_factory=list)
    atlas_affine: Float[np.ndarray, "4 4"] | None = None

    @property
    def own_affine(self) -> Float[np.ndarray, "4 4"]:
        """Voxel -> mm of the space that the grid lies in: MNI152 for a registered scan, else the head."""
        return self.affine if self.atlas_affine is None else self.atlas_affine

    @property
    def spacing_mm(self) -> Float[np.ndarray, " 3"]:
        """Voxel size along X, Y and Z, in mm of the space that the grid lies in."""
        return np.asarray(np.linalg.norm(self.own_affine[:3, :3], axis=0))

    @property
    def slice_heights_mm(self) -> Float[np.ndarray, " z"]:
        """Where the middle of each slice lies along S, in mm of the head."""
        middle = [(size - 1) / 2 for size in self.shape[:2]]
        return np.asarray(
            self.affine[2, :2] @ middle
            + self.affine[2, 2] * np.arange(self.shape[2])
            + self.affine[2, 3]
        )


def model_grid(volume: Volume, brain: Bool[np.ndarray, "x y z"], config: GridConfig) -> Grid:
    """The grid centred on the bounding box of `brain`, with every slice that holds brain.

    Raises:
        InputError: the brain is empty, or its size in the slice cannot be a head's.
    """
    if not brain.any():
        raise InputError(
            f"{volume.source}: the brain mask is empty; draw it again or leave it out"
        )
    spacing = volume.spacing_mm
    first, last = np.array(
        [
            (where[0], where[-1] + 1)
            for where in (
                np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)
            )
        ]
    ).T
    lengths_mm = (last - first) * spacing
    low, high = IN_PLANE_RANGE_MM
    if lengths_mm[:2].min() < low or lengths_mm[:2].max() > high:
        raise InputError(
            f"{volume.source}: the brain measures {lengths_mm[0]:.0f} x {lengths_mm[1]:.0f} mm in the "
            f"axial slice, expected {low:.0f} to {high:.0f}; check the voxel sizes and the orientation "
            "(a single sagittal or coronal slice cannot be used)"
        )
    scale = min(1.0, config.max_brain_mm / float(lengths_mm[:2].max()))
    notes = []
    if scale < 1:
        notes.append(
            f"brain {lengths_mm[:2].max():.0f} mm long, scaled by {scale:.3f} in the slice to fit the grid"
        )
    thick = spacing[2] > config.thick_slice_mm + 1e-3  # headers hold single precision
    cell = np.array(
        [
            config.spacing_mm / scale,
            config.spacing_mm / scale,
            spacing[2] if thick else config.spacing_mm,
        ]
    )
    count = np.array([config.size, config.size, max(1, math.ceil(lengths_mm[2] / cell[2] - 1e-3))])
    # The low edge of the first cell, in voxels from the scan's low edge; on a voxel's edge, unless voxels are larger
    # than cells (then that could push the brain out). A hair's breadth of a slice at the top may stay uncovered.
    start = (first + last) / 2 - count * cell / spacing / 2
    start[2] = first[2]
    near = (
        1 + 1e-5
    )  # an oblique affine in single precision has voxels of 1.9999999 or 2.0000002 mm
    start = np.where(spacing <= cell * near, np.floor(start + 0.5 + 1e-4), start)
    to_scan = np.diag([*(cell / spacing), 1.0])
    to_scan[:3, 3] = start - 0.5 + cell / spacing / 2
    return Grid(
        (int(count[0]), int(count[1]), int(count[2])), volume.affine @ to_scan, scale, notes
    )


def atlas_grid(to_atlas: Float[np.ndarray, "4 4"], config: GridConfig) -> Grid:
    """The grid in MNI152, the same for every scan; `to_atlas` takes mm of the scan to mm of MNI152."""
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
    """`data`, which lies on `affine`, on the grid; 0 where the grid reaches beyond it. Orders: `resample.resample`."""
    return resample(data, np.linalg.inv(affine) @ grid.affine, grid.shape, order)


def lesion_free_slices(
    lesion: Bool[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"], grid: Grid, margin: int
) -> Bool[np.ndarray, " gz"]:
    """Per slice of the grid: no lesion in the original slices it draws from, nor in `margin` more on either side.

    Chosen on the original mask: a lesion too small for the model's grid still counts.
    """
    to_scan = np.linalg.inv(affine) @ grid.affine
    if grid.atlas_affine is not None:
        return _lesion_free_turned(lesion, to_scan, grid.shape[2], margin)
    reach = kernel_radius(to_scan[2, 2]) + 1 + margin
    ill = np.flatnonzero(lesion.any(axis=(0, 1)))
    centres = to_scan[2, 2] * np.arange(grid.shape[2]) + to_scan[2, 3]
    return np.asarray(~(np.abs(centres[:, None] - ill) < reach - 1e-6).any(axis=1), dtype=bool)


def _lesion_free_turned(
    lesion: Bool[np.ndarray, "x y z"],
    to_scan: Float[np.ndarray, "4 4"],
    n_slices: int,
    margin: int,
) -> Bool[np.ndarray, " gz"]:
    """As `lesion_free_slices` for a grid with other axes: each lesion voxel, grown by what blur, interpolation and
    margin reach along the scan's axes, shuts the slices of the grid that it touches.
    """
    reach = np.array(
        [kernel_radius(float(step)) + 1 for step in np.linalg.norm(to_scan[:3, :3], axis=1)]
    )
    reach[2] += margin
    to_grid = np.linalg.inv(to_scan)
    heights = np.argwhere(lesion) @ to_grid[2, :3] + to_grid[2, 3]
    span = float(np.abs(to_grid[2, :3]) @ reach)
    free = np.ones(n_slices, dtype=bool)
    for height in np.unique(np.round(heights, 2)):
        low, high = max(0, math.ceil(height - span)), math.floor(height + span)
        free[low : high + 1] = False
    return free
