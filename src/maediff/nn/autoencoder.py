"""Encoder and decoder around a narrow latent, without skip connections: what AE, VAE, SVAE and f-AnoGAN are made of.

    x -> stem -> level 0 -> ... -> level L-1 -> (B, C, H/d, W/d) -> latent,    d = stem * 2^L
    x' <- head <- level 0 <- ... <- level L-1 <- (B, C, H/d, W/d) <- latent

The latent is a vector, behind a 1 x 1 convolution to an eighth of the channels as in Baur et al. 2021 (Autoencoders for
unsupervised anomaly segmentation in brain MR images: a comparative study), or a map of H/d x W/d vectors (`spatial`).
Residual blocks stand where that paper has plain convolutions, so that all methods here are built of the same parts.
"""

from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from maediff.nn.layers import GroupNorm, groups, zero_init


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AutoencoderConfig:
    """Widths and depth of either half; the defaults are the `paper` preset."""

    channels: tuple[int, ...] = (128, 256, 256, 512)
    """Channels of each level; the resolution halves after each."""
    blocks: int = 2
    """Residual blocks of each level."""
    stem: int = 1
    """Pixel-unshuffle factor before the first level: 1 is a plain convolution, 2 works at half the resolution."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 8 or self.blocks < 1 or self.stem < 1:
            raise ValueError(
                f"channels={self.channels} must be at least 8, blocks={self.blocks} and stem={self.stem} at least 1"
            )

    @property
    def d(self) -> int:
        """Pixels of the slice to one cell of the smallest map."""
        return self.stem << len(self.channels)


class Block(nn.Module):
    """Two convolutions, added to their input (He et al. 2016, pre-activation)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups(channels_in), channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = GroupNorm(groups(channels), channels)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = (
            nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        h = self.conv1(functional.silu(self.norm1(x)))
        return self.skip(x) + self.conv2(functional.silu(self.norm2(h)))  # type: ignore[no-any-return]


def _blocks(channels_in: int, channels: int, blocks: int) -> list[nn.Module]:
    return [Block(channels_in if n == 0 else channels, channels) for n in range(blocks)]


class Features(nn.Module):
    """From a slice to its smallest feature map: the way down that encoder and critic share."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(config.stem),
            nn.Conv2d(config.stem**2, config.channels[0], 3, padding=1),
        )
        levels: list[nn.Module] = []
        width = config.channels[0]
        for c in config.channels:
            levels += [*_blocks(width, c, config.blocks), nn.Conv2d(c, c, 3, stride=2, padding=1)]
            width = c
        self.levels = nn.Sequential(*levels)
        self.norm = GroupNorm(groups(width), width)

    def features(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c y x"]:
        """The smallest feature map."""
        return functional.silu(self.norm(self.levels(self.stem(x))))


class Encoder(Features):
    """From a slice to a vector of `out` numbers, or to a map of such vectors."""

    def __init__(
        self, config: AutoencoderConfig, size: int, out: int, *, spatial: bool = False
    ) -> None:
        super().__init__(config)
        width = config.channels[-1]
        cells = (size // config.d) ** 2
        self.to_latent = (
            nn.Conv2d(width, out, 1)
            if spatial
            else nn.Sequential(
                nn.Conv2d(width, width // 8, 1), nn.Flatten(), nn.Linear(width // 8 * cells, out)
            )
        )

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b ..."]:
        return self.to_latent(self.features(x))  # type: ignore[no-any-return]


class Critic(Features):
    """From a slice to one number; without bias, which a difference of two means cannot train."""

    def __init__(self, config: AutoencoderConfig, size: int) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.channels[-1] * (size // config.d) ** 2, 1, bias=False)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1"]:
        return self.head(self.features(x).flatten(1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """The way back from a latent vector, or a map of them, to a slice."""

    def __init__(
        self, config: AutoencoderConfig, size: int, latent: int, *, spatial: bool = False
    ) -> None:
        super().__init__()
        width, rows = config.channels[-1], size // config.d
        narrow = width // 8
        self.from_latent = (
            nn.Conv2d(latent, width, 1)
            if spatial
            else nn.Sequential(
                nn.Linear(latent, narrow * rows**2),
                nn.Unflatten(1, (narrow, rows, rows)),
                nn.Conv2d(narrow, width, 1),
            )
        )
        levels: list[nn.Module] = []
        for c in reversed(config.channels):
            levels += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width, c, 3, padding=1),
                *_blocks(c, c, config.blocks),
            ]
            width = c
        self.levels = nn.Sequential(*levels)
        self.norm = GroupNorm(groups(width), width)
        self.head = nn.Sequential(
            nn.Conv2d(width, config.stem**2, 3, padding=1), nn.PixelShuffle(config.stem)
        )

    def forward(self, z: Float[Tensor, "b ..."]) -> Float[Tensor, "b 1 h w"]:
        return self.head(functional.silu(self.norm(self.levels(self.from_latent(z)))))  # type: ignore[no-any-return]
