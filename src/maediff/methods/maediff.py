"""MAEDiff: patch-wise diffusion whose U-Net contains a masked autoencoder.

    x~_t      = M x_t + (1 - M) x0                  noise in one upper-level patch, the rest clean
    F         = Enc(x~_t, t);   F' = MAE(F, visible cells)
    x0_pred   = Dec(F', skips, t)
    loss      = mean over M of |x0 - x0_pred|
    reference = average over the overlapping patches k of x0_pred^(k) inside M_k

Source: Xu, Wang and Du 2024 (https://arxiv.org/abs/2401.10561).
"""

from dataclasses import field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.patches import PatchGrid, check_cells, noised_cells, patch_mask
from maediff.diffusion.process import cosine_alpha_bar
from maediff.methods.base import (
    GraphableNetwork,
    Method,
    Objective,
    check_size,
    check_slices,
    to_signed,
)
from maediff.methods.patchwise import PatchwiseConfig, noise_one_patch, patch_loss, slide
from maediff.nn.mae import MAE, MAEConfig
from maediff.nn.unet import UNet, UNetConfig


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MAEDiffConfig(PatchwiseConfig):
    """Settings of MAEDiff. p, s and r are the paper's: patch, stride and cell, all in pixels."""

    r: int = 16
    visible_from: Literal["perturbed", "clean"] = "perturbed"
    """Source of the visible tokens. `perturbed`: F of the perturbed slice; convolutions leak noise
    into its visible cells. `clean`: Enc((1 - M) x0), a second pass through the encoder."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    mae: MAEConfig = field(default_factory=MAEConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.unet.d, p=self.p, r=self.r)
        check_cells(PatchGrid(self.size, self.p, self.s), self.r, self.unet.d)


class MAEDiff(Method):
    """Patch-wise diffusion with a masked autoencoder, conditioned on the clean surroundings."""

    config: MAEDiffConfig

    def __init__(self, config: MAEDiffConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = PatchGrid(config.size, config.p, config.s)
        self.training_grid = self.grid
        self.alpha_bar = cosine_alpha_bar(config.steps)
        self.unet = UNet(config.unet)
        self.mae = MAE(
            channels=config.unet.channels[-1],
            cell=config.r // config.unet.d,
            rows=config.size // config.r,
            hidden=(config.p // config.r) ** 2,
            config=config.mae,
        )

    def forward(
        self,
        perturbed: Float[Tensor, "b 1 h w"],
        t: Int[Tensor, " b"],
        corners: Int[Tensor, "b 2"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Run the network of Fig. 2: encode, refine with the masked autoencoder, decode.

        Args:
            perturbed: x~_t, in [-1, 1] where clean.
            t: time step of each slice.
            corners: first row and column of the noised patch of each slice.
        """
        noised = noised_cells(corners, self.config.p, self.config.size, self.config.r)
        feature_map, skips, time = self.unet.encode(perturbed, t)
        visible_map = None
        if self.config.visible_from == "clean":
            mask = patch_mask(corners, self.config.p, self.config.size)[:, None]
            visible_map = self.unet.encode(perturbed.masked_fill(mask, 0), t)[0]
        return self.unet.decode(self.mae(feature_map, noised, visible_map), skips, time)

    def denoise(
        self,
        perturbed: Float[Tensor, "b 1 h w"],
        t: Int[Tensor, " b"],
        corners: Int[Tensor, "b 2"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Predict x0 from partially perturbed slices (Fig. 2).

        Args:
            perturbed: x~_t, in [-1, 1] where clean.
            t: time step of each slice.
            corners: first row and column of the noised patch of each slice.
        """
        x0_pred: Tensor = self(perturbed, t, corners)
        return x0_pred

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The training procedure (Fig. 1a): noise and reconstruct one random patch per slice."""
        check_slices(x, self.config.size)
        x0, x0_seen = to_signed(x), to_signed(x if seen is None else seen)
        perturbed, t, corners, mask = noise_one_patch(
            x0_seen, self.training_grid, self.alpha_bar, self.config, generator
        )
        x0_pred = self.denoise(perturbed, t, corners)
        return patch_loss(x0_pred, x0, mask, self.config)

    def objectives(self) -> list[Objective]:
        return [Objective(self.config.loss, self.loss, list(self.parameters()))]

    def graphable_network(self, batch_size: int) -> GraphableNetwork:
        x, t = self.unet.example_inputs(batch_size, self.config.size)
        return GraphableNetwork(self, (x, t, t.new_zeros(batch_size, 2)))

    def reconstruct(
        self,
        x0: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """The testing procedure (Fig. 1b): slide over the slice, reconstruct patches, average."""
        return slide(
            x0,
            brain,
            slice_ids,
            self.denoise,
            self.alpha_bar,
            self.config,
            seed=seed,
            batch_size=batch_size,
        )
