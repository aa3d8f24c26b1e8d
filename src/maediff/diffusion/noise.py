"""Noise fields: Gaussian, simplex and coarse, one independent field for every image of a batch.

Simplex noise (Perlin 2001; Gustavson 2005, "Simplex noise demystified"):

    simplex(x, y) = sum_k persistence^k  n_k(x / l_k, y / l_k) / sd,   l_k = frequency / 2^k

Each octave n_k has a gradient of random direction at every lattice point and a random offset.
The field therefore does not repeat, and its standard deviation has a closed form.
Without the offset, lattice noise is always zero at pixel (0, 0).
The defaults of `SimplexConfig` are those of AnoDDPM (Wyatt et al. 2022).
Division by the standard deviation is our choice: the schedule assumes unit variance.

Coarse noise (of denoising autoencoders, Kascenas et al. 2022), scaled to unit variance:

    coarse(x, y) = 3/2  sum_ij tent(y / 6 - i) tent(x / 6 - j) z_ij
    z_ij ~ N(0, 1),   tent(a) = max(1 - |a|, 0),   with a random offset in x and in y

At test, noise is a pure function of (seed, slice, patch, draw): see `keyed_generators`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

NoiseKind = Literal["simplex", "gaussian", "coarse"]

# Square lattice <-> lattice of triangles, Gustavson 2005.
SKEW = (math.sqrt(3) - 1) / 2
UNSKEW = (3 - math.sqrt(3)) / 6
COARSE_PX = 6.0
"""Pixels between the random numbers of coarse noise. Kascenas et al. 2022 use 16 x 16 numbers for
a slice, which has 96 pixels here."""
# Variance of one octave. A unit area holds sqrt(3) lattice points, and each point adds
# (1/2 - r^2)^4 g.d with |g| = 1, so
# var = sqrt(3) * integral over r^2 < 1/2 of (1/2 - r^2)^8 r^2 / 2 dA
#     = sqrt(3) * (pi / 2) * (1/2)^10 / 90.
OCTAVE_VARIANCE = math.sqrt(3) * (math.pi / 2) * 0.5**10 / 90


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class SimplexConfig:
    """Waves of simplex noise. The variance of the noise is 1 for every choice."""

    octaves: int = 6
    """Number of fields that are added. Each has half the wavelength of the previous one."""
    persistence: float = 0.8
    """Amplitude of each octave relative to the previous one, 0..1. 0 keeps only the first."""
    frequency: float = 64.0
    """Wavelength of the first octave in pixels. The name is AnoDDPM's."""

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
                f"octaves={self.octaves} end in waves finer than a pixel: from "
                f"frequency={self.frequency:g} at most octaves={most}"
            )


DEFAULT_SIMPLEX = SimplexConfig()


def keyed_generators(
    seed: int, slice_ids: Int[Tensor, " b"], patches: Int[Tensor, " b"], draw: int = 0
) -> list[torch.Generator]:
    """Return one generator per image, a pure function of (seed, slice, patch, draw).

    Args:
        seed: seed of the prediction.
        slice_ids: index of each slice on the model's grid, at least 0.
        patches: index of each patch on its `PatchGrid`, at least 0.
        draw: index of the noise draw, at least 0.
    """
    generators = []
    for slice_id, patch in zip(slice_ids.tolist(), patches.tolist(), strict=True):
        # SeedSequence mixes the key, so that the noise of neighbours is unrelated.
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
    """Draw noise fields of zero mean and unit variance, independent from image to image.

    Random numbers are drawn on the CPU, so that every device gets the same noise.

    Args:
        kind: the kind of noise.
        shape: (images, rows, columns).
        generator: one CPU generator for the whole batch (training), or one per image (test).
        device: device of the result.
        simplex: waves of simplex noise; the other kinds ignore it.

    Raises:
        ValueError: the number of generators is not the number of images.
    """
    b, h, w = shape
    if kind == "gaussian":
        return _draw_per_image(torch.randn, b, (1, h, w), generator).to(device)
    if kind == "coarse":
        rows, columns = (math.floor((pixels - 1) / COARSE_PX) + 3 for pixels in (h, w))
        normals = _draw_per_image(torch.randn, b, (rows, columns), generator)
        offsets = _draw_per_image(torch.rand, b, (2,), generator)
        return _make_coarse_field(normals.to(device), offsets.to(device), h, w)
    uniforms = _draw_per_image(torch.rand, b, (_count_uniforms(h, w, simplex),), generator)
    return _make_simplex_field(uniforms.to(device), h, w, simplex)


def _draw_per_image(
    sample: Callable[..., Tensor],
    b: int,
    shape: tuple[int, ...],
    generator: torch.Generator | Sequence[torch.Generator],
) -> Tensor:
    """Draw `b` arrays of `shape` with `sample`: torch.rand or torch.randn."""
    if isinstance(generator, torch.Generator):
        return sample((b, *shape), generator=generator)
    if len(generator) != b:
        raise ValueError(f"{len(generator)} generators for {b} images: give one for each image")
    return torch.stack([sample(shape, generator=g) for g in generator])


def _make_coarse_field(
    normals: Float[Tensor, "b rows columns"], offsets: Float[Tensor, "b 2"], h: int, w: int
) -> Float[Tensor, "b 1 h w"]:
    """Interpolate random numbers bilinearly, after shifting their grid by offsets in [0, 1)."""
    rows = _compute_tent_weights(h, normals.shape[1], offsets[:, 0])
    columns = _compute_tent_weights(w, normals.shape[2], offsets[:, 1])
    # Along an axis, u and 1 - u weigh two numbers. The mean of u^2 + (1 - u)^2 over u in [0, 1]
    # is 2/3, so 3/2 gives unit variance. Autocast is off: noise is not rounded to bf16.
    with torch.autocast(normals.device.type, enabled=False):
        return (1.5 * rows @ normals @ columns.mT)[:, None]


def _compute_tent_weights(
    pixels: int, nodes: int, offset: Float[Tensor, " b"]
) -> Float[Tensor, "b pixels nodes"]:
    """Weight of each random number (node) at each pixel along one axis."""
    position = torch.arange(pixels, device=offset.device) / COARSE_PX + offset[:, None]
    distance = (position[:, :, None] - torch.arange(nodes, device=offset.device)).abs()
    return (1 - distance).clamp_min(0)


def _size_lattice(h: int, w: int, octave: int, frequency: float) -> tuple[int, int, float]:
    """Lattice rows, lattice columns and wavelength in pixels of one octave of an h x w field."""
    wavelength = frequency / 2**octave
    y, x = (h - 1) / wavelength, (w - 1) / wavelength
    rows, columns = (math.floor(1 + a + (x + y) * SKEW) + 2 for a in (y, x))
    return rows, columns, wavelength


def _count_uniforms(h: int, w: int, config: SimplexConfig) -> int:
    """Count the random numbers of a field: two offsets and one angle per lattice point."""
    return sum(
        2 + math.prod(_size_lattice(h, w, octave, config.frequency)[:2])
        for octave in range(config.octaves)
    )


def _make_simplex_field(
    uniforms: Float[Tensor, "b n"], h: int, w: int, config: SimplexConfig
) -> Float[Tensor, "b 1 h w"]:
    """Build simplex noise from uniform random numbers in [0, 1)."""
    field = torch.zeros(len(uniforms), h, w, device=uniforms.device)
    start = 0
    for octave in range(config.octaves):
        rows, columns, wavelength = _size_lattice(h, w, octave, config.frequency)
        angles_start, end = start + 2, start + 2 + rows * columns
        octave_field = _make_simplex_octave(
            uniforms[:, start:angles_start],
            2 * math.pi * uniforms[:, angles_start:end],
            (h, w),
            columns,
            wavelength,
        )
        field += config.persistence**octave * octave_field
        start = end
    squares = sum(config.persistence ** (2 * octave) for octave in range(config.octaves))
    return (field / math.sqrt(OCTAVE_VARIANCE * squares))[:, None]


def _make_simplex_octave(
    offset: Float[Tensor, "b 2"],
    angles: Float[Tensor, "b n"],
    shape: tuple[int, int],
    columns: int,
    wavelength: float,
) -> Float[Tensor, "b h w"]:
    """One octave of simplex noise, with variance `OCTAVE_VARIANCE`.

    Args:
        offset: shift of the lattice along each axis, in [0, 1).
        angles: direction of the gradient at each lattice point, row by row.
        shape: rows and columns of the field, in pixels.
        columns: lattice columns.
        wavelength: pixels per lattice unit.
    """
    sines, cosines = angles.sin(), angles.cos()
    # Position in lattice units, skewed so that the lattice of triangles becomes the integer one.
    y = torch.arange(shape[0], device=angles.device)[None, :, None] / wavelength
    x = torch.arange(shape[1], device=angles.device)[None, None, :] / wavelength
    skew = (x + y) * SKEW
    i, j = y + skew + offset[:, 0, None, None], x + skew + offset[:, 1, None, None]
    i0, j0 = i.floor(), j.floor()
    di, dj = i - i0, j - j0
    upper = (di > dj).to(di.dtype)
    field = torch.zeros_like(di)
    for ci, cj in ((0.0, 0.0), (upper, 1 - upper), (1.0, 1.0)):  # the corners of the triangle
        si, sj = di - ci, dj - cj
        unskew = (si + sj) * UNSKEW
        dy, dx = si - unskew, sj - unskew
        corner = ((i0 + ci) * columns + (j0 + cj)).long().flatten(1)
        gy, gx = sines.gather(1, corner).view_as(dy), cosines.gather(1, corner).view_as(dx)
        falloff = (0.5 - dy * dy - dx * dx).clamp_min(0).square().square()
        field += falloff * (gy * dy + gx * dx)
    return field


def coarse_noise(
    b: int, size: int, cells: int, sd: float, generator: torch.Generator
) -> Float[Tensor, "b 1 size size"]:
    """Draw the noise of a denoising autoencoder (Kascenas et al. 2022).

    Random numbers on a coarse grid are upsampled bilinearly, then each image is rolled by its own
    random shift. Unlike `draw_noise`, the variance is not scaled to 1.

    Args:
        b: number of images.
        size: rows and columns of an image.
        cells: rows and columns of the coarse grid.
        sd: standard deviation of the numbers before upsampling.
        generator: CPU generator for the whole batch.
    """
    noise = functional.interpolate(
        sd * torch.randn(b, 1, cells, cells, generator=generator),
        size=(size, size),
        mode="bilinear",
    )
    shifts = torch.randint(size, (b, 2), generator=generator).tolist()
    rolled = [
        torch.roll(image, shift, dims=(1, 2)) for image, shift in zip(noise, shifts, strict=True)
    ]
    return torch.stack(rolled)


def smooth_noise(
    b: int, shape: tuple[int, int], cells: int, generator: torch.Generator, device: torch.device
) -> Float[Tensor, "b 1 h w"]:
    """Draw Gaussian noise on a coarse grid and interpolate it bicubically.

    The random numbers have variance 1. Interpolation averages them, so the result has 0.7 to 0.8.

    Args:
        b: number of images.
        shape: rows and columns of an image.
        cells: rows and columns of the coarse grid.
        generator: CPU generator for the whole batch.
        device: device of the result.
    """
    coarse = torch.randn(b, 1, cells, cells, generator=generator).to(device)
    return functional.interpolate(coarse, shape, mode="bicubic", align_corners=False)
