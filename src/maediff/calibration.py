"""Thresholds that need no lesion: from healthy scans only.

    threshold = the smallest value that at most a share `fpr` of the healthy voxels exceeds

This is voxel-wise and empirical: it holds on the scans it was taken from, and on new ones as far as they are
alike. It promises nothing about a whole scan; removing small components afterwards only lowers the rate.
"""

from collections.abc import Sequence

import numpy as np

from maediff.postprocess import Map, Mask


def threshold_from_healthy(maps: Sequence[Map], brains: Sequence[Mask], fpr: float = 0.01) -> float:
    """The smallest threshold above which at most a share `fpr` of the healthy brains' voxels lies.

    Args:
        maps: anomaly maps of healthy scans.
        brains: voxels to count: give the eroded brains, as thresholds are applied there.
        fpr: 0 to 1; 0 gives the highest value seen.

    Raises:
        ValueError: `fpr` outside [0, 1), or no voxel to calibrate on.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr {fpr} is not a rate of false positives: give 0 <= fpr < 1, e.g. 0.01")
    values = np.concatenate([m[b] for m, b in zip(maps, brains, strict=True)]) if len(maps) else np.empty(0)
    if not len(values):
        raise ValueError("no healthy voxel to calibrate on: give at least one healthy scan with a brain mask")
    rank = len(values) - 1 - int(np.floor(fpr * len(values) + 1e-9))  # floor(fpr n) values lie above
    return float(np.partition(values, rank)[rank])
