"""A scan's intensities on one scale.

[0, 1] between two percentiles of the brain, 0 below the lower one and outside the brain, up to 2 above the higher one
histogram standardisation, if asked for: the brain's nine deciles are then put onto landmarks, straight lines between
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.core.types import CEILING

DECILES = tuple(range(10, 100, 10))


@config(frozen=True, config=ConfigDict(extra="forbid"))
class NormaliseConfig:
    """Percentiles of the intensities in the brain that become 0 and 1; what lies beyond is clipped at 0 and `CEILING`.

    Args:
        landmarks: histogram standardisation (Nyul, Udupa and Zhang 2000, doi 10.1109/42.836373): where the nine deciles
            of the brain are put in [0, 1], straight lines between them; as `learn_landmarks` finds them. Empty: none.
    """

    low_percentile: float = 1.0
    high_percentile: float = 99.0
    landmarks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError(
                f"percentiles {self.low_percentile} and {self.high_percentile}: 0 <= low < high <= 100"
            )
        ends = np.diff([0.0, *self.landmarks, 1.0])
        if self.landmarks and (len(self.landmarks) != len(DECILES) or ends.min() <= 0):
            raise ValueError(
                f"landmarks {self.landmarks}: nine numbers that rise, above 0 and below 1"
            )


def intensity_range(
    data: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    config: NormaliseConfig,
    name: str = "image",
) -> tuple[float, float]:
    """The two percentiles of the brain, in the scan's own intensities.

    Raises:
        InputError: the brain has no contrast.
    """
    low, high = np.percentile(
        data[brain].astype(np.float64), [config.low_percentile, config.high_percentile]
    )
    if not high > low:
        raise InputError(
            f"{name}: the {config.low_percentile:g}th and {config.high_percentile:g}th percentile in the "
            f"brain are both {low:g}; check the scan and its brain mask"
        )
    return float(low), float(high)


def dark_end(
    data: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    background: float,
    config: NormaliseConfig,
) -> float:
    """What to subtract so that zeros around the brain are as dark as what was there: `background` where that is darker
    than the brain; else 0, or the brain's low percentile where that is negative (z-scores of the brain alone, around
    which zero is mid-grey). Resampling blurs the rim of the brain with it.
    """
    low = float(np.percentile(data[brain], config.low_percentile)) if brain.any() else 0.0
    return background if background < low else min(0.0, low)


def normalise(
    data: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    intensities: tuple[float, float],
) -> Float[np.ndarray, "x y z"]:
    """`data` with `intensities` at 0 and 1, clipped to 0 and `CEILING`, and 0 outside the brain."""
    low, high = intensities
    return np.where(brain, np.clip((data - low) / (high - low), 0, CEILING), 0).astype(np.float32)


def deciles_of(image: Float[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"]) -> list[float]:
    """The nine deciles of the brain's intensities."""
    return [float(value) for value in np.percentile(image[brain].astype(np.float64), DECILES)]


def learn_landmarks(deciles: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The landmarks of a population from the `deciles_of` its normalised scans: their means."""
    return tuple(float(mean) for mean in np.mean(np.asarray(deciles, dtype=np.float64), axis=0))


def standardise(
    values: Float[np.ndarray, "*any"],
    deciles: Sequence[float],
    config: NormaliseConfig,
    *,
    back: bool = False,
) -> Float[np.ndarray, "*any"]:
    """`values` with `deciles` moved onto the landmarks, those above 1 as they are; `back` undoes it.

    Without landmarks, all stay as they are.
    """
    if not config.landmarks:
        return values
    own, common = [0.0, *deciles, 1.0, CEILING], [0.0, *config.landmarks, 1.0, CEILING]
    start, end = (common, own) if back else (own, common)
    return np.asarray(np.interp(values, start, end), dtype=np.float32)
