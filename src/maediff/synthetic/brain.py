"""Synthetic healthy brains: the MNI152 template warped, refolded and imaged anew for every subject.

    y(x)     = affine + coarse and fine elastic displacement + push to or from the ventricles   (mm, template space)
    e(y)     = min( depth under the hull, distance to the nearest sulcus of this subject )      (mm)
    csf = S(-e / s),  gm = S((thickness - e) / s) (1 - csf),  wm = 1 - gm - csf                 in the cerebral mantle
    csf, gm, wm = the template's own fractions at y                                             elsewhere, blended
    clean    = sum of tissue fractions times this subject's tissue intensities + the template's fine structure
    image    = | blur(bias * clean), averaged over the slice thickness + complex noise |, zero outside the brain

A sulcus is a sheet where a random band-pass field on the surface of the hemisphere, carried inwards along the radius,
is zero; |f| / |grad f| is then the distance to it in mm. The field is drawn anew for every subject and hemisphere,
so no two subjects share a sulcal pattern: the template's blurred cortex stays only around the Sylvian fissure, on the
medial wall, in the cerebellum and in the depth. All numbers here are our choices, made by eye beside real scans.
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

FINE_SHAPE = (80, 100, 80)
"""Voxels of 2 mm on which brains are built; pairs of them are averaged into slices of 4 mm."""
ORIGIN_MM = (-79.0, -116.0, -71.0)
SLICE_MM = 4.0

TISSUES: dict[Modality, tuple[float, float, float]] = {
    "T1w": (0.17, 0.56, 0.86),
    "T2w": (1.00, 0.52, 0.36),
    "FLAIR": (0.12, 0.62, 0.49),
}
"""Mean intensity of CSF, grey and white matter by contrast."""
NOISE_SCALE: dict[Modality, float] = {"T1w": 1.0, "T2w": 1.0, "FLAIR": 0.6}
"""FLAIR spans less of the scale, and is drawn with its noise at the same ratio to the contrast."""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PhantomConfig:
    """What varies between synthetic subjects; each field is a scale, and a subject draws its own value from it."""

    contrast: Modality = "T1w"
    rotation_deg: float = 5.0
    scaling: float = 0.06
    coarse_warp_mm: float = 2.0
    fine_warp_mm: float = 1.3
    ventricle_mm: tuple[float, float] = (-1.0, 3.5)
    """Range of the shift of the ventricles' walls, outward positive."""
    fold_wavelength_mm: float = 27.0
    cortex_mm: float = 3.2
    tissue_sd: float = 0.025
    bias: float = 0.07
    noise: tuple[float, float] = (0.012, 0.035)
    blur_mm: tuple[float, float] = (0.7, 1.4)
    """Range of the in-plane point spread's standard deviation."""


@plain_dataclass(frozen=True)
class Phantom:
    """A synthetic brain; `clean` and what follows it live on the 2 mm grid, from which `image` is made."""

    image: Field
    brain: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    contrast: Modality
    seed: tuple[int, ...]
    clean: FineField = field(repr=False)
    fractions: Float[np.ndarray, "3 fx fy fz"] = field(repr=False)
    """CSF, grey and white matter; they sum to 1 in the brain and to 0 outside."""
    depth_mm: FineField = field(repr=False)
    """Depth under the brain's hull, negative outside."""
    ventricles: FineField = field(repr=False)
    cerebrum: FineField = field(repr=False)
    levels: tuple[float, float, float]
    """This subject's intensity of CSF, grey and white matter."""
    bias: FineField = field(repr=False)
    blur_mm: float
    noise: float
    lesion: Bool[np.ndarray, "x y z"] | None = None
    lesion_kind: str | None = None
    lesion_size: str | None = None


def healthy_brain(seed: int | tuple[int, ...], config: PhantomConfig | None = None) -> Phantom:
    """A healthy brain of 80 x 100 x 40 voxels of 2 x 2 x 4 mm, the same for the same seed.

    The seed is the entropy of a numpy SeedSequence, say (seed of the cohort, index of the subject).
    """
    config = config or PhantomConfig()
    seed = (seed,) if isinstance(seed, int) else tuple(seed)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    y = _warp(rng, config)
    template = load_template()
    depth, to_ventricle, mantle, cerebrum = sample(template.maps, template.maps_origin, 2.0, y)
    inside = depth > 0
    # Ventricles grow by fetching tissue from nearer to them: x -> x - shift * unit vector away from the ventricles.
    shift = rng.uniform(*config.ventricle_mm) * np.exp(-np.abs(to_ventricle) / 9.0)
    away = np.stack(np.gradient(ndimage.gaussian_filter(to_ventricle, 1.5), VOXEL_MM))
    y_inner = y - shift * away / np.maximum(np.linalg.norm(away, axis=0), 0.2)
    sampled = sample(template.tissue, template.tissue_origin, 1.0, y_inner[:, inside])
    sulcal_csf, sulcal_gm = _folds(rng, config, y, depth)
    m = mantle[inside]
    gm = (1 - m) * sampled[0] + m * sulcal_gm[inside]
    wm = (1 - m) * sampled[1] + m * (1 - sulcal_csf - sulcal_gm)[inside]
    fractions = np.zeros((3, *FINE_SHAPE), np.float32)
    fractions[:, inside] = np.stack([np.clip(1 - gm - wm, 0, 1), gm, wm])
    fractions /= np.maximum(fractions.sum(0), 1e-6)
    levels = np.array(TISSUES[config.contrast]) * (1 + config.tissue_sd * rng.standard_normal(3))
    clean = np.tensordot(levels, fractions, 1)
    unevenness = 1 + 0.025 * smooth_field(rng, FINE_SHAPE, 24.0)
    # The template's fine structure follows the contrast between white and grey matter.
    clean[inside] += 0.7 * (1 - m) * sampled[2] * (levels[2] - levels[1]) / 0.26
    clean *= unevenness
    if (
        config.contrast != "T1w"
    ):  # caps and bands along the ventricles, which healthy people have too
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
        image=render(clean, bias, blur_mm, noise, inside, seed),
        brain=_thick(inside) >= 0.5,
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


def render(
    clean: FineField,
    bias: FineField,
    blur_mm: float,
    noise: float,
    inside: Bool[np.ndarray, "fx fy fz"],
    seed: tuple[int, ...],
) -> Field:
    """The image of `clean`: bias, point spread, slices of 4 mm, Rician noise (drawn from `seed`), no skull."""
    rng = np.random.default_rng(np.random.SeedSequence((*seed, 0x5CA2)))
    sigma = blur_mm / VOXEL_MM
    signal = _thick(ndimage.gaussian_filter(clean * bias, (sigma, sigma, 0.4 * sigma)))
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(noise)
    image = np.hypot(signal + real, imaginary) * (_thick(inside) >= 0.5)
    return np.asarray(image, np.float32)


def _thick(values: np.ndarray) -> Field:
    """Slices of 4 mm: the mean of each pair of 2 mm."""
    return np.asarray(0.5 * (values[:, :, 0::2].astype(np.float32) + values[:, :, 1::2]))


def _warp(rng: np.random.Generator, config: PhantomConfig) -> Float[np.ndarray, "3 x y z"]:
    """Template position (mm) of every voxel of the subject."""
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


def _folds(
    rng: np.random.Generator, config: PhantomConfig, y: Float[np.ndarray, "3 x y z"], depth: Field
) -> tuple[Field, Field]:
    """CSF and grey matter of a freshly folded cerebral mantle."""
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
    reach = np.clip(
        17.0 + 4.5 * smooth_field(rng, FINE_SHAPE, 40.0), 5.0, 24.0
    )  # depth of the sulcus here, mm
    width = rng.uniform(0.4, 1.2)
    under_hull = depth - rng.uniform(0.2, 1.2)
    from_sulcus = np.hypot(distance, np.maximum(depth - reach, 0.0)) - width * (1.2 - depth / 25.0)
    e = np.minimum(under_hull, from_sulcus)
    thickness = config.cortex_mm + 0.4 * smooth_field(rng, FINE_SHAPE, 30.0)
    csf = logistic(-e / 0.55)
    gm = logistic((thickness - e) / 0.6) * (1 - csf)
    return csf, gm
