"""A scan on the model's grid and back, and its intensities on one scale.

    brain's bounding box  ->  96 x 96 pixels of 2 mm in the slice, centred on it; every slice that holds brain
    slices thicker than 3 mm are kept as they are, thinner ones go to 2 mm
    image:  [0, 1] between the 1st and 99th percentile in the brain, up to 2 beyond the latter, 0 outside the brain

The grid keeps the scan's own RAS+ axes, oblique or not, so scan and grid differ by a scaling and a shift along each
axis and no slice mixes directions. Its cells share edges with the scan's voxels: 1 mm voxels fill 2 mm cells exactly.

A registered scan has the same grid as every other one: 96 x 96 pixels of 2 mm in MNI152, every 2 mm slice of its brain.
Scan and grid then differ by any affine; all else is the same.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config
from scipy import ndimage

from maediff.errors import InputError
from maediff.intensities import NormaliseConfig, dark_end, deciles_of, intensity_range, normalise, standardise
from maediff.postprocess import CONNECTIVITY
from maediff.resample import Order, kernel_radius, resample
from maediff.scans import Volume

# A stripped brain fills at most 0.49 of its bounding box and leaves its corners empty (ds002748, lgg, mslub); a head
# fills 0.55 to 1 and 5 to 10 litres, or has noise in the corners (ixi10, ds000011). A brain has 0.9 to 1.9 litres.
CORNER_SHARE, HEAD_ML, LARGE_ML, HEAD_SHARE = 0.2, 4500.0, 2500.0, 0.51
IN_PLANE_RANGE_MM = (20.0, 400.0)
SATURATED_SHARE = 0.05
ATLAS_BOX_MM = ((-73.0, 73.0), (-108.0, 74.0), (-73.0, 83.0))  # MNI152's brain, outer edges along R, A and S
BEYOND_GRID_SHARE = 0.02
BACKGROUND_SHARE = 0.9


class RawScanError(InputError):
    """A scan that still has its skull, where a stripped one is needed."""


@config(frozen=True, config=ConfigDict(extra="forbid"))
class GridConfig:
    """The model's grid; the defaults are DESIGN's. The last two are for scans as they lie: on MNI152's grid, where
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
        if self.size < 1 or self.spacing_mm <= 0 or not 0 < self.max_brain_mm <= self.size * self.spacing_mm:
            raise ValueError(
                f"grid of {self.size} x {self.spacing_mm} mm with max_brain_mm {self.max_brain_mm}: the "
                "largest brain has to fit inside the grid; lower max_brain_mm or enlarge the grid"
            )
        if self.thick_slice_mm <= 0:
            raise ValueError(f"thick_slice_mm={self.thick_slice_mm} is a distance of slices: give more than 0 mm")


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
            self.affine[2, :2] @ middle + self.affine[2, 2] * np.arange(self.shape[2]) + self.affine[2, 3]
        )


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
    grid_config, normalise_config = grid_config or GridConfig(), normalise_config or NormaliseConfig()
    if brain is None:
        brain, brain_from = brain_from_background(volume), "from the zero background"
    grid = model_grid(volume, brain, grid_config) if to_atlas is None else atlas_grid(to_atlas, grid_config)
    on_grid = to_grid(brain, volume.affine, grid, "majority")
    floor = dark_end(volume.data, brain, background_value(volume.data), normalise_config)
    resampled = to_grid(np.where(brain, volume.data - floor, 0).astype(np.float32), volume.affine, grid, "linear")
    if not on_grid.any():
        raise InputError(f"{volume.source}: nothing of the brain is left on the model's grid; check the brain mask")
    intensities = intensity_range(resampled, on_grid, normalise_config, name=str(volume.source))
    image = normalise(resampled, on_grid, intensities)
    deciles = deciles_of(image, on_grid) if normalise_config.landmarks else []
    if deciles:
        image = np.where(on_grid, standardise(image, deciles, normalise_config), 0).astype(np.float32)
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


def model_grid(volume: Volume, brain: Bool[np.ndarray, "x y z"], config: GridConfig) -> Grid:
    """The grid centred on the bounding box of `brain`, with every slice that holds brain.

    Raises:
        InputError: the brain is empty, or its size in the slice cannot be a head's.
    """
    if not brain.any():
        raise InputError(f"{volume.source}: the brain mask is empty; draw it again or leave it out")
    spacing = volume.spacing_mm
    first, last = np.array(
        [
            (where[0], where[-1] + 1)
            for where in (np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
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
        notes.append(f"brain {lengths_mm[:2].max():.0f} mm long, scaled by {scale:.3f} in the slice to fit the grid")
    thick = spacing[2] > config.thick_slice_mm + 1e-3  # headers hold single precision
    cell = np.array([config.spacing_mm / scale, config.spacing_mm / scale, spacing[2] if thick else config.spacing_mm])
    count = np.array([config.size, config.size, max(1, math.ceil(lengths_mm[2] / cell[2] - 1e-3))])
    # The low edge of the first cell, in voxels from the scan's low edge; on a voxel's edge, unless voxels are larger
    # than cells (then that could push the brain out). A hair's breadth of a slice at the top may stay uncovered.
    start = (first + last) / 2 - count * cell / spacing / 2
    start[2] = first[2]
    near = 1 + 1e-5  # an oblique affine in single precision has voxels of 1.9999999 or 2.0000002 mm
    start = np.where(spacing <= cell * near, np.floor(start + 0.5 + 1e-4), start)
    to_scan = np.diag([*(cell / spacing), 1.0])
    to_scan[:3, 3] = start - 0.5 + cell / spacing / 2
    return Grid((int(count[0]), int(count[1]), int(count[2])), volume.affine @ to_scan, scale, notes)


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


def from_grid(
    data: Shaped[np.ndarray, "gx gy gz"], grid: Grid, volume: Volume, order: Order
) -> Shaped[np.ndarray, "x y z"]:
    """`data`, which lies on the grid, on the RAS+ grid of `volume`; 0 beyond the grid."""
    return resample(data, np.linalg.inv(grid.affine) @ volume.affine, volume.data.shape, order)


def mask_from_grid(mask: Bool[np.ndarray, "gx gy gz"], grid: Grid, volume: Volume) -> Bool[np.ndarray, "x y z"]:
    """`mask`, which lies on the grid, on the RAS+ grid of `volume`, with none of its components lost.

    A voxel is marked if its centre lies in a marked cell. A component that would keep less than half of its volume
    so, because it lies between the centres of thick slices, marks every voxel that it reaches into: those that the
    centres of its cells lie in, or of parts of its cells where voxels are smaller.

        centres of 6 mm slices   -3          3          9
        marked cells of 2 mm              2..4..6                ->  the slice at 3, by its centre
        marked cells of 2 mm        -2..0..2                     ->  the slices at -3 and 3
    """
    labels, count = ndimage.label(mask, CONNECTIVITY)
    nearest = from_grid(labels.astype(np.float32), grid, volume, "nearest").astype(int)
    result: Bool[np.ndarray, "x y z"] = nearest > 0
    to_scan = np.linalg.inv(volume.affine) @ grid.affine
    size = np.bincount(labels.ravel()) * abs(np.linalg.det(to_scan[:3, :3]))  # in voxels of the scan
    lost = np.bincount(nearest.ravel(), minlength=count + 1) < size / 2
    if lost[1:].any():
        parts = np.ceil(np.abs(to_scan[:3, :3]).max(axis=0) - 1e-6).astype(int)  # of a cell, along its axes
        within = np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in parts), indexing="ij"), axis=-1)
        points = np.argwhere(mask & lost[labels])[:, None] + within.reshape(-1, 3)
        # A point on the edge of two voxels belongs to the upper one, whatever the last digit says.
        voxels = np.floor(points.reshape(-1, 3) @ to_scan[:3, :3].T + to_scan[:3, 3] + 0.5 + 1e-6).astype(int)
        inside = ((voxels >= 0) & (voxels < result.shape)).all(axis=1)
        result[tuple(voxels[inside].T)] = True
    return result


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
    lesion: Bool[np.ndarray, "x y z"], to_scan: Float[np.ndarray, "4 4"], n_slices: int, margin: int
) -> Bool[np.ndarray, " gz"]:
    """As `lesion_free_slices` for a grid with other axes: each lesion voxel, grown by what blur, interpolation and
    margin reach along the scan's axes, shuts the slices of the grid that it touches.
    """
    reach = np.array([kernel_radius(float(step)) + 1 for step in np.linalg.norm(to_scan[:3, :3], axis=1)])
    reach[2] += margin
    to_grid = np.linalg.inv(to_scan)
    heights = np.argwhere(lesion) @ to_grid[2, :3] + to_grid[2, 3]
    span = float(np.abs(to_grid[2, :3]) @ reach)
    free = np.ones(n_slices, dtype=bool)
    for height in np.unique(np.round(heights, 2)):
        low, high = max(0, math.ceil(height - span)), math.floor(height + span)
        free[low : high + 1] = False
    return free
