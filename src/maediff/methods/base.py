"""The interface of a method, and the steps from a slice to its map that all methods share.

    x in [0, 1]  -- 2 x - 1 -->  x0 in [-1, 1]  -- reconstruct -->  x0_pred in [-1, 1]
    reference = (x0_pred + 1) / 2,   anomaly map = residual of (x, reference)

`reconstruct` is the only step that a network method defines.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maediff.methods.residual import ComparisonConfig, residual_of

Loss = Callable[
    [Float[Tensor, "b 1 h w"], torch.Generator, Float[Tensor, "b 1 h w"] | None], Float[Tensor, ""]
]
"""loss(x, generator, seen): `x` is the healthy target, in [0, 1]. `seen` is the input of the
network if it differs from `x` (a slice with a synthetic lesion); None: the input is `x`."""


@dataclass(frozen=True)
class Prediction:
    """Anomaly map and healthy reference of some slices, both in [0, 1]."""

    anomaly_map: Float[Tensor, "b 1 h w"]
    """The residual, before any post-processing."""
    reconstruction: Float[Tensor, "b 1 h w"]
    """The healthy reference."""


@dataclass(frozen=True)
class Objective:
    """One loss, the parameters that it trains, and the steps that update them.

    A GAN has several objectives. Validation measures the last one.
    """

    name: str
    loss: Loss
    parameters: Sequence[nn.Parameter]
    phase: tuple[float, float] = (0.0, 1.0)
    """Start and end of the objective, as shares of the training."""
    every: int = 1
    """Update on every `every`-th training step only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of Adam."""

    def has_begun(self, step: int, steps: int) -> bool:
        """Return True if the phase has begun at `step`, counted from 0, of `steps`."""
        return step >= self.phase[0] * steps

    def is_due(self, step: int, steps: int) -> bool:
        """Return True if the objective is updated at `step`, counted from 0, of `steps`."""
        return (
            self.has_begun(step, steps)
            and step < self.phase[1] * steps
            and (step + 1) % self.every == 0
        )


@dataclass(frozen=True)
class GraphableNetwork:
    """A module for CUDA graphs: each training step calls it once, with tensors of fixed shape."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    """Example inputs, with the shapes, types and device of the real ones."""


class Method(nn.Module):
    """A way to detect anomalies: compare slices with a healthy reference.

    A method sees intensities, never a path, an affine or a setting of training.
    A method with a network defines `reconstruct`.
    A method without one overrides `healthy_reference` and `residual` instead.
    """

    config: Any
    """Frozen dataclass with the settings: a `ComparisonConfig` for every method with a network."""

    @property
    def residual_config(self) -> ComparisonConfig:
        """Settings of the comparison of a slice with its reference."""
        config: ComparisonConfig = self.config
        return config

    def objectives(self) -> list[Objective]:
        """Return the objectives to train; empty for the untrained baselines."""
        return []

    def graphable_network(self, batch_size: int) -> GraphableNetwork | None:
        """Return the network of a training step for CUDA graphs; None if there is no such module.

        Args:
            batch_size: slices in each training batch.
        """
        return None

    def predict(
        self,
        x: Float[Tensor, "b 1 h w"],
        *,
        slice_ids: Int[Tensor, " b"],
        seed: int,
        brain: Bool[Tensor, "b 1 h w"] | None = None,
        batch_size: int = 16,
    ) -> Prediction:
        """Return the anomaly map and the healthy reference of the slices of one scan.

        Args:
            x: intensities, 0 outside the brain, 1 at the 99th percentile of the brain. Values
                above 1 (up to 2) affect the residual only if `headroom` is set.
            slice_ids: index of each slice on the model's grid. With `seed`, it determines the
                noise.
            seed: seed of the noise. Methods without noise at test ignore it.
            brain: brain mask. The default is x > 0.
            batch_size: slices or patches per forward pass; changes results by rounding only.

        Raises:
            ValueError: the slices do not have the size that the method was made for.
        """
        brain = x > 0 if brain is None else brain
        reference = self.healthy_reference(x, brain, slice_ids, seed, batch_size)
        return Prediction(self.residual(x, reference, brain), reference.clamp_max(1))

    def healthy_reference(
        self,
        x: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """Return the healthy reference, in the range of `x`; see `predict` for the arguments.

        A pixel that damaged weights make infinite becomes NaN, which `predict_volume` refuses.
        """
        check_slices(x, self.config.size)
        x0 = to_signed(x.clamp_max(1))
        return from_signed(clamp_signed(self.reconstruct(x0, brain, slice_ids, seed, batch_size)))

    def reconstruct(
        self,
        x0: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """Reconstruct slices as if healthy; input and result are in [-1, 1].

        See `predict` for the arguments.
        """
        raise NotImplementedError

    def residual(
        self,
        x: Float[Tensor, "b 1 h w"],
        reference: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Return the residual, in [0, 1], from the results of `healthy_reference`."""
        return residual_of(x, reference, brain, self.residual_config)


def check_size(size: int, d: int, *, p: int = 1, r: int = 1) -> None:
    """Check that slices fit the feature map of the network, and the patches of the method.

    Args:
        size: rows and columns of a slice.
        d: pixels of the slice per pixel of the feature map, along one axis.
        p: rows and columns of a patch, for patch-wise methods.
        r: rows and columns of a sub-level cell, for MAEDiff.

    Raises:
        ValueError: `size` is not a multiple of d and r. The message names the nearest multiples
            that hold a patch.
    """
    unit = math.lcm(d, max(r, 1))
    if size % unit:
        below = size - size % unit
        fits = [str(n) for n in (below, below + unit) if n >= max(p, unit)]
        cells = f"r={r} and " if r > 1 else ""
        raise ValueError(
            f"slices of size={size} are no multiple of {cells}the feature map's d={d} pixels: "
            f"size={' or '.join(fits)} would fit"
        )


def check_slices(x: Float[Tensor, "b 1 h w"], size: int) -> None:
    """Check that slices have `size` rows and columns.

    Raises:
        ValueError: the slices have another size.
    """
    if x.shape[-2:] != (size, size):
        raise ValueError(
            f"slices of {tuple(x.shape[-2:])} pixels, but this model was made for {size} x {size}"
        )


def to_signed(x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Map intensities from [0, 1] to [-1, 1], the range of the networks and of the schedule."""
    return 2 * x - 1


def clamp_signed(x0_pred: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Clip a prediction of x0 to [-1, 1]; infinity becomes NaN, because it is no intensity."""
    return x0_pred.clamp(-1, 1).masked_fill(x0_pred.isinf(), torch.nan)


def from_signed(x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Map intensities from [-1, 1] to [0, 1], clipped."""
    return ((x0 + 1) / 2).clamp(0, 1)
