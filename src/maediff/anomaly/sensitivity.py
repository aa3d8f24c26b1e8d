"""Three levels of sensitivity, from the volume that thresholds detect in healthy scans.

    default    the most sensitive rate at which the median healthy scan has 0 ml, and nine of ten
               healthy scans have at most 2 ml
    high       the most sensitive rate at which the median healthy scan has at most 2 ml
    low        flags at most one in ten new healthy scans, on average (split conformal). With
               fewer than nine healthy scans, low flags none of them

A rate is a voxel-wise false-positive rate with a stored threshold.
The levels are ordered: low is never more sensitive than default, and high never less.
The rules are our choice.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from maediff.anomaly.postprocess import PostprocessConfig, mask_inside
from maediff.anomaly.thresholds import ROUNDING, conformal_threshold, smallest_alpha
from maediff.core.types import Map, Mask

Sensitivity = Literal["low", "default", "high"]
SENSITIVITIES: tuple[Sensitivity, ...] = get_args(Sensitivity)

MAX_ML = 2.0
"""Volume that nine of ten healthy scans may have at the level default, and the median at high."""
LOW_RATE = 0.1
"""Rate of flagged healthy scans at the level low."""


@dataclass(frozen=True)
class HealthyVolumes:
    """Volumes that a threshold detects in healthy scans.

    Args:
        median: median over the scans, ml.
        nine_of_ten: volume that at least nine of ten scans do not exceed, ml.
    """

    median: float
    nine_of_ten: float


def detected_ml(
    anomaly_map: Map,
    inside: Mask,
    spacing_mm: Sequence[float],
    voxel_ml: float,
    thresholds: Sequence[float],
    config: PostprocessConfig,
) -> list[float]:
    """Return the volume of the anomaly mask of a scan at each threshold, in ml.

    Args:
        anomaly_map: from `residual_map`.
        inside: voxels that count; the eroded brain.
        spacing_mm: voxel size along x, y and z on the grid of the map.
        voxel_ml: volume of a voxel in the scan, ml.
        thresholds: thresholds of `anomaly_map`.
        config: smallest component and growth.
    """
    volumes = []
    for threshold in thresholds:
        mask = mask_inside(anomaly_map, inside, threshold, spacing_mm, config)
        volumes.append(round(float(mask.sum()) * voxel_ml, 4))
    return volumes


def summarise_volumes(volumes: Sequence[float]) -> HealthyVolumes:
    """Return the median of volumes, and the volume that nine of ten do not exceed.

    Args:
        volumes: one volume per healthy scan, ml; at least one.
    """
    rank = math.ceil(0.9 * len(volumes) - ROUNDING)
    return HealthyVolumes(float(np.median(volumes)), float(sorted(volumes)[rank - 1]))


def find_default_rate(volumes: Mapping[float, Sequence[float]]) -> float | None:
    """Return the rate of the level default; None if even the lowest rate detects too much.

    Args:
        volumes: volume in each healthy scan, ml, by rate.
    """
    return _most_sensitive(
        volumes, lambda healthy: healthy.median == 0 and healthy.nine_of_ten <= MAX_ML
    )


def find_high_rate(volumes: Mapping[float, Sequence[float]]) -> float | None:
    """Return the rate of the level high; None if even the lowest rate detects too much.

    Args:
        volumes: volume in each healthy scan, ml, by rate.
    """
    return _most_sensitive(volumes, lambda healthy: healthy.median <= MAX_ML)


def find_low_threshold(scores: Sequence[float]) -> float:
    """Return the threshold of the level low, for scans that allow its guarantee.

    Args:
        scores: `scan_score` of each healthy scan.

    Raises:
        ValueError: too few scans (`has_guarantee`).
    """
    return conformal_threshold(scores, LOW_RATE)


def has_guarantee(n_scans: int) -> bool:
    """True if so many healthy scans allow the guarantee of the level low."""
    return smallest_alpha(n_scans) <= LOW_RATE


def _most_sensitive(
    volumes: Mapping[float, Sequence[float]], is_acceptable: Callable[[HealthyVolumes], bool]
) -> float | None:
    """Return the highest rate whose volumes in healthy scans are acceptable; None without one."""
    rates = [rate for rate, ml in volumes.items() if is_acceptable(summarise_volumes(ml))]
    return max(rates, default=None)
