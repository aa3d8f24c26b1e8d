"""One anomaly map of several contrasts: the power mean of their maps in units of their thresholds.

    u_c = anomaly map / threshold of contrast c
    map = (w_1 u_1^p + w_2 u_2^p + ...)^(1/p)       weights w_c sum to 1

With one contrast, the map is u_1 for every p.
For p up to 1, a value above 1 needs at least one contrast above its own threshold.
p = 1 is the mean, p = 0.5 the squared mean of square roots, p = 0 the geometric mean.
A voxel that a contrast does not cover is the mean of the contrasts that cover the voxel.
"""

from collections.abc import Mapping
from dataclasses import field

import numpy as np
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maediff.core.types import Map, Mask

SMALLEST = 1e-3
"""Smallest value of u in a mean with p <= 0, whose powers are infinite at 0."""
WEIGHTS = {"FLAIR": 2.0}
"""FLAIR shows most diseases best; the weight was chosen on val (experiments/session)."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CombineConfig:
    """The rule that combines the anomaly maps of a session.

    The rule and its power were chosen on val (experiments/session).

    Args:
        power: exponent p of the power mean, from -4 to 4. A lower exponent requires more agreement
            between contrasts.
        weights: weight of a contrast by name; 1 for contrasts that are not named.
        threshold: threshold of the combined map; 1 is the threshold of each contrast. None uses
            the value from healthy people for the contrasts of a session, if there is one.
    """

    power: float = 0.5
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not -4 <= self.power <= 4:
            raise ValueError(f"power {self.power:g} is out of range; give a number from -4 to 4")
        for contrast, weight in self.weights.items():
            if weight <= 0:
                raise ValueError(f"weight {weight:g} of {contrast} must be above 0")
        if self.threshold is not None and self.threshold <= 0:
            raise ValueError(f"threshold {self.threshold:g} must be above 0")


DEFAULT_RULE = CombineConfig()


def combine_maps(
    maps: Mapping[str, Map], covered: Mapping[str, Mask], config: CombineConfig = DEFAULT_RULE
) -> Map:
    """Return the combined anomaly map; 1 is the threshold of each contrast.

    Args:
        maps: anomaly map of each contrast divided by its threshold, all on one grid.
        covered: voxels that the brain of each contrast covers. Other values of its map are
            ignored.
        config: the rule.

    Returns:
        The map; 0 where no contrast covers a voxel.

    Raises:
        ValueError: `maps` is empty, or a contrast has no entry in `covered`.
    """
    if not maps or maps.keys() != covered.keys():
        raise ValueError(f"maps of {sorted(maps)}, but covered voxels of {sorted(covered)}")
    first = next(iter(maps.values()))
    if len(maps) == 1:
        return np.where(next(iter(covered.values())), np.maximum(first, 0), 0).astype(np.float32)
    highest = np.zeros(first.shape, dtype=np.float64)
    total = np.zeros(first.shape, dtype=np.float64)
    weight_sum = np.zeros(first.shape, dtype=np.float64)
    for contrast, units in maps.items():
        weight = float(config.weights.get(contrast, 1.0))
        values = np.maximum(units.astype(np.float64), 0)
        highest = np.where(covered[contrast], np.maximum(highest, values), highest)
        if config.power <= 0:
            values = np.maximum(values, SMALLEST)
        powers = np.log(values) if config.power == 0 else values**config.power
        inside = covered[contrast]
        total += np.where(inside, weight * powers, 0)
        weight_sum += np.where(inside, weight, 0)
    any_contrast = weight_sum > 0
    mean = total / np.where(any_contrast, weight_sum, 1)
    if config.power == 0:
        combined = np.exp(mean)
    else:
        combined = np.where(any_contrast, mean, 1) ** (1 / config.power)
    return np.where(highest > 0, combined, 0).astype(np.float32)
