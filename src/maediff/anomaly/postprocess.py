"""Residual to anomaly map to anomaly mask.

    residual     ->  zero outside the brain  ->  first steps: blur in the slice, times intensity
                 ->  blur  ->  left-right symmetry  ->  times intensity
                 ->  median filter, clipped to [0, 1]  =  anomaly map
    anomaly map  ->  eroded brain  ->  above the threshold  ->  small components removed
                 ->  grown to a lower threshold (`extent`)  =  anomaly mask

Maps have the shape (slice, row, column) of slices from an RAS+ volume: row 0 is anterior and
column 0 is the left end of X. `spacing_mm` has the order (x, y, z) of the volume, so slices are
`spacing_mm[2]` apart. The anomaly map covers the whole brain; only masks, and numbers computed
from masks, use the eroded brain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass
from scipy import ndimage

from maediff.anomaly.components import CONNECTIVITY, bounding_box
from maediff.core.config import build_config, check_group
from maediff.core.errors import InputError
from maediff.core.types import CEILING, Map, Mask

Sigmas = Annotated[
    tuple[float, ...], BeforeValidator(lambda mm: (mm,) if isinstance(mm, int | float) else mm)
]

GATHERED_VOXELS = 1024
"""Neighbourhoods that the median filter sorts at once: with their indices 1.5 MB, a cache."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PostprocessConfig:
    """Settings from residual to mask; each of them changes Dice, so results report all of them.

    The median filter of 5 voxels and the brain mask eroded three times are from pDDPM (Behrendt
    et al. 2023, https://arxiv.org/abs/2303.03758). The other fields are our choice.

    Args:
        median_size: edge of the median filter in voxels, odd; 1 disables the filter.
        erosion_iterations: pixels removed from the edge of the brain mask in each slice, before
            thresholding.
        min_volume_mm3: components smaller than this are removed. The volume is measured on the
            grid of the map, for registered scans in mm of MNI152.
        extent: share of the threshold in (0, 1] down to which a component grows: hysteresis
            (Canny 1986, https://doi.org/10.1109/TPAMI.1986.4767851). A lesion is found by its
            core, and its edge is less abnormal. Tissue without a core is never in the mask. 1
            disables growth.
        thick_slice_mm: slices that are further apart are blurred and filtered one by one.
        smooth_mm: standard deviations of Gaussian blurs inside the brain, in all three
            directions; the blurred residuals are averaged. Empty for no blur. Unlike a median
            filter, a blur keeps lesions smaller than itself if their residual is high enough. A
            narrow and a wide blur together serve small and large lesions. A repeated value has
            more weight.
        smooth_mean: average of the blurs. The geometric mean (b1 b2 ... bn)^(1/n) is high only
            where the residual is high at every scale. It suppresses specks in well reconstructed
            tissue and the halo of a wide blur. It needs a residual that is not negative.
        times_intensity: the blurred residual is multiplied by the intensity to this power, for
            bright lesions: this reverses the spread of the blur into darker tissue. 0 disables
            it.
        symmetry: share k in [0, 1] of the left-right common part that is subtracted:
            a - k max(0, min(a, mirrored a)). Healthy anatomy, and errors of its reconstruction,
            are similar on both sides; most lesions are on one side. Lesions across the midline,
            or on both sides, lose the share k too. Only for registered scans (`check_symmetry`).
            0 disables it.
        first_smooth_mm: standard deviation of a Gaussian blur inside the brain and inside each
            slice, before all other steps; 0 disables it. Lesions are smoother than the grain and
            the folds that a reconstruction lacks.
        first_power: the residual is multiplied by the intensity to this power, after
            `first_smooth_mm` and before `smooth_mm`, for bright lesions; 0 disables it.
        first_ceiling: intensities above this count as this in `first_power`. 1 is the 99th
            percentile of the brain.
    """

    median_size: int = 5
    erosion_iterations: int = 3
    min_volume_mm3: float = 64.0
    extent: float = 1.0
    thick_slice_mm: float = 3.0
    smooth_mm: Sigmas = ()
    smooth_mean: Literal["arithmetic", "geometric"] = "arithmetic"
    times_intensity: float = 0.0
    symmetry: float = 0.0
    first_smooth_mm: float = 0.0
    first_power: float = 0.0
    first_ceiling: float = CEILING

    def __post_init__(self) -> None:
        if min(self.smooth_mm, default=1) <= 0 or self.times_intensity < 0:
            raise ValueError(
                f"smooth_mm {list(self.smooth_mm)} must be positive millimetres, [] for no blur, "
                f"and times_intensity {self.times_intensity} must not be negative"
            )
        if min(self.first_smooth_mm, self.first_power) < 0 or self.first_ceiling <= 0:
            raise ValueError(
                f"first_smooth_mm {self.first_smooth_mm:g} and first_power {self.first_power:g} "
                f"must not be negative, and first_ceiling {self.first_ceiling:g} must be positive"
            )
        if not 0 <= self.symmetry <= 1:
            raise ValueError(f"symmetry {self.symmetry} is a share: give a number from 0 to 1")
        if self.median_size < 1 or self.median_size % 2 == 0:
            raise ValueError(
                f"median_size {self.median_size} has no centre voxel: give an odd number, "
                "or 1 for no filter"
            )
        if self.erosion_iterations < 0:
            raise ValueError(
                f"erosion_iterations {self.erosion_iterations} is negative: 0 is no erosion"
            )
        if self.min_volume_mm3 < 0:
            raise ValueError(
                f"min_volume_mm3 {self.min_volume_mm3} is negative: 0 keeps everything"
            )
        if not 0 < self.extent <= 1:
            raise ValueError(
                f"extent {self.extent} is a share of the threshold: give a number above 0, at "
                "most 1 (1 is no growth)"
            )


DEFAULT = PostprocessConfig()
THICK_TOLERANCE_MM = 1e-3
"""Slices of exactly `thick_slice_mm` are not thick, although headers have single precision."""
OWN_STEPS = ("first_smooth_mm", "first_power", "first_ceiling", "extent")
"""Fields that belong to one model, and differ between the models of a table: first steps, growth.

Baselines have none of them: from an intensity, growth to half of it would fill the brain.
"""


def own_steps_of(config: PostprocessConfig) -> dict[str, Any]:
    """Return the settings that belong to one model, by field."""
    return {name: getattr(config, name) for name in OWN_STEPS}


def without_own_steps(config: PostprocessConfig) -> PostprocessConfig:
    """Return `config` without first steps and growth, which belong to one model."""
    return replace(config, **own_steps_of(DEFAULT))


def apply_changes(
    config: PostprocessConfig, changes: Mapping[str, Any] | None
) -> PostprocessConfig:
    """Return `config` with other values for some fields, by name.

    Raises:
        SettingsError: no mapping, an unknown field, or a value that the config rejects.
    """
    values = {**asdict(config), **check_group(changes or {}, "postprocess")}
    return build_config(PostprocessConfig, values, "postprocess")


def check_symmetry(config: PostprocessConfig, registered: bool, name: str) -> None:
    """Refuse `symmetry` for scans that are not registered to MNI152.

    Only registered scans have their midsagittal plane in the middle of the slices.

    Args:
        config: `symmetry` is checked.
        registered: True if the scans are registered to MNI152.
        name: cohort or model of the scans, for the error message.

    Raises:
        InputError: `symmetry` is not 0, and the scans are not registered.
    """
    if config.symmetry and not registered:
        raise InputError(
            f"{name}: postprocess.symmetry {config.symmetry:g} compares left and right, but the "
            "scans are not registered; preprocess them with `registration.enabled=true`, or use "
            "`postprocess.symmetry=0`"
        )


def residual_map(
    residual: Map,
    brain: Mask,
    spacing_mm: Sequence[float],
    config: PostprocessConfig = DEFAULT,
    images: Map | None = None,
) -> Map:
    """Return the anomaly map: the post-processed residual in [0, 1], zero outside the brain.

    The residual is masked before the filters, so values outside the brain have no effect.

    Args:
        residual: difference between the scan and its reconstruction.
        brain: brain mask, not eroded.
        spacing_mm: voxel size along x, y and z.
        config: settings of the filters.
        images: intensities of the scan; needed for `times_intensity` and `first_power`.

    Raises:
        ValueError: `times_intensity` or `first_power` is not 0, and `images` is missing.
    """
    masked = np.where(brain, residual, 0).astype(np.float32)
    thick = spacing_mm[2] > config.thick_slice_mm + THICK_TOLERANCE_MM
    x, y, z = (1 / float(size) for size in spacing_mm)
    if config.first_smooth_mm:
        masked = _blur_inside(masked, brain, config.first_smooth_mm * np.array([0, y, x]))
    if config.first_power:
        capped = np.minimum(_require(images), np.float32(config.first_ceiling))
        masked = (masked * capped**config.first_power).astype(np.float32).clip(0, 1)
    if config.smooth_mm:
        per_mm = np.array([0 if thick else z, y, x])
        blurred = {
            sigma: _blur_inside(masked, brain, sigma * per_mm) for sigma in set(config.smooth_mm)
        }
        masked = _average([blurred[sigma] for sigma in config.smooth_mm], config.smooth_mean)
    if config.symmetry:
        mirrored = np.where(brain, masked[:, :, ::-1], 0)
        masked -= np.float32(config.symmetry) * np.minimum(masked, mirrored).clip(min=0)
    if config.times_intensity:
        masked = (masked * _require(images) ** config.times_intensity).astype(np.float32)
    across = 1 if thick else config.median_size
    anomaly: Map = _median_inside(
        masked, brain, (across, config.median_size, config.median_size)
    ).clip(0, 1)
    return anomaly


def _require(images: Map | None) -> Map:
    """Return the intensities of the scan.

    Raises:
        ValueError: the caller gave none.
    """
    if images is None:
        raise ValueError("times_intensity or first_power needs the scan's images")
    return images


def eroded_brain(brain: Mask, config: PostprocessConfig = DEFAULT) -> Mask:
    """Return the brain without the outermost pixels of each slice, which reconstruct worst."""
    eroded = np.pad(brain, ((0, 0), (1, 1), (1, 1)))
    flat, row = eroded.ravel(), eroded.shape[2]
    # Erosion with a cross of one pixel; ten times faster than in scipy.
    for _ in range(config.erosion_iterations):
        beside = flat[row - 1 : -row - 1] & flat[row + 1 : flat.size - row + 1]
        flat[row:-row] &= beside & flat[: -2 * row] & flat[2 * row :]
    return eroded[:, 1:-1, 1:-1].copy()


def anomaly_mask(
    anomaly_map: Map,
    brain: Mask,
    threshold: float,
    spacing_mm: Sequence[float],
    config: PostprocessConfig = DEFAULT,
) -> Mask:
    """Return the anomaly mask: components above the threshold, with their edge (`extent`).

    Args:
        anomaly_map: from `residual_map`.
        brain: brain mask, not eroded.
        threshold: only values strictly above it are in the mask, apart from growth (`extent`).
        spacing_mm: voxel size along x, y and z.
        config: erosion, smallest component and growth.
    """
    return mask_inside(anomaly_map, eroded_brain(brain, config), threshold, spacing_mm, config)


def mask_inside(
    anomaly_map: Map,
    inside: Mask,
    threshold: float,
    spacing_mm: Sequence[float],
    config: PostprocessConfig = DEFAULT,
) -> Mask:
    """Return the anomaly mask of a brain that is eroded already.

    Args:
        anomaly_map: from `residual_map`.
        inside: voxels that count; the eroded brain.
        threshold: only values strictly above it are in the mask, apart from growth (`extent`).
        spacing_mm: voxel size along x, y and z.
        config: smallest component and growth.
    """
    cores = remove_small((anomaly_map > np.float64(threshold)) & inside, spacing_mm, config)
    if config.extent == 1 or not cores.any():
        return cores
    wide: Mask = (anomaly_map > np.float64(config.extent * threshold)) & inside
    box = bounding_box(wide)
    labels, count = ndimage.label(wide[box], CONNECTIVITY)
    has_core = np.zeros(count + 1, dtype=bool)
    has_core[labels[cores[box]]] = True
    wide[box] = has_core[labels]
    return wide


def remove_small(
    mask: Mask, spacing_mm: Sequence[float], config: PostprocessConfig = DEFAULT
) -> Mask:
    """Return `mask` without the components that are smaller than `min_volume_mm3`."""
    required = min_voxels(spacing_mm, config)
    if required <= 1 or not mask.any():
        return mask
    box = bounding_box(mask)
    labels, _ = ndimage.label(mask[box], CONNECTIVITY)
    keep = np.bincount(labels.ravel()) >= required
    keep[0] = False
    kept = np.zeros_like(mask)
    kept[box] = keep[labels]
    return kept


def min_voxels(spacing_mm: Sequence[float], config: PostprocessConfig = DEFAULT) -> int:
    """Return the number of voxels that a component needs to reach `min_volume_mm3`."""
    volume = float(np.prod([float(s) for s in spacing_mm]))
    return max(1, math.ceil(config.min_volume_mm3 / volume * (1 - 1e-5)))  # float32 affines


def _blur_inside(values: Map, where: Mask, sigma: Float[np.ndarray, " 3"]) -> Map:
    """Return the Gaussian mean of the values inside `where` around each of its voxels.

    Args:
        values: zero outside `where`.
        where: the voxels that count.
        sigma: standard deviations in voxels.
    """
    weights = ndimage.gaussian_filter(where.astype(np.float32), sigma, mode="constant")
    blurred: Map = (
        ndimage.gaussian_filter(values, sigma, mode="constant") / np.maximum(weights, 1e-6) * where
    )
    return blurred


def _average(maps: Sequence[Map], mean: str) -> Map:
    """Return the arithmetic or geometric mean of maps."""
    if mean == "arithmetic":
        return np.asarray(np.mean(maps, axis=0))
    roots = [np.maximum(blurred, 0) ** (1 / len(maps)) for blurred in maps]
    return np.asarray(np.prod(roots, axis=0), np.float32)


def _median_inside(values: Map, where: Mask, size: tuple[int, int, int]) -> Map:
    """Return scipy.ndimage.median_filter at the voxels of `where`, zero elsewhere.

    Edges are mirrored as in scipy. The function takes a third of scipy's time, because most of
    the field of view is not brain and numpy partitions quickly.
    """
    if size == (1, 1, 1) or not where.any():
        return values
    padded = np.pad(values, [(s // 2, s // 2) for s in size], mode="symmetric")
    _, rows, columns = padded.shape
    dz, dy, dx = np.ogrid[: size[0], : size[1], : size[2]]
    offsets = ((dz * rows + dy) * columns + dx).ravel()
    z, row, column = np.nonzero(where)
    corner = (z * rows + row) * columns + column
    flat, middle = padded.ravel(), offsets.size // 2
    medians = np.empty(len(corner), dtype=np.float32)
    for start in range(0, len(corner), GATHERED_VOXELS):
        part = slice(start, start + GATHERED_VOXELS)
        # No index is out of range; mode "wrap" avoids the check for such indices.
        neighbours = flat.take(corner[part, None] + offsets, mode="wrap")
        neighbours.partition(middle, axis=1)
        medians[part] = neighbours[:, middle]
    filtered = np.zeros_like(values)
    filtered[where] = medians
    return filtered
