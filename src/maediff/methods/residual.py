"""How a slice is held against its healthy reference, in training (the loss) and at test (the anomaly map).

d        = x - reference, less its slice median (`recentre`), less its own blur (`local_sigma`)
residual = |d|, max(d, 0) or max(-d, 0);  (1 - w) residual + w (1 - SSIM) / 2;  blurred (`smooth_sigma`);  times x^k
x        is clipped at 1, the 99th percentile of the brain, unless `headroom` is wanted
loss     = mean over M of |x0 - x0_pred|, of its square, or of |x0 - x0_pred| + 1 - SSIM
SSIM     = (2 mu_a mu_b + c1)(2 cov_ab + c2) / ((mu_a^2 + mu_b^2 + c1)(var_a + var_b + c2))

SSIM: Wang et al. 2004, eq. 13, Gaussian windows of sigma 1.5 (11 x 11), c1 = (0.01 L)^2, c2 = (0.03 L)^2, L the range
of values. Windows end at the mask's border: the weights of what lies inside are scaled up to 1. Mixing SSIM with l1 as
a loss goes back to Zhao et al. 2017 (Loss functions for image restoration); the equal parts are ours.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

Residual = Literal["abs", "bright", "dark"]
LossKind = Literal["l1", "l2", "l1_ssim"]
SSIM_SIGMA = 1.5


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ComparisonConfig:
    """Choices common to all methods that draw a healthy reference."""

    size: int = 96
    """Rows and columns of a slice."""
    loss: LossKind = "l1"
    """|x0 - x0_pred|, its square, or 1 - SSIM added to the first in equal parts."""
    residual: Residual = "abs"
    """|x - reference| (`abs`, the paper), or its positive part where lesions are `bright`, or `dark`."""
    recentre: bool = False
    """Take each slice's median off the difference: a reference that is too bright all over is no lesion."""
    local_sigma: float = 0.0
    """Take off the difference its own Gaussian blur of this sigma (pixels) inside the brain: a reference that is too
    bright in one region is no lesion either. 0 is off; it should be larger than the lesions looked for."""
    ssim_weight: float = 0.0
    """Share of (1 - SSIM) / 2 in the residual, the rest being the difference; 0 is off."""
    smooth_sigma: float = 0.0
    """Blur the residual with a Gaussian of this sigma (pixels) inside the brain: lesions are smoother than grain and
    folds that a reference lacks. 0 is off."""
    times_intensity: float = 0.0
    """Multiply the residual by x to this power, where lesions are bright; 0 is off."""
    headroom: bool = False
    """Count what is brighter than the 99th percentile of the brain, which networks do not see: small bright lesions,
    where nothing healthy is as bright (in FLAIR; not in T2w, whose cerebrospinal fluid is)."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.ssim_weight <= 1:
            raise ValueError(
                f"size={self.size} must be at least 1 and ssim_weight={self.ssim_weight} in 0..1"
            )
        if min(self.local_sigma, self.smooth_sigma, self.times_intensity) < 0:
            raise ValueError(
                f"local_sigma={self.local_sigma}, smooth_sigma={self.smooth_sigma} and "
                f"times_intensity={self.times_intensity} must not be negative"
            )


def masked_blur(
    images: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b 1 h w"], sigma: float
) -> Float[Tensor, "b c h w"]:
    """Mean of what lies inside the mask around each pixel, in a Gaussian window of 3.5 sigma to either side."""
    radius = int(3.5 * sigma + 0.5)
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    window = torch.exp(-0.5 * (offsets / sigma) ** 2)
    stacked = torch.cat([images * mask, mask.to(images)], dim=1)
    channels = stacked.shape[1]
    weights = (window / window.sum()).expand(channels, 1, 1, -1)
    with torch.autocast(images.device.type, enabled=False):
        rows = functional.conv2d(stacked, weights, padding=(0, radius), groups=channels)
        both = functional.conv2d(
            rows, weights.transpose(2, 3), padding=(radius, 0), groups=channels
        )
    return both[:, :-1] / both[:, -1:].clamp_min(1e-6)


def ssim(
    a: Float[Tensor, "b 1 h w"],
    b: Float[Tensor, "b 1 h w"],
    mask: Bool[Tensor, "b 1 h w"],
    data_range: float = 1.0,
) -> Float[Tensor, "b 1 h w"]:
    """Structural similarity around each pixel, -1 to 1, from what lies inside the mask; only there it means something.

    Args:
        data_range: L, the largest difference that there can be.
    """
    moments = masked_blur(torch.cat([a, b, a * a, b * b, a * b], dim=1), mask, SSIM_SIGMA)
    mu_a, mu_b, aa, bb, ab = moments.chunk(5, dim=1)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    var_a, var_b = (aa - mu_a**2).clamp_min(0), (bb - mu_b**2).clamp_min(0)
    luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return luminance * (2 * (ab - mu_a * mu_b) + c2) / (var_a + var_b + c2)


def residual_of(
    x: Float[Tensor, "b 1 h w"],
    reference: Float[Tensor, "b 1 h w"],
    brain: Bool[Tensor, "b 1 h w"],
    config: ComparisonConfig,
) -> Float[Tensor, "b 1 h w"]:
    """The anomaly map "pixel by pixel", before post-processing; SSIM counts only where the difference has the sign."""
    x = x if config.headroom else x.clamp_max(1)
    difference = x - reference
    if config.recentre:
        medians = (
            difference.masked_fill(~brain, torch.nan)
            .flatten(1)
            .nanmedian(dim=1)
            .values.nan_to_num()
        )
        difference = difference - medians[:, None, None, None]
    if config.local_sigma:
        difference = difference - masked_blur(difference, brain, config.local_sigma)
    if config.residual == "abs":
        residual = difference.abs()
    else:
        residual = (difference if config.residual == "bright" else -difference).clamp_min(0)
    if config.ssim_weight:
        unlike = (
            1 - ssim(x.double(), reference.double(), brain).to(x)
        ) / 2  # in fp32 it would depend on the batch
        if config.residual != "abs":
            unlike = unlike * (residual > 0)
        residual = torch.lerp(residual, unlike, config.ssim_weight)
    if config.smooth_sigma:
        residual = masked_blur(residual, brain, config.smooth_sigma)
    return (residual * x**config.times_intensity).clamp(0, 1)


def reconstruction_loss(
    prediction: Float[Tensor, "b 1 h w"],
    x0: Float[Tensor, "b 1 h w"],
    mask: Bool[Tensor, "b 1 h w"],
    kind: LossKind = "l1",
) -> Float[Tensor, ""]:
    """Mean over the pixels of the mask; both images in [-1, 1]."""
    difference = prediction.float() - x0
    error = difference**2 if kind == "l2" else difference.abs()
    if kind == "l1_ssim":
        error = error + 1 - ssim(prediction.float(), x0, mask, data_range=2.0)
    return (error * mask).sum() / mask.sum().clamp_min(1)
