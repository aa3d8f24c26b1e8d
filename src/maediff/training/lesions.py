"""Made-up lesions for training: the network sees a brain with one, and learns to draw it without.

m    = sigmoid( (1 - |A (pixel - centre)| + wobble n) / softness )        a soft, lumpy ellipse
fill = level + keep (x - blurred x) + grain n'                            one grey, some anatomy, some texture
seen = x + opacity m (fill - x)                                           inside the brain

No lesion mask goes into them: shapes, sizes and greys are drawn from wide ranges, ours, that real ones lie in. The
idea is that of denoising autoencoders (Kascenas et al. 2022, https://openreview.net/forum?id=Bm8-t_ggzNd) and of
made-up anomalies (Tan et al. 2020, arXiv 2011.04197; Zavrtanik et al. 2021, arXiv 2108.07610); the formula is ours.
A diffusion model alone is told by the clean rest of a large lesion to go on with it; this teaches it not to.
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
    """Which lesions are made up. Lengths are in pixels of the model's grid (2 mm)."""

    share: float = 0.0
    """Share of training slices that get lesions; 0 is the paper's training."""
    most: int = 3
    """Lesions in one slice, 1 to this many."""
    radius: tuple[float, float] = (2.5, 28.0)
    """Half axes, drawn log-uniformly."""
    level: tuple[float, float] = (0.0, 1.1)
    """Grey of the filling; images are in [0, 1]."""
    opacity: tuple[float, float] = (0.3, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.most < 1:
            raise ValueError(f"share={self.share} must be in 0..1 and most={self.most} at least 1")
        for name in ("radius", "level", "opacity"):
            low, high = getattr(self, name)
            if low > high or low < 0 or (name == "radius" and low == 0):
                raise ValueError(f"{name}={(low, high)} must rise from low to high, above 0")


def fabricate(
    x: Float[Tensor, "b 1 h w"], config: FabricateConfig, generator: torch.Generator
) -> Float[Tensor, "b 1 h w"]:
    """The slices as the network gets to see them: some with made-up lesions; in [0, 1], 0 outside the brain (x > 0).

    Args:
        generator: on the CPU; the same state gives the same lesions on every device.
    """
    b, _, h, w = x.shape
    device = x.device

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return (low + (high - low) * torch.rand(b, *more, generator=generator)).to(device)

    brain, seen = x > 0, x.clone()
    blurred = functional.avg_pool2d(x, 7, stride=1, padding=3)
    count = (uniform(0.0, float(config.most)).floor() + 1) * (uniform(0.0, 1.0) < config.share)
    row, column = torch.arange(h, device=device), torch.arange(w, device=device)
    upto = brain.flatten(1).cumsum(1)  # pixels of the brain up to each pixel
    for number in range(config.most):
        pick = (uniform(0.0, 1.0) * upto[:, -1]).floor().long() + 1
        centre = torch.searchsorted(upto, pick[:, None])[:, 0].clamp_max(
            h * w - 1
        )  # one pixel of the brain
        radii = torch.exp(uniform(math.log(config.radius[0]), math.log(config.radius[1]), 2))
        radii = torch.stack([radii[:, 0], radii[:, 0] * uniform(0.5, 1.0)], 1)
        angle = uniform(0.0, math.pi)
        dy = (row[None, :, None] - (centre // w)[:, None, None]).float()
        dx = (column[None, None, :] - (centre % w)[:, None, None]).float()
        cos, sin = (f(angle)[:, None, None] for f in (torch.cos, torch.sin))
        along, across = (
            (cos * dy + sin * dx) / radii[:, 0, None, None],
            (cos * dx - sin * dy) / radii[:, 1, None, None],
        )
        lumps, texture = (smooth_noise(b, (h, w), cells, generator, device) for cells in (9, 40))
        wobble, grain = uniform(0.0, 0.35)[:, None, None], uniform(0.0, 0.12)[:, None, None, None]
        softness = (uniform(0.3, 2.5) / radii.mean(1)).clamp(max=0.4)[:, None, None]
        distance = torch.sqrt(along**2 + across**2 + 1e-12)
        m = torch.sigmoid((1 - distance + wobble * lumps[:, 0]) / softness)[:, None]
        m = (
            m
            * (number < count)[:, None, None, None]
            * uniform(*config.opacity)[:, None, None, None]
        )
        level, keep = (uniform(*r)[:, None, None, None] for r in (config.level, (0.0, 1.0)))
        fill = level + keep * (x - blurred) + grain * texture
        seen = seen + m * (fill - seen)
    return torch.where(brain, seen.clamp(0, 1), x)
