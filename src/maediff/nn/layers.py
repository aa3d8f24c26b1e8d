"""Blocks that the networks are built of: time embedding, residual block with FiLM, attention, transformer block."""

import math
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


def groups(channels: int) -> int:
    """Number of groups for GroupNorm: 32 as in Ho et al. 2020, fewer where the channels are few."""
    return math.gcd(32, channels) if channels >= 128 else math.gcd(8, channels)


class GroupNorm(nn.GroupNorm):
    """GroupNorm that comes out in the type that it is given; its statistics are fp32 either way.

    CUDA's autocast would do it, and with it all up to the next convolution, in fp32: twice the bytes to move.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        with torch.autocast(x.device.type, enabled=False):
            return functional.group_norm(
                x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
            )


M = TypeVar("M", bound=nn.Module)
Resample = Literal["down", "up"]


def zero_init(module: M) -> M:
    """`module` with zero weights, so that the branch that it ends starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def sincos(
    positions: Float[Tensor, " n"], dim: int, max_period: float = 10_000.0
) -> Float[Tensor, "n dim"]:
    """Sine and cosine embedding of positions or time steps (Vaswani et al. 2017, section 3.5)."""
    frequencies = torch.exp(
        -math.log(max_period) * torch.arange(dim // 2, device=positions.device) / (dim // 2)
    )
    angles = positions[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sincos_2d(rows: int, columns: int, dim: int) -> Float[Tensor, "n dim"]:
    """Fixed 2-D positions of a grid of tokens, row by row: half of the dimensions for each axis (He et al. 2022)."""
    y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
    return torch.cat([sincos(y.flatten(), dim // 2), sincos(x.flatten(), dim // 2)], dim=1)


class TimeEmbedding(nn.Module):
    """Embedding of the time step, shared by all residual blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )

    def forward(self, t: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        return self.mlp(sincos(t.float(), self.width))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions; the time step scales and shifts between them (FiLM; Dhariwal & Nichol 2021, section 3).

    With `resample`, both branches halve (2 x 2 mean) or double (nearest) the resolution before the first convolution.
    """

    def __init__(
        self, channels_in: int, channels: int, time_dim: int, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.resample = {
            None: nn.Identity(),
            "down": nn.AvgPool2d(2),
            "up": nn.Upsample(scale_factor=2),
        }[resample]
        self.norm1 = GroupNorm(groups(channels_in), channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.film = nn.Linear(time_dim, 2 * channels)
        self.norm2 = GroupNorm(groups(channels), channels)
        self.conv2 = zero_init(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = (
            nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        )

    def forward(
        self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b k y x"]:
        scale, shift = self.film(functional.silu(time))[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(self.resample(functional.silu(self.norm1(x))))
        h = self.norm2(h) * (1 + scale) + shift
        return self.skip(self.resample(x)) + self.conv2(functional.silu(h))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, c))  # type: ignore[no-any-return]


class SpatialAttention(nn.Module):
    """Self-attention over the pixels of a feature map, added to it."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups(channels), channels)
        self.attention = Attention(channels, heads)
        zero_init(self.attention.proj)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(tokens).transpose(1, 2).view_as(x)  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a LayerNorm and added (Dosovitskiy et al. 2021)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim)
        )

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]
