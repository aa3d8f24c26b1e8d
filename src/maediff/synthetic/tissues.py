"""Cerebrospinal fluid, grey and white matter of a skull-stripped T1w brain, as fractions of each voxel.

    y = image / bias                                        bias: smooth, from log y - log of what the tissues explain
    p(y) = sum_k w_k N(y; m_k, s_k)                         k: fluid, fluid-grey, grey, grey-white, white
    r_k(x) ~ w_k N(y(x); m_k, s_k) exp(beta mean of r_k around x)
    fractions = r_pure + r_mixed times the place of y between its two tissues

Adaptive segmentation (Wells et al. 1996, https://doi.org/10.1109/42.511747) with classes for voxels that two tissues
share (Shattuck et al. 2001, https://doi.org/10.1006/nimg.2000.0730) and a light field of neighbours; the mixture is
fitted to a histogram. Numbers are ours, set by eye on ds002748. Fluid and white matter never share a voxel here: where
they touch, at the ventricles, a line of grey appears, as it does in a T1w scan.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.core.errors import InputError

BINS, ROUNDS, STEPS, BETA = 256, 8, 8, 1.2
BIAS_MM = 14.0
"""Standard deviation of the smoothing that makes the bias field."""
TEXTURE_MM = 5.0
"""Texture is what is finer than this; the rest may be bias that was not found."""
Volume3 = Float[np.ndarray, "x y z"]


@dataclass(frozen=True, eq=False)
class Tissues:
    """A segmented T1w brain.

    Args:
        fractions: fluid, grey and white matter; they sum to 1 in the brain and to 0 outside.
        texture: what the fractions do not explain of the T1w, over its contrast between white and grey matter.
        levels: mean T1w intensity of the three, fluid first, with white matter near 1.
        depth_mm: under the hull; 0 outside the brain.
        to_ventricle_mm: 0 inside the ventricles; infinite where none was found.
    """

    fractions: Float[np.ndarray, "3 x y z"]
    texture: Volume3
    levels: tuple[float, float, float]
    depth_mm: Volume3
    to_ventricle_mm: Volume3


def segment(
    image: Volume3, brain: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, " 3"]
) -> Tissues:
    """The tissues of a T1w brain, in which fluid is darkest and white matter brightest.

    Raises:
        InputError: the brain is empty or has no contrast, or its tissues cannot be told apart.
    """
    if not brain.any() or np.ptp(image[brain]) == 0:
        raise InputError(
            "the brain is empty or has no contrast; check the scan and its brain mask"
        )
    scale = float(np.percentile(image[brain], 95))
    y = np.where(brain, np.clip(image / scale, 1e-3, 2.0), 0).astype(np.float32)
    few, inside = y[::2, ::2, ::2], brain[::2, ::2, ::2]  # enough for what is smooth
    corrected: np.ndarray = few
    log_bias: np.ndarray = np.zeros_like(few)
    means, sds, weights = _start(few[inside])
    for _ in range(ROUNDS):
        means, sds, weights = _fit(corrected[inside], means, sds, weights)
        r = _responsibilities(corrected, inside, means, sds, weights, neighbours=False)
        log_bias = _log_bias(few, r, _classes(means, sds)[0], 2 * spacing_mm)
        corrected = few / np.exp(log_bias)
    for axis, n in enumerate(y.shape):
        log_bias = _interpolate(log_bias, np.arange(n) / 2, axis)
    corrected = y / np.exp(log_bias)
    means, sds, weights = _fit(corrected[brain], means, sds, weights)
    if not np.diff(means).min() > 0.02:
        raise InputError(
            "three tissues cannot be told apart in the brain; is it a T1w scan, without its skull?"
        )
    r = _responsibilities(corrected, brain, means, sds, weights, neighbours=True)
    fractions = _fractions(corrected, r, means) * brain
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    inside = ventricles(fractions[0], depth, spacing_mm)
    _clear_ventricle_walls(fractions, corrected, inside, brain, means, spacing_mm)
    rest = (corrected - np.tensordot(means, fractions, 1)) / (means[2] - means[1]) * brain
    rest = np.clip(rest, -0.5, 0.5)
    sigma = TEXTURE_MM / np.asarray(spacing_mm)
    slow = ndimage.gaussian_filter(rest, sigma) / np.maximum(
        ndimage.gaussian_filter(brain.astype(np.float32), sigma), 0.1
    )
    texture = ((rest - slow) * brain).astype(np.float32)
    away = (
        ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
        if inside.any()
        else np.full(y.shape, np.inf)
    )
    levels = (float(means[0]), float(means[1]), float(means[2]))
    return Tissues(fractions, texture, levels, depth.astype(np.float32), away.astype(np.float32))


def _start(values: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of a first guess by three-means on the histogram; equal widths, weights by size."""
    means = np.percentile(values, [5, 40, 80])
    for _ in range(20):
        nearest = np.abs(values[:, None] - means).argmin(1)
        means = np.array(
            [values[nearest == k].mean() if (nearest == k).any() else means[k] for k in range(3)]
        )
    share = np.bincount(nearest, minlength=3) / len(values)
    weights = np.array([share[0], 0.1, share[1], 0.1, share[2]])
    return means, np.full(3, max(np.diff(means).min() / 4, 0.02)), weights / weights.sum()


def _classes(means: np.ndarray, sds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the five classes; a mixed voxel is anywhere between its tissues."""
    between = np.hypot(np.diff(means) / np.sqrt(12), (sds[1:] + sds[:-1]) / 2)
    centre = (means[1:] + means[:-1]) / 2
    return np.array([means[0], centre[0], means[1], centre[1], means[2]]), np.array(
        [sds[0], between[0], sds[1], between[1], sds[2]]
    )


def _fit(
    values: Float[np.ndarray, " n"], means: np.ndarray, sds: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expectation and maximisation on the histogram; mixed classes follow from the pure ones."""
    counts, edges = np.histogram(values, BINS, (0.0, max(1.3, float(values.max()))))
    y = (edges[1:] + edges[:-1]) / 2
    for _ in range(STEPS):
        r = _densities(y, means, sds, weights)
        r = r / np.maximum(r.sum(0), 1e-30) * counts
        mass = r.sum(1) + 1e-9
        pure = r[::2]
        means = (pure @ y) / mass[::2]
        sds = np.sqrt((pure * (y - means[:, None]) ** 2).sum(1) / mass[::2]).clip(0.02, 0.12)
        weights = mass / mass.sum()
        order = np.argsort(means)
        means, sds = means[order], sds[order]
    return means, sds, weights


def _densities(
    y: np.ndarray, means: np.ndarray, sds: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    m, s = _classes(means, sds)
    shape = (5, *[1] * y.ndim)
    m, s, w = (value.reshape(shape) for value in (m, s, weights))
    return np.asarray(w / s * np.exp(-0.5 * ((y - m) / s) ** 2))


def _responsibilities(
    y: Volume3,
    brain: Bool[np.ndarray, "x y z"],
    means: np.ndarray,
    sds: np.ndarray,
    weights: np.ndarray,
    *,
    neighbours: bool,
) -> Float[np.ndarray, "5 x y z"]:
    """Of each class in each voxel; 0 outside the brain. Densities are looked up in a table."""
    table = _densities(np.linspace(0, 2, 1025), means, sds, weights) + 1e-12
    # Beyond the outer means there is one tissue only, whatever the widths.
    grid = np.linspace(0, 2, 1025)
    table[:, grid < means[0]] = np.array([1, 0, 0, 0, 0])[:, None]
    table[:, grid > means[2]] = np.array([0, 0, 0, 0, 1])[:, None]
    density = table[:, (y * 512).astype(np.int32).clip(0, 1024)].astype(np.float32)
    r = density / density.sum(0) * brain
    for _ in range(3 if neighbours else 0):
        around = np.stack([ndimage.gaussian_filter(one, 0.8, truncate=2.0) for one in r])
        r = density * np.exp(BETA * around)
        r = r / r.sum(0) * brain
    return np.asarray(r, np.float32)


def _log_bias(
    y: Volume3, r: Float[np.ndarray, "5 x y z"], class_means: np.ndarray, spacing_mm: np.ndarray
) -> Volume3:
    """Smooth part of log y against what grey and white matter explain; fluid tells nothing about it."""
    weight = r[2:].sum(0)
    expected = np.tensordot(class_means[2:], r[2:], 1) / np.maximum(weight, 1e-6)
    ratio = np.log(np.maximum(y, 0.05)) - np.log(np.maximum(expected, 0.05))
    ratio = np.clip(ratio, -0.5, 0.5) * weight
    sigma = BIAS_MM / np.asarray(spacing_mm)
    smooth = [
        ndimage.gaussian_filter(v, sigma, mode="constant", truncate=3.0) for v in (ratio, weight)
    ]
    log_bias = smooth[0] / np.maximum(smooth[1], 1e-3)
    return np.asarray(log_bias - np.average(log_bias, weights=weight + 1e-9), np.float32)


def ventricles(
    fluid: Volume3, depth_mm: np.ndarray, spacing_mm: Float[np.ndarray, " 3"]
) -> Bool[np.ndarray, "x y z"]:
    """Fluid deep in the brain that fills more than a sulcus does; false all over where there is none."""
    deep = (fluid > 0.5) & (depth_mm > 20.0)
    core = ndimage.binary_erosion(deep)
    labels, count = ndimage.label(core)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.flatnonzero(sizes * np.prod(spacing_mm) > 100.0)
    return np.asarray(
        ndimage.binary_dilation(np.isin(labels, kept[kept > 0]), iterations=2) & deep
    )


def _clear_ventricle_walls(
    fractions: Float[np.ndarray, "3 x y z"],
    y: Volume3,
    inside: Bool[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    means: np.ndarray,
    spacing_mm: np.ndarray,
) -> None:
    """Between a ventricle and white matter no grey matter, which is only what half of each looks like; in place."""
    reach = max(1, round(3.0 / float(np.min(spacing_mm))))
    wall = ndimage.binary_dilation(inside, iterations=reach) & brain
    wall &= ndimage.binary_dilation(fractions[2] > 0.8, iterations=reach)
    white = np.clip((y[wall] - means[0]) / (means[2] - means[0]), 0, 1)
    fractions[:, wall] = np.stack([1 - white, np.zeros_like(white), white])


def _interpolate(values: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    n = values.shape[axis]
    p = np.clip(positions, 0, n - 1)
    low = np.minimum(p.astype(int), max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    t = (p - low).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.asarray(
        np.take(values, low, axis) * (1 - t) + np.take(values, high, axis) * t, np.float32
    )


def _fractions(
    y: Volume3, r: Float[np.ndarray, "5 x y z"], means: np.ndarray
) -> Float[np.ndarray, "3 x y z"]:
    grey = np.clip((y - means[0]) / (means[1] - means[0]), 0, 1)
    white = np.clip((y - means[1]) / (means[2] - means[1]), 0, 1)
    fluid = r[0] + r[1] * (1 - grey)
    wm = r[4] + r[3] * white
    return np.stack([fluid, r.sum(0) - fluid - wm, wm]).astype(np.float32)
