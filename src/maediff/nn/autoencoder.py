"""Encoder and decoder around a narrow latent, without skip connections.

AE, VAE, SVAE and f-AnoGAN consist of these networks.

    x -> stem -> level 0 -> ... -> level L-1 -> (B, C, H/d, W/d) -> latent,    d = stem * 2^L
    x' <- head <- level 0 <- ... <- level L-1 <- (B, C, H/d, W/d) <- latent

The latent is a vector or a map of H/d x W/d vectors (`spatial`).
As in Baur et al. 2021, a 1 x 1 convolution to an eighth of the channels precedes the vector.
Baur et al. use plain convolutions; residual blocks are our choice, so that all methods here are
built from the same blocks.

Baur et al. 2021, "Autoencoders for unsupervised anomaly segmentation in brain MR images: a
comparative study", Medical Image Analysis 69.
"""

from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from maediff.nn.layers import GroupNorm, group_count, zero_init


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AutoencoderConfig:
    """Widths and depth of the encoder and of the decoder. The defaults are the `paper` preset."""

    channels: tuple[int, ...] = (128, 256, 256, 512)
    """Channels of each level. The resolution halves after each level."""
    blocks: int = 2
    """Residual blocks of each level."""
    stem: int = 1
    """Pixel-unshuffle factor before the first level. 1 is a plain convolution, 2 halves the
    resolution."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 8 or self.blocks < 1 or self.stem < 1:
            raise ValueError(
                f"channels={self.channels} must be at least 8, "
                f"blocks={self.blocks} and stem={self.stem} at least 1"
            )

    @property
    def d(self) -> int:
        """Pixels of the slice per pixel of the smallest feature map, along one axis."""
        return self.stem << len(self.channels)


class Block(nn.Module):
    """Two convolutions with a skip (He et al. 2016, pre-activation)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = GroupNorm(group_count(channels_in), channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = GroupNorm(group_count(channels), channels)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = (
            nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        h = self.conv1(functional.silu(self.norm1(x)))
        y: Tensor = self.skip(x) + self.conv2(functional.silu(self.norm2(h)))
        return y


def _make_blocks(channels_in: int, channels: int, blocks: int) -> list[nn.Module]:
    return [Block(channels_in if n == 0 else channels, channels) for n in range(blocks)]


class Features(nn.Module):
    """Layers from a slice down to its smallest feature map, shared by encoder and critic."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(config.stem),
            nn.Conv2d(config.stem**2, config.channels[0], 3, padding=1),
        )
        levels: list[nn.Module] = []
        width = config.channels[0]
        for c in config.channels:
            blocks = _make_blocks(width, c, config.blocks)
            levels += [*blocks, nn.Conv2d(c, c, 3, stride=2, padding=1)]
            width = c
        self.levels = nn.Sequential(*levels)
        self.norm = GroupNorm(group_count(width), width)

    def features(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c y x"]:
        """Return the smallest feature map."""
        return functional.silu(self.norm(self.levels(self.stem(x))))


class Encoder(Features):
    """Network from a slice to a latent vector, or to a map of latent vectors.

    Args:
        config: widths and depth.
        size: rows and columns of a slice.
        out: numbers in a vector.
        spatial: return a map of vectors instead of one vector.
    """

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
    """Network from a slice to one number.

    The head has no bias: a bias cancels in the difference of two means, so training would never
    change it.
    """

    def __init__(self, config: AutoencoderConfig, size: int) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.channels[-1] * (size // config.d) ** 2, 1, bias=False)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1"]:
        return self.head(self.features(x).flatten(1))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Network from a latent vector, or a map of latent vectors, to a slice.

    Args:
        config: widths and depth.
        size: rows and columns of a slice.
        latent: numbers in a vector.
        spatial: the latent is a map of vectors instead of one vector.
    """

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
                *_make_blocks(c, c, config.blocks),
            ]
            width = c
        self.levels = nn.Sequential(*levels)
        self.norm = GroupNorm(group_count(width), width)
        self.head = nn.Sequential(
            nn.Conv2d(width, config.stem**2, 3, padding=1), nn.PixelShuffle(config.stem)
        )

    def forward(self, z: Float[Tensor, "b ..."]) -> Float[Tensor, "b 1 h w"]:
        h = functional.silu(self.norm(self.levels(self.from_latent(z))))
        return self.head(h)  # type: ignore[no-any-return]
