"""Settings that all diffusion methods share."""

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from maediff.diffusion.noise import NoiseKind, SimplexConfig, draw_noise, keyed_generators
from maediff.methods.residual import ComparisonConfig

Times = Annotated[
    tuple[int, ...],
    BeforeValidator(lambda t: (t,) if isinstance(t, int) and not isinstance(t, bool) else t),
]


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
