"""Whole-slice diffusion: DDPM with Gaussian noise (Ho et al. 2020) and AnoDDPM with simplex noise (Wyatt et al. 2022).

x_t       = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps
reference = UNet(x_t, t), or what a reverse chain from x_t reaches
loss      = mean | x0 - x0_pred |
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
    Method,
    Objective,
    Prediction,
    check_size,
    check_slices,
    from_signed,
    to_signed,
)
from maediff.methods.diffusion_config import DiffusionConfig, Times
from maediff.methods.residual import reconstruction_loss, residual_of
from maediff.nn.unet import UNet, UNetConfig

WHOLE_SLICE = 0  # the patch index of a method that has no patches


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DDPMConfig(DiffusionConfig):
    """Gaussian noise over the whole slice, one step from t = 500."""

    noise: NoiseKind = "gaussian"
    t_test: Times = (500,)
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.unet.d)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AnoDDPMConfig(DDPMConfig):
    """Simplex noise over the whole slice, one step from t = 500.

    t_test=250, chain=250, eta=1 is a chain like AnoDDPM's own (Wyatt et al. 2022), with fresh simplex noise at each
    step, of the smaller of the two variances in Ho et al. 2020, 3.2, where AnoDDPM's code has the larger, beta_t.
    """

    noise: NoiseKind = "simplex"


class DDPM(Method):
    """Noises the whole slice and redraws it, without any clean surroundings to go by."""

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
        """The training procedure."""
        check_slices(x, self.config.size)
        x0, given, b = to_signed(x), to_signed(x if seen is None else seen), len(x)
        t = self.config.training_times(b, generator)
        eps = self.config.noise_of((b, *x.shape[-2:]), generator, x.device)
        x_t = forward_process(given, eps, self.alpha_bar[t].to(x.device))
        return reconstruction_loss(
            self.unet(x_t, t.to(x.device)),
            x0,
            torch.ones_like(x0, dtype=torch.bool),
            self.config.loss,
        )

    def objectives(self) -> list[Objective]:
        return [Objective(self.config.loss, self.loss, list(self.parameters()))]

    def predict(
        self,
        x: Float[Tensor, "b 1 h w"],
        *,
        slice_ids: Int[Tensor, " b"],
        seed: int,
        brain: Bool[Tensor, "b 1 h w"] | None = None,
        batch_size: int = 16,
    ) -> Prediction:
        """The testing procedure."""
        check_slices(x, self.config.size)
        brain = x > 0 if brain is None else brain
        x0, levels = (
            to_signed(x.clamp_max(1)),
            list(product(self.config.t_test, range(self.config.draws))),
        )
        total = torch.zeros_like(x0)
        for slices in torch.split(torch.arange(len(x)), batch_size):
            clean = x0[slices]
            for t, draw in levels:
                key = (
                    self.config.size,
                    seed,
                    slice_ids[slices],
                    torch.full_like(slices, WHOLE_SLICE),
                    draw,
                    x.device,
                )
                noise_of_step = partial(self.config.noise_at_test, *key)
                x_t = forward_process(
                    clean, noise_of_step(0), self.alpha_bar[t].expand(len(slices)).to(x.device)
                )
                x0_pred = reverse_chain(
                    lambda x, t: self.unet(x, t).float(),
                    x_t,
                    self.config.timesteps(t),
                    self.alpha_bar,
                    self.config.eta,
                    noise_of_step,
                )
                total[slices] += x0_pred.clamp(-1, 1) / len(levels)
        reference = from_signed(total)
        return Prediction(residual_of(x, reference, brain, self.config), reference)
