"""Synthetic lesions for training: the network sees a brain with lesions and learns to remove them.

    m    = sigmoid((1 - |A (pixel - centre)| + wobble n) / softness)   a soft, lumpy ellipse
    fill = level + keep (x - blurred x) + grain n'                     a grey level with texture
    seen = x + opacity m (fill - x)                                    inside the brain only

A scales and rotates the plane, n and n' are coarse and fine smooth noise.

Further factors, off by default, change shape, texture and intensity independently of each other,
as in DISYRE v2 (Naval Marimont et al. 2024, https://arxiv.org/abs/2407.06635):

    blobs      a group of round lesions of a few mm3
    pairs      the same lesion at the mirrored position too, as in bilateral disease
    rim        a shell of another grey level
    texture    fill = another slice of the batch
    shift      fill = x + change where x is in a random range of grey levels

No lesion mask of a patient is used. Shapes, sizes and grey levels come from wide ranges that
include those of real lesions; the ranges and the formula are our choice. The idea is that of
denoising autoencoders (Kascenas et al. 2022, https://openreview.net/forum?id=Bm8-t_ggzNd) and of
synthetic anomalies (Tan et al. 2020, https://arxiv.org/abs/2011.04197; Zavrtanik et al. 2021,
https://arxiv.org/abs/2108.07610). Without it, a diffusion model continues a large lesion into the
noised patch, because the rest of the lesion around the patch is visible.
"""

import math

import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from maediff.diffusion.noise import smooth_noise

PIXEL_MM3 = 8.0
"""Volume of a voxel of the model's grid (2 mm)."""


FACTORS = ("pairs", "rim", "texture", "shift")
"""Fields with the share of the lesions that a factor changes."""


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
    blobs: float = 0.0
    """Share of the slices with lesions that also get a group of small lesions."""
    most_blobs: int = 12
    """Largest number of lesions in a group. The number is uniform from 1 to `most_blobs`."""
    blob_mm3: tuple[float, float] = (3.0, 60.0)
    """Range of the volumes of small lesions in mm3, drawn log-uniformly."""
    pairs: float = 0.0
    """Share of the lesions that have a mirror image on the other side."""
    rim: float = 0.0
    """Share of the lesions with a rim of another grey level."""
    texture: float = 0.0
    """Share of the lesions that are filled with another slice."""
    shift: float = 0.0
    """Share of the lesions that change a range of grey levels and keep all others."""

    @property
    def factors(self) -> bool:
        """True if a lesion of the main formula is varied further."""
        return max(self.pairs, self.rim, self.texture, self.shift) > 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.most < 1:
            raise ValueError(
                f"share={self.share} must be from 0 to 1, and most={self.most} at least 1"
            )
        shares = {name: getattr(self, name) for name in ("blobs", *FACTORS)}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name}={share} must be a share from 0 to 1")
        if self.most_blobs < 1:
            raise ValueError(f"most_blobs={self.most_blobs} must be at least 1")
        for name in ("radius", "level", "opacity", "blob_mm3"):
            low, high = getattr(self, name)
            if low > high or low < 0 or (name in ("radius", "blob_mm3") and low == 0):
                raise ValueError(f"{name}={(low, high)} must rise from low to high, from 0 up")


def fabricate(
    x: Float[Tensor, "b 1 h w"], config: FabricateConfig, generator: torch.Generator
) -> Float[Tensor, "b 1 h w"]:
    """Add synthetic lesions to some of the slices.

    Args:
        x: healthy slices in [0, 1], 0 outside the brain.
        config: number, sizes and grey levels of the lesions.
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
        if config.factors:
            m, fill = _vary(x, m, fill, config, generator)
        seen = seen + m * (fill - seen)
    if config.blobs:
        chosen = count * (uniform(0.0, 1.0) < config.blobs) > 0
        m = _draw_blobs(brain, config, generator) * chosen[:, None, None, None]
        level = uniform(*config.level)[:, None, None, None]
        keep = uniform(0.0, 1.0)[:, None, None, None]
        seen = seen + m * (level + keep * (x - blurred) - seen)
    return torch.where(brain, seen.clamp(0, 1), x)


def _vary(
    x: Float[Tensor, "b 1 h w"],
    m: Float[Tensor, "b 1 h w"],
    fill: Float[Tensor, "b 1 h w"],
    config: FabricateConfig,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
    """Apply each factor in `FACTORS` to its share of the lesions, one lesion per slice.

    Args:
        x: healthy slices.
        m: opacity of the lesions.
        fill: grey levels of the lesions.
        config: shares.
        generator: as in `fabricate`.

    Returns:
        Opacity and grey levels.
    """
    b, _, h, w = x.shape
    chances = torch.rand(len(FACTORS), b, 1, 1, 1, generator=generator).to(x.device)
    pairs, rim, texture, shift = (
        chance < getattr(config, name) for chance, name in zip(chances, FACTORS, strict=True)
    )
    numbers = torch.rand(6, b, 1, 1, 1, generator=generator).to(x.device)
    # Texture: the next slice of the batch, moved by up to a quarter of the slice.
    rows, columns = (torch.rand(2, generator=generator) - 0.5).tolist()
    moved = (round(rows * h / 2), round(columns * w / 2))
    fill = torch.where(texture, x.roll(1, 0).roll(moved, (2, 3)), fill)
    # Shift: grey levels around a random level, with soft ends.
    middle, width = numbers[0], 0.1 + 0.3 * numbers[1]
    window = torch.sigmoid((width - (x - middle).abs()) / 0.05)
    change = 0.15 + 0.35 * numbers[2]
    change = torch.where(numbers[3] < 0.5, -change, change)
    fill = torch.where(shift, x + change * window, fill)
    # Rim: highest where the opacity is half of its maximum.
    half = m / m.amax((2, 3), keepdim=True).clamp(min=1e-6)
    shell = 4 * half * (1 - half)
    level = config.level[0] + (config.level[1] - config.level[0]) * numbers[4]
    fill = torch.where(rim, fill + shell * (level - fill), fill)
    m = torch.where(rim, torch.maximum(m, m.amax((2, 3), keepdim=True) * shell), m)
    # Pairs: the mirror image has a share of the opacity.
    mirrored = m.flip(-1) * (0.4 + 0.6 * numbers[5])
    return torch.where(pairs, torch.maximum(m, mirrored), m), fill


def _draw_blobs(
    brain: Bool[Tensor, "b 1 h w"], config: FabricateConfig, generator: torch.Generator
) -> Float[Tensor, "b 1 h w"]:
    """Return the opacity of a group of small round lesions in each slice.

    The radius of a sphere of volume V is (3 V / 4 pi)^(1/3). Edges are soft over a third of a
    pixel, so a lesion smaller than a pixel is faint, as by partial volume.
    """
    b, _, h, w = brain.shape
    n, device = config.most_blobs, brain.device
    low, high = (math.log(volume / PIXEL_MM3) for volume in config.blob_mm3)
    numbers = torch.rand(4, b, n, generator=generator).to(device)
    n_blobs = (torch.rand(b, 1, generator=generator).to(device) * n).floor() + 1
    brain_count = brain.flatten(1).cumsum(1)
    rank = (numbers[0] * brain_count[:, -1:]).floor().long() + 1
    centre = torch.searchsorted(brain_count, rank).clamp_max(h * w - 1)
    volume = torch.exp(low + (high - low) * numbers[1])
    radius = (3 * volume / (4 * math.pi)) ** (1 / 3)
    opacity = config.opacity[0] + (config.opacity[1] - config.opacity[0]) * numbers[2]
    present = torch.arange(n, device=device) < n_blobs
    row, column = torch.arange(h, device=device), torch.arange(w, device=device)
    dy = (row[:, None] - (centre // w)[:, :, None, None]).float()
    dx = (column - (centre % w)[:, :, None, None]).float()
    stretch = torch.exp(0.6 * (numbers[3] - 0.5))[:, :, None, None]
    distance = torch.sqrt((dy * stretch) ** 2 + (dx / stretch) ** 2)
    m = torch.sigmoid((radius[:, :, None, None] - distance) / 0.33)
    m = m * (opacity * present)[:, :, None, None]
    return m.amax(1, keepdim=True)
