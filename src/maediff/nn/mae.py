"""The masked autoencoder between the U-Net's two halves (the paper's Fig. 2; He et al. 2022, arXiv 2111.06377).

z_i = Embed(F cell i) + pos_i + kind_i            one token a sub-level cell; kind = visible | noised
u   = MAEenc({ z_i : i visible })                 the encoder sees visible tokens only
y   = MAEdec( W_u u together with all W_z z )[map]  "along with the entire feature map"; W_u, W_z: a linear layer each
F'  = F + Up(Reshape(Proj(y)))                    "reshaped and upsampled", before the middle block
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from maediff.nn.layers import TransformerBlock, sincos_2d, zero_init


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MAEConfig:
    """Size of the masked autoencoder, and our readings where the paper's text is silent."""

    dim: int = 256
    encoder_blocks: int = 4
    decoder_blocks: int = 2
    heads: int = 8
    fusion: Literal["concat", "add", "replace", "map_only", "visible_only"] = "concat"
    """What the decoder reads, u and z after a linear layer each: [u ; all z] (`concat`, the literal reading);
    z_i + u_i where visible (`add`); u_i where visible and z_i where noised (`replace`). For the ablation: all z without
    the encoder (`map_only`), u and mask tokens without the map (`visible_only`)."""
    back: Literal["add", "replace"] = "add"
    """F' = F + Up(...) (`add`) or Up(...) alone (`replace`)."""
    up: Literal["bilinear", "unpatchify"] = "bilinear"
    """One vector a cell, upsampled (`bilinear`, the literal reading), or a vector for each position of the cell."""

    def __post_init__(self) -> None:
        if min(self.dim, self.heads, self.decoder_blocks, self.encoder_blocks) < 1:
            raise ValueError(
                f"dim={self.dim}, heads={self.heads}, encoder_blocks={self.encoder_blocks} and "
                f"decoder_blocks={self.decoder_blocks} must be at least 1"
            )
        if self.dim % self.heads or self.dim % 4:
            raise ValueError(f"dim={self.dim} must be a multiple of 4 and of heads={self.heads}")


class MAE(nn.Module):
    """Refines a feature map with what its visible cells tell.

    Args:
        channels: of the feature map F.
        cell: cells of F to a side of one token, r / d.
        rows: tokens to a side of the slice, H / r.
        hidden: tokens that noise touches, (p / r)^2: known beforehand, because counting them would stop a GPU.
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
            )  # F' = F at first, as every other branch that is added starts (ours)

    def tokens(
        self, feature_map: Float[Tensor, "b c h w"], noised: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n d"]:
        """z: an embedding of each cell, its position, and whether noise touches it."""
        z: Tensor = (
            self.embed(patchify(feature_map, self.cell))
            + self.positions
            + self.kind(noised.long())
        )
        return z

    def forward_encoder(
        self, z: Float[Tensor, "b n d"], visible: Tensor
    ) -> Float[Tensor, "b v d"]:
        """u: the visible tokens after the encoder, which never sees the others.

        Args:
            visible: (b, v) indices of the visible tokens.
        """
        u = z.gather(1, visible[:, :, None].expand(-1, -1, z.shape[2]))
        for block in self.encoder:
            u = block(u)
        return self.encoder_norm(u)  # type: ignore[no-any-return]

    def forward_decoder(
        self, u: Float[Tensor, "b v d"], z: Float[Tensor, "b n d"], visible: Tensor
    ) -> Float[Tensor, "b n d"]:
        """y: a token for every cell of the map, from the encoded visible tokens and the entire map."""
        u, fusion = self.visible_to_decoder(u), self.config.fusion
        at = visible[:, :, None].expand(-1, -1, z.shape[2])
        if fusion == "visible_only":
            y = (
                (self.mask_token + self.get_buffer("positions"))
                .to(u.dtype)
                .expand(z.shape)
                .scatter(1, at, u)
            )
        else:
            y = self.map_to_decoder(z)
            if fusion == "add":
                y = y.scatter_add(1, at, u)
            elif fusion == "replace":
                y = y.scatter(1, at, u)
            elif fusion == "concat":
                y = torch.cat(
                    [y, u], dim=1
                )  # the map first, so that its n positions are easy to take back
        for block in self.decoder:
            y = block(y)
        return self.decoder_norm(y[:, : z.shape[1]])  # type: ignore[no-any-return]

    def forward(
        self,
        feature_map: Float[Tensor, "b c h w"],
        noised: Bool[Tensor, "b n"],
        visible_map: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """F'.

        Args:
            noised: for each cell whether noise touches it; `hidden` cells in every image.
            visible_map: where the visible tokens come from; None takes F itself.
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
    """Feature map cut into sub-level cells of `cell` x `cell`, one flat vector a cell, row by row."""
    tokens: Tensor = rearrange(feature_map, "b c (h i) (w j) -> b (h w) (c i j)", i=cell, j=cell)
    return tokens


def unpatchify(tokens: Float[Tensor, "b n d"], cell: int, rows: int) -> Float[Tensor, "b c h w"]:
    """The feature map that `patchify` cut."""
    feature_map: Tensor = rearrange(
        tokens, "b (h w) (c i j) -> b c (h i) (w j)", h=rows, i=cell, j=cell
    )
    return feature_map
