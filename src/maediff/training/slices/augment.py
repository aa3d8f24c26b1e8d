"""Random changes of training slices, so that a model also fits scanners it was not trained on.

    atrophy     widen ventricles and sulci by a smooth warp (see maediff.training.slices.atrophy)
    place       scale, rotate and shift, without moving brain out of the slice
    contrast    x -> curve(x ^ g), a rising curve with 0 -> 0 and 1 -> 1
    bias        x -> x exp(f), f a sum of cosines with at most one wave across the slice
    resolution  x -> U D x: average and sample every `width` pixels (D), then interpolate (U)
    ghosting    x -> | x + copies of x shifted by multiples of a period along one axis |
    noise       x -> | x + sigma (n1 + i n2) |, Rician noise
    range       linear, so that two percentiles in the brain are as before
    headroom    x -> h x, h from `least` to 1

All effects and their sizes are our choice. Each image has its own random parameters.

The range step repeats what preprocessing does to a real scan: it fixes the 1st and 99th percentile
of the brain. A slice shows only a part of the brain. Its percentiles are therefore moved back to
their values before bias, resolution, ghosting and noise. The contrast curve keeps 0 and 1, so it
needs no such step.

Headroom is for contrasts in which lesions are bright. A large bright lesion sets the 99th
percentile of its scan, so the healthy tissue is darker than in any healthy scan. In ten val FLAIR
scans of the data set lgg, the median of the brain is 0.30 to 0.75 in the lesion-free slices.
"""

import math
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from maediff.training.slices.atrophy import widen_csf

Images = Float[Tensor, "b 1 h w"]
Brains = Bool[Tensor, "b 1 h w"]

CURVE_POINTS = 256
"""Samples of the contrast curve; it is linear between them."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AugmentConfig:
    """Effects of the augmentation: for each one the share of images that get it, and its size.

        effect      share         size
        atrophy     atrophy       widening_px, csf
        place       place         rotation_deg, scaling, shift_px
        contrast    contrast      gamma, curve
        bias        bias          bias_log
        resolution  resolution    width_px
        ghosting    ghosting      ghost
        noise       noise         sigma
        headroom    headroom      least

    Shares are from 0 to 1; 0, the default, turns the effect off. The names are also the keys of
    config.json, so they stay in one flat list.
    """

    # Shares.
    place: float = 0.0
    """Share of images that are scaled, rotated and shifted."""
    contrast: float = 0.0
    """Share of images whose intensities pass through a random rising curve."""
    bias: float = 0.0
    """Share of images that are multiplied by a smooth field."""
    resolution: float = 0.0
    """Share of images with coarser pixels."""
    ghosting: float = 0.0
    """Share of images with faint periodic copies."""
    noise: float = 0.0
    """Share of images with Rician noise."""
    headroom: float = 0.0
    """Share of images that are dimmed as a whole."""

    atrophy: float = 0.0
    """Share of images with wider ventricles and sulci, as in old age."""

    # Sizes.
    rotation_deg: float = 10.0
    """place: the angle is uniform in [-rotation_deg, rotation_deg], in degrees."""
    scaling: float = 0.08
    """place: the scale factor is exp(u), u uniform in [-scaling, scaling]."""
    shift_px: float = 4.0
    """place: both shifts are uniform in [-shift_px, shift_px], in pixels."""
    gamma: float = 0.3
    """contrast: the exponent g is exp(u), u uniform in [-gamma, gamma]."""
    curve: float = 0.35
    """contrast: standard deviation of each of the three cosine weights in the log slope."""
    bias_log: float = 0.15
    """bias: the standard deviation of the log field is uniform in [0, bias_log]."""
    width_px: float = 2.5
    """resolution: the sampling distance is uniform in [1, width_px], in pixels; 1 is no change."""
    ghost: float = 0.06
    """ghosting: the copies are multiplied by a factor uniform in [-ghost, ghost]."""
    sigma: float = 0.04
    """noise: its standard deviation is uniform in [0, sigma]; images are in [0, 1]."""
    least: float = 0.4
    """headroom: the image is multiplied by a factor uniform in [least, 1]."""
    widening_px: float = 3.0
    """atrophy: the edge of CSF moves by up to u pixels, u uniform in [0, widening_px]."""
    csf: tuple[float, float] = (0.0, 0.3)
    """atrophy: grey levels of CSF; (0.75, 1.0) for T2w."""

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in self.shares):
            raise ValueError(
                "place, contrast, bias, resolution, ghosting, noise, headroom and atrophy must be "
                f"shares from 0 to 1, and are {', '.join(map(str, self.shares))}"
            )
        for name in (
            "rotation_deg",
            "scaling",
            "shift_px",
            "gamma",
            "curve",
            "bias_log",
            "ghost",
            "sigma",
            "widening_px",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.width_px < 1:
            raise ValueError(f"width_px={self.width_px} must not be below 1")
        if not 0 < self.least <= 1:
            raise ValueError(f"least={self.least} must be above 0 and at most 1")
        if not 0 <= self.csf[0] < self.csf[1] <= 1:
            raise ValueError(f"csf={self.csf} must rise, within 0 to 1")

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each effect, in the order of the class docstring."""
        return (
            self.place,
            self.contrast,
            self.bias,
            self.resolution,
            self.ghosting,
            self.noise,
            self.headroom,
            self.atrophy,
        )

    @property
    def active(self) -> bool:
        """True if at least one effect is on."""
        return any(share > 0 for share in self.shares)


ROBUST = AugmentConfig(place=0.5, contrast=0.7, bias=0.5, resolution=0.4, ghosting=0.15, noise=0.5)
"""Preset for models that are used on other scanners than those of the training scans."""
ROBUST_BRIGHT = replace(ROBUST, headroom=0.6)
"""`robust` with headroom, for contrasts in which lesions are bright (FLAIR, T2w)."""
AUGMENT_PRESETS = {"off": AugmentConfig(), "robust": ROBUST, "robust-bright": ROBUST_BRIGHT}


def preset_or_settings(value: Any) -> Any:
    """Replace the name of an augmentation preset by its settings.

    Args:
        value: a preset's name; a mapping whose key `preset` names one, which its other keys
            override; or anything else, which is returned unchanged.

    Returns:
        Fields of `AugmentConfig`, or `value`.

    Raises:
        ValueError: no preset has this name.
    """
    settings = {"preset": value} if isinstance(value, str | bool) else value
    if not isinstance(settings, dict) or "preset" not in settings:
        return value
    name = settings["preset"]
    if name is False:  # YAML 1.1 parses a bare `off` as False
        name = "off"
    if name not in AUGMENT_PRESETS:
        raise ValueError(
            f"augmentation {name!r}: one of {', '.join(AUGMENT_PRESETS)}, or a share for each "
            "effect"
        )
    changes = {key: value for key, value in settings.items() if key != "preset"}
    return {**asdict(AUGMENT_PRESETS[name]), **changes}


def augment(x: Images, brain: Brains, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Change slices at random; an effect that is off draws no random numbers.

    Args:
        x: slices in [0, 1].
        brain: their brain masks; pixels outside are set to 0.
        config: which effects are on, and how large they are.
        generator: a CPU generator.

    Returns:
        Slices in [0, 1], 0 outside the brain. `place` moves the brain too.
    """
    x = x * brain
    if config.atrophy > 0:
        wider = widen_csf(x, brain, config.widening_px, config.csf, generator)
        x = torch.where(_choose(config.atrophy, x, generator), wider, x)
    if config.place > 0:
        moved = place(x, brain, config, generator)
        chosen = _choose(config.place, x, generator)
        x, brain = torch.where(chosen, moved[0], x), torch.where(chosen, moved[1], brain)
    if config.contrast > 0:
        x = torch.where(_choose(config.contrast, x, generator), contrast(x, config, generator), x)
    before = x
    if config.bias > 0:
        x = torch.where(_choose(config.bias, x, generator), bias(x, config, generator), x)
    if config.resolution > 0:
        x = torch.where(
            _choose(config.resolution, x, generator), resolution(x, brain, config, generator), x
        )
    if config.ghosting > 0:
        x = torch.where(_choose(config.ghosting, x, generator), ghosting(x, config, generator), x)
    if config.noise > 0:
        x = torch.where(_choose(config.noise, x, generator), noise(x, config, generator), x)
    if x is not before:
        changed = (x != before).flatten(1).any(1)[:, None, None, None]
        x = torch.where(changed, match_range(x, before, brain), x)
    if config.headroom > 0:
        u = torch.rand(len(x), 1, 1, 1, generator=generator).to(x.device)
        height = config.least + (1 - config.least) * u
        x = torch.where(_choose(config.headroom, x, generator), height * x, x)
    return x * brain


def place(
    x: Images, brain: Brains, config: AugmentConfig, generator: torch.Generator
) -> tuple[Images, Brains]:
    """Return images and brain masks, rotated about the middle of the slice, scaled and shifted.

    Scale and shift are reduced where the brain would leave the slice.
    """
    b, _, h, w = x.shape
    angle = math.radians(config.rotation_deg) * _draw_uniform(b, generator)
    scale = torch.exp(config.scaling * _draw_uniform(b, generator)).to(x.device)
    shift = config.shift_px * _draw_uniform((b, 2), generator)
    angle, shift = angle.to(x.device), shift.to(x.device)
    # Rotation of (column, row).
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(b, 2, 2)
    half = torch.tensor([(w - 1) / 2, (h - 1) / 2], device=x.device)
    rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1).view(-1, 2) - half
    # The rotated position of each pixel, from the middle, before scaling.
    turned = pixels @ turn.transpose(1, 2)
    inside = brain.flatten(1)[..., None]
    low = torch.where(inside, turned, torch.inf).amin(1)
    high = torch.where(inside, turned, -torch.inf).amax(1)
    empty = ~inside.any(1)
    low, high = torch.where(empty, 0.0, low), torch.where(empty, 0.0, high)
    scale = torch.minimum(scale, (2 * half / (high - low).clamp(min=1)).amin(1))[:, None]
    shift = torch.minimum(torch.maximum(shift, -half - scale * low), half - scale * high)
    # A row vector times `turn` is the inverse rotation.
    source = ((pixels - shift[:, None]) / scale[:, None]) @ turn
    grid = (source / half).view(b, h, w, 2)
    both = functional.grid_sample(torch.cat([x, brain.to(x.dtype)], 1), grid, align_corners=True)
    moved = both[:, 1:] >= 0.5
    # Divided by the share of brain in a pixel, so that the background does not darken the rim.
    return both[:, :1] / both[:, 1:].clamp(min=0.5) * moved, moved


def contrast(x: Images, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Return images whose intensities passed through a random rising curve that keeps 0 and 1.

    The curve is a power, followed by a curve whose log slope is a sum of three cosines.
    """
    b = len(x)
    power = torch.exp(config.gamma * _draw_uniform(b, generator))[:, None]
    weights = config.curve * torch.randn(b, 3, generator=generator)
    u = torch.linspace(0, 1, CURVE_POINTS)
    slope = torch.exp(weights @ torch.cos(math.pi * torch.arange(1, 4)[:, None] * u))
    steps = (slope[:, 1:] + slope[:, :-1]) / 2
    curve = functional.pad(steps.cumsum(1), (1, 0))
    curve = (curve / curve[:, -1:]).to(x.device)
    position = (x.flatten(1).clamp(0, 1) ** power.to(x.device)) * (CURVE_POINTS - 1)
    below = position.long().clamp(max=CURVE_POINTS - 2)
    left, right = curve.gather(1, below), curve.gather(1, below + 1)
    return (left + (right - left) * (position - below)).view_as(x)


def bias(x: Images, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Return images times a smooth field: at most one wave across the slice in each direction.

    Waves of lower frequency have larger weights.
    """
    b, _, h, w = x.shape
    up, across = (
        torch.cos(math.pi * torch.arange(3)[:, None] * (torch.arange(n) + 0.5) / n) for n in (h, w)
    )
    order = torch.arange(3)
    weights = 1 / (1 + order[:, None] ** 2 + order**2)
    weights[0, 0] = 0
    power = torch.where(order > 0, 0.5, 1.0)  # mean square of each cosine
    variance = (weights**2 * power[:, None] * power).sum()
    height = config.bias_log * torch.rand(b, 1, 1, generator=generator)
    waves = torch.randn(b, 3, 3, generator=generator) * weights / variance.sqrt() * height
    return x * torch.exp(up.T.to(x.device) @ waves.to(x.device) @ across.to(x.device))[:, None]


def resolution(
    x: Images, brain: Brains, config: AugmentConfig, generator: torch.Generator
) -> Images:
    """Return images with larger pixels; rows and columns have different pixel sizes.

    The background does not enter the averages.
    """
    b, _, h, w = x.shape
    widths = (1 + (config.width_px - 1) * torch.rand(b, 2, generator=generator)).to(x.device)
    phases = torch.rand(b, 2, generator=generator).to(x.device)
    up, across = (
        _coarsening_matrix(n, widths[:, axis], phases[:, axis]) for axis, n in enumerate((h, w))
    )
    both = (
        up[:, None]
        @ torch.cat([x * brain, brain.to(x.dtype)], 1)
        @ across[:, None].transpose(2, 3)
    )
    return both[:, :1] / both[:, 1:].clamp(min=1e-3) * brain


def _coarsening_matrix(
    n: int, width: Float[Tensor, " b"], phase: Float[Tensor, " b"]
) -> Float[Tensor, "b n n"]:
    """Return the matrix U D for a line of `n` pixels.

    D averages with a Gaussian around every `width`-th pixel, and U interpolates linearly. The
    Gaussian is that of `maediff.preparation.resample`. Its standard deviation is at least 0.3
    pixels, where a direct neighbour has the weight 0.004.

    Args:
        n: pixels of the line.
        width: sampling distance in pixels, at least 1.
        phase: position of the first sample in the slice, as a share of `width` - 1 pixels.
    """
    pixels, width = torch.arange(n, device=width.device).float(), width[:, None, None]
    sigma = (torch.sqrt(width**2 - 1) / (2 * math.sqrt(2 * math.log(2)))).clamp(min=0.3)
    first = phase[:, None, None] * (width - 1)
    at = torch.arange(n + 3, device=width.device)[:, None]
    centres = at * width + first - width  # centres far outside the slice have no weight in U
    down = torch.exp(-0.5 * ((centres - pixels) / sigma) ** 2)
    down = down / down.sum(2, keepdim=True).clamp(min=1e-12)
    up = (1 - (pixels[:, None] - centres.transpose(1, 2)).abs() / width).clamp(min=0)
    both = up @ down
    return both / both.sum(2, keepdim=True).clamp(min=1e-12)


def ghosting(x: Images, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Return images with faint copies of themselves, brighter or darker, along one axis.

    The copies are at multiples of a half, a third, ... or a sixth of the slice.
    """
    b, _, h, w = x.shape
    count = torch.randint(2, 7, (b, 1, 1), generator=generator).to(x.device)
    across = (torch.rand(b, generator=generator) < 0.5).to(x.device)
    height = config.ghost * _draw_uniform((b, 1, 1), generator).to(x.device)
    ghosts = []
    for n in (h, w):
        pixels = torch.arange(n, device=x.device)
        distance = (pixels[:, None] - pixels) % n
        # Number of the nearest copy; 0 and `count` are the image itself.
        nearest = torch.round(distance * count / n)
        copies = (torch.round(nearest * n / count) == distance) & (nearest > 0) & (nearest < count)
        ghosts.append(copies * height)
    copies = torch.where(across[:, None, None], x[:, 0] @ ghosts[1], ghosts[0] @ x[:, 0])
    return (x + copies[:, None]).abs()


def noise(x: Images, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Return the magnitude of the images with complex Gaussian noise.

    Source: Gudbjartsson and Patz 1995, https://doi.org/10.1002/mrm.1910340618
    """
    sigma = config.sigma * torch.rand(len(x), 1, 1, 1, generator=generator)
    real, imaginary = (sigma * torch.randn(2, *x.shape, generator=generator)).to(x.device)
    return torch.hypot(x + real, imaginary)


def match_range(x: Images, like: Images, brain: Brains) -> Images:
    """Scale and shift `x` so that its 1st and 99th percentile in the brain are those of `like`.

    The percentiles are computed from every second pixel of every second row.

    Args:
        x: images to change.
        like: images with the wanted percentiles.
        brain: brain masks of both.

    Returns:
        Images clipped to [0, 1]. An image is only clipped if its percentiles differ by less
        than 0.01.
    """
    low, high = _compute_percentiles(x, brain)
    wanted_low, wanted_high = _compute_percentiles(like, brain)
    flat = high - low < 0.01
    gain = torch.where(flat, 1.0, (wanted_high - wanted_low) / torch.where(flat, 1.0, high - low))
    return (torch.where(flat, x, wanted_low + (x - low) * gain)).clamp(0, 1)


def _compute_percentiles(x: Images, brain: Brains) -> Float[Tensor, "2 b 1 1 1"]:
    """Return the 1st and 99th percentile of each image in its brain; 0 for an empty brain."""
    inside = brain[..., ::2, ::2].flatten(1)
    ordered = torch.where(inside, x[..., ::2, ::2].flatten(1), torch.inf).sort(1).values
    count = inside.sum(1)
    at = torch.stack([(q * (count - 1)).round().long().clamp(min=0) for q in (0.01, 0.99)], 1)
    values = torch.where((count > 0)[:, None], ordered.gather(1, at), 0.0)
    return values.T[:, :, None, None, None]


def _choose(share: float, x: Images, generator: torch.Generator) -> Bool[Tensor, "b 1 1 1"]:
    """Choose each image with probability `share`."""
    return (torch.rand(len(x), 1, 1, 1, generator=generator) < share).to(x.device)


def _draw_uniform(
    shape: int | tuple[int, ...], generator: torch.Generator
) -> Float[Tensor, "..."]:
    """Return random numbers, uniform from -1 to 1."""
    return 2 * torch.rand(shape, generator=generator) - 1
