"""The two grids of the paper's hierarchical partition: upper-level patches (noised) and sub-level cells (tokens).

size 96, p 48, s 16 -> starts 0, 16, 32, 48 on either axis: 16 overlapping upper-level patches
size 10, p  5, s  4 -> starts 0, 4, 5: the last patch is pulled inside the slice, never cut
size 96, r 16       -> 6 x 6 sub-level cells; a patch with p 48 covers 9 of them (noised), 27 are visible
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

Merge = Literal["mean", "tapered"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PatchGrid:
    """Overlapping upper-level p x p patches at stride s over a size x size slice.

    Raises:
        ValueError: a patch larger than the slice, or a stride that skips pixels.
    """

    size: int = 96
    p: int = 48
    s: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.p <= self.size:
            raise ValueError(
                f"patch size p={self.p} does not fit a slice of {self.size} pixels: use 1..{self.size}"
            )
        if not 0 < self.s <= self.p:
            raise ValueError(f"stride s={self.s} is not in 1..p={self.p}: pixels would be skipped")

    @property
    def starts(self) -> list[int]:
        """First pixel of each patch along one axis."""
        last = self.size - self.p
        return [*range(0, last, self.s), last]

    @property
    def corners(self) -> Int[Tensor, "k 2"]:
        """First row and column of each patch, row by row."""
        starts = torch.tensor(self.starts)
        return torch.cartesian_prod(starts, starts).view(-1, 2)

    @cached_property
    def masks(self) -> Bool[Tensor, "k h w"]:
        """M of each patch: true inside, where noise goes."""
        return patch_mask(self.corners, self.p, self.size)


def patch_mask(corners: Int[Tensor, "b 2"], p: int, size: int) -> Bool[Tensor, "b size size"]:
    """M: true inside the p x p patch whose first row and column are given."""
    pixel = torch.arange(size, device=corners.device)
    inside = (pixel >= corners[..., None]) & (pixel < corners[..., None] + p)  # (b, 2, size)
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def insert(
    patches: Float[Tensor, "b 1 p p"], corners: Int[Tensor, "b 2"], size: int
) -> Float[Tensor, "b 1 size size"]:
    """Slices that are zero but for one patch each."""
    b, p = len(patches), patches.shape[-1]
    slices = patches.new_zeros(b, size, size)
    index = torch.arange(p, device=patches.device)
    rows, columns = corners[:, 0, None] + index, corners[:, 1, None] + index
    batch = torch.arange(b, device=patches.device)
    slices[batch[:, None, None], rows[:, :, None], columns[:, None, :]] = patches[:, 0]
    return slices[:, None]


def merge_weights(p: int, kind: Merge) -> Float[Tensor, "p p"]:
    """Weight of each pixel of a patch where patches overlap: 1 (`mean`), or falling to the edge (`tapered`)."""
    if kind == "mean":
        return torch.ones(p, p)
    ramp = torch.minimum(torch.arange(p) + 1, torch.arange(p, 0, -1)).float()
    return torch.outer(ramp, ramp) / ramp.max() ** 2


class PatchMerger:
    """The healthy reference: at every pixel the weighted mean of all patches that cover it, else the image itself."""

    def __init__(self, x0: Float[Tensor, "b 1 h w"], p: int, kind: Merge) -> None:
        self.x0, self.p = x0, p
        self.weight = merge_weights(p, kind).to(x0.device)
        self.total = torch.zeros(x0.shape, dtype=torch.float64, device=x0.device)
        self.weights = torch.zeros_like(self.total)

    def add(
        self,
        slices: Int[Tensor, " n"],
        corners: Int[Tensor, "n 2"],
        prediction: Float[Tensor, "n 1 h w"],
    ) -> None:
        """Add the inside of one patch from each full-slice `prediction` to the slices it belongs to."""
        size = prediction.shape[-1]
        weight = insert(
            self.weight.expand(len(corners), 1, self.p, self.p), corners, size
        ).double()
        self.total.index_add_(0, slices, weight * prediction.double())
        self.weights.index_add_(0, slices, weight)

    def reference(self) -> Float[Tensor, "b 1 h w"]:
        covered = self.weights > 0
        return torch.where(
            covered, self.total / self.weights.clamp_min(1e-12), self.x0.double()
        ).to(self.x0.dtype)


def patches_with_brain(
    brain: Bool[Tensor, "b 1 h w"],
    grid: PatchGrid,
    batch_size: int,
    wanted: Bool[Tensor, "b k"] | None = None,
) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, " n"]]]:
    """Batches of (slice, patch) index pairs, leaving out patches that hold no brain, or that are not `wanted`.

    A patch without brain covers no brain pixel, so leaving it out changes nothing inside the brain.
    """
    chosen = _sums_in_patches(brain.float(), grid) > 0
    slices, patches = torch.nonzero(chosen if wanted is None else chosen & wanted, as_tuple=True)
    if len(slices):
        yield from zip(
            torch.split(slices, batch_size), torch.split(patches, batch_size), strict=True
        )


def mean_in_patches(
    values: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"], grid: PatchGrid
) -> Float[Tensor, "b k"]:
    """Mean over the brain in each patch of each slice; 0 where a patch holds none."""
    return _sums_in_patches(values * brain, grid) / _sums_in_patches(
        brain.float(), grid
    ).clamp_min(1)


def _sums_in_patches(values: Float[Tensor, "b 1 h w"], grid: PatchGrid) -> Float[Tensor, "b k"]:
    return torch.einsum("bhw,khw->bk", values[:, 0], grid.masks.to(values))


def noised_cells(corners: Int[Tensor, "b 2"], p: int, size: int, r: int) -> Bool[Tensor, "b n"]:
    """For each sub-level cell, row by row: true if it touches the noised patch. The others are visible."""
    mask = patch_mask(corners, p, size)
    cells: Tensor = rearrange(mask, "b (h i) (w j) -> b (h w) (i j)", i=r, j=r)
    return cells.any(dim=-1)


def check_cells(grid: PatchGrid, r: int, d: int) -> None:
    """Every patch has to cover whole cells, so that each hides the same number of tokens, and a cell whole pixels of F.

    Args:
        d: pixels of the slice to a side of one of the feature map F.

    Raises:
        ValueError: r does not divide p, s and the slice, or d does not divide r; the message names what would fit.
    """
    fits = [n for n in range(d, grid.p + 1, d) if not (grid.p % n or grid.s % n or grid.size % n)]
    if r not in fits:
        raise ValueError(
            f"cell size r={r} has to divide p={grid.p}, s={grid.s} and size={grid.size} and to be a multiple of the "
            f"feature map's d={d} pixels: "
            + (
                f"r in {fits} would fit"
                if fits
                else f"no r does, so make p and s multiples of {d}, or use fewer levels"
            )
        )
