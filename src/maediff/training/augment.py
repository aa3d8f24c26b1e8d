"""Random changes of training slices, so that a model does not hang on one scanner: all choices here are ours.

    place      scale, rotation and shift in the slice, never beyond its edge
    contrast   x -> curve(x ^ g), rising, 0 -> 0, 1 -> 1
    bias       x -> x exp(f), f a sum of cosines of at most one wave across the slice
    resolution x -> U D x: blurred and sampled every `width` pixels, up and across separately, and drawn back
    ghosting   x -> | x + a sum of x shifted by multiples of a period | along one axis
    noise      x -> | x + sigma (n1 + i n2) |, Rician
    range      percentiles of the brain back to where they were
    headroom   x -> h x, h in [least, 1]

Each image draws its own parameters. The last line is what preprocessing would have done to such a scan: its 1st and
99th percentile are those of the whole brain, of which a slice shows a part, so a slice's percentiles go back to where
they were before bias, resolution, ghosting and noise; the curve keeps 0 and 1, so it stays as it is. Headroom is for
contrasts in which lesions are bright: a large one is the 99th percentile, and leaves healthy tissue the lower part of
the range (the brain's median lies between 0.30 and 0.75 in the lesion-free slices of lgg's ten val FLAIR scans), which
no healthy scan shows.
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

Images = Float[Tensor, "b 1 h w"]
Brains = Bool[Tensor, "b 1 h w"]

CURVE_POINTS = 256


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class AugmentConfig:
    """Share of the images that get each effect (0: never, the default), and how far the effect goes."""

    place: float = 0.0
    contrast: float = 0.0
    bias: float = 0.0
    resolution: float = 0.0
    ghosting: float = 0.0
    noise: float = 0.0
    headroom: float = 0.0
    rotation_deg: float = 10.0
    scaling: float = 0.08
    """Of the logarithm of the size."""
    shift_px: float = 4.0
    gamma: float = 0.3
    """Of the exponent's logarithm."""
    curve: float = 0.35
    """Standard deviation of the logarithm of the curve's slope, per cosine."""
    bias_log: float = 0.15
    """Standard deviation of the logarithm of the bias, at most."""
    width_px: float = 2.5
    """Widest sampling distance; 1 changes nothing."""
    ghost: float = 0.06
    """Height of a ghost over the image's, at most."""
    sigma: float = 0.04
    """Standard deviation of the noise, at most."""
    least: float = 0.4
    """What the brightest is dimmed to, at the most."""

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in self.shares):
            raise ValueError(
                "place, contrast, bias, resolution, ghosting, noise and headroom are shares from 0 to 1, and not "
                f"{', '.join(map(str, self.shares))}"
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
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.width_px < 1:
            raise ValueError(f"width_px={self.width_px} must not be below 1")
        if not 0 < self.least <= 1:
            raise ValueError(f"least={self.least} must be above 0 and at most 1")

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each effect."""
        return (
            self.place,
            self.contrast,
            self.bias,
            self.resolution,
            self.ghosting,
            self.noise,
            self.headroom,
        )

    @property
    def active(self) -> bool:
        """Whether any effect is on."""
        return any(share > 0 for share in self.shares)


ROBUST = AugmentConfig(place=0.5, contrast=0.7, bias=0.5, resolution=0.4, ghosting=0.15, noise=0.5)
"""For scanners that training has not seen."""
ROBUST_BRIGHT = replace(ROBUST, headroom=0.6)
"""The same where lesions are bright (FLAIR, T2w)."""
PRESETS = {"off": AugmentConfig(), "robust": ROBUST, "robust-bright": ROBUST_BRIGHT}


def preset_or_settings(value: Any) -> Any:
    """The preset of that name, or that of the key `preset` with the other settings on top; else `value` as it is.

    Raises:
        ValueError: a name that is no preset's.
    """
    settings = {"preset": value} if isinstance(value, str | bool) else value
    if not isinstance(settings, dict) or "preset" not in settings:
        return value
    name = (
        "off" if settings["preset"] is False else settings["preset"]
    )  # YAML reads a bare off as False
    if name not in PRESETS:
        raise ValueError(
            f"augmentation {name!r}: one of {', '.join(PRESETS)}, or a share for each effect"
        )
    return {
        **asdict(PRESETS[name]),
        **{key: one for key, one in settings.items() if key != "preset"},
    }


def augment(x: Images, brain: Brains, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Slices in [0, 1], 0 outside `brain`, changed at random; an effect that is off draws no random numbers.

    Returns:
        The same: in [0, 1], and 0 outside the brain (moved with it).
    """
    x = x * brain
    if config.place > 0:
        moved = place(x, brain, config, generator)
        chosen = _chosen(config.place, x, generator)
        x, brain = torch.where(chosen, moved[0], x), torch.where(chosen, moved[1], brain)
    if config.contrast > 0:
        x = torch.where(_chosen(config.contrast, x, generator), contrast(x, config, generator), x)
    before = x
    if config.bias > 0:
        x = torch.where(_chosen(config.bias, x, generator), bias(x, config, generator), x)
    if config.resolution > 0:
        x = torch.where(
            _chosen(config.resolution, x, generator), resolution(x, brain, config, generator), x
        )
    if config.ghosting > 0:
        x = torch.where(_chosen(config.ghosting, x, generator), ghosting(x, config, generator), x)
    if config.noise > 0:
        x = torch.where(_chosen(config.noise, x, generator), noise(x, config, generator), x)
    if x is not before:
        changed = (x != before).flatten(1).any(1)[:, None, None, None]
        x = torch.where(changed, match_range(x, before, brain), x)
    if config.headroom > 0:
        height = config.least + (1 - config.least) * torch.rand(
            len(x), 1, 1, 1, generator=generator
        ).to(x.device)
        x = torch.where(_chosen(config.headroom, x, generator), height * x, x)
    return x * brain


def place(
    x: Images, brain: Brains, config: AugmentConfig, generator: torch.Generator
) -> tuple[Images, Brains]:
    """Image and brain scaled, turned about the middle of the slice and shifted; less of it where they would not fit."""
    b, _, h, w = x.shape
    angle = math.radians(config.rotation_deg) * _uniform(b, generator)
    scale = torch.exp(config.scaling * _uniform(b, generator)).to(x.device)
    shift = config.shift_px * _uniform((b, 2), generator)
    angle, shift = angle.to(x.device), shift.to(x.device)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(
        b, 2, 2
    )  # of (column, row)
    half = torch.tensor([(w - 1) / 2, (h - 1) / 2], device=x.device)
    rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1).view(-1, 2) - half
    turned = pixels @ turn.transpose(
        1, 2
    )  # where each pixel goes, from the middle, before scaling
    inside = brain.flatten(1)[..., None]
    low = torch.where(inside, turned, torch.inf).amin(1)
    high = torch.where(inside, turned, -torch.inf).amax(1)
    empty = ~inside.any(1)
    low, high = torch.where(empty, 0.0, low), torch.where(empty, 0.0, high)
    scale = torch.minimum(scale, (2 * half / (high - low).clamp(min=1)).amin(1))[:, None]
    shift = torch.minimum(torch.maximum(shift, -half - scale * low), half - scale * high)
    source = (
        (pixels - shift[:, None]) / scale[:, None]
    ) @ turn  # the inverse turn: rows times the matrix
    grid = (source / half).view(b, h, w, 2)
    both = functional.grid_sample(torch.cat([x, brain.to(x.dtype)], 1), grid, align_corners=True)
    moved = both[:, 1:] >= 0.5
    return both[:, :1] / both[:, 1:].clamp(
        min=0.5
    ) * moved, moved  # the background does not darken the rim


def contrast(x: Images, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Intensities through a random rising curve that keeps 0 and 1: a power, then one whose log slope is 3 cosines."""
    b = len(x)
    power = torch.exp(config.gamma * _uniform(b, generator))[:, None]
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
    """Times a smooth field: up to one wave across the slice in each direction, flatter waves weighing more."""
    b, _, h, w = x.shape
    up, across = (
        torch.cos(math.pi * torch.arange(3)[:, None] * (torch.arange(n) + 0.5) / n) for n in (h, w)
    )
    order = torch.arange(3)
    weights = 1 / (1 + order[:, None] ** 2 + order**2)
    weights[0, 0] = 0
    variance = (
        weights**2 * torch.where(order > 0, 0.5, 1.0)[:, None] * torch.where(order > 0, 0.5, 1.0)
    ).sum()
    height = config.bias_log * torch.rand(b, 1, 1, generator=generator)
    waves = torch.randn(b, 3, 3, generator=generator) * weights / variance.sqrt() * height
    return x * torch.exp(up.T.to(x.device) @ waves.to(x.device) @ across.to(x.device))[:, None]


def resolution(
    x: Images, brain: Brains, config: AugmentConfig, generator: torch.Generator
) -> Images:
    """Pixels `width` times as large, up and across each its own; the background is left out of the averages."""
    b, _, h, w = x.shape
    widths = (1 + (config.width_px - 1) * torch.rand(b, 2, generator=generator)).to(x.device)
    phases = torch.rand(b, 2, generator=generator).to(x.device)
    up, across = (_coarse(n, widths[:, axis], phases[:, axis]) for axis, n in enumerate((h, w)))
    both = (
        up[:, None]
        @ torch.cat([x * brain, brain.to(x.dtype)], 1)
        @ across[:, None].transpose(2, 3)
    )
    return both[:, :1] / both[:, 1:].clamp(min=1e-3) * brain


def _coarse(
    n: int, width: Float[Tensor, " b"], phase: Float[Tensor, " b"]
) -> Float[Tensor, "b n n"]:
    """U D: D averages with a Gaussian of full width `width` around every `width`-th pixel, U interpolates linearly.

    The Gaussian's width is that of `maediff.preparation.resample`; at its least it weighs a pixel's neighbours 0.004.
    """
    pixels, width = torch.arange(n, device=width.device).float(), width[:, None, None]
    sigma = (torch.sqrt(width**2 - 1) / (2 * math.sqrt(2 * math.log(2)))).clamp(min=0.3)
    first = phase[:, None, None] * (width - 1)
    at = torch.arange(n + 3, device=width.device)[:, None]
    centres = at * width + first - width  # those beyond the slice weigh nothing in U
    down = torch.exp(-0.5 * ((centres - pixels) / sigma) ** 2)
    down = down / down.sum(2, keepdim=True).clamp(min=1e-12)
    up = (1 - (pixels[:, None] - centres.transpose(1, 2)).abs() / width).clamp(min=0)
    both = up @ down
    return both / both.sum(2, keepdim=True).clamp(min=1e-12)


def ghosting(x: Images, config: AugmentConfig, generator: torch.Generator) -> Images:
    """Faint copies of the image at every half, third, ... sixth of the slice, up or across, lighter or darker."""
    b, _, h, w = x.shape
    count = torch.randint(2, 7, (b, 1, 1), generator=generator).to(x.device)
    across = (torch.rand(b, generator=generator) < 0.5).to(x.device)
    height = config.ghost * _uniform((b, 1, 1), generator).to(x.device)
    ghosts = []
    for n in (h, w):
        pixels = torch.arange(n, device=x.device)
        distance = (pixels[:, None] - pixels) % n
        nearest = torch.round(
            distance * count / n
        )  # copy, the image itself being the first and the last
        copies = (torch.round(nearest * n / count) == distance) & (nearest > 0) & (nearest < count)
        ghosts.append(copies * height)
    copies = torch.where(across[:, None, None], x[:, 0] @ ghosts[1], ghosts[0] @ x[:, 0])
    return (x + copies[:, None]).abs()


def noise(x: Images, config: AugmentConfig, generator: torch.Generator) -> Images:
    """The magnitude of the image with complex noise (Gudbjartsson and Patz 1995)."""
    sigma = config.sigma * torch.rand(len(x), 1, 1, 1, generator=generator)
    real, imaginary = (sigma * torch.randn(2, *x.shape, generator=generator)).to(x.device)
    return torch.hypot(x + real, imaginary)


def match_range(x: Images, like: Images, brain: Brains) -> Images:
    """`x` scaled and shifted so that its 1st and 99th percentile in the brain are those of `like`, clipped to [0, 1].

    Where a slice holds next to no contrast, it is only clipped. Every second pixel of every second row is counted.
    """
    low, high = _percentiles(x, brain)
    wanted_low, wanted_high = _percentiles(like, brain)
    flat = high - low < 0.01
    gain = torch.where(flat, 1.0, (wanted_high - wanted_low) / torch.where(flat, 1.0, high - low))
    return (torch.where(flat, x, wanted_low + (x - low) * gain)).clamp(0, 1)


def _percentiles(x: Images, brain: Brains) -> Float[Tensor, "2 b 1 1 1"]:
    """1st and 99th percentile of each image in its brain; 0 where it has none."""
    inside = brain[..., ::2, ::2].flatten(1)
    ordered = torch.where(inside, x[..., ::2, ::2].flatten(1), torch.inf).sort(1).values
    count = inside.sum(1)
    at = torch.stack([(q * (count - 1)).round().long().clamp(min=0) for q in (0.01, 0.99)], 1)
    values = torch.where((count > 0)[:, None], ordered.gather(1, at), 0.0)
    return values.T[:, :, None, None, None]


def _chosen(share: float, x: Images, generator: torch.Generator) -> Bool[Tensor, "b 1 1 1"]:
    return (torch.rand(len(x), 1, 1, 1, generator=generator) < share).to(x.device)


def _uniform(shape: int | tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Random numbers from -1 to 1."""
    return 2 * torch.rand(shape, generator=generator) - 1
