"""Connected components of a mask, and the neighbour relations that build them."""

import numpy as np
from jaxtyping import Bool, Int, Shaped

CONNECTIVITY = np.ones((3, 3, 3), dtype=bool)
"""Voxels that share a face, an edge or a corner belong to one component."""


def bounding_box(mask: Bool[np.ndarray, "z y x"]) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds `mask`; three empty slices for an empty mask."""
    rows = np.any(mask, axis=2)
    z, y = _true_range(np.any(rows, axis=1)), _true_range(np.any(rows, axis=0))
    return z, y, _true_range(np.any(mask[z, y], axis=(0, 1)))


def _true_range(values: Bool[np.ndarray, " n"]) -> slice:
    """Return the slice from the first to the last true value."""
    indices = np.flatnonzero(values)
    return slice(int(indices[0]), int(indices[-1]) + 1) if len(indices) else slice(0, 0)


def linked_voxels(
    values: Shaped[np.ndarray, "z y x"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "m 2"]]:
    """Return the voxels above 0, highest first, and the pairs of them that are neighbours.

    The function serves algorithms that add voxels from the highest value down.

        values 0 3 9 0 7 8   ->   voxels 2 5 4 1,  pairs (1, 2), (0, 3)

    Returns:
        voxels: positions in `values.ravel()`, by decreasing value.
        pairs: positions in `voxels`, sorted by the voxel that is added last; each pair once.
    """
    _, y, x = values.shape
    padded = np.pad(values, 1)
    flat = padded.ravel()
    order = np.flatnonzero(flat > 0)
    order = order[np.argsort(flat[order])[::-1]]
    rank = np.full(flat.size, -1, dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    pairs = []
    # Half of the 26 neighbours give each pair once.
    for dz, dy, dx in np.argwhere(CONNECTIVITY)[: CONNECTIVITY.sum() // 2] - 1:
        neighbour = rank[order + (dz * (y + 2) + dy) * (x + 2) + dx]
        first = np.flatnonzero(neighbour >= 0)
        pairs.append(np.stack([first, neighbour[first]], axis=1))
    links = np.concatenate(pairs)
    k, j, i = np.unravel_index(order, padded.shape)
    return ((k - 1) * y + j - 1) * x + i - 1, links[np.argsort(later_voxel(links))]


def later_voxel(pairs: Int[np.ndarray, "m 2"]) -> Int[np.ndarray, " m"]:
    """Return the voxel of each pair that is added last."""
    later: Int[np.ndarray, " m"] = np.maximum(pairs[:, 0], pairs[:, 1])
    return later
