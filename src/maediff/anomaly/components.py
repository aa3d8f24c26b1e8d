"""Connected components of a mask."""

import numpy as np
from jaxtyping import Bool, Int, Shaped

CONNECTIVITY = np.ones((3, 3, 3), dtype=bool)  # a face, an edge or a corner shared: one component


def bounding_box(mask: Bool[np.ndarray, "z y x"]) -> tuple[slice, slice, slice]:
    """The smallest box that holds `mask`; empty where the mask is."""
    rows = np.any(mask, axis=2)
    z, y = _extent(np.any(rows, axis=1)), _extent(np.any(rows, axis=0))
    return z, y, _extent(np.any(mask[z, y], axis=(0, 1)))


def _extent(used: Bool[np.ndarray, " n"]) -> slice:
    """From the first to the last that is used."""
    at = np.flatnonzero(used)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0)


def linked_voxels(
    values: Shaped[np.ndarray, "z y x"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "m 2"]]:
    """The voxels above 0, highest first, as positions in `values.ravel()`; and which of them are neighbours.

    Pairs are positions in that list, in the order in which they come about: sorted by their later voxel.

        values 0 3 9 0 7 8   ->   voxels 2 5 4 1,  pairs (2, 1), (3, 0)
    """
    _, y, x = values.shape
    padded = np.pad(values, 1)
    flat = padded.ravel()
    order = np.flatnonzero(flat > 0)
    order = order[np.argsort(flat[order])[::-1]]
    rank = np.full(flat.size, -1, dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    pairs = []
    for dz, dy, dx in (
        np.argwhere(CONNECTIVITY)[: CONNECTIVITY.sum() // 2] - 1
    ):  # half of the neighbours: each pair once
        other = rank[order + (dz * (y + 2) + dy) * (x + 2) + dx]
        first = np.flatnonzero(other >= 0)
        pairs.append(np.stack([first, other[first]], axis=1))
    links = np.concatenate(pairs)
    k, j, i = np.unravel_index(order, padded.shape)
    return ((k - 1) * y + j - 1) * x + i - 1, links[np.argsort(later_voxel(links))]


def later_voxel(links: Int[np.ndarray, "m 2"]) -> Int[np.ndarray, " m"]:
    """Of each pair the voxel that is added last."""
    later: Int[np.ndarray, " m"] = np.maximum(links[:, 0], links[:, 1])
    return later
