"""Building blocks of the networks.

residual block     h = conv1(SiLU(norm(x)));  h = norm(h) (1 + scale(t)) + shift(t)
                   y = skip(x) + conv2(SiLU(h))
attention          y = softmax(q k^T / sqrt(d)) v
transformer block  x = x + attention(norm(x));  y = x + MLP(norm(x))
position, time     [cos(a w_i), sin(a w_i)],  w_i = 10000^(-i / (dim / 2))
"""

import math
from typing import Literal, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

M = TypeVar("M", bound=nn.Module)
Resample = Literal["down", "up"]
"""Halve or double the resolution."""


def group_count(channels: int) -> int:
    """Return the groups of a GroupNorm: 32 (Ho et al. 2020), or at most 8 below 128 channels."""
    return math.gcd(32, channels) if channels >= 128 else math.gcd(8, channels)


class GroupNorm(nn.GroupNorm):
    """GroupNorm whose output has the type of its input. The statistics are always fp32.

    CUDA's autocast would run the norm in fp32, and then every operation up to the next
    convolution. That moves twice the bytes.
    """

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        with torch.autocast(x.device.type, enabled=False):
            return functional.group_norm(
                x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps
            )


def zero_init(module: M) -> M:
    """Set all weights of `module` to zero, so that its residual branch starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def sincos(
    positions: Float[Tensor, " n"], dim: int, max_period: float = 10_000.0
) -> Float[Tensor, "n dim"]:
    """Return the sine and cosine embedding of positions or time steps.

    Source: Vaswani et al. 2017, section 3.5 (https://arxiv.org/abs/1706.03762).

    Args:
        positions: positions or time steps.
        dim: length of an embedding, an even number.
        max_period: longest period, in units of `positions`, divided by 2 pi.
    """
    frequencies = torch.exp(
        -math.log(max_period) * torch.arange(dim // 2, device=positions.device) / (dim // 2)
    )
    angles = positions[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def sincos_2d(rows: int, columns: int, dim: int) -> Float[Tensor, "n dim"]:
    """Return fixed position embeddings for a grid of tokens, row by row (He et al. 2022).

    Half of the dimensions encode the row, the other half the column.

    Args:
        rows: rows of tokens.
        columns: columns of tokens.
        dim: length of an embedding, a multiple of 4.
    """
    y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
    return torch.cat([sincos(y.flatten(), dim // 2), sincos(x.flatten(), dim // 2)], dim=1)


class TimeEmbedding(nn.Module):
    """Embedding of the time step, with 4 * `width` numbers, shared by all residual blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )

    def forward(self, t: Int[Tensor, " b"]) -> Float[Tensor, "b e"]:
        return self.mlp(sincos(t.float(), self.width))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """Two convolutions with a skip; the time step scales and shifts between them (FiLM).

    Source: Dhariwal and Nichol 2021, section 3 (https://arxiv.org/abs/2105.05233).

    Args:
        channels_in: channels of the input.
        channels: channels of the output.
        time_dim: length of the time embedding.
        resample: halve (2 x 2 mean) or double (nearest neighbour) the resolution of both branches
            before the first convolution; None keeps the resolution.
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
        self.norm1 = GroupNorm(group_count(channels_in), channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.film = nn.Linear(time_dim, 2 * channels)
        self.norm2 = GroupNorm(group_count(channels), channels)
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
        y: Tensor = self.skip(self.resample(x)) + self.conv2(functional.silu(h))
        return y


class Attention(nn.Module):
    """Multi-head self-attention over tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        q, k, v = rearrange(
            self.qkv(x), "b n (qkv heads c) -> qkv b heads n c", qkv=3, heads=self.heads
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        merged: Tensor = self.proj(rearrange(y, "b heads n c -> b n (heads c)"))
        return merged


class SpatialAttention(nn.Module):
    """Self-attention over the pixels of a feature map, added to the map."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = GroupNorm(group_count(channels), channels)
        self.attention = Attention(channels, heads)
        zero_init(self.attention.proj)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.attention(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        added: Tensor = x + rearrange(y, "b (h w) c -> b c h w", h=x.shape[2])
        return added


class TransformerBlock(nn.Module):
    """Attention and a two-layer perceptron, each with LayerNorm and a skip.

    Source: Dosovitskiy et al. 2021, eq. 2 and 3 (https://arxiv.org/abs/2010.11929).
    """

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
