"""Training and prediction shared by the patch-wise methods, MAEDiff and pDDPM.

    x~_t      = M x_t + (1 - M) x0                             one noised patch, the rest clean
    loss      = mean over M of |x0 - x0_pred|  (+ w mean outside M)
    reference = average over the patches k of x0_pred^(k) inside M_k     (Fig. 1b of the paper)

The second term of the loss is our choice and off by default.
`refine_above` is our choice, too: a coarse pass at stride p comes first, and the patches of
stride s follow only where the coarse reference differs from the slice.
The summary of the paper names such a "lesion-aware patch selection" as future work.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config_dataclass
from torch import Tensor

from maediff.diffusion.patches import (
    Merge,
    PatchGrid,
    PatchMerger,
    insert,
    mean_in_patches,
    patch_mask,
    patches_with_brain,
)
from maediff.diffusion.process import forward_process, reverse_chain
from maediff.methods.base import clamp_signed
from maediff.methods.diffusion_config import DiffusionConfig
from maediff.methods.residual import reconstruction_loss
from maediff.nn.batches import map_batches

Denoise = Callable[
    [Float[Tensor, "b 1 h w"], Int[Tensor, " b"], Int[Tensor, "b 2"]], Float[Tensor, "b 1 h w"]
]
"""Prediction of x0 from the partially perturbed slice, t, and the corner of the noised patch."""
Job = tuple[tuple[Int[Tensor, " n"], Int[Tensor, " n"]], int, int]
"""Slice and patch indices of a batch, the noise level t, and the number of the draw."""


@config_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PatchwiseConfig(DiffusionConfig):
    """Settings of the patch-wise methods: patch p and stride s, in pixels."""

    p: int = 48
    s: int = 16
    merge: Merge = "mean"
    """Weights of overlapping patches, see `maediff.diffusion.patches.merge_weights`."""
    visible_weight: float = 0.0
    """Weight of the loss outside the noised patch; the paper's is 0.

    With synthetic lesions in training, the network has to change visible pixels as well. Each step
    then learns from a whole slice instead of a quarter."""
    refine_above: float | None = None
    """Refine a patch if the coarse pass leaves a mean |x - reference| above this in its brain.

    x and reference are in [0, 1]. None: no coarse pass, every patch is reconstructed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        grid = PatchGrid(self.size, self.p, self.s)
        coarse = PatchGrid(self.size, self.p, self.p)
        if self.visible_weight < 0:
            raise ValueError(f"visible_weight={self.visible_weight} must not be negative")
        if self.refine_above is not None and not set(coarse.starts) <= set(grid.starts):
            raise ValueError(
                f"refine_above needs the patches of stride p={self.p} among those of stride "
                f"s={self.s}: use an s that divides p and size - p"
            )


def noise_one_patch(
    x0: Float[Tensor, "b 1 h w"],
    grid: PatchGrid,
    alpha_bar: Float[Tensor, " steps"],
    config: PatchwiseConfig,
    generator: torch.Generator,
) -> tuple[
    Float[Tensor, "b 1 h w"], Int[Tensor, " b"], Int[Tensor, "b 2"], Bool[Tensor, "b 1 h w"]
]:
    """Noise one random patch of each slice: x~_t = M x_t + (1 - M) x0.

    Args:
        x0: slices, in [-1, 1].
        grid: the patches to choose from.
        alpha_bar: the schedule.
        config: noise and range of t.
        generator: CPU generator of t, the patches and the noise.

    Returns:
        x~_t, t, the first row and column of each patch, and M (true inside the patch).
    """
    b = len(x0)
    t = config.training_times(b, generator)
    patches = torch.randint(len(grid.corners), (b,), generator=generator)
    corners = grid.corners[patches].to(x0.device)
    mask = patch_mask(corners, config.p, config.size)[:, None]
    noise = config.sample_noise((b, config.p, config.p), generator, x0.device)
    x_t = forward_process(x0, insert(noise, corners, config.size), alpha_bar[t])
    return torch.where(mask, x_t, x0), t.to(x0.device), corners, mask


def patch_loss(
    x0_pred: Float[Tensor, "b 1 h w"],
    x0: Float[Tensor, "b 1 h w"],
    mask: Bool[Tensor, "b 1 h w"],
    config: PatchwiseConfig,
) -> Float[Tensor, ""]:
    """Return the loss inside the noised patches, plus the weighted loss outside.

    Args:
        x0_pred: predicted slices, in [-1, 1].
        x0: healthy slices, in [-1, 1].
        mask: M, true inside the noised patch.
        config: kind of the loss and weight outside.
    """
    loss = reconstruction_loss(x0_pred, x0, mask, config.loss)
    if config.visible_weight:
        loss = loss + config.visible_weight * reconstruction_loss(x0_pred, x0, ~mask, config.loss)
    return loss


@dataclass(frozen=True)
class PatchBatch:
    """Patches that go through the network together; each has its own copy of its slice."""

    slices: Int[Tensor, " n"]
    """Index of each patch's slice in the scan."""
    slice_ids: Int[Tensor, " n"]
    """Index of that slice on the model's grid; a key of the noise."""
    patches: Int[Tensor, " n"]
    """Index of the patch on its `PatchGrid`; a key of the noise."""
    corners: Int[Tensor, "n 2"]
    """First row and column of the patch."""
    mask: Bool[Tensor, "n 1 h w"]
    """M: true inside the patch."""
    clean: Float[Tensor, "n 1 h w"]
    """The slice without noise."""


def slide(
    x0: Float[Tensor, "b 1 h w"],
    brain: Bool[Tensor, "b 1 h w"],
    slice_ids: Int[Tensor, " b"],
    denoise: Denoise,
    alpha_bar: Float[Tensor, " steps"],
    config: PatchwiseConfig,
    *,
    seed: int,
    batch_size: int,
) -> Float[Tensor, "b 1 h w"]:
    """Reconstruct every patch that contains brain, and average where patches overlap.

    Args:
        x0: slices, in [-1, 1].
        brain: brain mask of each slice.
        slice_ids: index of each slice on the model's grid.
        denoise: the network.
        alpha_bar: the schedule.
        config: patches, noise and time steps.
        seed: seed of the noise.
        batch_size: patches per forward pass.

    Returns:
        The healthy reference, in [-1, 1]. Pixels without a patch keep their value.
    """
    grid = PatchGrid(config.size, config.p, config.s)
    merger = PatchMerger(x0, config.p, config.merge)

    def reconstruct(wanted: Bool[Tensor, "b k"] | None) -> None:
        batches = patches_with_brain(brain, grid, batch_size, wanted)
        jobs = product(batches, config.t_test, range(config.draws))
        for batch, x0_pred in map_batches(reconstruct_batch, jobs, x0.device):
            merger.add(batch.slices, batch.corners, x0_pred)

    def reconstruct_batch(job: Job) -> tuple[PatchBatch, Float[Tensor, "n 1 h w"]]:
        (slices, patches), t, draw = job
        batch = _make_batch(x0, slice_ids, grid, slices, patches)
        return batch, _reconstruct_patches(batch, t, draw, denoise, alpha_bar, config, seed)

    if config.refine_above is None:
        reconstruct(None)
    else:
        coarse_starts = torch.tensor(PatchGrid(config.size, config.p, config.p).starts)
        coarse = torch.isin(grid.corners, coarse_starts).all(dim=1)
        coarse = coarse.to(x0.device).expand(len(x0), -1)
        reconstruct(coarse)
        difference = (x0 - merger.reference()).abs() / 2  # x0 spans 2, intensities span 1
        reconstruct((mean_in_patches(difference, brain, grid) > config.refine_above) & ~coarse)
    return merger.reference()


def _make_batch(
    x0: Float[Tensor, "b 1 h w"],
    slice_ids: Int[Tensor, " b"],
    grid: PatchGrid,
    slices: Int[Tensor, " n"],
    patches: Int[Tensor, " n"],
) -> PatchBatch:
    """Return the patches with these indices, each with a copy of its slice."""
    corners = grid.corners.to(x0.device)[patches]
    return PatchBatch(
        slices=slices,
        slice_ids=slice_ids[slices.cpu()],
        patches=patches.cpu(),
        corners=corners,
        mask=patch_mask(corners, grid.p, grid.size)[:, None],
        clean=x0[slices],
    )


def _reconstruct_patches(
    batch: PatchBatch,
    t: int,
    draw: int,
    denoise: Denoise,
    alpha_bar: Float[Tensor, " steps"],
    config: PatchwiseConfig,
    seed: int,
) -> Float[Tensor, "n 1 h w"]:
    """Noise each patch to level `t`, run the reverse process, and return x0_pred in [-1, 1]."""
    noise = partial(_noise_patches, batch, draw, config, seed)
    level = alpha_bar[t].expand(len(batch.clean))
    x0_pred = reverse_chain(
        partial(_denoise_patches, batch, denoise),
        forward_process(batch.clean, noise(0), level),
        config.timesteps(t),
        alpha_bar,
        config.eta,
        noise,
    )
    return clamp_signed(x0_pred)


def _noise_patches(
    batch: PatchBatch, draw: int, config: PatchwiseConfig, seed: int, step: int
) -> Float[Tensor, "n 1 h w"]:
    """Return the noise of a step of the chain, zero outside each patch."""
    noise = config.noise_at_test(
        config.p, seed, batch.slice_ids, batch.patches, draw, batch.clean.device, step
    )
    return insert(noise, batch.corners, config.size)


def _denoise_patches(
    batch: PatchBatch, denoise: Denoise, x: Float[Tensor, "n 1 h w"], t: Int[Tensor, " n"]
) -> Float[Tensor, "n 1 h w"]:
    """Predict x0 from the partially perturbed slices: x inside each patch, clean outside."""
    return denoise(torch.where(batch.mask, x, batch.clean), t, batch.corners).float()
