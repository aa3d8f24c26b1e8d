"""f-AnoGAN: a GAN of healthy slices, then an encoder into its latent.

    first phase
      critic C       mean C(G(z)) - mean C(x) + 10 mean (|grad C(mix)| - 1)^2     every step
      generator G    -mean C(G(z))                                                every fifth step
    second phase, G and C fixed
      encoder E      mean (x - G(E(x)))^2 + kappa mean (f(x) - f(G(E(x))))^2      izi_f
    reference        G(E(x))

f is the last feature map of the critic.
128 latent numbers and kappa = 1 are the authors' values. The length of the phases is our choice:
the authors train each phase until the results look good. Their learning rate is 1e-4 with batches
of 64. A higher rate can make the first phase unstable.

- f-AnoGAN: Schlegl et al. 2019, Medical Image Analysis 54
  (https://doi.org/10.1016/j.media.2019.01.010).
- WGAN-GP, with its five critic steps and betas: Gulrajani et al. 2017
  (https://arxiv.org/abs/1704.00028).
"""

from dataclasses import field

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from maediff.methods.base import (
    Method,
    Objective,
    check_size,
    check_slices,
    to_signed,
)
from maediff.methods.residual import ComparisonConfig, LossKind, reconstruction_loss
from maediff.nn.autoencoder import AutoencoderConfig, Critic, Decoder, Encoder
from maediff.nn.batches import apply_in_batches

WGAN_BETAS = (0.0, 0.9)
"""Betas of Adam for critic and generator (Gulrajani et al. 2017, algorithm 1)."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FAnoGANConfig(ComparisonConfig):
    """Settings of f-AnoGAN: weights of the three losses, and the steps of each network."""

    loss: LossKind = "l2"
    latent: int = 128
    """Numbers of the latent vector."""
    penalty: float = 10.0
    """Weight of the critic's gradient penalty."""
    critic_steps: int = 5
    """Steps of the critic per step of the generator."""
    kappa: float = 1.0
    """Weight of the critic's features in the loss of the encoder."""
    gan_share: float = 0.5
    """Share of the training for critic and generator; the rest is for the encoder."""
    net: AutoencoderConfig = field(default_factory=AutoencoderConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            min(self.latent, self.critic_steps) < 1
            or min(self.penalty, self.kappa) < 0
            or not 0 < self.gan_share < 1
        ):
            raise ValueError(
                f"latent={self.latent} and critic_steps={self.critic_steps} must be at least 1, "
                f"penalty={self.penalty} and kappa={self.kappa} not negative, "
                f"gan_share={self.gan_share} between 0 and 1"
            )
        check_size(self.size, self.net.d)


class FAnoGAN(Method):
    """GAN of healthy slices with an encoder; the reference is generated from a slice's code."""

    config: FAnoGANConfig

    def __init__(self, config: FAnoGANConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Decoder(config.net, config.size, config.latent)
        self.critic = Critic(config.net, config.size)
        self.encoder = Encoder(config.net, config.size, config.latent)

    def generate(self, z: Float[Tensor, "b k"]) -> Float[Tensor, "b 1 h w"]:
        """Generate slices in [-1, 1] from latent vectors."""
        slices: Tensor = self.generator(z).tanh()
        return slices

    def generate_fakes(
        self, x: Float[Tensor, "b 1 h w"], generator: torch.Generator
    ) -> Float[Tensor, "b 1 h w"]:
        """Generate as many random slices as `x` has."""
        check_slices(x, self.config.size)
        z = torch.randn(len(x), self.config.latent, generator=generator)
        return self.generate(z.to(x.device))

    def critic_loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of the critic: the negated distance between slices and fakes, plus a penalty.

        The critic estimates the distance. The gradient penalty keeps the critic 1-Lipschitz.
        """
        with torch.no_grad():
            fakes = self.generate_fakes(x, generator).float()
        with torch.autocast(x.device.type, enabled=False):
            x0 = to_signed(x)
            share = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device)
            with torch.enable_grad():
                mix = torch.lerp(fakes, x0, share.requires_grad_())
                slope = torch.autograd.grad(self.critic(mix).sum(), mix, create_graph=True)[0]
            slope_norm = rearrange(slope, "b 1 h w -> b (h w)").norm(dim=1)
            penalty = ((slope_norm - 1) ** 2).mean()
            distance: Tensor = self.critic(x0).mean() - self.critic(fakes).mean()
            loss: Tensor = self.config.penalty * penalty - distance
        return loss

    def generator_loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of the generator: falls when the critic rates fakes as real."""
        realness: Tensor = self.critic(self.generate_fakes(x, generator)).float().mean()
        return -realness

    def encoder_loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss of the encoder, izi_f: compare a slice with the slice generated from its code.

        The loss compares the images and the critic's features.
        """
        check_slices(x, self.config.size)
        x0, x0_seen = to_signed(x), to_signed(x if seen is None else seen)
        fake = self.generate(self.encoder(x0_seen))
        features = functional.mse_loss(
            self.critic.features(fake).float(), self.critic.features(x0).float()
        )
        everywhere = torch.ones_like(x0, dtype=torch.bool)
        error = reconstruction_loss(fake, x0, everywhere, self.config.loss)
        return error + self.config.kappa * features

    def objectives(self) -> list[Objective]:
        share = self.config.gan_share
        return [
            Objective(
                "critic",
                self.critic_loss,
                list(self.critic.parameters()),
                phase=(0.0, share),
                betas=WGAN_BETAS,
            ),
            Objective(
                "generator",
                self.generator_loss,
                list(self.generator.parameters()),
                phase=(0.0, share),
                every=self.config.critic_steps,
                betas=WGAN_BETAS,
            ),
            Objective(
                "encoder",
                self.encoder_loss,
                list(self.encoder.parameters()),
                phase=(share, 1.0),
            ),
        ]

    def autoencode(self, x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return G(E(x0)); input and result are in [-1, 1]."""
        return self.generate(self.encoder(x0))

    def reconstruct(
        self,
        x0: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """The testing procedure: encode and generate, without noise. The seed is ignored."""
        return apply_in_batches(self.autoencode, x0, batch_size)
