"""MAEDiff (arXiv 2401.10561): patch-wise diffusion whose U-Net carries a masked autoencoder.

x~_t      = M * x_t + (1 - M) * x0                      noise in one upper-level patch, the rest clean
F         = Enc(x~_t, t);   F' = MAE(F, visible cells)
x0_pred   = Dec(F', skips, t)
loss      = mean over M of | x0 - x0_pred |
reference = mean over the overlapping patches k of x0_pred^(k) inside M_k
"""

from dataclasses import field
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.patches import PatchGrid, check_cells, insert, noised_cells, patch_mask
from maediff.diffusion.process import cosine_alpha_bar, forward_process
from maediff.methods.base import (
    Method,
    Objective,
    Prediction,
    check_size,
    check_slices,
    from_signed,
    to_signed,
)
from maediff.methods.patchwise import PatchwiseConfig, patch_loss, slide
from maediff.methods.residual import residual_of
from maediff.nn.mae import MAE, MAEConfig
from maediff.nn.unet import UNet, UNetConfig


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MAEDiffConfig(PatchwiseConfig):
    """p, s and r are the paper's: upper-level patch, stride, sub-level cell, all in pixels."""

    r: int = 16
    visible_from: Literal["perturbed", "clean"] = "perturbed"
    """Visible tokens from F of the perturbed slice, into which convolutions leak noise, or from Enc((1 - M) x0)."""
    unet: UNetConfig = field(default_factory=UNetConfig)
    mae: MAEConfig = field(default_factory=MAEConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.unet.d, p=self.p, r=self.r)
        check_cells(PatchGrid(self.size, self.p, self.s), self.r, self.unet.d)


class MAEDiff(Method):
    """Redraws each patch as it would look if healthy, guided by the clean surroundings."""

    def __init__(self, config: MAEDiffConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = PatchGrid(config.size, config.p, config.s)
        self.alpha_bar = cosine_alpha_bar(config.steps)
        self.unet = UNet(config.unet)
        self.mae = MAE(
            channels=config.unet.channels[-1],
            cell=config.r // config.unet.d,
            rows=config.size // config.r,
            hidden=(config.p // config.r) ** 2,
            config=config.mae,
        )

    def denoise(
        self,
        perturbed: Float[Tensor, "b 1 h w"],
        t: Int[Tensor, " b"],
        corners: Int[Tensor, "b 2"],
    ) -> Float[Tensor, "b 1 h w"]:
        """x0_pred from the partially perturbed slice (the paper's Fig. 2)."""
        noised = noised_cells(corners, self.config.p, self.config.size, self.config.r)
        feature_map, skips, time = self.unet.encode(perturbed, t)
        visible_map = None
        if self.config.visible_from == "clean":
            mask = patch_mask(corners, self.config.p, self.config.size)[:, None]
            visible_map = self.unet.encode(perturbed.masked_fill(mask, 0), t)[0]
        return self.unet.decode(self.mae(feature_map, noised, visible_map), skips, time)

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The training procedure: one random patch of each slice is diffused and reconstructed (Fig. 1a)."""
        check_slices(x, self.config.size)
        x0, given, b = to_signed(x), to_signed(x if seen is None else seen), len(x)
        t = self.config.training_times(b, generator)
        corners = self.grid.corners[
            torch.randint(len(self.grid.corners), (b,), generator=generator)
        ].to(x.device)
        mask = patch_mask(corners, self.config.p, self.config.size)[:, None]
        patches = (b, self.config.p, self.config.p)
        noise = self.config.noise_of(patches, generator, x.device)
        x_t = forward_process(
            given, insert(noise, corners, self.config.size), self.alpha_bar[t].to(x.device)
        )
        perturbed = torch.where(mask, x_t, given)
        return patch_loss(self.denoise(perturbed, t.to(x.device), corners), x0, mask, self.config)

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
        """The testing procedure: slide over the slice, reconstruct every patch, average, compare (Fig. 1b)."""
        check_slices(x, self.config.size)
        brain = x > 0 if brain is None else brain
        x0 = to_signed(x.clamp_max(1))
        redrawn = slide(
            x0,
            brain,
            slice_ids,
            self.denoise,
            self.alpha_bar,
            self.config,
            seed=seed,
            batch_size=batch_size,
        )
        reference = from_signed(redrawn)
        return Prediction(residual_of(x, reference, brain, self.config), reference)
