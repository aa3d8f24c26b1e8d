"""Whole-slice diffusion: DDPM with Gaussian noise and AnoDDPM with simplex noise.

    x_t       = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps
    loss      = mean |x0 - x0_pred|,   x0_pred = UNet(x_t, t)
    reference = x0_pred at t_test, or the end of a reverse chain from there

- DDPM: Ho et al. 2020 (https://arxiv.org/abs/2006.11239).
- AnoDDPM: Wyatt et al. 2022, "AnoDDPM: Anomaly detection with denoising diffusion probabilistic
  models using simplex noise", CVPR Workshops.
"""

from dataclasses import field
from functools import partial
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.noise import NoiseKind
from maediff.diffusion.process import cosine_alpha_bar, forward_process, reverse_chain
from maediff.methods.base import (
    GraphableNetwork,
    Method,
    Objective,
    check_size,
    check_slices,
    clamp_signed,
    to_signed,
)
from maediff.methods.diffusion_config import DiffusionConfig, Times
from maediff.methods.residual import reconstruction_loss
from maediff.nn.batches import map_batches
from maediff.nn.unet import UNet, UNetConfig

WHOLE_SLICE = 0
"""Patch index of a method without patches; a key of the noise at test."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DDPMConfig(DiffusionConfig):
    """Settings of DDPM: Gaussian noise over the whole slice, one step from t = 500."""

    noise: NoiseKind = "gaussian"
    t_test: Times = (500,)
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.unet.d)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AnoDDPMConfig(DDPMConfig):
    """Settings of AnoDDPM: simplex noise over the whole slice, one step from t = 500.

    `t_test=250, chain=250, eta=1` is a chain like that of Wyatt et al. 2022, with fresh simplex
    noise at each step. Its variance is the smaller of the two in section 3.2 of Ho et al. 2020;
    the code of AnoDDPM has the larger one, beta_t.
    """

    noise: NoiseKind = "simplex"


class DDPM(Method):
    """Diffusion of whole slices, without clean surroundings."""

    config: DDPMConfig

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__()
        self.config = config
        self.alpha_bar = cosine_alpha_bar(config.steps)
        self.unet = UNet(config.unet)

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The training procedure: noise each slice to a random level and reconstruct it."""
        check_slices(x, self.config.size)
        x0, x0_seen = to_signed(x), to_signed(x if seen is None else seen)
        t = self.config.training_times(len(x), generator)
        eps = self.config.sample_noise((len(x), *x.shape[-2:]), generator, x.device)
        x_t = forward_process(x0_seen, eps, self.alpha_bar[t])
        x0_pred = self.unet(x_t, t.to(x.device))
        everywhere = torch.ones_like(x0, dtype=torch.bool)
        return reconstruction_loss(x0_pred, x0, everywhere, self.config.loss)

    def objectives(self) -> list[Objective]:
        return [Objective(self.config.loss, self.loss, list(self.parameters()))]

    def graphable_network(self, batch_size: int) -> GraphableNetwork:
        return GraphableNetwork(self.unet, self.unet.example_inputs(batch_size, self.config.size))

    def reconstruct(
        self,
        x0: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """The testing procedure: noise, run the reverse process, average over levels and draws."""
        batches = torch.split(torch.arange(len(x0)), batch_size)
        passes = list(product(self.config.t_test, range(self.config.draws)))

        def reconstruct(batch: Int[Tensor, " n"]) -> Float[Tensor, "n 1 h w"]:
            total = torch.zeros_like(x0[batch])
            for t, draw in passes:
                x0_pred = self._reconstruct_batch(x0[batch], slice_ids[batch], t, draw, seed)
                total += x0_pred / len(passes)
            return total

        return torch.cat(list(map_batches(reconstruct, batches, x0.device)))

    def _reconstruct_batch(
        self,
        x0: Float[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        t: int,
        draw: int,
        seed: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """Noise slices to level `t`, run the reverse process, and return x0_pred in [-1, 1]."""
        patches = torch.full((len(x0),), WHOLE_SLICE)
        noise = partial(
            self.config.noise_at_test, self.config.size, seed, slice_ids, patches, draw, x0.device
        )
        x_t = forward_process(x0, noise(0), self.alpha_bar[t].expand(len(x0)))
        x0_pred = reverse_chain(
            lambda x, t: self.unet(x, t).float(),
            x_t,
            self.config.timesteps(t),
            self.alpha_bar,
            self.config.eta,
            noise,
        )
        return clamp_signed(x0_pred)
