"""Confidence intervals over subjects.

    rate of flagged scans       Clopper-Pearson (exact, binomial)
    mean over subjects          percentile bootstrap: the subjects are drawn with replacement
    difference of two methods   the same bootstrap, of the differences subject by subject

Sources: Clopper and Pearson 1934, https://doi.org/10.2307/2331986;
Efron 1979, https://doi.org/10.1214/aos/1176344552.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

LEVEL = 0.95
"""Coverage of every interval; our choice, and the usual one."""
RESAMPLES = 2000
"""Bootstrap samples; our choice."""


@dataclass(frozen=True)
class Interval:
    """A mean with a confidence interval.

    Args:
        mean: NaN without a value.
        low, high: bounds; NaN if there are too few values for an interval.
    """

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """Return `{"mean", "low", "high"}`, with None for NaN."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


def clopper_pearson(successes: int | float, trials: int, level: float = LEVEL) -> Interval:
    """Return the exact interval of a proportion (Clopper and Pearson 1934).

    Args:
        successes: 0 to `trials`; a mean over several runs may be a fraction.
        trials: 0 gives NaN.
        level: coverage, 0 to 1.
    """
    if trials == 0:
        return Interval(math.nan, math.nan, math.nan)
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = (
        stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    )
    return Interval(successes / trials, float(low), float(high))


def bootstrap_interval(
    values: Sequence[float] | Float[np.ndarray, " n"],
    seed: int = 0,
    *,
    draws: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return the mean of `values` with a percentile bootstrap interval (Efron 1979).

    Args:
        values: one per subject; NaN is ignored.
        seed: seed of the resampling.
        draws: bootstrap samples.
        level: coverage, 0 to 1.

    Returns:
        NaN without a value; a single value has no bounds.
    """
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Interval(math.nan, math.nan, math.nan)
    if len(finite) == 1:
        return Interval(float(finite[0]), math.nan, math.nan)
    means = finite[_resample(len(finite), draws, seed)].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(finite.mean()), float(low), float(high))


@lru_cache(maxsize=8)
def _resample(n: int, draws: int, seed: int) -> Int[np.ndarray, "draws n"]:
    """Return the indices of `draws` bootstrap samples of n subjects; callers share the array."""
    picks: Int[np.ndarray, "draws n"] = np.random.default_rng(seed).integers(0, n, size=(draws, n))
    picks.setflags(write=False)
    return picks


def paired_difference(
    a: Sequence[float] | Float[np.ndarray, " n"],
    b: Sequence[float] | Float[np.ndarray, " n"],
    seed: int = 0,
) -> Interval:
    """Return the mean of a - b over subjects with its bootstrap interval.

    Args:
        a, b: values of the same subjects in the same order; a subject with a NaN is ignored.
        seed: seed of the resampling.
    """
    return bootstrap_interval(
        np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), seed
    )
