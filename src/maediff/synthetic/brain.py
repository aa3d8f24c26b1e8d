"""Synthetic healthy brains: the MNI152 template with a new warp, new sulci and new noise.

    y(x)    = affine + coarse and fine elastic displacement + shift of the ventricle walls    (mm)
    e(y)    = min(depth under the hull, distance to the nearest sulcus of this subject)       (mm)
    csf     = S(-e / s),  gm = S((thickness - e) / s) (1 - csf),  wm = 1 - gm - csf
              in the cerebral mantle; elsewhere the fractions of the template at y, blended
    clean   = sum of tissue fractions times tissue intensities + fine structure of the template
    image   = | blur(bias * clean), averaged over the slice thickness + complex noise |,
              zero outside the brain

A sulcus is a sheet on which a random band-pass field f is zero. The field varies over the surface
of a hemisphere and is constant along the radius. Then |f| / |grad f| is the distance to the sheet
in mm. Each subject and hemisphere has a new field, and no two subjects share a sulcal pattern.
The blurred cortex of the template remains around the Sylvian fissure, on the medial wall, in the
cerebellum and in deep structures. All numbers are our choice, by comparison with real scans.
"""

from dataclasses import dataclass as plain_dataclass
from dataclasses import field

import numpy as np
from jaxtyping import Bool, Float
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from scipy import ndimage

from maediff.core.types import Modality
from maediff.synthetic.fields import VOXEL_MM, Field, logistic, smooth_field
from maediff.synthetic.template import load_template, sample

FineField = Float[np.ndarray, "fx fy fz"]
"""A number for each voxel of the 2 mm grid."""

FINE_SHAPE = (80, 100, 80)
"""Shape of the 2 mm grid; pairs of its slices are averaged to slices of 4 mm."""
ORIGIN_MM = (-79.0, -116.0, -71.0)
"""Position of the first voxel of the 2 mm grid in MNI152."""
SLICE_MM = 4.0
"""Slice thickness of the image."""

TISSUE_INTENSITY: dict[Modality, tuple[float, float, float]] = {
    "T1w": (0.17, 0.56, 0.86),
    "T2w": (1.00, 0.52, 0.36),
    "FLAIR": (0.12, 0.62, 0.49),
}
"""Mean intensity of CSF, grey matter and white matter in each contrast."""
NOISE_SCALE: dict[Modality, float] = {"T1w": 1.0, "T2w": 1.0, "FLAIR": 0.6}
"""Factor of the noise: FLAIR uses a smaller range of intensities, so its noise is smaller too."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PhantomConfig:
    """Variation between synthetic subjects; each subject has random values on these scales.

    Args:
        contrast: T1w, T2w or FLAIR.
        rotation_deg: scale of the rotation about each axis.
        scaling: scale of the relative size of the head.
        coarse_warp_mm: standard deviation of the displacement with wavelength 80 mm.
        fine_warp_mm: standard deviation of the displacement with wavelength 28 mm.
        ventricle_mm: range of the shift of the ventricle walls; outward is positive.
        fold_wavelength_mm: distance between neighbouring sulci of one field.
        cortex_mm: mean thickness of the cortex.
        tissue_sd: relative standard deviation of the tissue intensities.
        bias: standard deviation of the logarithm of the bias field.
        noise: range of the standard deviation of the noise; `NOISE_SCALE` multiplies it.
        blur_mm: range of the standard deviation of the point spread function in the slice.
    """

    contrast: Modality = "T1w"
    rotation_deg: float = 5.0
    scaling: float = 0.06
    coarse_warp_mm: float = 2.0
    fine_warp_mm: float = 1.3
    ventricle_mm: tuple[float, float] = (-1.0, 3.5)
    fold_wavelength_mm: float = 27.0
    cortex_mm: float = 3.2
    tissue_sd: float = 0.025
    bias: float = 0.07
    noise: tuple[float, float] = (0.012, 0.035)
    blur_mm: tuple[float, float] = (0.7, 1.4)


@plain_dataclass(frozen=True)
class Phantom:
    """A synthetic brain.

    `image`, `brain` and `lesion` have slices of 4 mm; all other volumes are on the 2 mm grid.

    Args:
        image: the scan, skull-stripped.
        brain: brain mask.
        affine: voxel of `image` -> mm of MNI152.
        contrast: T1w, T2w or FLAIR.
        seed: entropy of the random generator.
        clean: image without bias, blur and noise.
        fractions: CSF, grey and white matter; their sum is 1 in the brain and 0 outside.
        depth_mm: depth under the hull of the brain; negative outside.
        ventricles: membership in [0, 1].
        cerebrum: membership in [0, 1].
        levels: intensity of CSF, grey and white matter in this subject.
        bias: bias field, a factor.
        blur_mm: standard deviation of the point spread function in the slice.
        noise: standard deviation of the complex noise.
        lesion: lesion mask; None for a healthy brain.
        lesion_kind: kind of the lesion.
        lesion_size: size class of the lesion.
    """

    image: Field
    brain: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    contrast: Modality
    seed: tuple[int, ...]
    clean: FineField = field(repr=False)
    fractions: Float[np.ndarray, "3 fx fy fz"] = field(repr=False)
    depth_mm: FineField = field(repr=False)
    ventricles: FineField = field(repr=False)
    cerebrum: FineField = field(repr=False)
    levels: tuple[float, float, float]
    bias: FineField = field(repr=False)
    blur_mm: float
    noise: float
    lesion: Bool[np.ndarray, "x y z"] | None = None
    lesion_kind: str | None = None
    lesion_size: str | None = None


def healthy_brain(seed: int | tuple[int, ...], config: PhantomConfig | None = None) -> Phantom:
    """Return a healthy brain of 80 x 100 x 40 voxels of 2 x 2 x 4 mm.

    Args:
        seed: entropy of a numpy SeedSequence, for example (seed of the dataset, subject index).
            The same seed gives the same brain.
        config: variation between subjects; None for the default.
    """
    config = config or PhantomConfig()
    seed = (seed,) if isinstance(seed, int) else tuple(seed)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    y = _warp_positions(rng, config)
    template = load_template()
    depth, to_ventricle, mantle, cerebrum = sample(template.maps, template.maps_origin, 2.0, y)
    inside = depth > 0
    # A ventricle grows if each voxel shows tissue from nearer to it:
    # x -> x - shift * unit vector away from the ventricle.
    shift = rng.uniform(*config.ventricle_mm) * np.exp(-np.abs(to_ventricle) / 9.0)
    away = np.stack(np.gradient(ndimage.gaussian_filter(to_ventricle, 1.5), VOXEL_MM))
    y_inner = y - shift * away / np.maximum(np.linalg.norm(away, axis=0), 0.2)
    sampled = sample(template.tissue, template.tissue_origin, 1.0, y_inner[:, inside])
    sulcal_csf, sulcal_gm = _fold_cortex(rng, config, y, depth)
    m = mantle[inside]
    gm = (1 - m) * sampled[0] + m * sulcal_gm[inside]
    wm = (1 - m) * sampled[1] + m * (1 - sulcal_csf - sulcal_gm)[inside]
    fractions = np.zeros((3, *FINE_SHAPE), np.float32)
    fractions[:, inside] = np.stack([np.clip(1 - gm - wm, 0, 1), gm, wm])
    fractions /= np.maximum(fractions.sum(0), 1e-6)
    levels = np.array(TISSUE_INTENSITY[config.contrast]) * (
        1 + config.tissue_sd * rng.standard_normal(3)
    )
    clean = np.tensordot(levels, fractions, 1)
    unevenness = 1 + 0.025 * smooth_field(rng, FINE_SHAPE, 24.0)
    # The fine structure of the template scales with the contrast of white and grey matter.
    clean[inside] += 0.7 * (1 - m) * sampled[2] * (levels[2] - levels[1]) / 0.26
    clean *= unevenness
    if config.contrast != "T1w":  # bright caps and bands along the ventricles of healthy people
        rim = np.exp(-np.maximum(to_ventricle, 0) / 3.0) * (to_ventricle > 0) * fractions[2]
        clean += rng.uniform(0.0, 0.25) * rim * (1 + 0.5 * smooth_field(rng, FINE_SHAPE, 14.0))
    clean = np.maximum(clean, 0.02).astype(np.float32) * inside
    bias = np.exp(config.bias * smooth_field(rng, FINE_SHAPE, 90.0)).astype(np.float32)
    ventricles = np.clip(0.5 - to_ventricle / 2.0 + shift / 2.0, 0, 1).astype(np.float32) * inside
    affine = np.diag([VOXEL_MM, VOXEL_MM, SLICE_MM, 1.0])
    affine[:3, 3] = np.add(ORIGIN_MM, (0.0, 0.0, (SLICE_MM - VOXEL_MM) / 2))
    blur_mm, noise = rng.uniform(*config.blur_mm), rng.uniform(*config.noise)
    noise *= NOISE_SCALE[config.contrast]
    return Phantom(
        image=simulate_image(clean, bias, blur_mm, noise, inside, seed),
        brain=_average_slices(inside) >= 0.5,
        affine=affine,
        contrast=config.contrast,
        seed=seed,
        clean=clean,
        fractions=fractions,
        depth_mm=depth.astype(np.float32),
        ventricles=ventricles,
        cerebrum=cerebrum.astype(np.float32),
        levels=(float(levels[0]), float(levels[1]), float(levels[2])),
        bias=bias,
        blur_mm=blur_mm,
        noise=noise,
    )


def simulate_image(
    clean: FineField,
    bias: FineField,
    blur_mm: float,
    noise: float,
    inside: Bool[np.ndarray, "fx fy fz"],
    seed: tuple[int, ...],
) -> Field:
    """Return the scan of a brain: bias, blur, slices of 4 mm and Rician noise; no skull.

    Args:
        clean: intensities without bias, blur and noise.
        bias: bias field, a factor.
        blur_mm: standard deviation of the point spread function in the slice.
        noise: standard deviation of the complex noise.
        inside: brain mask on the 2 mm grid.
        seed: entropy of the noise.
    """
    rng = np.random.default_rng(np.random.SeedSequence((*seed, 0x5CA2)))
    sigma = blur_mm / VOXEL_MM
    signal = _average_slices(ndimage.gaussian_filter(clean * bias, (sigma, sigma, 0.4 * sigma)))
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(noise)
    image = np.hypot(signal + real, imaginary) * (_average_slices(inside) >= 0.5)
    return np.asarray(image, np.float32)


def _average_slices(values: np.ndarray) -> Field:
    """Return slices of 4 mm: the mean of each pair of 2 mm slices."""
    return np.asarray(0.5 * (values[:, :, 0::2].astype(np.float32) + values[:, :, 1::2]))


def _warp_positions(
    rng: np.random.Generator, config: PhantomConfig
) -> Float[np.ndarray, "3 x y z"]:
    """Return the position in the template (mm) of every voxel of the subject."""
    angles = np.deg2rad(config.rotation_deg) * np.clip(rng.standard_normal(3), -2, 2) * 0.6
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix = matrix @ np.diag(
        1.08 + config.scaling * rng.uniform(-1, 1) + 0.5 * config.scaling * rng.uniform(-1, 1, 3)
    )
    axes = [o + VOXEL_MM * np.arange(n) for o, n in zip(ORIGIN_MM, FINE_SHAPE, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    centre = np.array([0.0, -18.0, 5.0], np.float32)[:, None, None, None]
    y = np.tensordot(matrix.astype(np.float32), x - centre, 1) + centre
    for component in y:
        component += config.coarse_warp_mm * smooth_field(rng, FINE_SHAPE, 80.0)
        component += config.fine_warp_mm * smooth_field(rng, FINE_SHAPE, 28.0)
    return np.asarray(y, np.float32)


def _fold_cortex(
    rng: np.random.Generator, config: PhantomConfig, y: Float[np.ndarray, "3 x y z"], depth: Field
) -> tuple[Field, Field]:
    """Return CSF and grey matter of a cerebral mantle with new random sulci."""
    n, step = 64, 3.0
    frequency = np.sqrt(
        sum(
            f**2
            for f in np.meshgrid(
                *[np.fft.fftfreq(n, step)] * 2, np.fft.rfftfreq(n, step), indexing="ij"
            )
        )
    )
    peak = 1 / config.fold_wavelength_mm
    band = np.exp(-0.5 * ((frequency - peak) / (0.2 * peak)) ** 2)
    noise = np.fft.irfftn(np.fft.rfftn(rng.standard_normal((n, n, n))) * band, axes=(0, 1, 2))
    noise = (noise / noise.std()).astype(np.float32)
    right = y[0] > 0
    u = np.stack([np.abs(y[0]) - 22.0, y[1] + 18.0, y[2] - 8.0])
    semi_axes = np.array([44.0, 84.0, 66.0], np.float32)[:, None, None, None]
    radius = np.maximum(np.linalg.norm(u / semi_axes, axis=0), 0.2)
    p = (
        u * (0.8 / radius + 0.2) / step
        + n / 4
        + right[None] * np.array([n / 2, n / 3, n / 3])[:, None, None, None]
    )
    f = ndimage.map_coordinates(noise, p.astype(np.float32), order=1, mode="grid-wrap")
    slope = np.sqrt(sum(g**2 for g in np.gradient(f, VOXEL_MM)))
    distance = np.abs(f) / np.maximum(slope, 0.12)
    # depth of the sulcus at each voxel, mm
    reach = np.clip(17.0 + 4.5 * smooth_field(rng, FINE_SHAPE, 40.0), 5.0, 24.0)
    width = rng.uniform(0.4, 1.2)
    under_hull = depth - rng.uniform(0.2, 1.2)
    from_sulcus = np.hypot(distance, np.maximum(depth - reach, 0.0)) - width * (1.2 - depth / 25.0)
    e = np.minimum(under_hull, from_sulcus)
    thickness = config.cortex_mm + 0.4 * smooth_field(rng, FINE_SHAPE, 30.0)
    csf = logistic(-e / 0.55)
    gm = logistic((thickness - e) / 0.6) * (1 - csf)
    return csf, gm
