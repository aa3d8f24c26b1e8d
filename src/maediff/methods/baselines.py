"""Untrained baselines that compare intensities only. A trained method has to beat them.

    bright    x / c                       dark         1 - x
    slice     max(x - slice median, 0) / c
    median    |x - brain median|          template     |x - mean healthy image|
    mirror    max(x - m, 0) / c           mirror-dark  max(m - x, 0)

m is x on the other side of the brain, in the same row; both mirrors need registered scans.
x is clipped at 1, the 99th percentile of the brain.
bright, slice and mirror clip x at c = 2 (`CEILING`) instead, like a method with `headroom`.
"""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from maediff.core.types import CEILING
from maediff.methods.base import Method
from maediff.methods.residual import slice_medians


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class IntensityConfig:
    """Baselines have no settings."""


class Intensity(Method):
    """Comparison of each pixel with the intensity that `healthy_intensity` returns."""

    config: IntensityConfig
    ceiling = 1.0
    """Intensities are clipped here, and the residual is divided by it."""

    def __init__(self, config: IntensityConfig | None = None) -> None:
        super().__init__()
        self.config = config or IntensityConfig()

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        """Return the intensity that counts as healthy in each pixel, in [0, `ceiling`].

        Args:
            x: intensities, clipped at `ceiling`.
            brain: brain mask of each slice.
        """
        raise NotImplementedError

    def healthy_reference(
        self,
        x: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
        slice_ids: Int[Tensor, " b"],
        seed: int,
        batch_size: int,
    ) -> Float[Tensor, "b 1 h w"]:
        """Return the healthy intensities, in [0, `ceiling`] and 0 outside the brain."""
        return self.healthy_intensity(x.clamp_max(self.ceiling), brain) * brain

    def residual(
        self,
        x: Float[Tensor, "b 1 h w"],
        reference: Float[Tensor, "b 1 h w"],
        brain: Bool[Tensor, "b 1 h w"],
    ) -> Float[Tensor, "b 1 h w"]:
        """Return the absolute difference inside the brain, scaled to [0, 1]."""
        return (x.clamp_max(self.ceiling) - reference).abs() * brain / self.ceiling


class Bright(Intensity):
    """The brighter, the more abnormal."""

    ceiling = CEILING

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.zeros_like(x)


class Dark(Intensity):
    """The darker, the more abnormal."""

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.ones_like(x)


class Median(Intensity):
    """The further from the median of the scan's brain, the more abnormal."""

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return x[brain].median().expand(x.shape) if brain.any() else torch.zeros_like(x)


class SliceMedian(Intensity):
    """The further above the median of the slice's brain, the more abnormal."""

    ceiling = CEILING

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.minimum(x, slice_medians(x, brain))


class Mirror(Intensity):
    """The further above the same place on the other side of the brain, the more abnormal."""

    ceiling = CEILING

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.minimum(x, _mirror(x, brain))


class MirrorDark(Intensity):
    """The further below the same place on the other side of the brain, the more abnormal."""

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        return torch.maximum(x, _mirror(x, brain))


def _mirror(
    x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 h w"]:
    """Flip each row where both sides are brain; other pixels keep their value."""
    return torch.where(brain & brain.flip(-1), x.flip(-1), x)


class Template(Intensity):
    """The further from a mean healthy image, the more abnormal.

    `fit` computes a mean image for each of `bins` heights in the brain, from healthy slices.
    A slice is compared with the mean image that is nearest in l1, so scans need no registration.
    """

    bins = 24
    images: Tensor

    def __init__(self, config: IntensityConfig | None = None) -> None:
        super().__init__(config)
        self.register_buffer("images", torch.empty(0, 1, 0, 0))

    def fit(self, images: Float[Tensor, "n 1 h w"], height: Float[Tensor, " n"]) -> "Template":
        """Compute the mean images and return the baseline.

        Args:
            images: healthy slices, with intensities in [0, 1].
            height: position of each slice in its brain, from 0 (lowest) to 1 (highest).
        """
        bins = (height * self.bins).long().clamp(0, self.bins - 1)
        sums = torch.zeros(self.bins, *images.shape[1:]).index_add_(0, bins, images)
        count = functional.one_hot(bins, self.bins).sum(0)
        self.images = (sums / rearrange(count.clamp_min(1), "n -> n 1 1 1"))[count > 0]
        return self

    def healthy_intensity(
        self, x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
    ) -> Float[Tensor, "b 1 h w"]:
        if not len(self.images):
            raise ValueError(
                "the template baseline has no mean images yet: call fit with healthy slices first"
            )
        images = self.images.to(x.device)
        distance = torch.cdist(x.flatten(1), images.flatten(1), p=1)
        return images[distance.argmin(dim=1)]
