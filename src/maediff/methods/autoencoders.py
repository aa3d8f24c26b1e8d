"""Autoencoders: AE, VAE and SVAE with a narrow latent, DAE by denoising.

    AE, VAE, SVAE   reference = Dec(Enc(x))
                    loss      = mean |x - Dec(z)| + KL(q(z | x) || N(0, 1)) / pixels
    DAE             reference = UNet(x)
                    loss      = mean over the foreground of (x - UNet(x + n))^2

- AE, VAE: Baur et al. 2021, "Autoencoders for unsupervised anomaly segmentation in brain MR
  images: a comparative study", Medical Image Analysis 69. 128 latent numbers, l1, and the KL
  divergence of Kingma and Welling 2014 with weight 1.
- SVAE: the same with a latent map. Its resolution and its channels are our choice.
- DAE: Kascenas et al. 2022, "Denoising autoencoders for unsupervised anomaly detection in brain
  MRI", MIDL. The noise n has 16 x 16 Gaussian numbers (sd 0.2), upsampled bilinearly and shifted
  at random, in the foreground only; the error is squared.
"""

from dataclasses import field

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.noise import coarse_noise
from maediff.methods.base import (
    GraphableNetwork,
    Method,
    Objective,
    check_size,
    check_slices,
    to_signed,
)
from maediff.methods.residual import ComparisonConfig, LossKind, reconstruction_loss
from maediff.nn.autoencoder import AutoencoderConfig, Decoder, Encoder
from maediff.nn.batches import apply_in_batches
from maediff.nn.unet import UNet, UNetConfig


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AEConfig(ComparisonConfig):
    """Settings of AE: one latent vector for a slice."""

    latent: int = 128
    """Numbers of the latent vector, or of each vector of the latent map."""
    spatial: bool = False
    """The latent is a map with one vector for each d x d pixels, instead of one vector."""
    kl_weight: float = 0.0
    """Weight of the KL divergence. 0 is a plain autoencoder, whose latent is not sampled."""
    net: AutoencoderConfig = field(default_factory=AutoencoderConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent < 1 or self.kl_weight < 0:
            raise ValueError(
                f"latent={self.latent} must be at least 1 and kl_weight={self.kl_weight} "
                "not negative"
            )
        check_size(self.size, self.net.d)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class VAEConfig(AEConfig):
    """Settings of VAE: a normal distribution over latent vectors."""

    kl_weight: float = 1.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SVAEConfig(AEConfig):
    """Settings of SVAE: a normal distribution over latent maps.

    A slice of 96 x 96 pixels has 6 x 6 vectors of 16 numbers at d = 16.
    """

    latent: int = 16
    spatial: bool = True
    kl_weight: float = 1.0


class Autoencoder(Method):
    """Autoencoder with a latent too narrow for structures that training never showed."""

    config: AEConfig

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
        """The training procedure: the negative evidence lower bound per pixel.

        Without a KL weight, the loss is the reconstruction error alone.
        """
        check_slices(x, self.config.size)
        x0, x0_seen = to_signed(x), to_signed(x if seen is None else seen)
        z, divergence = self.encoder(x0_seen), torch.zeros((), device=x.device)
        if self.config.kl_weight:
            mean, log_variance = z.float().chunk(2, dim=1)
            log_variance = log_variance.clamp(-20, 10)
            eps = torch.randn(mean.shape, generator=generator).to(x.device)
            z = mean + (log_variance / 2).exp() * eps
            divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum() / x.numel()
        everywhere = torch.ones_like(x0, dtype=torch.bool)
        error = reconstruction_loss(self.decoder(z), x0, everywhere, self.config.loss)
        # Baur et al. weigh the divergence against |x - x'| of intensities that span 1; x0 spans 2.
        return error + 2 * self.config.kl_weight * divergence

    def objectives(self) -> list[Objective]:
        return [Objective(self.config.loss, self.loss, list(self.parameters()))]

    def autoencode(self, x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Decode the mean of the latent's distribution; input and result are in [-1, 1]."""
        reconstruction: Tensor = self.decoder(self.encoder(x0)[:, : self.config.latent])
        return reconstruction

    def reconstruct(
        self,
        x0: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """The testing procedure: encode and decode, without noise. The seed is ignored."""
        return apply_in_batches(self.autoencode, x0, batch_size)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DAEConfig(ComparisonConfig):
    """Settings of DAE, with the noise of the paper.

    The U-Net is the one of the diffusion methods, at the constant time step 0.
    """

    loss: LossKind = "l2"
    noise_cells: int = 16
    """Rows and columns of the noise before upsampling."""
    noise_sd: float = 0.2
    """Standard deviation of the noise before upsampling, for intensities that span 1."""
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.noise_cells <= self.size or self.noise_sd < 0:
            raise ValueError(
                f"noise_cells={self.noise_cells} must be in 1..size={self.size}, "
                f"noise_sd={self.noise_sd} not negative"
            )
        check_size(self.size, self.unet.d)


class DAE(Method):
    """Denoising autoencoder: removes coarse noise, and with it structures that do not occur in
    healthy brains.
    """

    config: DAEConfig

    def __init__(self, config: DAEConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)

    def denoise(self, x0: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return slices without noise; input and result are in [-1, 1]."""
        t = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
        clean: Tensor = self.unet(x0, t)
        return clean

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The training procedure: denoise each slice; only the foreground counts."""
        check_slices(x, self.config.size)
        foreground, seen = x > 0, x if seen is None else seen
        noise = coarse_noise(
            len(x), self.config.size, self.config.noise_cells, self.config.noise_sd, generator
        ).to(x.device)
        prediction = self.denoise(to_signed(seen + noise * foreground))
        return reconstruction_loss(prediction, to_signed(x), foreground, self.config.loss)

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
        """The testing procedure: denoise the slices as they are. The seed is ignored.

        The network never learned the background, so the reference is 0 outside the brain.
        """
        clean = apply_in_batches(self.denoise, x0, batch_size)
        return torch.where(brain, clean, -1.0)

    def residual(
        self,
        x: Float[Tensor, "b 1 h w"],
        reference: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Return the residual, 0 outside the brain."""
        return super().residual(x, reference, brain) * brain
