"""The masked autoencoder between the two halves of the U-Net (Fig. 2 of the paper).

    z_i = Embed(F cell i) + pos_i + kind_i    one token per sub-level cell; kind: visible or noised
    u   = Enc({ z_i : i visible })            the encoder sees visible tokens only
    y   = Dec([W_z z ; W_u u])[map]           "along with the entire feature map"
    F'  = F + Up(Reshape(Proj(y)))            "reshaped and upsampled", before the middle block

W_u and W_z are linear layers.
Masked autoencoder: He et al. 2022 (https://arxiv.org/abs/2111.06377).
"""

from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from maediff.nn.layers import TransformerBlock, sincos_2d, zero_init


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MAEConfig:
    """Size of the masked autoencoder, and our choices for details that the paper leaves open."""

    dim: int = 256
    encoder_blocks: int = 4
    decoder_blocks: int = 2
    heads: int = 8
    fusion: Literal["concat", "add", "replace", "map_only", "visible_only"] = "concat"
    """Input tokens of the decoder, from u and z after a linear layer each.

    `concat`: all z, then u (the literal meaning of the paper's text). `add`: z_i + u_i if visible,
    else z_i. `replace`: u_i if visible, else z_i. For the ablation: `map_only` (all z, without the
    encoder) and `visible_only` (u_i if visible, else a mask token, without the map)."""
    back: Literal["add", "replace"] = "add"
    """`add`: F' = F + Up(...). `replace`: F' = Up(...)."""
    up: Literal["bilinear", "unpatchify"] = "bilinear"
    """`bilinear`: one vector per cell, upsampled (the literal meaning of the paper's text).
    `unpatchify`: one vector for each position of the cell."""

    def __post_init__(self) -> None:
        if min(self.dim, self.heads, self.decoder_blocks, self.encoder_blocks) < 1:
            raise ValueError(
                f"dim={self.dim}, heads={self.heads}, encoder_blocks={self.encoder_blocks} and "
                f"decoder_blocks={self.decoder_blocks} must be at least 1"
            )
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(f"dim={self.dim} must be a multiple of 4 and of heads={self.heads}")


class MAE(nn.Module):
    """Masked autoencoder that refines a feature map with its visible cells.

    Args:
        channels: channels of the feature map F.
        cell: pixels of F per token along one axis, r / d.
        rows: tokens per slice along one axis, H / r.
        hidden: number of tokens that noise touches, (p / r)^2. The number is fixed in advance,
            because counting tokens on a GPU would make Python wait for the GPU.
        config: size and choices.
    """

    def __init__(
        self, channels: int, cell: int, rows: int, hidden: int, config: MAEConfig
    ) -> None:
        super().__init__()
        self.config, self.cell, self.rows, self.visible = config, cell, rows, rows**2 - hidden
        dim = config.dim
        self.embed = nn.Linear(channels * cell**2, dim)
        self.kind = nn.Embedding(2, dim)  # 0 visible, 1 noised
        nn.init.normal_(self.kind.weight, std=0.02)
        self.register_buffer("positions", sincos_2d(rows, rows, dim), persistent=False)
        encodes = config.fusion != "map_only"
        self.encoder = nn.ModuleList(
            TransformerBlock(dim, config.heads)
            for _ in range(config.encoder_blocks if encodes else 0)
        )
        self.encoder_norm = nn.LayerNorm(dim) if encodes else nn.Identity()
        self.visible_to_decoder = nn.Linear(dim, dim) if encodes else nn.Identity()
        self.map_to_decoder = (
            nn.Linear(dim, dim) if config.fusion != "visible_only" else nn.Identity()
        )
        if config.fusion == "visible_only":
            self.mask_token = nn.Parameter(0.02 * torch.randn(dim))
        self.decoder = nn.ModuleList(
            TransformerBlock(dim, config.heads) for _ in range(config.decoder_blocks)
        )
        self.decoder_norm = nn.LayerNorm(dim)
        self.proj = nn.Linear(dim, channels if config.up == "bilinear" else channels * cell**2)
        if config.back == "add":
            zero_init(
                self.proj
            )  # training starts at F' = F, like every residual branch (our choice)

    def tokens(
        self, feature_map: Float[Tensor, "b c h w"], noised: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n d"]:
        """Return z: the embedding of each cell, plus its position, plus visible or noised.

        Args:
            feature_map: F.
            noised: true for each cell that noise touches.
        """
        z: Tensor = (
            self.embed(patchify(feature_map, self.cell))
            + self.positions
            + self.kind(noised.long())
        )
        return z

    def forward_encoder(
        self, z: Float[Tensor, "b n d"], visible: Int[Tensor, "b v"]
    ) -> Float[Tensor, "b v d"]:
        """Return u: the encoded visible tokens. The encoder never sees the other tokens.

        Args:
            z: all tokens.
            visible: indices of the visible tokens.
        """
        u = z.gather(1, repeat(visible, "b v -> b v d", d=z.shape[2]))
        for block in self.encoder:
            u = block(u)
        return self.encoder_norm(u)  # type: ignore[no-any-return]

    def forward_decoder(
        self, u: Float[Tensor, "b v d"], z: Float[Tensor, "b n d"], visible: Int[Tensor, "b v"]
    ) -> Float[Tensor, "b n d"]:
        """Return y: one token per cell, from the encoded visible tokens and the entire map.

        Args:
            u: encoded visible tokens.
            z: all tokens.
            visible: indices of the visible tokens.
        """
        u, fusion = self.visible_to_decoder(u), self.config.fusion
        index = repeat(visible, "b v -> b v d", d=z.shape[2])
        if fusion == "visible_only":
            hidden = (self.mask_token + self.get_buffer("positions")).to(u.dtype)
            y = hidden.expand(z.shape).scatter(1, index, u)
        else:
            y = self.map_to_decoder(z)
            if fusion == "add":
                y = y.scatter_add(1, index, u)
            elif fusion == "replace":
                y = y.scatter(1, index, u)
            elif fusion == "concat":
                y = torch.cat([y, u], dim=1)  # the map first: its n tokens are the result
        for block in self.decoder:
            y = block(y)
        return self.decoder_norm(y[:, : z.shape[1]])  # type: ignore[no-any-return]

    def forward(
        self,
        feature_map: Float[Tensor, "b c h w"],
        noised: Bool[Tensor, "b n"],
        visible_map: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return F'.

        Args:
            feature_map: F.
            noised: true for each cell that noise touches, `hidden` cells in every image.
            visible_map: source of the visible tokens. By default, F itself is the source.
        """
        z = self.tokens(feature_map, noised)
        visible = noised.int().argsort(dim=1, stable=True)[:, : self.visible]
        source = z if visible_map is None else self.tokens(visible_map, noised)
        u = self.forward_encoder(source, visible)
        y = self.proj(self.forward_decoder(u, z, visible))
        if self.config.up == "bilinear":
            low = unpatchify(y, 1, self.rows)
            up = functional.interpolate(
                low, scale_factor=float(self.cell), mode="bilinear", align_corners=False
            )
        else:
            up = unpatchify(y, self.cell, self.rows)
        return feature_map + up if self.config.back == "add" else up


def patchify(feature_map: Float[Tensor, "b c h w"], cell: int) -> Float[Tensor, "b n d"]:
    """Cut a feature map into cells of `cell` x `cell` pixels.

    Returns:
        One flat vector per cell, row by row.

    Example:
        >>> patchify(torch.arange(16.0).view(1, 1, 4, 4), cell=2)[0, 0]
        tensor([0., 1., 4., 5.])
    """
    tokens: Tensor = rearrange(feature_map, "b c (h i) (w j) -> b (h w) (c i j)", i=cell, j=cell)
    return tokens


def unpatchify(tokens: Float[Tensor, "b n d"], cell: int, rows: int) -> Float[Tensor, "b c h w"]:
    """Rebuild the feature map from the vectors of `patchify`.

    Args:
        tokens: one flat vector per cell, row by row.
        cell: rows and columns of a cell.
        rows: cells along one axis.
    """
    feature_map: Tensor = rearrange(
        tokens, "b (h w) (c i j) -> b c (h i) (w j)", h=rows, i=cell, j=cell
    )
    return feature_map
