"""f-AnoGAN (Schlegl et al. 2019, Medical Image Analysis 54): a GAN of healthy slices, then an encoder into its latent.

critic     C:  mean C(G(z)) - mean C(x) + 10 mean (|grad C(mix)| - 1)^2,   every step of the first phase
generator  G:  - mean C(G(z)),                                             every fifth
encoder    E:  mean (x - G(E(x)))^2 + kappa mean (f(x) - f(G(E(x))))^2,    second phase, G and C as they are (izi_f)
reference  =   G(E(x))

WGAN-GP: Gulrajani et al. 2017 (arXiv 1704.00028), with its five critic steps and Adam's betas (0, 0.9). f is the
critic's last feature map. 128 latent numbers and kappa = 1 are the authors'; the share of the phases is ours (theirs
trains each until it looks well). Their learning rate is 1e-4 with batches of 64: more is risky in the first phase.
"""

from dataclasses import field

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from maediff.methods.base import (
    Method,
    Objective,
    Prediction,
    check_size,
    check_slices,
    predict_by,
    to_signed,
)
from maediff.methods.residual import ComparisonConfig, LossKind, reconstruction_loss
from maediff.nn.autoencoder import AutoencoderConfig, Critic, Decoder, Encoder

WGAN_BETAS = (0.0, 0.9)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FAnoGANConfig(ComparisonConfig):
    """Weights of the three losses, and when each is trained."""

    loss: LossKind = "l2"
    latent: int = 128
    """Numbers of the latent vector."""
    penalty: float = 10.0
    """Weight of the critic's gradient penalty."""
    critic_steps: int = 5
    """Steps of the critic to one of the generator."""
    kappa: float = 1.0
    """Weight of the critic's features in the encoder's loss."""
    gan_share: float = 0.5
    """Share of the training that critic and generator get; the encoder gets the rest."""
    net: AutoencoderConfig = field(default_factory=AutoencoderConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            min(self.latent, self.critic_steps) < 1
            or min(self.penalty, self.kappa) < 0
            or not 0 < self.gan_share < 1
        ):
            raise ValueError(
                f"latent={self.latent} and critic_steps={self.critic_steps} must be at least 1, penalty={self.penalty} "
                f"and kappa={self.kappa} not negative, gan_share={self.gan_share} between 0 and 1"
            )
        check_size(self.size, self.net.d)


class FAnoGAN(Method):
    """Looks for the healthy slice of its generator that is most like the one it is given."""

    def __init__(self, config: FAnoGANConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = Decoder(config.net, config.size, config.latent)
        self.critic = Critic(config.net, config.size)
        self.encoder = Encoder(config.net, config.size, config.latent)

    def generate(self, z: Float[Tensor, "b k"]) -> Float[Tensor, "b 1 h w"]:
        """Slices in [-1, 1]."""
        return self.generator(z).tanh()  # type: ignore[no-any-return]

    def _fakes(
        self, x: Float[Tensor, "b 1 h w"], generator: torch.Generator
    ) -> Float[Tensor, "b 1 h w"]:
        check_slices(x, self.config.size)
        return self.generate(
            torch.randn(len(x), self.config.latent, generator=generator).to(x.device)
        )

    def critic_loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """Minus the distance of slices and fakes that the critic measures, and how far it is from being 1-Lipschitz."""
        with torch.no_grad():
            fakes = self._fakes(x, generator).float()
        with torch.autocast(x.device.type, enabled=False):
            x0 = to_signed(x)
            share = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device)
            with torch.enable_grad():
                mix = torch.lerp(fakes, x0, share.requires_grad_())
                slope = torch.autograd.grad(self.critic(mix).sum(), mix, create_graph=True)[0]
            penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
            distance: Tensor = self.critic(x0).mean() - self.critic(fakes).mean()
            loss: Tensor = self.config.penalty * penalty - distance
        return loss

    def generator_loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """How far the critic tells fakes from slices."""
        realness: Tensor = self.critic(self._fakes(x, generator)).float().mean()
        return -realness

    def encoder_loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """izi_f: the slice against what is generated from its code, as images and as the critic's features."""
        check_slices(x, self.config.size)
        x0, given = to_signed(x), to_signed(x if seen is None else seen)
        fake = self.generate(self.encoder(given))
        features = functional.mse_loss(
            self.critic.features(fake).float(), self.critic.features(x0).float()
        )
        everywhere = torch.ones_like(x0, dtype=torch.bool)
        return (
            reconstruction_loss(fake, x0, everywhere, self.config.loss)
            + self.config.kappa * features
        )

    def objectives(self) -> list[Objective]:
        c, gan, every = self.config, (0.0, self.config.gan_share), self.config.critic_steps
        return [
            Objective(
                "critic", self.critic_loss, list(self.critic.parameters()), gan, betas=WGAN_BETAS
            ),
            Objective(
                "generator",
                self.generator_loss,
                list(self.generator.parameters()),
                gan,
                every,
                WGAN_BETAS,
            ),
            Objective(
                "encoder", self.encoder_loss, list(self.encoder.parameters()), (c.gan_share, 1.0)
            ),
        ]

    def reconstruct(self, x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """G(E(x)), all in [-1, 1]."""
        return self.generate(self.encoder(x0))

    def predict(
        self,
        x: Float[Tensor, "b 1 h w"],
        *,
        slice_ids: Int[Tensor, " b"],
        seed: int,
        brain: Bool[Tensor, "b 1 h w"] | None = None,
        batch_size: int = 16,
    ) -> Prediction:
        """Nothing is drawn: the seed changes nothing."""
        return predict_by(self.reconstruct, x, brain, self.config, batch_size)
