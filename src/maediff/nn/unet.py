"""The diffusion U-Net in two halves: `encode` returns the feature map F, `decode` predicts x0.

    x~_t -> stem -> level 0 -> ... -> level L-1 -> F      (B, C, H/d, W/d),  d = stem * 2^(L-1)
                       |                  |
                     skips              skips
                       |                  |
    x0   <- head <- level 0 <- ... <- level L-1 <- middle(F')

Between F and F' is the bottleneck: nothing (pDDPM, DDPM) or the masked autoencoder (MAEDiff).
The network is that of Ho et al. 2020 (https://arxiv.org/abs/2006.11239) with the FiLM time
embedding of Dhariwal and Nichol 2021 (https://arxiv.org/abs/2105.05233).
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from maediff.nn.layers import (
    GroupNorm,
    Resample,
    ResidualBlock,
    SpatialAttention,
    TimeEmbedding,
    group_count,
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class UNetConfig:
    """Widths and depth. The defaults are the `paper` preset."""

    channels: tuple[int, ...] = (128, 256, 256)
    """Channels of each level. The resolution halves from one level to the next."""
    blocks: int = 3
    """Residual blocks of each level of `encode`. `decode` has one more per level."""
    attention: bool = True
    """Self-attention in the middle block."""
    resample: Literal["residual", "conv"] = "residual"
    """Layer between levels: a residual block (Dhariwal and Nichol 2021, as in pDDPM's code), or
    one convolution."""
    stem: int = 1
    """Pixel-unshuffle factor before the first level. 1 is a plain convolution, 2 halves the
    resolution."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1 or self.blocks < 1 or self.stem < 1:
            raise ValueError(
                f"channels={self.channels}, blocks={self.blocks} and stem={self.stem} "
                "must be at least 1"
            )
        if self.channels[0] % 2:
            raise ValueError(
                f"channels={self.channels}: the first is the time embedding's width, and must be "
                "even"
            )
        if self.attention and self.channels[-1] % self.heads:
            below = self.channels[-1] // 64 * 64
            raise ValueError(
                f"channels={self.channels}: attention with {self.heads} heads of 64 needs a last "
                f"one of {below} or {below + 64}"
            )

    @property
    def heads(self) -> int:
        """Heads of the attention: one for every 64 channels."""
        return max(1, self.channels[-1] // 64)

    @property
    def d(self) -> int:
        """Pixels of the slice per pixel of the feature map F, along one axis."""
        return self.stem << (len(self.channels) - 1)


class UNet(nn.Module):
    """Network that predicts x0 from a noised or partially noised slice and the time step."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        width, blocks = config.channels[0], config.blocks
        time_dim = 4 * width
        self.time = TimeEmbedding(width)
        self.stem = nn.Conv2d(config.stem**2, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.downsample, self.upsample = nn.ModuleList(), nn.ModuleList()
        skips, channels = [width], width
        for level, c in enumerate(config.channels):
            if level:
                self.downsample.append(self._make_resampler(channels, time_dim, "down"))
                skips.append(channels)
            down_blocks = nn.ModuleList()
            for _ in range(blocks):
                down_blocks.append(ResidualBlock(channels, c, time_dim))
                channels = c
                skips.append(c)
            self.down.append(down_blocks)
        self.middle1 = ResidualBlock(channels, channels, time_dim)
        self.middle_attention = (
            SpatialAttention(channels, config.heads) if config.attention else nn.Identity()
        )
        self.middle2 = ResidualBlock(channels, channels, time_dim)
        for level, c in reversed(list(enumerate(config.channels))):
            up_blocks = nn.ModuleList()
            for _ in range(blocks + 1):
                up_blocks.append(ResidualBlock(channels + skips.pop(), c, time_dim))
                channels = c
            self.up.append(up_blocks)
            if level:
                self.upsample.append(self._make_resampler(channels, time_dim, "up"))
        self.head_norm = GroupNorm(group_count(channels), channels)
        self.head = nn.Conv2d(channels, config.stem**2, 3, padding=1)

    def _make_resampler(self, channels: int, time_dim: int, way: Resample) -> nn.Module:
        if self.config.resample == "residual":
            return ResidualBlock(channels, channels, time_dim, way)
        return nn.Conv2d(channels, channels, 3, stride=2 if way == "down" else 1, padding=1)

    @staticmethod
    def _resample(module: nn.Module, h: Tensor, time: Tensor, way: Resample) -> Tensor:
        if isinstance(module, ResidualBlock):
            return module(h, time)  # type: ignore[no-any-return]
        if way == "up":
            h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
        return module(h)  # type: ignore[no-any-return]

    def encode(
        self, x: Float[Tensor, "b 1 h w"], t: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b c y x"], list[Tensor], Float[Tensor, "b e"]]:
        """Return the feature map F, the skip connections and the time embedding.

        Args:
            x: slices in [-1, 1], noised or partially noised.
            t: time step of each slice.
        """
        time = self.time(t)
        h = self.stem(functional.pixel_unshuffle(x, self.config.stem))
        skips = [h]
        for level, blocks in enumerate(self.down):
            if level:
                h = self._resample(self.downsample[level - 1], h, time, "down")
                skips.append(h)
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, time)
                skips.append(h)
        return h, skips, time

    def decode(
        self,
        feature_map: Float[Tensor, "b c y x"],
        skips: list[Tensor],
        time: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Predict x0 from F (or F'), the skip connections and the time embedding.

        Args:
            feature_map: F, or F' from a bottleneck.
            skips: skip connections from `encode`.
            time: time embedding from `encode`.
        """
        skips = list(skips)
        h = self.middle2(self.middle_attention(self.middle1(feature_map, time)), time)
        for level, blocks in enumerate(self.up):
            if level:
                h = self._resample(self.upsample[level - 1], h, time, "up")
            for block in blocks:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), time)
        h = self.head(functional.silu(self.head_norm(h)))
        return functional.pixel_shuffle(h, self.config.stem)

    def forward(
        self, x: Float[Tensor, "b 1 h w"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b 1 h w"]:
        """Predict x0 without a bottleneck, see `encode` for the arguments."""
        return self.decode(*self.encode(x, t))

    def example_inputs(self, b: int, size: int) -> tuple[Tensor, Tensor]:
        """Return (x, t) of zeros for a batch of `b` slices of size x size, on the net's device."""
        device = self.stem.weight.device
        return (
            torch.zeros(b, 1, size, size, device=device),
            torch.zeros(b, dtype=torch.long, device=device),
        )
