"""Thresholds from healthy scans only; no lesion is needed.

Voxel-wise and empirical (`threshold_from_healthy`):

    threshold = the smallest value that at most a share `fpr` of the healthy voxels exceeds,
                divided by the share of the threshold to which components grow

The rate holds on the calibration scans, and on new scans as far as they are similar.
It does not bound the rate of flagged scans. Removing small components only lowers the rate.

Scan-wise, with a guarantee (`conformal_threshold`): split conformal prediction (Vovk, Gammerman
and Shafer 2005; Angelopoulos and Bates 2023, https://arxiv.org/abs/2107.07511, section 1).
With the scores s_1 ... s_n of n healthy scans that the model has not seen,

    threshold = the ceil((1 - alpha)(n + 1))-th smallest score
    P(score of a new healthy scan > threshold) <= alpha

The new scan and the calibration scans must be exchangeable: one scan per person, and the same
population, scanner and processing. The probability covers calibration sets and new scans
together, so a single calibration set may have a higher or lower rate. Ties only lower the rate.
A scan is flagged if and only if its score (`scan_score`) is above the threshold.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from maediff.core.types import Map, Mask

CALIBRATION_SCANS = 19
"""Largest number of healthy scans for a calibration after training.

19 is the smallest number that allows a conformal rate of 5 % of scans.
"""
ROUNDING = 1e-9
"""Tolerance for products such as (19 + 1) 0.05, which are not exact in floating point."""


def threshold_from_healthy(
    maps: Sequence[Map], brains: Sequence[Mask], fpr: float = 0.01, extent: float = 1.0
) -> float:
    """Return a threshold at which masks hold at most a share `fpr` of healthy voxels.

    Without growth, it is the smallest one. With growth it may be higher than needed, because a
    voxel above `extent` t is in the mask only if its component has a core.

    Args:
        maps: anomaly maps of healthy scans.
        brains: voxels to count; use the eroded brains, because thresholds apply there.
        fpr: false positive rate, 0 <= fpr < 1; 0 gives the highest value of the maps, divided by
            `extent`.
        extent: share of the threshold to which components grow (`PostprocessConfig.extent`).

    Raises:
        ValueError: `fpr` is outside its range, or there is no voxel to count.
    """
    if not 0 <= fpr < 1:
        raise ValueError(f"fpr {fpr} is no false positive rate: give 0 <= fpr < 1, e.g. 0.01")
    counted = [anomaly_map[brain] for anomaly_map, brain in zip(maps, brains, strict=True)]
    values = np.concatenate(counted) if counted else np.empty(0)
    if not len(values):
        raise ValueError(
            "no healthy voxel to calibrate on: give at least one healthy scan with a brain mask"
        )
    above = math.floor(fpr * len(values) + ROUNDING)  # voxels allowed above the threshold
    rank = len(values) - 1 - above
    lowest = float(np.partition(values, rank)[rank])
    threshold = lowest / extent
    while extent * threshold < lowest:  # rounded down
        threshold = math.nextafter(threshold, math.inf)
    return min(threshold, max(lowest, 1.0))  # no map exceeds 1


def conformal_threshold(scores: Sequence[float] | Float[np.ndarray, " n"], alpha: float) -> float:
    """Return a threshold that flags at most a share `alpha` of new healthy scans.

    The share is an average over calibration sets.

    Args:
        scores: `scan_score` of healthy scans that the model was not trained on, one per person.
        alpha: rate of flagged healthy scans, 0 < alpha < 1.

    Raises:
        ValueError: `alpha` is outside its range, or too small for n scans: (n + 1) alpha < 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(
            f"{alpha:g} is not a rate of flagged scans: give a number between 0 and 1, e.g. 0.1"
        )
    n = len(scores)
    above = math.floor((n + 1) * alpha + ROUNDING)  # scans of n + 1 allowed above the threshold
    if above < 1:
        raise ValueError(
            f"alpha {alpha:g} cannot be guaranteed from {n} healthy scans: the smallest possible "
            f"is {smallest_alpha(n):.4g}, and alpha {alpha:g} needs {scans_needed(alpha)} scans"
        )
    return float(np.sort(np.asarray(scores, dtype=np.float64))[n - above])


def smallest_alpha(n: int) -> float:
    """Return the smallest rate that `n` scans can guarantee, rounded up to four digits."""
    return min(1.0, math.ceil(1e4 / (n + 1) - ROUNDING) / 1e4)


def scans_needed(alpha: float) -> int:
    """Return the number of healthy scans that a rate needs: (n + 1) alpha >= 1."""
    return math.ceil(1 / alpha - ROUNDING) - 1
