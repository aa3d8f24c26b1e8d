"""A scan's score: the highest threshold at which something would still be marked.

    voxels of the eroded brain, highest first  ->  linked to their neighbours  ->  as many as are needed for a component
    of `min_volume_mm3`: the score is the value of the last of them

A scan is flagged at exactly the thresholds below its score, so scores of healthy scans give thresholds (`calibration`).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from scipy import sparse
from scipy.sparse import csgraph

from maediff.anomaly.components import bounding_box, later_voxel, linked_voxels
from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, eroded_brain, min_voxels
from maediff.core.types import Map, Mask

TOP_VOXELS = 4096  # looked at first for a scan's score


def scan_score(
    anomaly_map: Map,
    brain: Mask,
    spacing_mm: Sequence[float],
    config: PostprocessConfig = DEFAULT,
) -> float:
    """The score of a scan: a threshold leaves something in its mask if and only if it is below this.

    Voxels are added from the highest value down until a component is large enough, found by bisection among the
    highest voxels first. 0 where nothing survives at any threshold.
    """
    inside = eroded_brain(brain, config)
    values = np.where(inside, anomaly_map, 0)[bounding_box(inside)]
    positive, least = values[values > 0], min_voxels(spacing_mm, config)
    looked_at = min(TOP_VOXELS, positive.size)
    while looked_at:
        lowest = np.partition(positive, positive.size - looked_at)[positive.size - looked_at]
        voxels, pairs = linked_voxels(np.where(values >= lowest, values, 0))
        last = later_voxel(pairs)
        low, high = (
            0,
            len(voxels),
        )  # the first `low` voxels hold no component that is large enough, the first `high` do
        if _largest(pairs, high) >= least:
            while high - low > 1:
                middle = (low + high) // 2
                if _largest(pairs[: np.searchsorted(last, middle)], middle) >= least:
                    high = middle
                else:
                    low = middle
            return float(values.ravel()[voxels[high - 1]])
        looked_at = min(8 * looked_at, positive.size) if looked_at < positive.size else 0
    return 0.0


def _largest(pairs: Int[np.ndarray, "m 2"], n: int) -> int:
    """Size of the largest component of `n` voxels with these links."""
    graph = sparse.coo_matrix(
        (np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n)
    )
    _, component = csgraph.connected_components(graph, directed=False)
    return int(np.bincount(component).max(initial=0))
