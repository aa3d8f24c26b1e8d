"""Cerebrospinal fluid, grey and white matter of a skull-stripped T1w brain, as voxel fractions.

    y = image / bias                               log bias: smooth part of log y - log tissue mean
    p(y) = sum_k w_k N(y; m_k, s_k)                k: CSF, CSF-grey, grey, grey-white, white
    r_k(x) ~ w_k N(y(x); m_k, s_k) exp(beta mean of r_k around x)
    fractions = r_pure + r_mixed, shared by the position of y between the two tissues

The method is adaptive segmentation (Wells et al. 1996, https://doi.org/10.1109/42.511747), with
classes for voxels that two tissues share (Shattuck et al. 2001,
https://doi.org/10.1006/nimg.2000.0730) and a weak Markov field. The mixture is fitted to a
histogram. The numbers are our choice, set by eye on ds002748.
CSF and white matter have no common class. Where they touch, at the ventricles, a line of grey
matter appears, as in a T1w scan; `segment` removes it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.core.errors import InputError

HISTOGRAM_BINS = 256
BIAS_ROUNDS = 8
"""Estimates of mixture and bias field, in turn."""
EM_STEPS = 8
"""Expectation-maximisation steps per fit of the mixture."""
NEIGHBOUR_WEIGHT = 1.2
"""beta of the formula above."""
BIAS_MM = 14.0
"""Standard deviation of the Gaussian that smooths the bias field."""
TEXTURE_MM = 5.0
"""Texture is finer than this; coarser residuals may be remaining bias."""
Volume3 = Float[np.ndarray, "x y z"]


@dataclass(frozen=True, eq=False)
class Tissues:
    """A segmented T1w brain.

    Args:
        fractions: CSF, grey and white matter; their sum is 1 in the brain and 0 outside.
        texture: fine structure of the T1w beyond the fractions, in units of the contrast of white
            and grey matter.
        levels: mean T1w intensity of CSF, grey and white matter; white matter is near 1.
        depth_mm: depth under the hull; 0 outside the brain.
        to_ventricle_mm: distance to the ventricles, 0 inside; infinite if none were found.
    """

    fractions: Float[np.ndarray, "3 x y z"]
    texture: Volume3
    levels: tuple[float, float, float]
    depth_mm: Volume3
    to_ventricle_mm: Volume3


def segment(
    image: Volume3, brain: Bool[np.ndarray, "x y z"], spacing_mm: Float[np.ndarray, " 3"]
) -> Tissues:
    """Return the tissues of a T1w brain: CSF is darkest and white matter brightest.

    Args:
        image: T1w scan.
        brain: brain mask.
        spacing_mm: voxel size along x, y and z.

    Raises:
        InputError: the brain is empty or constant, or its three tissues have no contrast.
    """
    if not brain.any() or np.ptp(image[brain]) == 0:
        raise InputError(
            "the brain is empty or has no contrast; check the scan and its brain mask"
        )
    scale = float(np.percentile(image[brain], 95))
    y = np.where(brain, np.clip(image / scale, 1e-3, 2.0), 0).astype(np.float32)
    coarse, inside = y[::2, ::2, ::2], brain[::2, ::2, ::2]  # enough for a smooth field
    corrected: np.ndarray = coarse
    log_bias: np.ndarray = np.zeros_like(coarse)
    means, sds, weights = _initialise(coarse[inside])
    for _ in range(BIAS_ROUNDS):
        means, sds, weights = _fit_mixture(corrected[inside], means, sds, weights)
        r = _responsibilities(corrected, inside, means, sds, weights, neighbours=False)
        log_bias = _estimate_log_bias(coarse, r, _class_parameters(means, sds)[0], 2 * spacing_mm)
        corrected = coarse / np.exp(log_bias)
    for axis, n in enumerate(y.shape):
        log_bias = _interpolate(log_bias, np.arange(n) / 2, axis)
    corrected = y / np.exp(log_bias)
    means, sds, weights = _fit_mixture(corrected[brain], means, sds, weights)
    if not np.diff(means).min() > 0.02:
        raise InputError(
            "the brain does not show three tissues; check that the scan is T1w and has no skull"
        )
    r = _responsibilities(corrected, brain, means, sds, weights, neighbours=True)
    fractions = _to_fractions(corrected, r, means) * brain
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    inside = find_ventricles(fractions[0], depth, spacing_mm)
    _clear_ventricle_walls(fractions, corrected, inside, brain, means, spacing_mm)
    residual = (corrected - np.tensordot(means, fractions, 1)) / (means[2] - means[1]) * brain
    residual = np.clip(residual, -0.5, 0.5)
    sigma = TEXTURE_MM / np.asarray(spacing_mm)
    slow = ndimage.gaussian_filter(residual, sigma) / np.maximum(
        ndimage.gaussian_filter(brain.astype(np.float32), sigma), 0.1
    )
    texture = ((residual - slow) * brain).astype(np.float32)
    away = (
        ndimage.distance_transform_edt(~inside, sampling=spacing_mm)
        if inside.any()
        else np.full(y.shape, np.inf)
    )
    levels = (float(means[0]), float(means[1]), float(means[2]))
    return Tissues(fractions, texture, levels, depth.astype(np.float32), away.astype(np.float32))


def _initialise(values: Float[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first means (k-means with k = 3), standard deviations and weights."""
    means = np.percentile(values, [5, 40, 80])
    for _ in range(20):
        nearest = np.abs(values[:, None] - means).argmin(1)
        means = np.array(
            [values[nearest == k].mean() if (nearest == k).any() else means[k] for k in range(3)]
        )
    share = np.bincount(nearest, minlength=3) / len(values)
    weights = np.array([share[0], 0.1, share[1], 0.1, share[2]])
    return means, np.full(3, max(np.diff(means).min() / 4, 0.02)), weights / weights.sum()


def _class_parameters(means: np.ndarray, sds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations of the five classes.

    The value of a mixed voxel is uniformly distributed between its two tissues.
    """
    between = np.hypot(np.diff(means) / np.sqrt(12), (sds[1:] + sds[:-1]) / 2)
    centre = (means[1:] + means[:-1]) / 2
    return np.array([means[0], centre[0], means[1], centre[1], means[2]]), np.array(
        [sds[0], between[0], sds[1], between[1], sds[2]]
    )


def _fit_mixture(
    values: Float[np.ndarray, " n"], means: np.ndarray, sds: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit the mixture to the histogram; pure classes determine the mixed ones."""
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (0.0, max(1.3, float(values.max()))))
    y = (edges[1:] + edges[:-1]) / 2
    for _ in range(EM_STEPS):
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
    """Return the weighted density of each class at the values y."""
    m, s = _class_parameters(means, sds)
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
    """Return the probability of each class in each voxel; 0 outside the brain.

    A table holds the densities, for speed.
    """
    table = _densities(np.linspace(0, 2, 1025), means, sds, weights) + 1e-12
    # Outside the range of the means, only one tissue is possible.
    grid = np.linspace(0, 2, 1025)
    table[:, grid < means[0]] = np.array([1, 0, 0, 0, 0])[:, None]
    table[:, grid > means[2]] = np.array([0, 0, 0, 0, 1])[:, None]
    density = table[:, (y * 512).astype(np.int32).clip(0, 1024)].astype(np.float32)
    r = density / density.sum(0) * brain
    for _ in range(3 if neighbours else 0):
        around = np.stack([ndimage.gaussian_filter(r_k, 0.8, truncate=2.0) for r_k in r])
        r = density * np.exp(NEIGHBOUR_WEIGHT * around)
        r = r / r.sum(0) * brain
    return np.asarray(r, np.float32)


def _estimate_log_bias(
    y: Volume3, r: Float[np.ndarray, "5 x y z"], class_means: np.ndarray, spacing_mm: np.ndarray
) -> Volume3:
    """Return the smooth part of log y minus the log of the tissue mean, without CSF."""
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


def find_ventricles(
    fluid: Volume3, depth_mm: np.ndarray, spacing_mm: Float[np.ndarray, " 3"]
) -> Bool[np.ndarray, "x y z"]:
    """Return a mask of the ventricles: deep CSF that is wider than a sulcus; may be empty."""
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
    """Replace grey matter between ventricles and white matter, in place.

    A voxel of half CSF and half white matter looks like grey matter.
    """
    reach = max(1, round(3.0 / float(np.min(spacing_mm))))
    wall = ndimage.binary_dilation(inside, iterations=reach) & brain
    wall &= ndimage.binary_dilation(fractions[2] > 0.8, iterations=reach)
    white = np.clip((y[wall] - means[0]) / (means[2] - means[0]), 0, 1)
    fractions[:, wall] = np.stack([1 - white, np.zeros_like(white), white])


def _interpolate(values: np.ndarray, positions: np.ndarray, axis: int) -> np.ndarray:
    """Interpolate linearly along one axis; `positions` are indices of `values`."""
    n = values.shape[axis]
    p = np.clip(positions, 0, n - 1)
    low = np.minimum(p.astype(int), max(n - 2, 0))
    high = np.minimum(low + 1, n - 1)
    t = (p - low).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    return np.asarray(
        np.take(values, low, axis) * (1 - t) + np.take(values, high, axis) * t, np.float32
    )


def _to_fractions(
    y: Volume3, r: Float[np.ndarray, "5 x y z"], means: np.ndarray
) -> Float[np.ndarray, "3 x y z"]:
    """Return the fractions of CSF, grey and white matter from the class probabilities."""
    grey = np.clip((y - means[0]) / (means[1] - means[0]), 0, 1)
    white = np.clip((y - means[1]) / (means[2] - means[1]), 0, 1)
    fluid = r[0] + r[1] * (1 - grey)
    wm = r[4] + r[3] * white
    return np.stack([fluid, r.sum(0) - fluid - wm, wm]).astype(np.float32)
