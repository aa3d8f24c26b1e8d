"""pDDPM, patched diffusion (Behrendt et al. 2023, arXiv 2303.03758), at any stride: MAEDiff's first rival.

    x~_t      = M * x_t + (1 - M) * x0            noise in one patch, the rest clean
    x0_pred   = UNet(x~_t, t)
    loss      = mean over M of | x0 - x0_pred |
    reference = mean over the patches k of x0_pred^(k) inside M_k

Training draws patches from the grid of stride `s_train`, so one training serves any stride `s` at test: the paper's
pDDPM (s48) and pDDPM (s16) are one run here, read with s=48 and s=16.
"""

from dataclasses import field

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.patches import PatchGrid, insert, patch_mask
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
from maediff.nn.unet import UNet, UNetConfig


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PDDPMConfig(PatchwiseConfig):
    """Patch p and strides s (test) and s_train (training), in pixels."""

    s_train: int = 16
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.unet.d, p=self.p)
        PatchGrid(self.size, self.p, self.s_train)


class PDDPM(Method):
    """Redraws each patch as it would look if healthy; its U-Net sees the clean surroundings, without an autoencoder."""

    def __init__(self, config: PDDPMConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = PatchGrid(config.size, config.p, config.s)
        self.training_grid = PatchGrid(config.size, config.p, config.s_train)
        self.alpha_bar = cosine_alpha_bar(config.steps)
        self.unet = UNet(config.unet)

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The training procedure: one random patch of each slice is diffused and reconstructed."""
        check_slices(x, self.config.size)
        x0, given, b = to_signed(x), to_signed(x if seen is None else seen), len(x)
        t = self.config.training_times(b, generator)
        corners = self.training_grid.corners
        corners = corners[torch.randint(len(corners), (b,), generator=generator)].to(x.device)
        mask = patch_mask(corners, self.config.p, self.config.size)[:, None]
        patches = (b, self.config.p, self.config.p)
        noise = self.config.noise_of(patches, generator, x.device)
        x_t = forward_process(
            given, insert(noise, corners, self.config.size), self.alpha_bar[t].to(x.device)
        )
        perturbed = torch.where(mask, x_t, given)
        return patch_loss(self.unet(perturbed, t.to(x.device)), x0, mask, self.config)

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
        """The testing procedure: slide over the slice, reconstruct every patch, average, compare."""
        check_slices(x, self.config.size)
        brain = x > 0 if brain is None else brain
        redrawn = slide(
            to_signed(x.clamp_max(1)),
            brain,
            slice_ids,
            lambda x, t, _: self.unet(x, t),
            self.alpha_bar,
            self.config,
            seed=seed,
            batch_size=batch_size,
        )
        reference = from_signed(redrawn)
        return Prediction(residual_of(x, reference, brain, self.config), reference)
