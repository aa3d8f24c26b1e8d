"""Settings of all diffusion methods, with the noise and the time steps that follow from them.

eps       = noise_sd z,  z of unit variance;  at test also times noise_test
timesteps = t (chain - i) / chain  for i = 0 .. chain - 1, rounded:  t 250, chain 2 -> 250, 125
"""

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.noise import NoiseKind, SimplexConfig, draw_noise, keyed_generators
from maediff.methods.residual import ComparisonConfig


def _wrap_single_time(t: Any) -> Any:
    """Turn a single time step into a tuple, so that `t_test=250` is a valid setting."""
    return (t,) if isinstance(t, int) and not isinstance(t, bool) else t


Times = Annotated[tuple[int, ...], BeforeValidator(_wrap_single_time)]
"""Time steps: a tuple, or a single number in settings."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DiffusionConfig(ComparisonConfig):
    """Settings of every diffusion method."""

    steps: int = 1000
    """T, the length of the cosine schedule."""
    noise: NoiseKind = "simplex"
    simplex: SimplexConfig = field(default_factory=SimplexConfig)
    """Waves of simplex noise; the other kinds of noise ignore this setting."""
    noise_sd: float = 1.0
    """Standard deviation of the noise, in training and at test. The schedule assumes 1.

    The simplex noise in the code of pDDPM has 0.45: its octaves are not divided by their sum."""
    t_train: tuple[int, int] = (0, 1000)
    """Half-open range from which training draws t uniformly."""
    t_test: Times = (250,)
    """Noise levels at test. The references of several levels are averaged."""
    chain: int = 1
    """Steps of the reverse process from t_test to 0; 1 predicts x0 in one step."""
    eta: float = 0.0
    """Share of fresh noise in each step of the chain, 0..1: 0 is DDIM, 1 is Ho et al. 2020.
    See `maediff.diffusion.process.reverse_chain`."""
    draws: int = 1
    """Noise draws at test, whose references are averaged."""
    noise_test: float = 1.0
    """Scale of the noise at test, on top of `noise_sd`.

    0 is our choice, after denoising autoencoders, which see the scan without noise at test
    (Kascenas et al. 2022). x_t is then its own mean, sqrt(alpha_bar_t) x0, and the network removes
    structures that look like noise."""

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
                f"eta={self.eta} must be from 0 (no fresh noise) to 1 (only fresh noise)"
            )
        if self.eta and self.noise_test == 0:
            raise ValueError(
                f"eta={self.eta} adds noise in the chain, but noise_test=0 removes it: "
                "set noise_test=1 or eta=0"
            )
        if not 0 < self.noise_sd < math.inf:
            raise ValueError(
                f"noise_sd={self.noise_sd} must be above 0: without noise there is no training"
            )
        if self.noise_test < 0:
            raise ValueError(f"noise_test={self.noise_test} must not be negative")
        if self.noise_test == 0 and self.draws > 1:
            raise ValueError(
                f"draws={self.draws} would all be equal without noise (noise_test=0): set draws=1"
            )

    def timesteps(self, t: int) -> list[int]:
        """Return the falling time steps of the reverse process from `t`, at most `chain` of them.

        Example:
            >>> DiffusionConfig(chain=5).timesteps(250)
            [250, 200, 150, 100, 50]
        """
        steps = {round(t * (self.chain - i) / self.chain) for i in range(self.chain)}
        return sorted(steps, reverse=True)

    def sample_noise(
        self,
        shape: tuple[int, int, int],
        generator: torch.Generator | Sequence[torch.Generator],
        device: torch.device | str,
    ) -> Float[Tensor, "b 1 h w"]:
        """Draw noise of standard deviation `noise_sd`, see `maediff.diffusion.noise.draw_noise`.

        Args:
            shape: (images, rows, columns).
            generator: one CPU generator for the whole batch, or one per image.
            device: device of the result.
        """
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
        """Return the noise at test, a pure function of its arguments; zeros if `noise_test` is 0.

        Args:
            pixels: rows and columns of the noise.
            seed: seed of the prediction.
            slice_ids: index of each slice on the model's grid.
            patches: index of each patch on its grid; 0 for whole slices.
            draw: index of the noise draw, below `draws`.
            device: device of the result.
            step: 0 for the forward process; 1, 2, ... for the fresh noise after each chain step.
        """
        shape = (len(slice_ids), pixels, pixels)
        if self.noise_test == 0:
            return torch.zeros(shape, device=device)[:, None]
        generators = keyed_generators(seed, slice_ids, patches, draw + self.draws * step)
        return self.noise_test * self.sample_noise(shape, generators, device)

    def training_times(self, b: int, generator: torch.Generator) -> Int[Tensor, " b"]:
        """Draw a time step for each of `b` slices, uniformly from `t_train`."""
        return torch.randint(*self.t_train, (b,), generator=generator)
