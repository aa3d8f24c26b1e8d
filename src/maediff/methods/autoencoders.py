"""Autoencoders that cannot draw what they have not learnt: AE, VAE and SVAE by a narrow latent, DAE by denoising.

AE, VAE, SVAE   reference = Dec(Enc(x));  loss = mean |x - Dec(z)| + KL(q(z | x) || N(0, 1)) / pixels
DAE             reference = UNet(x);      loss = mean over the foreground of (x - UNet(x + n))^2

AE, VAE: Baur et al. 2021, Autoencoders for unsupervised anomaly segmentation in brain MR images: a comparative study
(Medical Image Analysis 69): 128 latent numbers, l1, the KL divergence of Kingma & Welling 2014 with weight 1.
SVAE: the same with a latent map, whose resolution and channels are ours.
DAE: Kascenas et al. 2022, Denoising autoencoders for unsupervised anomaly detection in brain MRI (MIDL): Gaussian noise
of 16 x 16 numbers, sd 0.2, upsampled bilinearly, moved at random, in the foreground only; squared error.
"""

from dataclasses import field

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.noise import coarse_noise
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
from maediff.nn.autoencoder import AutoencoderConfig, Decoder, Encoder
from maediff.nn.unet import UNet, UNetConfig


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AEConfig(ComparisonConfig):
    """A vector for a whole slice."""

    latent: int = 128
    """Numbers of the latent vector, or of each cell of the latent map."""
    spatial: bool = False
    """The latent is a map, a vector for each d x d pixels, instead of one vector."""
    kl_weight: float = 0.0
    """Weight of the KL divergence; 0 is no variational autoencoder, and nothing is drawn in training."""
    net: AutoencoderConfig = field(default_factory=AutoencoderConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent < 1 or self.kl_weight < 0:
            raise ValueError(
                f"latent={self.latent} must be at least 1 and kl_weight={self.kl_weight} not negative"
            )
        check_size(self.size, self.net.d)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class VAEConfig(AEConfig):
    """A normal distribution over vectors."""

    kl_weight: float = 1.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SVAEConfig(AEConfig):
    """A normal distribution over maps: 6 x 6 x 16 numbers for a slice of 96 x 96 pixels at d = 16."""

    latent: int = 16
    spatial: bool = True
    kl_weight: float = 1.0


class Autoencoder(Method):
    """Draws a slice anew from a latent too narrow for what was never seen."""

    def __init__(self, config: AEConfig) -> None:
        super().__init__()
        self.config = config
        out = config.latent * (2 if config.kl_weight else 1)  # mean and log variance
        self.encoder = Encoder(config.net, config.size, out, spatial=config.spatial)
        self.decoder = Decoder(config.net, config.size, config.latent, spatial=config.spatial)

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The negative evidence lower bound over the pixels of a slice; without the KL term, the first half of it."""
        check_slices(x, self.config.size)
        x0, given = to_signed(x), to_signed(x if seen is None else seen)
        z, divergence = self.encoder(given), torch.zeros((), device=x.device)
        if self.config.kl_weight:
            mean, log_variance = z.float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-20, 10)
            z = mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=generator).to(
                x.device
            )
            divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum() / x.numel()
        everywhere = torch.ones_like(x0, dtype=torch.bool)
        # Baur et al. weigh the divergence against |x - x'| of intensities in [0, 1]; here they span 2.
        return reconstruction_loss(self.decoder(z), x0, everywhere, self.config.loss) + (
            2 * self.config.kl_weight * divergence
        )

    def objectives(self) -> list[Objective]:
        return [Objective(self.config.loss, self.loss, list(self.parameters()))]

    def reconstruct(self, x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """What the mean of the latent's distribution decodes to; all in [-1, 1]."""
        return self.decoder(self.encoder(x0)[:, : self.config.latent])  # type: ignore[no-any-return]

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


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DAEConfig(ComparisonConfig):
    """The noise of the paper; the U-Net is the one of the diffusion methods, at a constant time step."""

    loss: LossKind = "l2"
    noise_cells: int = 16
    """Rows and columns of the noise before it is upsampled."""
    noise_sd: float = 0.2
    """Standard deviation of the noise before it is upsampled, where intensities span 1."""
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.noise_cells <= self.size or self.noise_sd < 0:
            raise ValueError(
                f"noise_cells={self.noise_cells} must be in 1..size={self.size}, noise_sd={self.noise_sd} not negative"
            )
        check_size(self.size, self.unet.d)


class DAE(Method):
    """Takes coarse noise off, and with it what looks like noise to one who knows healthy brains."""

    def __init__(self, config: DAEConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)

    def reconstruct(self, x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """The slice without what was taken for noise; all in [-1, 1]."""
        return self.unet(x0, torch.zeros(len(x0), dtype=torch.long, device=x0.device))  # type: ignore[no-any-return]

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The clean slice against what is drawn from the noised one, in the foreground."""
        check_slices(x, self.config.size)
        foreground, given = x > 0, x if seen is None else seen
        noise = coarse_noise(
            len(x), self.config.size, self.config.noise_cells, self.config.noise_sd, generator
        ).to(x.device)
        prediction = self.reconstruct(to_signed(given + noise * foreground))
        return reconstruction_loss(prediction, to_signed(x), foreground, self.config.loss)

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
        """The scan goes in as it is, without noise: the seed changes nothing. Outside the brain nothing was learnt."""
        brain = x > 0 if brain is None else brain
        found = predict_by(self.reconstruct, x, brain, self.config, batch_size)
        return Prediction(found.anomaly_map * brain, found.reconstruction * brain)
