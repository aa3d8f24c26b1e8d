"""Values of one grid at the voxels of another, and how far each value looks.

going to larger voxels:  blur, then interpolate linearly        sigma = sqrt(step^2 - 1) / 2.355 voxels
masks:                   1 where at least half of the target's cell is covered

`to_source` takes a voxel of the target to one of the source. Where the two share their axes it scales and shifts only,
and shares are counted exactly; any other affine (registration, another scan of the session) goes the general way, where
a cell's share is the mean over points in it.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

Order = Literal["linear", "nearest", "majority"]
POINTS = 3  # along each axis of a cell, where its share is a mean over points


def resample(
    data: Shaped[np.ndarray, "x y z"],
    to_source: Float[np.ndarray, "4 4"],
    shape: Sequence[int],
    order: Order,
) -> Shaped[np.ndarray, "tx ty tz"]:
    """Values at the target's voxels; 0 beyond the source.

    Args:
        to_source: target voxel -> source voxel; any affine that can be inverted.
        order: "linear" smooths before it goes to larger voxels. "majority" is for masks: 1 where at least half of the
            cell is. "nearest" is for masks going to smaller voxels; going from 1 to 2 mm it would have to choose one
            of eight voxels equally near, and would shift the mask by half a voxel (Dice of mslub's lesions after the
            way there and back: 0.56, against 0.66 with "majority"), and would lose what no voxel's centre lies in (see
            `grid.mask_from_grid`).
    """
    import SimpleITK as sitk  # noqa: N813 (its own documents call it so)

    steps, offset = np.diag(to_source)[:3], to_source[:3, 3]
    if steps.min() <= 0 or np.abs(to_source[:3, :3] - np.diag(steps)).max() > 1e-4 * steps.min():
        return _resample_turned(data, to_source, shape, order)
    if order == "majority":
        result: np.ndarray = data.astype(np.float32)
        for axis in range(3):
            shares = _cell_shares(steps[axis], offset[axis], shape[axis], data.shape[axis])
            result = np.moveaxis(np.tensordot(shares, result, axes=(1, axis)), 0, axis)
        result = result >= 0.5 - 1e-4
    else:
        image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
        if order == "linear" and steps.max() > 1:
            widest = 2 * max(kernel_radius(step) for step in steps) + 1
            image = sitk.DiscreteGaussian(
                image, [_sigma(step) ** 2 for step in steps], widest, 0.01, False
            )
        moved = sitk.Resample(
            image,
            [int(size) for size in shape],
            sitk.Transform(3, sitk.sitkIdentity),
            sitk.sitkLinear if order == "linear" else sitk.sitkNearestNeighbor,
            offset.tolist(),
            steps.tolist(),
            np.eye(3).ravel().tolist(),
            0.0,
            sitk.sitkFloat32,
        )
        result = sitk.GetArrayFromImage(moved).T
    return np.ascontiguousarray(result, dtype=np.bool_ if data.dtype == np.bool_ else np.float32)


def _resample_turned(
    data: Shaped[np.ndarray, "x y z"],
    to_source: Float[np.ndarray, "4 4"],
    shape: Sequence[int],
    order: Order,
) -> Shaped[np.ndarray, "tx ty tz"]:
    """As `resample`, where the axes differ."""
    import SimpleITK as sitk  # noqa: N813

    # How far one cell of the target reaches along each axis of the source.
    steps = np.linalg.norm(to_source[:3, :3], axis=1)
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, dtype=np.float32))
    if order == "linear" and steps.max() > 1:
        widest = 2 * max(kernel_radius(float(step)) for step in steps) + 1
        image = sitk.DiscreteGaussian(
            image, [_sigma(float(step)) ** 2 for step in steps], widest, 0.01, False
        )

    def sample(shift: np.ndarray, interpolator: int) -> np.ndarray:
        offset = to_source[:3, 3] + to_source[:3, :3] @ shift
        place = sitk.AffineTransform(to_source[:3, :3].ravel().tolist(), offset.tolist())
        size = [int(number) for number in shape]
        still = ([0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist())
        moved = sitk.Resample(image, size, place, interpolator, *still, 0.0, sitk.sitkFloat32)
        return np.asarray(sitk.GetArrayFromImage(moved).T)

    if order == "majority":
        along = (np.arange(POINTS) + 0.5) / POINTS - 0.5
        shifts = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
        share = sum(sample(shift, sitk.sitkLinear) for shift in shifts) / len(shifts)
        result = np.asarray(share >= 0.5)
    else:
        result = sample(
            np.zeros(3), sitk.sitkLinear if order == "linear" else sitk.sitkNearestNeighbor
        )
    return np.ascontiguousarray(result, dtype=np.bool_ if data.dtype == np.bool_ else np.float32)


def _cell_shares(step: float, offset: float, count: int, n_source: int) -> np.ndarray:
    """(count, n_source): which share of each target cell is covered by each source voxel, along one axis."""
    low = (offset + step * (np.arange(count) - 0.5))[:, None]
    edges = np.arange(n_source) - 0.5
    overlap = np.minimum(low + step, edges + 1) - np.maximum(low, edges)
    return np.asarray(np.clip(overlap, 0, None) / step, dtype=np.float32)


def _sigma(step: float) -> float:
    """Width of the blur before going to voxels `step` times as large, in source voxels; 0 when going to smaller ones.

    The two point spreads match in quadrature, with a voxel's taken as a Gaussian of that full width at half maximum
    (Cardoso et al. 2015, "Scale factor point spread function matching", doi 10.1007/978-3-319-24571-3_81).
    """
    return math.sqrt(max(0.0, step**2 - 1)) / (2 * math.sqrt(2 * math.log(2)))


def kernel_radius(step: float) -> int:
    """How many source voxels on either side the blur before going to voxels `step` times as large can reach."""
    return math.ceil(3 * _sigma(step))
