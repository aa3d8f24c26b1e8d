"""Synthetic lesions for training: the network sees a brain with lesions and learns to remove them.

    m    = sigmoid((1 - |A (pixel - centre)| + wobble n) / softness)   a soft, lumpy ellipse
    fill = level + keep (x - blurred x) + grain n'                     a grey level with texture
    seen = x + opacity m (fill - x)                                    inside the brain only

A scales and rotates the plane, n and n' are coarse and fine smooth noise.

No lesion mask of a patient is used. Shapes, sizes and grey levels come from wide ranges that
include those of real lesions; the ranges and the formula are our choice. The idea is that of
denoising autoencoders (Kascenas et al. 2022, https://openreview.net/forum?id=Bm8-t_ggzNd) and of
synthetic anomalies (Tan et al. 2020, https://arxiv.org/abs/2011.04197; Zavrtanik et al. 2021,
https://arxiv.org/abs/2108.07610). Without it, a diffusion model continues a large lesion into the
noised patch, because the rest of the lesion around the patch is visible.
"""

import math

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from maediff.diffusion.noise import smooth_noise


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class FabricateConfig:
    """Ranges of the synthetic lesions. Lengths are in pixels of the model's grid (2 mm)."""

    share: float = 0.0
    """Share of the training slices that get lesions, from 0 to 1; 0 is the paper's training."""
    most: int = 3
    """Largest number of lesions in a slice. The number is uniform from 1 to `most`."""
    radius: tuple[float, float] = (2.5, 28.0)
    """Range of the longer half axis in pixels, drawn log-uniformly. The shorter one is 0.5 to 1
    times as long."""
    level: tuple[float, float] = (0.0, 1.1)
    """Range of the grey level. Images are in [0, 1]; the result is clipped to this range."""
    opacity: tuple[float, float] = (0.3, 1.0)
    """Range of the opacity; at 1 the lesion replaces the tissue."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.most < 1:
            raise ValueError(
                f"share={self.share} must be from 0 to 1, and most={self.most} at least 1"
            )
        for name in ("radius", "level", "opacity"):
            low, high = getattr(self, name)
            if low > high or low < 0 or (name == "radius" and low == 0):
                raise ValueError(f"{name}={(low, high)} must rise from low to high, from 0 up")


def fabricate(
    x: Float[Tensor, "b 1 h w"], config: FabricateConfig, generator: torch.Generator
) -> Float[Tensor, "b 1 h w"]:
    """Add synthetic lesions to some of the slices.

    Args:
        x: healthy slices in [0, 1], 0 outside the brain.
        generator: a CPU generator, so that the same state gives the same lesions on every device.

    Returns:
        The slices in [0, 1]. Pixels outside the brain (x = 0) are unchanged.
    """
    b, _, h, w = x.shape
    device = x.device

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return (low + (high - low) * torch.rand(b, *more, generator=generator)).to(device)

    brain, seen = x > 0, x.clone()
    blurred = functional.avg_pool2d(x, 7, stride=1, padding=3)
    count = (uniform(0.0, float(config.most)).floor() + 1) * (uniform(0.0, 1.0) < config.share)
    row, column = torch.arange(h, device=device), torch.arange(w, device=device)
    brain_count = brain.flatten(1).cumsum(1)  # brain pixels up to and including each pixel
    for number in range(config.most):
        # The centre is a random pixel of the brain.
        rank = (uniform(0.0, 1.0) * brain_count[:, -1]).floor().long() + 1
        centre = torch.searchsorted(brain_count, rank[:, None])[:, 0].clamp_max(h * w - 1)
        radii = torch.exp(uniform(math.log(config.radius[0]), math.log(config.radius[1]), 2))
        radii = torch.stack([radii[:, 0], radii[:, 0] * uniform(0.5, 1.0)], 1)
        angle = uniform(0.0, math.pi)
        dy = (row[None, :, None] - (centre // w)[:, None, None]).float()
        dx = (column[None, None, :] - (centre % w)[:, None, None]).float()
        cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
        along = (cos * dy + sin * dx) / radii[:, 0, None, None]
        across = (cos * dx - sin * dy) / radii[:, 1, None, None]
        lumps = smooth_noise(b, (h, w), 9, generator, device)
        texture = smooth_noise(b, (h, w), 40, generator, device)
        wobble = uniform(0.0, 0.35)[:, None, None]
        grain = uniform(0.0, 0.12)[:, None, None, None]
        softness = (uniform(0.3, 2.5) / radii.mean(1)).clamp(max=0.4)[:, None, None]
        distance = torch.sqrt(along**2 + across**2 + 1e-12)
        m = torch.sigmoid((1 - distance + wobble * lumps[:, 0]) / softness)[:, None]
        present = (number < count)[:, None, None, None]
        m = m * present * uniform(*config.opacity)[:, None, None, None]
        level = uniform(*config.level)[:, None, None, None]
        keep = uniform(0.0, 1.0)[:, None, None, None]
        fill = level + keep * (x - blurred) + grain * texture
        seen = seen + m * (fill - seen)
    return torch.where(brain, seen.clamp(0, 1), x)
