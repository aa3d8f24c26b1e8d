"""Baselines that look at intensities alone. A method that does not beat them has learnt nothing useful.

bright   x / c                   dark     1 - x
median   | x - brain median |    slice    max(x - slice median, 0) / c
template | x - mean healthy image |
mirror   max(x - m, 0) / c        mirror-dark   max(m - x, 0), m: the other side of the brain; for registered scans

x is clipped at 1, the 99th percentile of the brain; for bright, slice and mirror at c = 2 (`CEILING`), as where
methods have `headroom`.
"""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from maediff.core.types import CEILING
from maediff.methods.base import Method, Prediction


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class IntensityConfig:
    """Nothing to choose."""


class Intensity(Method):
    """A reference made of the scan's own intensities; `reference` is the one thing that a baseline has to define."""

    ceiling = 1.0
    """What intensities are clipped at, and the residual divided by."""

    def __init__(self, config: IntensityConfig | None = None) -> None:
        super().__init__()
        self.config = config or IntensityConfig()

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        raise NotImplementedError

    def predict(
        self,
        x: Float[Tensor, "b 1 h w"],
        *,
        slice_ids: Int[Tensor, " b"],
        seed: int,
        brain: Bool[Tensor, "b 1 h w"] | None = None,
        batch_size: int = 16,
    ) -> Prediction:
        brain = x > 0 if brain is None else brain
        x = x.clamp_max(self.ceiling)
        reference = self.reference(x, brain).expand_as(x) * brain
        return Prediction((x - reference).abs() * brain / self.ceiling, reference.clamp_max(1))


class Bright(Intensity):
    """The brighter, the more abnormal."""

    ceiling = CEILING

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.zeros_like(x)


class Dark(Intensity):
    """The darker, the more abnormal."""

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.ones_like(x)


class Median(Intensity):
    """The further from the median of the scan's brain, the more abnormal."""

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return x[brain].median().expand(x.shape) if brain.any() else torch.zeros_like(x)


class SliceMedian(Intensity):
    """The further above the median of its slice, the more abnormal."""

    ceiling = CEILING

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        medians = x.masked_fill(~brain, torch.nan).flatten(1).nanmedian(dim=1).values.nan_to_num()
        return torch.minimum(x, medians[:, None, None, None])


class Mirror(Intensity):
    """The further above the same place on the other side of the brain, the more abnormal."""

    ceiling = CEILING

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.minimum(x, _other_side(x, brain))


class MirrorDark(Intensity):
    """The further below the same place on the other side of the brain, the more abnormal."""

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.maximum(x, _other_side(x, brain))


def _other_side(
    x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """Each row turned over; the scan itself where that is not brain."""
    return torch.where(brain & brain.flip(-1), x.flip(-1), x)


class Template(Intensity):
    """The further from a mean healthy image, the more abnormal.

    Scans need not be registered: there is a mean image for each of `bins` heights in the brain, and a slice is held
    against the one that is nearest to it in l1. `fit` it on healthy slices before use.
    """

    bins = 24
    images: Tensor

    def __init__(self, config: IntensityConfig | None = None) -> None:
        super().__init__(config)
        self.register_buffer("images", torch.empty(0, 1, 0, 0))

    def fit(self, images: Float[Tensor, "n 1 h w"], height: Float[Tensor, " n"]) -> "Template":
        """Mean images from healthy slices.

        Args:
            height: position of each slice in its brain, 0 lowest to 1 highest.
        """
        bins = (height * self.bins).long().clamp(0, self.bins - 1)
        sums = torch.zeros(self.bins, *images.shape[1:]).index_add_(0, bins, images)
        count = functional.one_hot(bins, self.bins).sum(0)
        self.images = (sums / count.clamp_min(1)[:, None, None, None])[count > 0]
        return self

    def reference(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        if not len(self.images):
            raise ValueError(
                "the template baseline has no mean images yet: call fit with healthy slices first"
            )
        distance = torch.cdist(x.flatten(1), self.images.to(x.device).flatten(1), p=1)
        return self.images.to(x.device)[distance.argmin(dim=1)]
