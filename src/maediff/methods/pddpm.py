"""pDDPM: patched diffusion at any stride, MAEDiff without its masked autoencoder.

    x~_t      = M x_t + (1 - M) x0                  noise in one patch, the rest clean
    x0_pred   = UNet(x~_t, t)
    loss      = mean over M of |x0 - x0_pred|
    reference = average over the patches k of x0_pred^(k) inside M_k

Training draws patches from the grid of stride `s_train`, so one training serves every stride `s`
at test. The paper's pDDPM (s48) and pDDPM (s16) are one run here, tested with s=48 and s=16.

Source: Behrendt et al. 2023 (https://arxiv.org/abs/2303.03758).
"""

from dataclasses import field

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion.patches import PatchGrid
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
from maediff.nn.unet import UNet, UNetConfig


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PDDPMConfig(PatchwiseConfig):
    """Settings of pDDPM: patch p and strides s (test) and s_train (training), in pixels."""

    s_train: int = 16
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.unet.d, p=self.p)
        PatchGrid(self.size, self.p, self.s_train)  # rejects a stride that does not fit


class PDDPM(Method):
    """Patch-wise diffusion; the U-Net sees the clean surroundings of the patch."""

    config: PDDPMConfig

    def __init__(self, config: PDDPMConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = PatchGrid(config.size, config.p, config.s)
        self.training_grid = PatchGrid(config.size, config.p, config.s_train)
        self.alpha_bar = cosine_alpha_bar(config.steps)
        self.unet = UNet(config.unet)

    def denoise(
        self,
        perturbed: Float[Tensor, "b 1 h w"],
        t: Int[Tensor, " b"],
        corners: Int[Tensor, "b 2"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Predict x0 from partially perturbed slices. The U-Net does not know the patch.

        Args:
            perturbed: x~_t, in [-1, 1] where clean.
            t: time step of each slice.
            corners: ignored; MAEDiff uses the corners of the noised patches.
        """
        x0_pred: Tensor = self.unet(perturbed, t)
        return x0_pred

    def loss(
        self,
        x: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
        seen: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """The training procedure: noise and reconstruct one random patch per slice."""
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
        return GraphableNetwork(self.unet, self.unet.example_inputs(batch_size, self.config.size))

    def reconstruct(
        self,
        x0: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """The testing procedure: slide over the slice, reconstruct patches, average."""
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
