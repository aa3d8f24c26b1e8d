"""From a residual to an anomaly map and an anomaly mask.

    residual -> masked by the brain -> blurred -> less what both sides share -> times x^k -> median filter = anomaly map
    anomaly map -> eroded brain -> above the threshold -> small components removed  = anomaly mask

Maps have the shape (slice, row, column), as slices are cut from an RAS+ volume: row 0 is anterior, column 0
the left end of X. `spacing_mm` is the volume's, in its order (x, y, z): slices are `spacing_mm[2]` apart.
The anomaly map keeps the whole brain; only masks and what is computed from them use the eroded one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass
from scipy import ndimage

from maediff.anomaly.components import CONNECTIVITY, bounding_box
from maediff.core.config import build_config
from maediff.core.errors import InputError
from maediff.core.types import Map, Mask

Sigmas = Annotated[
    tuple[float, ...], BeforeValidator(lambda mm: (mm,) if isinstance(mm, int | float) else mm)
]

GATHERED_VOXELS = 1024  # neighbourhoods gathered at once by the median filter: with their indices 1.5 MB, a cache


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PostprocessConfig:
    """What happens between residual and mask; every field changes Dice, so every one is reported.

    A median filter of 5 voxels and a brain mask eroded three times are pDDPM's (Behrendt et al. 2023,
    https://arxiv.org/abs/2303.03758); the blur, the symmetry, the smallest component and the thick-slice rule are ours.

    Args:
        smooth_mm: sigmas of Gaussians over the residual inside the brain, in all three directions, whose results are
            averaged; none is no blur. Unlike a median filter it keeps lesions smaller than itself, if they stand out
            enough; a narrow and a wide one together serve small lesions and large ones. One named twice counts twice.
        smooth_mean: how they are averaged. The geometric mean, (b1 b2 ... bn)^(1/n), marks what stands out at every
            scale: neither specks in tissue that is drawn well nor the halo that a wide blur alone leaves around a
            lesion. It needs residuals that are not negative, as all are.
        symmetry: share k, 0 to 1, of what a voxel and its mirror image across the midsagittal plane have in common
            that is taken off: a - k max(0, min(a, mirrored a)). Healthy anatomy is alike on both sides, and so is what
            a method draws wrongly of it; most lesions lie on one side. What lies across the midline, or on both sides
            alike, loses the share k, too. Only for registered scans (`check_symmetry`). 0 is off.
        times_intensity: the (blurred) residual is multiplied by the intensity to this power, where lesions are bright:
            what a blur spreads into darker tissue is taken back. 0 is off.
        median_size: edge of the median filter in voxels, odd; 1 switches it off.
        erosion_iterations: pixels taken from the brain mask's edge, within the slice, before thresholding.
        min_volume_mm3: components smaller than this on the map's grid are removed; MNI152's mm for registered scans.
        thick_slice_mm: slices further apart than this are blurred and filtered one by one (5 x 5 x 1).
    """

    median_size: int = 5
    erosion_iterations: int = 3
    min_volume_mm3: float = 64.0
    thick_slice_mm: float = 3.0
    smooth_mm: Sigmas = ()
    smooth_mean: Literal["arithmetic", "geometric"] = "arithmetic"
    times_intensity: float = 0.0
    symmetry: float = 0.0

    def __post_init__(self) -> None:
        if min(self.smooth_mm, default=1) <= 0 or self.times_intensity < 0:
            raise ValueError(
                f"smooth_mm {list(self.smooth_mm)} must be positive millimetres, [] for none, and times_intensity "
                f"{self.times_intensity} not negative"
            )
        if not 0 <= self.symmetry <= 1:
            raise ValueError(f"symmetry {self.symmetry} is a share: give a number from 0 to 1")
        if self.median_size < 1 or self.median_size % 2 == 0:
            raise ValueError(
                f"median_size {self.median_size} has no centre voxel: take an odd number, or 1 for no filter"
            )
        if self.erosion_iterations < 0:
            raise ValueError(
                f"erosion_iterations {self.erosion_iterations} is negative: 0 is no erosion"
            )
        if self.min_volume_mm3 < 0:
            raise ValueError(
                f"min_volume_mm3 {self.min_volume_mm3} is negative: 0 keeps everything"
            )


DEFAULT = PostprocessConfig()


def changed(config: PostprocessConfig, changes: Mapping[str, Any] | None) -> PostprocessConfig:
    """`config` with some of its fields changed, by name.

    Raises:
        SettingsError: an unknown field, or a value that does not fit.
    """
    return build_config(PostprocessConfig, {**asdict(config), **(changes or {})}, "postprocess")


def check_symmetry(config: PostprocessConfig, registered: bool, name: str) -> None:
    """Refuse `symmetry` for scans whose midsagittal plane is not the middle of their slices.

    Args:
        registered: whether the scans lie in MNI152.
        name: whose scans they are.

    Raises:
        InputError: they do not.
    """
    if config.symmetry and not registered:
        raise InputError(
            f"{name}: postprocess.symmetry {config.symmetry:g} compares left and right, but scans lie as they came; "
            "preprocess them with --set registration.enabled=true, or add --set postprocess.symmetry=0"
        )


def residual_map(
    residual: Map,
    brain: Mask,
    spacing_mm: Sequence[float],
    config: PostprocessConfig = DEFAULT,
    images: Map | None = None,
) -> Map:
    """Anomaly map: the residual inside the brain, as `config` says, clipped to [0, 1], zero outside the brain.

    The residual is masked before the filters, so what a method draws outside the brain cannot bleed in.

    Args:
        images: the scan's intensities, for `times_intensity`.

    Raises:
        ValueError: they are wanted and not given.
    """
    masked = np.where(brain, residual, 0).astype(np.float32)
    thick = spacing_mm[2] > config.thick_slice_mm
    if config.smooth_mm:
        x, y, z = (1 / float(size) for size in spacing_mm)
        per_mm = np.array([0 if thick else z, y, x])
        blurred = {
            sigma: _blur_inside(masked, brain, sigma * per_mm) for sigma in set(config.smooth_mm)
        }
        masked = _mean([blurred[sigma] for sigma in config.smooth_mm], config.smooth_mean)
    if config.symmetry:
        mirrored = np.where(brain, masked[:, :, ::-1], 0)
        masked -= np.float32(config.symmetry) * np.minimum(masked, mirrored).clip(min=0)
    if config.times_intensity:
        if images is None:
            raise ValueError("times_intensity needs the scan's images")
        masked = (masked * images**config.times_intensity).astype(np.float32)
    across = 1 if thick else config.median_size
    anomaly: Map = _median_inside(
        masked, brain, (across, config.median_size, config.median_size)
    ).clip(0, 1)
    return anomaly


def eroded_brain(brain: Mask, config: PostprocessConfig = DEFAULT) -> Mask:
    """The brain without its outermost pixels in each slice, where reconstructions are worst."""
    eroded = np.pad(brain, ((0, 0), (1, 1), (1, 1)))
    flat, row = eroded.ravel(), eroded.shape[2]
    for _ in range(
        config.erosion_iterations
    ):  # by a cross of one pixel; ten times faster than scipy's
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
    """Voxels of the eroded brain above `threshold` (strictly) in components of at least `min_volume_mm3`."""
    inside = eroded_brain(brain, config)
    return remove_small((anomaly_map > np.float64(threshold)) & inside, spacing_mm, config)


def remove_small(
    mask: Mask, spacing_mm: Sequence[float], config: PostprocessConfig = DEFAULT
) -> Mask:
    """`mask` without the components smaller than `min_volume_mm3`."""
    least = min_voxels(spacing_mm, config)
    if least <= 1 or not mask.any():
        return mask
    box = bounding_box(mask)
    labels, _ = ndimage.label(mask[box], CONNECTIVITY)
    keep = np.bincount(labels.ravel()) >= least
    keep[0] = False
    kept = np.zeros_like(mask)
    kept[box] = keep[labels]
    return kept


def min_voxels(spacing_mm: Sequence[float], config: PostprocessConfig = DEFAULT) -> int:
    """Voxels a component needs to reach `min_volume_mm3`."""
    volume = float(np.prod([float(s) for s in spacing_mm]))
    return max(1, math.ceil(config.min_volume_mm3 / volume - 1e-6))


def _blur_inside(values: Map, where: Mask, sigma: Float[np.ndarray, " 3"]) -> Map:
    """The mean of what lies inside `where` around each of its voxels, in a Gaussian window; `values` are 0 outside."""
    weights = ndimage.gaussian_filter(where.astype(np.float32), sigma, mode="constant")
    blurred: Map = (
        ndimage.gaussian_filter(values, sigma, mode="constant") / np.maximum(weights, 1e-6) * where
    )
    return blurred


def _mean(maps: Sequence[Map], kind: str) -> Map:
    if kind == "arithmetic":
        return np.asarray(np.mean(maps, axis=0))
    return np.asarray(
        np.prod([np.maximum(blurred, 0) ** (1 / len(maps)) for blurred in maps], axis=0),
        np.float32,
    )


def _median_inside(values: Map, where: Mask, size: tuple[int, int, int]) -> Map:
    """scipy.ndimage.median_filter at the voxels of `where`, zero elsewhere; edges mirrored as there.

    It takes a third of scipy's time: most of the field of view is not brain, and numpy's partition is fast.
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
        neighbours = flat.take(
            corner[part, None] + offsets, mode="wrap"
        )  # none does; looking for errors takes longer
        neighbours.partition(middle, axis=1)
        medians[part] = neighbours[:, middle]
    filtered = np.zeros_like(values)
    filtered[where] = medians
    return filtered
