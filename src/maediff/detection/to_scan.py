"""From the model's grid back to the scan's own."""

import numpy as np
from jaxtyping import Bool, Shaped
from scipy import ndimage

from maediff.anomaly.components import CONNECTIVITY
from maediff.preparation.grid import Grid
from maediff.preparation.resample import Order, resample
from maediff.scans.volume import Volume


def from_grid(
    data: Shaped[np.ndarray, "gx gy gz"], grid: Grid, volume: Volume, order: Order
) -> Shaped[np.ndarray, "x y z"]:
    """`data`, which lies on the grid, on the RAS+ grid of `volume`; 0 beyond the grid."""
    return resample(data, np.linalg.inv(grid.affine) @ volume.affine, volume.data.shape, order)


def mask_from_grid(
    mask: Bool[np.ndarray, "gx gy gz"], grid: Grid, volume: Volume
) -> Bool[np.ndarray, "x y z"]:
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
    size = np.bincount(labels.ravel()) * abs(
        np.linalg.det(to_scan[:3, :3])
    )  # in voxels of the scan
    lost = np.bincount(nearest.ravel(), minlength=count + 1) < size / 2
    if lost[1:].any():
        parts = np.ceil(np.abs(to_scan[:3, :3]).max(axis=0) - 1e-6).astype(
            int
        )  # of a cell, along its axes
        within = np.stack(
            np.meshgrid(*((np.arange(n) + 0.5) / n - 0.5 for n in parts), indexing="ij"), axis=-1
        )
        points = np.argwhere(mask & lost[labels])[:, None] + within.reshape(-1, 3)
        # A point on the edge of two voxels belongs to the upper one, whatever the last digit says.
        voxels = np.floor(
            points.reshape(-1, 3) @ to_scan[:3, :3].T + to_scan[:3, 3] + 0.5 + 1e-6
        ).astype(int)
        inside = ((voxels >= 0) & (voxels < result.shape)).all(axis=1)
        result[tuple(voxels[inside].T)] = True
    return result
