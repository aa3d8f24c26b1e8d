"""Intervals over subjects: Clopper-Pearson, bootstrap, paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """A mean with a confidence interval; nan bounds where there are too few values for one."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """`{"mean", "low", "high"}`, None for nan."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


def clopper_pearson(successes: int | float, trials: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson 1934, Biometrika 26(4), https://doi.org/10.2307/2331986)."""
    if trials == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
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
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean over subjects with a percentile bootstrap interval; nan is left out, a single value has none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Interval(float("nan"), float("nan"), float("nan"))
    if len(finite) == 1:
        return Interval(float(finite[0]), float("nan"), float("nan"))
    low, high = np.quantile(
        finite[_resampled(len(finite), draws, seed)].mean(axis=1),
        [(1 - level) / 2, (1 + level) / 2],
    )
    return Interval(float(finite.mean()), float(low), float(high))


@lru_cache(maxsize=8)
def _resampled(n: int, draws: int, seed: int) -> Int[np.ndarray, "draws n"]:
    picks: Int[np.ndarray, "draws n"] = np.random.default_rng(seed).integers(0, n, size=(draws, n))
    picks.setflags(write=False)
    return picks


def paired_difference(
    a: Sequence[float] | Float[np.ndarray, " n"],
    b: Sequence[float] | Float[np.ndarray, " n"],
    seed: int = 0,
) -> Interval:
    """Mean of a - b over the subjects (same order in both) that have both, with its bootstrap interval."""
    return bootstrap_interval(
        np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), seed
    )
