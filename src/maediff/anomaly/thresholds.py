"""Thresholds that need no lesion: from healthy scans only.

Voxel by voxel, empirical (`threshold_from_healthy`):

    threshold = the smallest value that at most a share `fpr` of the healthy voxels exceeds

It holds on the scans it was taken from, and on new ones as far as they are alike. It promises nothing about a whole
scan; removing small components afterwards only lowers the rate.

Scan by scan, with a guarantee (`conformal_threshold`), split conformal prediction (Vovk, Gammerman, Shafer 2005;
Angelopoulos and Bates 2023, https://arxiv.org/abs/2107.07511, section 1): from the scores s_1 ... s_n of n healthy
scans that the model has not seen,

    threshold = the ceil((1 - alpha)(n + 1))-th smallest score
    P(score of a new healthy scan > threshold) <= alpha

if the new scan and the calibration scans are exchangeable: one scan a person, the same population, scanner and
processing. The probability is over calibration sets and new scans together: a single calibration set may do worse or
better. Ties only lower the rate. A scan is flagged exactly when its score lies above the threshold (`scan_score`).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from maediff.core.types import Map, Mask

CALIBRATION_SCANS = 19
"""Healthy scans that a calibration uses at most; a conformal rate of 5 % of scans needs that many."""


def threshold_from_healthy(
    maps: Sequence[Map], brains: Sequence[Mask], fpr: float = 0.01
) -> float:
    """The smallest threshold above which at most a share `fpr` of the healthy brains' voxels lies.

    Args:
        maps: anomaly maps of healthy scans.
        brains: voxels to count: give the eroded brains, as thresholds are applied there.
        fpr: 0 to 1; 0 gives the highest value seen.

    Raises:
        ValueError: `fpr` outside [0, 1), or no voxel to calibrate on.
    """
    if not 0 <= fpr < 1:
        raise ValueError(
            f"fpr {fpr} is not a rate of false positives: give 0 <= fpr < 1, e.g. 0.01"
        )
    values = (
        np.concatenate([m[b] for m, b in zip(maps, brains, strict=True)])
        if len(maps)
        else np.empty(0)
    )
    if not len(values):
        raise ValueError(
            "no healthy voxel to calibrate on: give at least one healthy scan with a brain mask"
        )
    rank = (
        len(values) - 1 - int(np.floor(fpr * len(values) + 1e-9))
    )  # floor(fpr n) values lie above
    return float(np.partition(values, rank)[rank])


def conformal_threshold(scores: Sequence[float] | Float[np.ndarray, " n"], alpha: float) -> float:
    """The threshold that at most a share `alpha` of new healthy scans exceeds, on average over calibration sets.

    Args:
        scores: `scan_score` of healthy scans that were not trained on, one scan a person.
        alpha: 0 to 1.

    Raises:
        ValueError: `alpha` is no rate, or so small that n scans cannot promise it: (n + 1) alpha < 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(
            f"alpha {alpha} is not a rate of flagged scans: give 0 < alpha < 1, e.g. 0.1"
        )
    n = len(scores)
    allowed = math.floor(
        (n + 1) * alpha + 1e-9
    )  # of n + 1 exchangeable scans, this many may lie above
    if allowed < 1:
        raise ValueError(
            f"alpha {alpha:g} cannot be promised from {n} healthy scans: the smallest that can is "
            f"{smallest_alpha(n):.4g}, and alpha {alpha:g} needs {scans_needed(alpha)} scans"
        )
    return float(np.sort(np.asarray(scores, dtype=np.float64))[n - allowed])


def smallest_alpha(n: int) -> float:
    """The smallest rate that `n` healthy scans can promise, rounded up to four digits; 1 for none."""
    return min(1.0, math.ceil(1e4 / (n + 1) - 1e-9) / 1e4)


def scans_needed(alpha: float) -> int:
    """How many healthy scans the rate `alpha` needs: (n + 1) alpha >= 1."""
    return math.ceil(1 / alpha - 1e-9) - 1
