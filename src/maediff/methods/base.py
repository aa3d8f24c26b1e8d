"""The one interface that every method stands behind, and what they share: ranges, prediction of a scan."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor, nn

from maediff.core.device import no_tf32
from maediff.diffusion.noise import NoiseKind, SimplexConfig, draw_noise, keyed_generators
from maediff.methods.comparison import ComparisonConfig, residual_of

Times = Annotated[
    tuple[int, ...],
    BeforeValidator(lambda t: (t,) if isinstance(t, int) and not isinstance(t, bool) else t),
]
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


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DiffusionConfig(ComparisonConfig):
    """Choices common to the diffusion methods."""

    steps: int = 1000
    """T, the length of the cosine schedule."""
    noise: NoiseKind = "simplex"
    simplex: SimplexConfig = field(default_factory=SimplexConfig)
    """The waves of simplex noise; the other kinds have none."""
    noise_sd: float = 1.0
    """Standard deviation of the noise, in training and at test. The schedule assumes 1; simplex noise as pDDPM's code
    adds it up, not divided by what its octaves come to, has 0.45."""
    t_train: tuple[int, int] = (0, 1000)
    """Training draws t uniformly from this half-open range."""
    t_test: Times = (250,)
    """Noise levels at test; the references of several are averaged."""
    chain: int = 1
    """Steps of the reverse process from t_test to 0; 1 predicts x0 in one step."""
    eta: float = 0.0
    """Share of the noise that is drawn anew at each step of the chain: 0, DDIM, none; 1, that of the chain of Ho et al.
    2020. See `maediff.diffusion.process.reverse_chain`."""
    draws: int = 1
    """Noise draws averaged at test."""
    noise_test: float = 1.0
    """Scale of the noise at test, on top of `noise_sd`. 0 is ours, after the denoising autoencoders, which are shown
    the scan as it is (Kascenas et al. 2022): x_t is then its own mean, sqrt(abar_t) x0, and what looks like noise is
    drawn away."""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.t_train
        if not 0 <= low < high <= self.steps:
            raise ValueError(f"t_train={self.t_train} must be a range inside 0..{self.steps}")
        if not self.t_test or not all(0 <= t < self.steps for t in self.t_test):
            raise ValueError(f"t_test={self.t_test} must name time steps in 0..{self.steps - 1}")
        if self.chain < 1 or self.draws < 1:
            raise ValueError(f"chain={self.chain} and draws={self.draws} must be at least 1")
        if not 0 <= self.eta <= 1:
            raise ValueError(
                f"eta={self.eta} must be from 0 (no noise on the way) to 1 (all of it anew at each step)"
            )
        if self.eta and self.noise_test == 0:
            raise ValueError(
                f"eta={self.eta} draws noise in the chain, and noise_test=0 none: set noise_test=1 or eta=0"
            )
        if not 0 < self.noise_sd < math.inf:
            raise ValueError(
                f"noise_sd={self.noise_sd} must be above 0: noise of no size teaches nothing"
            )
        if self.noise_test < 0:
            raise ValueError(f"noise_test={self.noise_test} must not be negative")
        if self.noise_test == 0 and self.draws > 1:
            raise ValueError(
                f"draws={self.draws} would all be alike without noise (noise_test=0): set draws=1"
            )

    def timesteps(self, t: int) -> list[int]:
        """The falling time steps of the reverse process that starts at `t`, `chain` of them at the most."""
        return sorted(
            {round(t * (self.chain - i) / self.chain) for i in range(self.chain)}, reverse=True
        )

    def noise_of(
        self,
        shape: tuple[int, int, int],
        generator: torch.Generator | Sequence[torch.Generator],
        device: torch.device | str,
    ) -> Float[Tensor, "b 1 h w"]:
        """Independent noise for every image of a batch, of standard deviation `noise_sd`; see `draw_noise`."""
        return self.noise_sd * draw_noise(self.noise, shape, generator, device, self.simplex)

    def noise_at_test(
        self,
        pixels: int,
        seed: int,
        slice_ids: Int[Tensor, " b"],
        patches: Int[Tensor, " b"],
        draw: int,
        device: torch.device | str,
        step: int = 0,
    ) -> Float[Tensor, "b 1 pixels pixels"]:
        """The noise at test, times its scale: a pure function of its arguments; where the scale is 0 none is drawn.

        `step` is 0 for the noise that a scan is noised with, and counts the chain's steps that draw some anew.
        """
        shape = (len(slice_ids), pixels, pixels)
        if self.noise_test == 0:
            return torch.zeros(shape, device=device)[:, None]
        generators = keyed_generators(seed, slice_ids, patches, draw + self.draws * step)
        return self.noise_test * self.noise_of(shape, generators, device)

    def training_times(self, b: int, generator: torch.Generator) -> Int[Tensor, " b"]:
        return torch.randint(*self.t_train, (b,), generator=generator)


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


@torch.inference_mode()
def predict_volume(
    method: Method,
    images: Float[np.ndarray, "n h w"],
    brain: Bool[np.ndarray, "n h w"],
    slice_ids: Int[np.ndarray, " n"],
    *,
    seed: int,
    batch_size: int = 16,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> tuple[Float[np.ndarray, "n h w"], Float[np.ndarray, "n h w"]]:
    """Residual (before post-processing) and healthy reference of a scan, both in [0, 1].

    Slices without brain are skipped: their residual is zero and their reference is the scan itself.
    """
    residual, reference = np.zeros_like(images), images.copy()
    holds_brain = brain.any(axis=(1, 2))
    if holds_brain.any():
        with no_tf32(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            prediction = method.eval().predict(
                torch.from_numpy(images[holds_brain])[:, None].to(device),
                slice_ids=torch.from_numpy(slice_ids[holds_brain]),
                seed=seed,
                brain=torch.from_numpy(brain[holds_brain])[:, None].to(device),
                batch_size=batch_size,
            )
        residual[holds_brain] = prediction.anomaly_map[:, 0].float().cpu().numpy()
        reference[holds_brain] = prediction.reconstruction[:, 0].float().cpu().numpy()
    return residual, reference
