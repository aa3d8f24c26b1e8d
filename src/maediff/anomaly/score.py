"""Score of a scan: the lowest threshold that leaves its anomaly mask empty.

    voxels of the eroded brain, highest first  ->  linked to their neighbours
    ->  added until a component reaches `min_volume_mm3`: the score is the value of the last voxel

A threshold flags a scan if and only if it is below the scan's score.
Scores of healthy scans therefore give thresholds (`thresholds.conformal_threshold`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from scipy import sparse
from scipy.sparse import csgraph

from maediff.anomaly.components import bounding_box, later_voxel, linked_voxels
from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, eroded_brain, min_voxels
from maediff.core.types import Map, Mask

TOP_VOXELS = 4096
"""Number of highest voxels that the search starts with, for speed; the result is the same."""


def scan_score(
    anomaly_map: Map,
    brain: Mask,
    spacing_mm: Sequence[float],
    config: PostprocessConfig = DEFAULT,
) -> float:
    """Return the lowest threshold that leaves the anomaly mask of a scan empty.

    Args:
        anomaly_map: from `residual_map`.
        brain: brain mask, not eroded.
        spacing_mm: voxel size along x, y and z.
        config: erosion and smallest component.

    Returns:
        A value of the map; 0 if no component is large enough at any threshold.
    """
    inside = eroded_brain(brain, config)
    values = np.where(inside, anomaly_map, 0)[bounding_box(inside)]
    positive, required = values[values > 0], min_voxels(spacing_mm, config)
    searched = min(TOP_VOXELS, positive.size)
    while searched:
        lowest = np.partition(positive, positive.size - searched)[positive.size - searched]
        voxels, pairs = linked_voxels(np.where(values >= lowest, values, 0))
        if _largest_component(pairs, len(voxels)) >= required:
            needed = _count_needed(pairs, len(voxels), required)
            return float(values.ravel()[voxels[needed - 1]])
        searched = min(8 * searched, positive.size) if searched < positive.size else 0
    return 0.0


def _count_needed(pairs: Int[np.ndarray, "m 2"], n: int, required: int) -> int:
    """Return the smallest k for which the first k of n voxels hold a component of that size."""
    last = later_voxel(pairs)
    low, high = 0, n  # the first `low` voxels are too few, the first `high` are enough
    while high - low > 1:
        middle = (low + high) // 2
        if _largest_component(pairs[: np.searchsorted(last, middle)], middle) >= required:
            high = middle
        else:
            low = middle
    return high


def _largest_component(pairs: Int[np.ndarray, "m 2"], n: int) -> int:
    """Return the size of the largest component of `n` voxels that `pairs` links."""
    graph = sparse.coo_matrix(
        (np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n)
    )
    _, component = csgraph.connected_components(graph, directed=False)
    return int(np.bincount(component).max(initial=0))
