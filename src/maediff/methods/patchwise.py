"""What the patch-wise methods, MAEDiff and pDDPM, share: their loss and the slide over a slice (the paper's Fig. 1b).

    loss      = mean over M of |x0 - x0_pred|  (+ w mean outside M)
    reference = average over the patches k of x0_pred^(k) inside M_k

The second term of the loss and the second pass of the slide are ours, and off by default. With `refine_above`, a
coarse pass at stride p comes first, and the overlapping patches of stride s follow only where what it drew is unlike
the scan: the "lesion-aware patch selection" that the paper's summary looks out to.
"""

from collections.abc import Callable
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
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
from maediff.methods.diffusion_config import DiffusionConfig
from maediff.methods.residual import reconstruction_loss

Denoise = Callable[
    [Float[Tensor, "b 1 h w"], Int[Tensor, " b"], Int[Tensor, "b 2"]], Float[Tensor, "b 1 h w"]
]
"""x0_pred from the partially perturbed slice, t, and the corner of the noised patch."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PatchwiseConfig(DiffusionConfig):
    """Patch p and stride s, in pixels."""

    p: int = 48
    s: int = 16
    merge: Merge = "mean"
    visible_weight: float = 0.0
    """Weight of the loss outside the patch; 0 is the paper's. With made-up lesions in training there is something to
    learn there too, from all of a slice in each step instead of a quarter."""
    refine_above: float | None = None
    """Mean |x - reference| in the brain of a patch, after the coarse pass, above which patches of stride s are drawn;
    None draws them all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        grid = PatchGrid(self.size, self.p, self.s)
        if self.visible_weight < 0:
            raise ValueError(f"visible_weight={self.visible_weight} must not be negative")
        if self.refine_above is not None and not set(
            PatchGrid(self.size, self.p, self.p).starts
        ) <= {*grid.starts}:
            raise ValueError(
                f"refine_above needs the patches of stride p={self.p} among those of stride s={self.s}: "
                "use an s that divides p and size - p"
            )


def patch_loss(
    x0_pred: Float[Tensor, "b 1 h w"],
    x0: Float[Tensor, "b 1 h w"],
    mask: Bool[Tensor, "b 1 h w"],
    config: PatchwiseConfig,
) -> Float[Tensor, ""]:
    """The loss inside the patches, and outside them with its weight."""
    loss = reconstruction_loss(x0_pred, x0, mask, config.loss)
    if config.visible_weight:
        loss = loss + config.visible_weight * reconstruction_loss(x0_pred, x0, ~mask, config.loss)
    return loss


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
    """The healthy reference, in [-1, 1] as x0 is: every patch with brain noised, redrawn and averaged."""
    grid, merger = (
        PatchGrid(config.size, config.p, config.s),
        PatchMerger(x0, config.p, config.merge),
    )

    def redraw(wanted: Bool[Tensor, "b k"] | None) -> None:
        for slices, patches in patches_with_brain(brain, grid, batch_size, wanted):
            corners = grid.corners.to(x0.device)[patches]
            mask = patch_mask(corners, config.p, config.size)[:, None]
            clean = x0[slices]
            for t, draw in product(config.t_test, range(config.draws)):
                key = (config.p, seed, slice_ids[slices.cpu()], patches.cpu(), draw, x0.device)

                def noise_of_step(step: int) -> Float[Tensor, "b 1 h w"]:
                    return insert(config.noise_at_test(*key, step), corners, config.size)  # noqa: B023

                level = alpha_bar[t].expand(len(slices)).to(x0.device)
                x_t = forward_process(clean, noise_of_step(0), level)
                x0_pred = reverse_chain(
                    lambda x, t: denoise(torch.where(mask, x, clean), t, corners).float(),  # noqa: B023
                    x_t,
                    config.timesteps(t),
                    alpha_bar,
                    config.eta,
                    noise_of_step,
                )
                merger.add(slices, corners, x0_pred.clamp(-1, 1))

    if config.refine_above is None:
        redraw(None)
    else:
        coarse = torch.isin(
            grid.corners, torch.tensor(PatchGrid(config.size, config.p, config.p).starts)
        ).all(dim=1)
        coarse = coarse.to(x0.device).expand(len(x0), -1)
        redraw(coarse)
        unlike = (
            mean_in_patches((x0 - merger.reference()).abs() / 2, brain, grid) > config.refine_above
        )
        redraw(unlike & ~coarse)
    return merger.reference()
