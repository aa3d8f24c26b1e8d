"""The two grids of the paper's hierarchical partition: upper-level patches and sub-level cells.

An upper-level patch (p x p pixels, stride s) is the region that noise covers.
A sub-level cell (r x r pixels) is one token of the masked autoencoder.

    size 96, p 48, s 16 -> patches start at 0, 16, 32, 48 on each axis: 16 overlapping patches
    size 10, p  5, s  4 -> patches start at 0, 4, 5: the last patch is moved inside, never cut
    size 96, r 16       -> 6 x 6 cells; a patch with p 48 noises 9 of them, 27 stay visible

    reference(pixel) = sum_k w_k x0_pred^(k) / sum_k w_k   over the patches k that cover the pixel
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.core.device import accumulation_dtype

Merge = Literal["mean", "tapered"]
"""Weights of overlapping patches: all 1, or falling towards the edges of a patch."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PatchGrid:
    """Overlapping upper-level p x p patches at stride s over a size x size slice, all in pixels.

    Raises:
        ValueError: a patch is larger than the slice, or the stride would skip pixels.

    Example:
        >>> PatchGrid(size=10, p=5, s=4).starts
        [0, 4, 5]
    """

    size: int = 96
    p: int = 48
    s: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.p <= self.size:
            raise ValueError(
                f"patch size p={self.p} does not fit a slice of {self.size} pixels: "
                f"use 1..{self.size}"
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
        """First row and first column of each patch, ordered by row, then by column."""
        starts = torch.tensor(self.starts)
        return torch.cartesian_prod(starts, starts).view(-1, 2)

    @cached_property
    def masks(self) -> Bool[Tensor, "k h w"]:
        """M of each patch: true inside the patch, where noise is added."""
        return patch_mask(self.corners, self.p, self.size)


def patch_mask(corners: Int[Tensor, "b 2"], p: int, size: int) -> Bool[Tensor, "b size size"]:
    """Return M for each patch: true inside the p x p pixels that start at (row, column).

    Args:
        corners: first row and first column of each patch.
        p: rows and columns of a patch.
        size: rows and columns of a slice.
    """
    pixel = torch.arange(size, device=corners.device)
    inside = (pixel >= corners[..., None]) & (pixel < corners[..., None] + p)  # (b, 2, size)
    return inside[:, 0, :, None] & inside[:, 1, None, :]


def insert(
    patches: Float[Tensor, "b 1 p p"], corners: Int[Tensor, "b 2"], size: int
) -> Float[Tensor, "b 1 size size"]:
    """Insert each patch into an empty slice; every other pixel is zero.

    Args:
        patches: one patch for each slice.
        corners: first row and first column of each patch.
        size: rows and columns of a slice.
    """
    b, p = len(patches), patches.shape[-1]
    slices = patches.new_zeros(b, size, size)
    index = torch.arange(p, device=patches.device)
    rows, columns = corners[:, 0, None] + index, corners[:, 1, None] + index
    batch = torch.arange(b, device=patches.device)
    slices[batch[:, None, None], rows[:, :, None], columns[:, None, :]] = patches[:, 0]
    return slices[:, None]


def merge_weights(p: int, kind: Merge) -> Float[Tensor, "p p"]:
    """Return the weight of each pixel of a patch in the mean over overlapping patches.

    Args:
        p: rows and columns of a patch.
        kind: `mean`: every weight is 1. `tapered`: the weight falls linearly from the centre to
            the edge, along rows and columns.
    """
    if kind == "mean":
        return torch.ones(p, p)
    ramp = torch.minimum(torch.arange(p) + 1, torch.arange(p, 0, -1)).float()
    return torch.outer(ramp, ramp) / ramp.max() ** 2


class PatchMerger:
    """Weighted mean of all patches that cover a pixel; pixels without a patch keep their value.

    Args:
        x0: the slices. The merged reference has their range.
        p: rows and columns of a patch.
        kind: weights of a patch, see `merge_weights`.
    """

    def __init__(self, x0: Float[Tensor, "b 1 h w"], p: int, kind: Merge) -> None:
        self.x0, self.p = x0, p
        self.weight = merge_weights(p, kind).to(x0.device)
        self.dtype = accumulation_dtype(x0.device)
        self.total = torch.zeros(x0.shape, dtype=self.dtype, device=x0.device)
        self.weights = torch.zeros_like(self.total)

    def add(
        self,
        slices: Int[Tensor, " n"],
        corners: Int[Tensor, "n 2"],
        prediction: Float[Tensor, "n 1 h w"],
    ) -> None:
        """Add one reconstructed patch from each full-slice prediction.

        Args:
            slices: index into `x0` of the slice that each patch belongs to.
            corners: first row and first column of each patch.
            prediction: whole slices; only the pixels inside the patch are used.
        """
        size = prediction.shape[-1]
        weight = insert(self.weight.expand(len(corners), 1, self.p, self.p), corners, size)
        weight = weight.to(self.dtype)
        self.total.index_add_(0, slices, weight * prediction.to(self.dtype))
        self.weights.index_add_(0, slices, weight)

    def reference(self) -> Float[Tensor, "b 1 h w"]:
        """Return the healthy reference merged from all patches added so far."""
        mean = self.total / self.weights.clamp_min(1e-12)
        return torch.where(self.weights > 0, mean, self.x0.to(self.dtype)).to(self.x0.dtype)


def patches_with_brain(
    brain: Bool[Tensor, "b 1 h w"],
    grid: PatchGrid,
    batch_size: int,
    wanted: Bool[Tensor, "b k"] | None = None,
) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, " n"]]]:
    """Yield batches of (slice index, patch index) for the patches that contain brain.

    A patch without brain covers no brain pixel, so skipping it changes nothing inside the brain.

    Args:
        brain: brain mask of each slice.
        grid: the patches of a slice.
        batch_size: largest number of patches in a batch.
        wanted: true for the patches to yield; None yields every patch with brain.
    """
    chosen = _sum_in_patches(brain.float(), grid) > 0
    slices, patches = torch.nonzero(chosen if wanted is None else chosen & wanted, as_tuple=True)
    if len(slices):
        yield from zip(
            torch.split(slices, batch_size), torch.split(patches, batch_size), strict=True
        )


def mean_in_patches(
    values: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"], grid: PatchGrid
) -> Float[Tensor, "b k"]:
    """Return the mean over the brain in each patch of each slice; 0 if a patch has no brain.

    Args:
        values: a number for each pixel.
        brain: brain mask of each slice.
        grid: the patches of a slice.
    """
    pixels = _sum_in_patches(brain.float(), grid).clamp_min(1)
    return _sum_in_patches(values * brain, grid) / pixels


def _sum_in_patches(values: Float[Tensor, "b 1 h w"], grid: PatchGrid) -> Float[Tensor, "b k"]:
    return torch.einsum("bhw,khw->bk", values[:, 0], grid.masks.to(values))


def noised_cells(corners: Int[Tensor, "b 2"], p: int, size: int, r: int) -> Bool[Tensor, "b n"]:
    """Return for each sub-level cell, row by row, true if the noised patch touches it.

    The other cells are visible.

    Args:
        corners: first row and first column of the noised patch of each slice.
        p: rows and columns of a patch.
        size: rows and columns of a slice.
        r: rows and columns of a cell.
    """
    mask = patch_mask(corners, p, size)
    cells: Tensor = reduce(mask, "b (h i) (w j) -> b (h w)", "any", i=r, j=r)
    return cells


def check_cells(grid: PatchGrid, r: int, d: int) -> None:
    """Check that patches consist of whole cells, and cells of whole pixels of the feature map.

    Every patch then hides the same number of tokens.

    Args:
        grid: the upper-level patches.
        r: rows and columns of a cell, in pixels of the slice.
        d: pixels of the slice per pixel of the feature map F, along one axis.

    Raises:
        ValueError: r does not divide p, s and the slice, or d does not divide r. The message
            lists the values of r that fit.
    """
    fits = [n for n in range(d, grid.p + 1, d) if not (grid.p % n or grid.s % n or grid.size % n)]
    if r in fits:
        return
    if fits:
        remedy = f"r in {fits} would fit"
    else:
        remedy = f"no r does, so make p and s multiples of {d}, or use fewer levels"
    raise ValueError(
        f"cell size r={r} has to divide p={grid.p}, s={grid.s} and size={grid.size} and to be a "
        f"multiple of the feature map's d={d} pixels: {remedy}"
    )
