"""Intensities of a scan on the scale of a model.

normalise      0 and 1 at two percentiles of the brain; at most `CEILING`; 0 outside the brain
standardise    histogram standardisation (optional): the brain's deciles move to landmarks, and
               intensities between them are interpolated linearly
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
    """The intensity scale. Intensities outside [0, `CEILING`] are clipped.

    Args:
        low_percentile: percentile of the brain that becomes 0.
        high_percentile: percentile of the brain that becomes 1.
        landmarks: new positions of the brain's nine deciles in [0, 1] (histogram standardisation:
            Nyul, Udupa and Zhang 2000, doi 10.1109/42.836373), from `learn_landmarks`; empty for
            no standardisation.
    """

    low_percentile: float = 1.0
    high_percentile: float = 99.0
    landmarks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError(
                f"percentiles {self.low_percentile} and {self.high_percentile}: "
                "0 <= low < high <= 100"
            )
        steps = np.diff([0.0, *self.landmarks, 1.0])
        if self.landmarks and (len(self.landmarks) != len(DECILES) or steps.min() <= 0):
            raise ValueError(
                f"landmarks {self.landmarks}: nine numbers that rise, above 0 and below 1"
            )


def intensity_range(
    data: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    config: NormaliseConfig,
    name: str = "image",
) -> tuple[float, float]:
    """Return the two percentiles of the brain, in the scan's own intensities.

    Args:
        data: the scan.
        brain: its brain mask.
        config: the percentiles.
        name: name of the scan, for the error message.

    Raises:
        InputError: the brain has no contrast.
    """
    low, high = np.percentile(
        data[brain].astype(np.float64), [config.low_percentile, config.high_percentile]
    )
    if not high > low:
        raise InputError(
            f"{name}: the {config.low_percentile:g}th and {config.high_percentile:g}th percentile "
            f"in the brain are both {low:g}; check the scan and its brain mask"
        )
    return float(low), float(high)


def floor_intensity(
    data: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    background: float,
    config: NormaliseConfig,
) -> float:
    """Return the intensity of dark voxels, so that masking a scan adds no edge.

    Voxels outside the brain are set to this intensity before resampling, which blurs the rim of
    the brain with them.

    Args:
        data: the scan.
        brain: its brain mask.
        background: value of the scan's background.
        config: the low percentile.

    Returns:
        `background` if it is darker than the brain. Otherwise 0, or the low percentile of the
        brain if that is negative: in z-scores of the brain alone, zeros around it are mid-grey.
    """
    low = float(np.percentile(data[brain], config.low_percentile)) if brain.any() else 0.0
    return background if background < low else min(0.0, low)


def normalise(
    data: Float[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    intensities: tuple[float, float],
) -> Float[np.ndarray, "x y z"]:
    """Scale `intensities` to 0 and 1, clip to [0, `CEILING`], and set 0 outside the brain.

    Args:
        data: the scan.
        brain: its brain mask.
        intensities: intensities that become 0 and 1, from `intensity_range`.
    """
    low, high = intensities
    return np.where(brain, np.clip((data - low) / (high - low), 0, CEILING), 0).astype(np.float32)


def compute_deciles(
    image: Float[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"]
) -> list[float]:
    """Return the nine deciles of the intensities in the brain."""
    return [float(value) for value in np.percentile(image[brain].astype(np.float64), DECILES)]


def learn_landmarks(deciles: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the landmarks of a population: the mean of each decile over normalised scans.

    Args:
        deciles: `compute_deciles` of each scan.
    """
    return tuple(float(mean) for mean in np.mean(np.asarray(deciles, dtype=np.float64), axis=0))


def standardise(
    values: Float[np.ndarray, "*any"],
    deciles: Sequence[float],
    config: NormaliseConfig,
    *,
    back: bool = False,
) -> Float[np.ndarray, "*any"]:
    """Move `deciles` to the landmarks; values above 1 stay, and without landmarks all stay.

    Args:
        values: intensities, 0 to `CEILING`.
        deciles: `compute_deciles` of the scan.
        config: the landmarks.
        back: undo the standardisation.
    """
    if not config.landmarks:
        return values
    from_scan = [0.0, *deciles, 1.0, CEILING]
    from_landmarks = [0.0, *config.landmarks, 1.0, CEILING]
    start, end = (from_landmarks, from_scan) if back else (from_scan, from_landmarks)
    return np.asarray(np.interp(values, start, end), dtype=np.float32)
