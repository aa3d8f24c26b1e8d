"""pDDPM, patched diffusion (Behrendt et al. 2023, arXiv 2303.03758), at any stride: MAEDiff's first rival.

    x~_t      = M * x_t + (1 - M) * x0            noise in one patch, the rest clean
    x0_pred   = UNet(x~_t, t)
    loss      = mean over M of | x0 - x0_pred |
    reference = mean over the patches k of x0_pred^(k) inside M_k

Training draws patches from the grid of stride `s_train`, so one training serves any stride `s` at test: the paper's
pDDPM (s48) and pDDPM (s16) are one run here, read with s=48 and s=16.
"""

from dataclasses import field
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.diffusion import cosine_alpha_bar, forward_process, reverse_chain
from maediff.methods.base import (
    DiffusionConfig,
    Method,
    Objective,
    Prediction,
    check_size,
    check_slices,
    from_signed,
    to_signed,
)
from maediff.methods.comparison import reconstruction_loss, residual_of
from maediff.nn.unet import UNet, UNetConfig
from maediff.noise import draw_noise, keyed_generators
from maediff.patches import (
    Merge,
    PatchGrid,
    PatchMerger,
    insert,
    patch_mask,
    patches_with_brain,
)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PDDPMConfig(DiffusionConfig):
    """Patch p and strides s (test) and s_train (training), in pixels."""

    p: int = 48
    s: int = 16
    s_train: int = 16
    merge: Merge = "mean"
    unet: UNetConfig = field(default_factory=UNetConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, self.unet.d)
        PatchGrid(self.size, self.p, self.s)
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
        """The training procedure: one random patch of each slice is diffused and reconstructed ."""
        check_slices(x, self.config.size)
        x0, given, b = to_signed(x), to_signed(x if seen is None else seen), len(x)
        t = self.config.training_times(b, generator)
        corners = self.training_grid.corners
        corners = corners[torch.randint(len(corners), (b,), generator=generator)].to(x.device)
        mask = patch_mask(corners, self.config.p, self.config.size)[:, None]
        noise = draw_noise(self.config.noise, (b, self.config.p, self.config.p), generator, x.device)
        x_t = forward_process(given, insert(noise, corners, self.config.size), self.alpha_bar[t].to(x.device))
        perturbed = torch.where(mask, x_t, given)
        return reconstruction_loss(self.unet(perturbed, t.to(x.device)), x0, mask, self.config.loss)

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
        """The testing procedure: slide over the slice, reconstruct every patch, average, compare ."""
        check_slices(x, self.config.size)
        x0 = to_signed(x)
        brain = x > 0 if brain is None else brain
        merger = PatchMerger(x0, self.config.p, self.config.merge)
        for slices, patches in patches_with_brain(brain, self.grid, batch_size):
            corners = self.grid.corners.to(x.device)[patches]
            mask = patch_mask(corners, self.config.p, self.config.size)[:, None]
            clean = x0[slices]
            for t, draw in product(self.config.t_test, range(self.config.draws)):
                keys = keyed_generators(seed, slice_ids[slices.cpu()], patches.cpu(), draw)
                noise = draw_noise(self.config.noise, (len(slices), self.config.p, self.config.p), keys, x.device)
                level = self.alpha_bar[t].expand(len(slices)).to(x.device)
                x_t = forward_process(clean, insert(noise, corners, self.config.size), level)
                x0_pred = reverse_chain(
                    lambda x, t: self.unet(torch.where(mask, x, clean), t).float(),  # noqa: B023
                    x_t,
                    self.config.timesteps(t),
                    self.alpha_bar,
                )
                merger.add(slices, corners, x0_pred.clamp(-1, 1))
        reference = from_signed(merger.reference())
        return Prediction(residual_of(x, reference, brain, self.config), reference)
