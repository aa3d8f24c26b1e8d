"""Comparison of a slice with its healthy reference: the loss in training, the residual at test.

    d        = x - reference,  minus the slice's median of d  (`recentre`),
                               minus a blur of d              (`local_sigma`)
    residual = |d|, max(d, 0) or max(-d, 0)                   (`residual`)
    residual = (1 - w) residual + w (1 - SSIM) / 2            (`ssim_weight`)
    loss     = mean over M of |x0 - x0_pred|, (x0 - x0_pred)^2 or |x0 - x0_pred| + 1 - SSIM
    SSIM     = (2 mu_a mu_b + c1) (2 cov_ab + c2) / ((mu_a^2 + mu_b^2 + c1) (var_a + var_b + c2))

x is clipped at 1, the 99th percentile of the brain, unless `headroom` is set.

SSIM: Wang et al. 2004, eq. 13 (https://doi.org/10.1109/TIP.2003.819861), with their Gaussian
windows (sigma 1.5, 11 x 11), c1 = (0.01 L)^2 and c2 = (0.03 L)^2, where L is the range of values.
A window that crosses the border of the mask uses the pixels inside; their weights are scaled to
sum to 1.

Zhao et al. 2017 combined SSIM with l1 in a loss (https://doi.org/10.1109/TCI.2016.2644865).
The equal parts are our choice.
"""

from dataclasses import is_dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor

from maediff.core.device import accumulation_dtype

Residual = Literal["abs", "bright", "dark"]
LossKind = Literal["l1", "l2", "l1_ssim"]
MAX_SIZE, MAX_COUNT = 1024, 10_000
"""Largest slice, and largest value of every other whole number in the settings of a network.

Our choice: a damaged config.json must not use all memory. The schedule of a diffusion method has
an entry for each of its steps, and a layer a weight for each pair of its channels.
"""
SSIM_SIGMA = 1.5
"""Sigma of the Gaussian windows of SSIM, in pixels (Wang et al. 2004)."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ComparisonConfig:
    """Settings of every method that reconstructs a healthy reference with a network."""

    size: int = 96
    """Rows and columns of a slice."""
    loss: LossKind = "l1"
    """Error of a pixel in training: `l1`, `l2`, or `l1_ssim` (l1 plus 1 - SSIM)."""
    residual: Residual = "abs"
    """Sign of the difference x - reference that counts: both (`abs`, the paper), only positive
    (`bright`) or only negative (`dark`)."""
    recentre: bool = False
    """Subtract each slice's median from the difference. A reference that is too bright everywhere
    then leaves no residual."""
    local_sigma: float = 0.0
    """Subtract the Gaussian blur of the difference inside the brain, with this sigma in pixels.

    A reference that is too bright in one region then leaves no residual. 0 turns the step off.
    Sigma should exceed the size of the lesions to detect."""
    ssim_weight: float = 0.0
    """Share of (1 - SSIM) / 2 in the residual, 0..1; the difference has the rest."""
    headroom: bool = False
    """Include intensities above the 99th percentile of the brain, which networks never see.

    Useful for small bright lesions if no healthy tissue is as bright: in FLAIR, but not in T2w,
    where the cerebrospinal fluid is bright."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.ssim_weight <= 1:
            raise ValueError(
                f"size={self.size} must be at least 1 and ssim_weight={self.ssim_weight} in 0..1"
            )
        if self.local_sigma < 0:
            raise ValueError(f"local_sigma={self.local_sigma} must not be negative")
        if self.size > MAX_SIZE:
            raise ValueError(f"size={self.size} must be {MAX_SIZE} at most")
        _check_counts(self)


def _check_counts(config: Any) -> None:
    """Check that no whole number in a config and in its groups is over `MAX_COUNT`.

    Raises:
        ValueError: names the setting.
    """
    for name, value in vars(config).items():
        for item in value if isinstance(value, tuple) else (value,):
            if is_dataclass(item):
                _check_counts(item)
            elif isinstance(item, int) and abs(item) > MAX_COUNT:
                raise ValueError(f"{name}={value} must be {MAX_COUNT} at most")


def masked_blur(
    images: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b 1 h w"], sigma: float
) -> Float[Tensor, "b c h w"]:
    """Return the Gaussian mean around each pixel, over the pixels inside the mask only.

    Args:
        images: pixels outside the mask are ignored.
        mask: the result is meaningful inside the mask only.
        sigma: of the Gaussian, in pixels; the window has 3.5 sigma on each side.
    """
    radius = int(3.5 * sigma + 0.5)
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    stacked = torch.cat([images * mask, mask.to(images)], dim=1)
    rows, columns = (_blur_matrix(n, sigma, radius, stacked) for n in stacked.shape[2:])
    with torch.autocast(images.device.type, enabled=False):
        both = rows @ stacked @ columns
    return both[:, :-1] / both[:, -1:].clamp_min(1e-6)


def _blur_matrix(n: int, sigma: float, radius: int, like: Tensor) -> Float[Tensor, "n n"]:
    """Return the symmetric matrix that blurs `n` pixels in a line, with zeros outside the line.

    Two products of matrices take a sixth of the time of two convolutions in float64.
    """
    pixels = torch.arange(n, device=like.device, dtype=like.dtype)
    distance = (pixels[:, None] - pixels).abs()
    window = torch.exp(-0.5 * (torch.arange(-radius, radius + 1).to(like) / sigma) ** 2)
    weights = torch.exp(-0.5 * (distance / sigma) ** 2) / window.sum()
    return weights.masked_fill(distance > radius, 0)


def ssim(
    a: Float[Tensor, "b 1 h w"],
    b: Float[Tensor, "b 1 h w"],
    mask: Bool[Tensor, "b 1 h w"],
    data_range: float = 1.0,
) -> Float[Tensor, "b 1 h w"]:
    """Return the structural similarity around each pixel, from -1 to 1.

    Args:
        a: first image.
        b: second image.
        mask: pixels to compare; the result is meaningful inside the mask only.
        data_range: L, the largest possible difference of two intensities.
    """
    moments = masked_blur(torch.cat([a, b, a * a, b * b, a * b], dim=1), mask, SSIM_SIGMA)
    mu_a, mu_b, aa, bb, ab = moments.chunk(5, dim=1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    var_a, var_b = (aa - mu_a**2).clamp_min(0), (bb - mu_b**2).clamp_min(0)
    luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return luminance * (2 * (ab - mu_a * mu_b) + c2) / (var_a + var_b + c2)


def slice_medians(
    x: Float[Tensor, "b 1 h w"], brain: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, "b 1 1 1"]:
    """Return the median over the brain of each slice; 0 for a slice without brain."""
    inside: Tensor = rearrange(x.masked_fill(~brain, torch.nan), "b 1 h w -> b (h w)")
    medians = inside.nanmedian(dim=1).values.nan_to_num()
    return medians[:, None, None, None]


def residual_of(
    x: Float[Tensor, "b 1 h w"],
    reference: Float[Tensor, "b 1 h w"],
    brain: Bool[Tensor, "b 1 h w"],
    config: ComparisonConfig,
) -> Float[Tensor, "b 1 h w"]:
    """Return the residual of each slice, "pixel by pixel", in [0, 1] and before post-processing.

    With `residual` `bright` or `dark`, SSIM counts only in pixels whose difference has that sign.

    Args:
        x: intensities; 1 is the 99th percentile of the brain.
        reference: healthy reference, in [0, 1].
        brain: brain mask of each slice.
        config: how to compare.
    """
    x = x if config.headroom else x.clamp_max(1)
    difference = x - reference
    if config.recentre:
        difference = difference - slice_medians(difference, brain)
    if config.local_sigma:
        difference = difference - masked_blur(difference, brain, config.local_sigma)
    if config.residual == "abs":
        residual = difference.abs()
    else:
        residual = (difference if config.residual == "bright" else -difference).clamp_min(0)
    if config.ssim_weight:
        # In float64: rounding in fp32 would depend on the batch.
        dtype = accumulation_dtype(x.device)
        dissimilarity = (1 - ssim(x.to(dtype), reference.to(dtype), brain).to(x)) / 2
        if config.residual != "abs":
            dissimilarity = dissimilarity * (residual > 0)
        residual = torch.lerp(residual, dissimilarity, config.ssim_weight)
    return residual.clamp(0, 1)


def reconstruction_loss(
    prediction: Float[Tensor, "b 1 h w"],
    x0: Float[Tensor, "b 1 h w"],
    mask: Bool[Tensor, "b 1 h w"],
    kind: LossKind = "l1",
) -> Float[Tensor, ""]:
    """Return the mean error over the pixels inside the mask; 0 for an empty mask.

    Args:
        prediction: predicted slices, in [-1, 1].
        x0: target slices, in [-1, 1].
        mask: pixels that count.
        kind: error of a pixel, see `ComparisonConfig.loss`.
    """
    difference = prediction.float() - x0
    error = difference**2 if kind == "l2" else difference.abs()
    if kind == "l1_ssim":
        error = error + 1 - ssim(prediction.float(), x0, mask, data_range=2.0)
    return (error * mask).sum() / mask.sum().clamp_min(1)
