"""Noise with unit variance: Gaussian, simplex and coarse, one independent field for every image of a batch.

    simplex(x, y) = sum_k persistence^k  n(x / (frequency / 2^k), y / (frequency / 2^k)) / sd

where n is Perlin's simplex noise (Perlin 2001; Gustavson 2005, "Simplex noise demystified") with a gradient of
random direction drawn afresh at every lattice point, and a random offset: the field does not repeat, does not
vanish at pixel (0, 0) as lattice noise without an offset does, and its standard deviation is known in closed
form. The defaults of `SimplexConfig` are AnoDDPM's (Wyatt et al. 2022); dividing by the standard deviation is ours,
because the schedule assumes noise of unit variance.

    coarse(x, y) = 3/2  sum_ij tent(y / 6 - i) tent(x / 6 - j) z_ij,   z_ij ~ N(0, 1),  tent(a) = max(1 - |a|, 0)

with a random offset in x and y is the noise of denoising autoencoders (Kascenas et al. 2022), scaled to unit variance.

At test, noise is a pure function of (seed, slice, patch, draw): see `keyed_generators`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

NoiseKind = Literal["simplex", "gaussian", "coarse"]

SKEW, UNSKEW = (
    (math.sqrt(3) - 1) / 2,
    (3 - math.sqrt(3)) / 6,
)  # square lattice <-> triangles, Gustavson 2005
COARSE_PX = 6.0  # between the numbers of coarse noise: Kascenas et al. 2022 draw 16 x 16 a slice, of 96 pixels here
# Variance of one octave: sqrt(3) lattice points a unit area, each adding (1/2 - r^2)^4 g.d with |g| = 1, so
# var = sqrt(3) * integral over r^2 < 1/2 of (1/2 - r^2)^8 r^2 / 2 dA = sqrt(3) * (pi / 2) * (1/2)^10 / 90.
OCTAVE_VARIANCE = math.sqrt(3) * (math.pi / 2) * 0.5**10 / 90


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SimplexConfig:
    """Waves that simplex noise is made of. Whatever they are, its variance is 1."""

    octaves: int = 6
    """Fields added up, each of half the wavelength of the one before."""
    persistence: float = 0.8
    """Amplitude of each octave, as a share of the one before; 0 leaves the first alone."""
    frequency: float = 64.0
    """Wavelength of the first octave in pixels, AnoDDPM's word for it."""

    def __post_init__(self) -> None:
        if self.octaves < 1:
            raise ValueError(f"octaves={self.octaves} must be at least 1")
        if not 0 <= self.persistence <= 1:
            raise ValueError(f"persistence={self.persistence} must be in 0..1")
        if not 1 <= self.frequency < math.inf:
            raise ValueError(
                f"frequency={self.frequency} must be a wavelength of at least 1 pixel"
            )
        if (most := math.floor(math.log2(self.frequency)) + 1) < self.octaves:
            raise ValueError(
                f"octaves={self.octaves} end in waves finer than a pixel: from frequency={self.frequency:g} at most "
                f"octaves={most}"
            )


DEFAULT_SIMPLEX = SimplexConfig()


def keyed_generators(
    seed: int, slice_ids: Int[Tensor, " b"], patches: Int[Tensor, " b"], draw: int = 0
) -> list[torch.Generator]:
    """One generator an image, each a pure function of (seed, slice index, patch index, draw index)."""
    generators = []
    for slice_id, patch in zip(slice_ids.tolist(), patches.tolist(), strict=True):
        # Negative ids cannot occur on a grid; SeedSequence mixes the key so that neighbours are unrelated.
        state = np.random.SeedSequence((seed, slice_id, patch, draw)).generate_state(2, np.uint32)
        generators.append(torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1])))
    return generators


def draw_noise(
    kind: NoiseKind,
    shape: tuple[int, int, int],
    generator: torch.Generator | Sequence[torch.Generator],
    device: torch.device | str = "cpu",
    simplex: SimplexConfig = DEFAULT_SIMPLEX,
) -> Float[Tensor, "b 1 h w"]:
    """Noise fields of zero mean and unit variance, independent from image to image.

    Args:
        shape: (images, rows, columns).
        generator: a CPU generator for the whole batch (training), or one an image (prediction). Random numbers
            are drawn on the CPU whatever the device, so that every device sees the same noise.
        simplex: of that kind's waves.
    """
    b, h, w = shape
    if kind == "gaussian":
        return _per_image(torch.randn, b, (1, h, w), generator).to(device)
    if kind == "coarse":
        rows, columns = (math.floor((pixels - 1) / COARSE_PX) + 3 for pixels in (h, w))
        normals = _per_image(torch.randn, b, (rows, columns), generator)
        offsets = _per_image(torch.rand, b, (2,), generator)
        return _coarse(normals.to(device), offsets.to(device), h, w)
    uniforms = _per_image(torch.rand, b, (_uniforms_needed(h, w, simplex),), generator)
    return _simplex(uniforms.to(device), h, w, simplex)


def _per_image(
    sample: object,
    b: int,
    shape: tuple[int, ...],
    generator: torch.Generator | Sequence[torch.Generator],
) -> Tensor:
    assert callable(sample)
    if isinstance(generator, torch.Generator):
        return sample((b, *shape), generator=generator)  # type: ignore[no-any-return]
    if len(generator) != b:
        raise ValueError(f"{len(generator)} generators for {b} images: one an image is needed")
    return torch.stack([sample(shape, generator=g) for g in generator])


def _coarse(
    normals: Float[Tensor, "b rows columns"], offsets: Float[Tensor, "b 2"], h: int, w: int
) -> Float[Tensor, "b 1 h w"]:
    """Numbers on a grid that is moved by offsets in [0, 1), in between bilinear."""

    def tents(
        pixels: int, nodes: int, offset: Float[Tensor, " b"]
    ) -> Float[Tensor, "b pixels nodes"]:
        at = torch.arange(pixels, device=normals.device) / COARSE_PX + offset[:, None]
        return (1 - (at[:, :, None] - torch.arange(nodes, device=normals.device)).abs()).clamp_min(
            0
        )

    rows, columns = (
        tents(h, normals.shape[1], offsets[:, 0]),
        tents(w, normals.shape[2], offsets[:, 1]),
    )
    # Along an axis, u and 1 - u weigh two nodes: the mean of u^2 + (1 - u)^2 over u in [0, 1] is 2/3.
    with torch.autocast(
        normals.device.type, enabled=False
    ):  # noise is not rounded to bf16 where the network is
        return (1.5 * rows @ normals @ columns.mT)[:, None]


def _lattice(h: int, w: int, octave: int, frequency: float) -> tuple[int, int, float]:
    """Lattice rows, lattice columns and wavelength in pixels of one octave of an h x w field."""
    wavelength = frequency / 2**octave
    y, x = (h - 1) / wavelength, (w - 1) / wavelength
    rows, columns = (math.floor(1 + a + (x + y) * SKEW) + 2 for a in (y, x))
    return rows, columns, wavelength


def _uniforms_needed(h: int, w: int, config: SimplexConfig) -> int:
    return sum(
        2 + math.prod(_lattice(h, w, octave, config.frequency)[:2])
        for octave in range(config.octaves)
    )


def _simplex(
    uniforms: Float[Tensor, "b n"], h: int, w: int, config: SimplexConfig
) -> Float[Tensor, "b 1 h w"]:
    field = torch.zeros(len(uniforms), h, w, device=uniforms.device)
    rows_px = torch.arange(h, device=uniforms.device)[None, :, None]
    columns_px = torch.arange(w, device=uniforms.device)[None, None, :]
    start = 0
    for octave in range(config.octaves):
        rows, columns, wavelength = _lattice(h, w, octave, config.frequency)
        offset, angles = (
            uniforms[:, start : start + 2],
            uniforms[:, start + 2 : start + 2 + rows * columns],
        )
        start += 2 + rows * columns
        gradients = [f(angles * (2 * math.pi)) for f in (torch.sin, torch.cos)]
        # Position in lattice units, skewed so that the triangles' lattice becomes the integer one.
        y, x = rows_px / wavelength, columns_px / wavelength
        skew = (x + y) * SKEW
        i, j = y + skew + offset[:, 0, None, None], x + skew + offset[:, 1, None, None]
        i0, j0 = i.floor(), j.floor()
        di, dj = i - i0, j - j0
        upper = (di > dj).to(di.dtype)
        octave_field = torch.zeros_like(field)
        for ci, cj in (
            (0.0, 0.0),
            (upper, 1 - upper),
            (1.0, 1.0),
        ):  # the three corners of the triangle
            si, sj = di - ci, dj - cj
            unskew = (si + sj) * UNSKEW
            dy, dx = si - unskew, sj - unskew
            corner = ((i0 + ci) * columns + (j0 + cj)).long().flatten(1)
            gy, gx = (gradient.gather(1, corner).view_as(dy) for gradient in gradients)
            falloff = (0.5 - dy * dy - dx * dx).clamp_min(0).square().square()
            octave_field += falloff * (gy * dy + gx * dx)
        field += config.persistence**octave * octave_field
    variance = OCTAVE_VARIANCE * sum(
        config.persistence ** (2 * octave) for octave in range(config.octaves)
    )
    return (field / math.sqrt(variance))[:, None]


def coarse_noise(
    b: int, size: int, cells: int, sd: float, generator: torch.Generator
) -> Float[Tensor, "b 1 size size"]:
    """Noise of `cells` x `cells` numbers upsampled to the slice, each image's moved round by its own random shift."""
    noise = functional.interpolate(
        sd * torch.randn(b, 1, cells, cells, generator=generator),
        size=(size, size),
        mode="bilinear",
    )
    shifts = torch.randint(size, (b, 2), generator=generator).tolist()
    moved = [
        torch.roll(image, shift, dims=(1, 2)) for image, shift in zip(noise, shifts, strict=True)
    ]
    return torch.stack(moved)


def smooth_noise(
    b: int, shape: tuple[int, int], cells: int, generator: torch.Generator, device: torch.device
) -> Float[Tensor, "b 1 h w"]:
    """Gaussian noise on a `cells` x `cells` grid, brought to `shape` by cubic interpolation; about unit variance."""
    coarse = torch.randn(b, 1, cells, cells, generator=generator).to(device)
    return functional.interpolate(coarse, shape, mode="bicubic", align_corners=False)
