"""Resampling of arrays between grids.

    to larger voxels:  blur, then linear interpolation    sigma = sqrt(step^2 - 1) / 2.355 voxels
    masks:             1 where at least half of the target's voxel is covered

`to_source` maps a voxel of the target to a voxel of the source.
If both grids have the same axes, `to_source` only scales and shifts. One matrix per axis then
blurs and interpolates at once, and covered shares are exact.
For any other affine (registration, another scan of the session), only the part of the source
that is not zero is blurred. A covered share is the mean over `POINTS`^3 points in the voxel.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

Order = Literal["linear", "nearest", "majority"]
POINTS = 3
BLUR_ERROR = 0.01
"""Largest share of the Gaussian that the discrete kernel leaves out."""


def resample(
    data: Shaped[np.ndarray, "x y z"],
    to_source: Float[np.ndarray, "4 4"],
    shape: Sequence[int],
    order: Order,
) -> Shaped[np.ndarray, "tx ty tz"]:
    """Return the values of an array at the voxels of another grid; 0 outside the source.

    Args:
        data: array or mask on the source grid.
        to_source: target voxel -> source voxel; any invertible affine.
        shape: shape of the target grid.
        order: "linear" for images; it blurs before resampling to larger voxels.
            "majority" for masks; a voxel is 1 if at least half of it is covered.
            "nearest" for masks to smaller voxels. From 1 to 2 mm, "nearest" would choose one of
            eight equally near voxels and so shift the mask by half a voxel: the Dice of mslub's
            lesions after resampling to the grid and back is 0.56, against 0.66 with "majority".
            "nearest" also loses objects that contain no voxel centre
            (`detection.to_scan.mask_from_grid` keeps them).
    """
    steps, offset = np.diag(to_source)[:3], to_source[:3, 3]
    if steps.min() <= 0 or np.abs(to_source[:3, :3] - np.diag(steps)).max() > 1e-4 * steps.min():
        return _resample_affine(data, to_source, shape, order)
    result: np.ndarray = data if order == "nearest" else data.astype(np.float32)
    # The axis that shrinks most comes first, because it leaves least for the other axes.
    for axis in np.argsort([shape[axis] / data.shape[axis] for axis in range(3)]).tolist():
        line = float(steps[axis]), float(offset[axis]), int(shape[axis]), data.shape[axis]
        if order == "nearest":
            result = _take_nearest(result, axis, *line[:3])
        elif order == "linear":
            result = _apply_along_axis(_compute_linear_weights(*line), result, axis)
        else:
            result = _apply_along_axis(_compute_cell_shares(*line), result, axis)
    if order == "majority":
        result = result >= 0.5 - 1e-4
    return np.ascontiguousarray(result, dtype=np.bool_ if data.dtype == np.bool_ else np.float32)


def find_covered(
    to_source: Float[np.ndarray, "4 4"], shape: Sequence[int], source_shape: Sequence[int]
) -> Bool[np.ndarray, "tx ty tz"]:
    """Return the voxels of a grid whose centres are inside the source.

    Args:
        to_source: target voxel -> source voxel.
        shape: shape of the target grid.
        source_shape: shape of the source grid.
    """
    covered = np.ones(tuple(shape), dtype=bool)
    x, y, z = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for axis in range(3):
        along = to_source[axis]
        index = along[0] * x + along[1] * y + along[2] * z + along[3]
        covered &= (index >= -0.5) & (index < source_shape[axis] - 0.5)
    return covered


def _resample_affine(
    data: Shaped[np.ndarray, "x y z"],
    to_source: Float[np.ndarray, "4 4"],
    shape: Sequence[int],
    order: Order,
) -> Shaped[np.ndarray, "tx ty tz"]:
    """Do the same as `resample` for grids with different axes.

    Voxels of the source that are zero, and voxels of the target that only see such voxels, are
    left out of the computation.
    """
    import SimpleITK as sitk  # noqa: N813 (the name that SimpleITK's documentation uses)

    dtype = np.bool_ if data.dtype == np.bool_ else np.float32
    result: np.ndarray = np.zeros(tuple(int(size) for size in shape), dtype=dtype)
    # Length of one target voxel along each axis of the source.
    steps = np.linalg.norm(to_source[:3, :3], axis=1)
    kernels = [_make_kernel(float(step)) if order == "linear" else None for step in steps]
    margins = [1 if kernel is None else len(kernel) // 2 + 1 for kernel in kernels]
    source = _find_box(data, _find_source_box(to_source, shape, data.shape, margins), margins)
    if source is None:
        return result
    target = _find_target_box(source, to_source, shape)
    part = _blur(np.asarray(data[source], dtype=np.float32), kernels)
    image = sitk.GetImageFromArray(np.ascontiguousarray(part.T))
    first = np.array([side.start for side in target])
    size = [side.stop - side.start for side in target]
    if min(size) < 1:
        return result
    matrix = to_source[:3, :3]
    origin = to_source[:3, 3] + matrix @ first - [side.start for side in source]

    def sample(shift: np.ndarray, interpolator: int) -> np.ndarray:
        """Return the values at the target's voxels, shifted by a part of a target voxel."""
        offset = origin + matrix @ shift
        transform = sitk.AffineTransform(matrix.ravel().tolist(), offset.tolist())
        grid = ([0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist())
        moved = sitk.Resample(image, size, transform, interpolator, *grid, 0.0, sitk.sitkFloat32)
        return np.asarray(sitk.GetArrayFromImage(moved).T)

    if order == "majority":
        along = (np.arange(POINTS) + 0.5) / POINTS - 0.5
        shifts = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
        share = sum(sample(shift, sitk.sitkLinear) for shift in shifts) / len(shifts)
        result[target] = share >= 0.5
    else:
        interpolator = sitk.sitkLinear if order == "linear" else sitk.sitkNearestNeighbor
        result[target] = sample(np.zeros(3), interpolator)
    return result


def _find_source_box(
    to_source: np.ndarray,
    shape: Sequence[int],
    source_shape: Sequence[int],
    margins: Sequence[int],
) -> tuple[slice, ...]:
    """Return the box of source voxels that affect a target grid."""
    edges = [(-0.5, size - 0.5) for size in shape]
    corners = np.array(np.meshgrid(*edges, [1.0])).reshape(4, -1)
    reach = (to_source @ corners)[:3]
    low = np.clip(np.floor(reach.min(axis=1)) - margins - 1, 0, source_shape).astype(int)
    high = np.clip(np.ceil(reach.max(axis=1)) + margins + 2, 0, source_shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _find_box(
    data: np.ndarray, within: tuple[slice, ...], margins: Sequence[int]
) -> tuple[slice, ...] | None:
    """Return the part of a box that is not zero, with a margin; None if all of it is zero."""
    part = data[within]
    sides = []
    for axis, (margin, side) in enumerate(zip(margins, within, strict=True)):
        filled = np.flatnonzero(part.any(axis=tuple({0, 1, 2} - {axis})))
        if not len(filled):
            return None
        low, high = side.start + int(filled[0]) - margin, side.start + int(filled[-1]) + margin + 1
        sides.append(slice(max(side.start, low), min(side.stop, high)))
    return tuple(sides)


def _find_target_box(
    source: tuple[slice, ...], to_source: np.ndarray, shape: Sequence[int]
) -> tuple[slice, ...]:
    """Return the box of target voxels that a part of the source affects."""
    edges = [(side.start - 1.0, float(side.stop)) for side in source]
    corners = np.array(np.meshgrid(*edges, [1.0])).reshape(4, -1)
    reach = (np.linalg.inv(to_source) @ corners)[:3]
    low = np.clip(np.floor(reach.min(axis=1)) - 1, 0, shape).astype(int)
    high = np.clip(np.ceil(reach.max(axis=1)) + 2, 0, shape).astype(int)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def _blur(data: np.ndarray, kernels: Sequence[np.ndarray | None]) -> np.ndarray:
    """Convolve an array with a kernel along each axis; the edge is repeated."""
    from scipy import ndimage

    for axis, kernel in enumerate(kernels):
        if kernel is not None:
            data = ndimage.correlate1d(data, kernel, axis, mode="nearest")
    return data


def _apply_along_axis(
    weights: Float[np.ndarray, "count n"], data: Float[np.ndarray, "_ _ _"], axis: int
) -> Float[np.ndarray, "_ _ _"]:
    """Multiply an array by a matrix along one axis."""
    if axis == 0:
        product = weights @ data.reshape(len(data), -1)
        return np.asarray(product.reshape(-1, *data.shape[1:]))
    return np.asarray(weights @ data if axis == 1 else data @ weights.T)


def _take_nearest(
    data: np.ndarray, axis: int, step: float, offset: float, count: int
) -> np.ndarray:
    """Return the nearest values along one axis; 0 outside the array.

    Args:
        data: the array.
        axis: its axis.
        step: size of a target voxel, in source voxels.
        offset: centre of the first target voxel, in source voxels.
        count: number of target voxels.
    """
    nearest = np.floor(offset + step * np.arange(count) + 0.5).astype(int)
    outside = (nearest < 0) | (nearest >= data.shape[axis])
    taken = data.take(np.where(outside, 0, nearest), axis=axis)
    np.moveaxis(taken, axis, 0)[outside] = 0
    return np.asarray(taken)


def _compute_linear_weights(step: float, offset: float, count: int, n_source: int) -> np.ndarray:
    """Return the weights of blur and linear interpolation along one axis.

    Args:
        step: size of a target voxel, in source voxels.
        offset: centre of the first target voxel, in source voxels.
        count: number of target voxels.
        n_source: number of source voxels.

    Returns:
        Weights, (count, n_source). The rows of targets outside the source are 0.
    """
    place = offset + step * np.arange(count)
    inside = (place >= -0.5) & (place < n_source - 0.5)
    low = np.floor(place).astype(int)
    part = place - low
    kernel = _make_kernel(step)
    taps = np.ones(1) if kernel is None else kernel
    weights = np.zeros((count, n_source))
    rows = np.arange(count)
    for neighbour, share in ((0, 1 - part), (1, part)):
        # Interpolation repeats the edge of the blurred line, the blur that of the line itself.
        centre = np.clip(low + neighbour, 0, n_source - 1)
        for tap, value in enumerate(taps):
            at = np.clip(centre + tap - len(taps) // 2, 0, n_source - 1)
            np.add.at(weights, (rows, at), share * value * inside)
    return weights.astype(np.float32)


def _compute_cell_shares(step: float, offset: float, count: int, n_source: int) -> np.ndarray:
    """Return the share of each target voxel that each source voxel covers, along one axis.

    Args:
        step: size of a target voxel, in source voxels.
        offset: centre of the first target voxel, in source voxels.
        count: number of target voxels.
        n_source: number of source voxels.

    Returns:
        Shares, (count, n_source).
    """
    low = (offset + step * (np.arange(count) - 0.5))[:, None]
    edges = np.arange(n_source) - 0.5
    overlap = np.minimum(low + step, edges + 1) - np.maximum(low, edges)
    return np.asarray(np.clip(overlap, 0, None) / step, dtype=np.float32)


def _compute_blur_sigma(step: float) -> float:
    """Return the width of the blur before resampling to voxels `step` times as large.

    The point spreads of both grids match in quadrature.
    The point spread of a voxel is a Gaussian whose full width at half maximum is the voxel size
    (Cardoso et al. 2015, "Scale factor point spread function matching",
    doi 10.1007/978-3-319-24571-3_81).

    Returns:
        Standard deviation in source voxels; 0 for smaller voxels.
    """
    return math.sqrt(max(0.0, step**2 - 1)) / (2 * math.sqrt(2 * math.log(2)))


@lru_cache(maxsize=64)
def _make_kernel(step: float) -> Any:
    """Return the discrete Gaussian of the blur for voxels `step` times as large.

    The kernel is exp(-v) I_n(v) with the variance v and the modified Bessel function I_n
    (Lindeberg 1990, "Scale-space for discrete signals", doi 10.1109/34.49051), cut where the sum
    reaches 1 - `BLUR_ERROR`, as in ITK's DiscreteGaussianImageFilter.

    Returns:
        An odd number of weights with the sum 1; None for voxels that are not larger.
    """
    variance = _compute_blur_sigma(step) ** 2
    if variance == 0:
        return None
    half = [_compute_scaled_bessel(order, variance) for order in (0, 1)]
    while (total := half[0] + 2 * sum(half[1:])) < 1 - BLUR_ERROR:
        half.append(_compute_scaled_bessel(len(half), variance))
    kernel = np.array([*half[:0:-1], *half]) / total
    kernel.flags.writeable = False
    return kernel


def _compute_scaled_bessel(order: int, x: float) -> float:
    """Return exp(-x) I_n(x), with the modified Bessel function of the first kind.

    Source: the power series 9.6.10 of Abramowitz and Stegun 1964. Its terms are positive, so
    nothing cancels.

    Args:
        order: n, 0 or more.
        x: above 0.
    """
    terms = int(2 * x) + 30
    logs = (
        (2 * k + order) * math.log(x / 2) - math.lgamma(k + 1) - math.lgamma(k + order + 1) - x
        for k in range(terms)
    )
    return math.fsum(math.exp(log) for log in logs)


def kernel_radius(step: float) -> int:
    """Return the radius of the blur before resampling to voxels `step` times as large.

    Returns:
        Radius in source voxels.
    """
    return math.ceil(3 * _compute_blur_sigma(step))
