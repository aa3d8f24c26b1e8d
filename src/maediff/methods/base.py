"""The one interface that every method stands behind, and what they share: ranges, prediction of a scan."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maediff.methods.residual import ComparisonConfig, residual_of

Loss = Callable[
    [Float[Tensor, "b 1 h w"], torch.Generator, Float[Tensor, "b 1 h w"] | None], Float[Tensor, ""]
]
"""loss(x, generator, seen): `seen` is the slice as the network gets it, where that is not the healthy target x itself
(`fabricate`); None is x."""


@dataclass(frozen=True)
class Prediction:
    """What a method says of some slices; both in [0, 1]."""

    anomaly_map: Float[Tensor, "b 1 h w"]
    """The residual, before any post-processing."""
    reconstruction: Float[Tensor, "b 1 h w"]
    """The healthy reference."""


@dataclass(frozen=True)
class Objective:
    """One loss, the parameters it trains, and when. A GAN has several; the last one is what validation looks at."""

    name: str
    loss: Loss
    parameters: Sequence[nn.Parameter]
    phase: tuple[float, float] = (0.0, 1.0)
    """Shares of the training at which it starts and ends being stepped."""
    every: int = 1
    """It is stepped in each of so many steps' last."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's."""

    def begun(self, step: int, steps: int) -> bool:
        """Whether its phase has begun at `step`, counted from 0, of `steps`."""
        return step >= self.phase[0] * steps

    def due(self, step: int, steps: int) -> bool:
        """Whether it is stepped then."""
        return (
            self.begun(step, steps)
            and step < self.phase[1] * steps
            and (step + 1) % self.every == 0
        )


class Method(nn.Module):
    """A way to find what is abnormal. It sees intensities, never a path, an affine or a training setting."""

    def objectives(self) -> list[Objective]:
        """What there is to train; empty for the untrained baselines."""
        return []

    def predict(
        self,
        x: Float[Tensor, "b 1 h w"],
        *,
        slice_ids: Int[Tensor, " b"],
        seed: int,
        brain: Bool[Tensor, "b 1 h w"] | None = None,
        batch_size: int = 16,
    ) -> Prediction:
        """Anomaly map and healthy reference of the slices of one scan.

        Args:
            x: intensities, 0 outside the brain, 1 at the 99th percentile; what is above it counts for those alone
                whose residual has `headroom`.
            slice_ids: index of each slice on the model's grid; with `seed` it decides the noise.
            brain: where the brain is; None takes x > 0.
            batch_size: forward passes at once; the result does not depend on it.
        """
        raise NotImplementedError


def check_size(size: int, d: int, *, p: int = 1, r: int = 1) -> None:
    """Refuse slices that the U-Net cannot halve down to its feature map and back, or that patches do not fit.

    Args:
        d: pixels of the slice to a side of one of the feature map.
        p, r: patch and cell of a patch-wise method, in pixels.

    Raises:
        ValueError: `size` is no multiple of d and r; the message names the nearest ones that are, and hold a patch.
    """
    unit = math.lcm(d, max(r, 1))
    if size % unit:
        below = size - size % unit
        fits = [str(n) for n in (below, below + unit) if n >= max(p, unit)]
        raise ValueError(
            f"slices of size={size} are no multiple of {f'r={r} and ' if r > 1 else ''}the feature map's d={d} pixels: "
            f"size={' or '.join(fits)} would fit"
        )


def to_signed(x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """[0, 1] outside a method -> [-1, 1] inside, the range that the schedule is made for."""
    return 2 * x - 1


def from_signed(x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """[-1, 1] inside a method -> [0, 1] outside, clipped."""
    return ((x0 + 1) / 2).clamp(0, 1)


def check_slices(x: Float[Tensor, "b 1 h w"], size: int) -> None:
    """Raises ValueError where slices are not size x size."""
    if x.shape[-2:] != (size, size):
        raise ValueError(
            f"slices of {tuple(x.shape[-2:])} pixels, but this model was made for {size} x {size}"
        )


def predict_by(
    reconstruct: Callable[[Float[Tensor, "b 1 h w"]], Float[Tensor, "b 1 h w"]],
    x: Float[Tensor, "b 1 h w"],
    brain: Bool[Tensor, "b 1 h w"] | None,
    config: ComparisonConfig,
    batch_size: int,
) -> Prediction:
    """The prediction of a method that draws each slice anew in one pass and without noise.

    Args:
        reconstruct: from slices in [-1, 1] to slices in [-1, 1].
    """
    check_slices(x, config.size)
    reference = from_signed(
        torch.cat(
            [
                reconstruct(part).float()
                for part in torch.split(to_signed(x.clamp_max(1)), batch_size)
            ]
        )
    )
    return Prediction(
        residual_of(x, reference, x > 0 if brain is None else brain, config), reference
    )
