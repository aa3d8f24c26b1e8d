"""Lesions with known masks, put into a synthetic brain before it is imaged (bias, blur and noise come on top).

    q        = - ellipsoid radius + smooth noise      irregular shape; the threshold gives the volume asked for
    m        = S((q - threshold) / softness)          soft membership; lesion mask = m > 0.5, largest component
    bright   clean <- (1 - m) clean + m (one level, uneven, with a little of the anatomy left)
    dark     the same with a low level
    texture  clean <- (1 - m) clean + m (local mean + grain of 6 to 8 mm): the mean stays, the texture changes
    mass_effect  clean <- (1 - m) clean(x - push) + m (halfway between the local mean and grey matter);
             the push is outwards, up to 0.85 of the core's radius. Mask = core, and the rim where tissue has moved
             by over 2 mm and the picture has changed by over a quarter of the contrast of white and grey matter

Levels overlap with those of normal tissue (CSF is brighter than a bright T2 lesion, white matter about as bright as a
bright T1 lesion, CSF darker than any dark one but in T2), so no threshold on intensity separates them.
Ventricles are spared, except by mass effect, which pushes them aside.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.core.types import Modality
from maediff.synthetic.brain import FINE_SHAPE, SLICE_MM, FineField, Phantom, render
from maediff.synthetic.fields import VOXEL_MM, smooth_field

LesionKind = Literal["bright", "dark", "texture", "mass_effect"]
LesionSize = Literal["large", "small"]
LESION_KINDS: tuple[LesionKind, ...] = ("bright", "dark", "texture", "mass_effect")
LESION_ML: dict[LesionSize, tuple[float, float]] = {"large": (15.0, 40.0), "small": (1.0, 4.0)}

LEVELS: dict[tuple[Modality, str], tuple[float, float]] = {
    ("T1w", "bright"): (0.84, 0.98),  # about white matter: it shows where it crosses grey matter
    ("T1w", "dark"): (0.30, 0.46),
    ("T2w", "bright"): (0.62, 0.82),
    ("T2w", "dark"): (0.16, 0.27),
    ("FLAIR", "bright"): (0.68, 0.84),
    ("FLAIR", "dark"): (0.22, 0.36),
}
"""Range of a lesion's mean intensity, on the scale of `phantom_brain.TISSUES`."""
GRAIN: dict[Modality, float] = {"T1w": 0.22, "T2w": 0.18, "FLAIR": 0.13}
"""Amplitude of the grain of a texture lesion, a bounded field."""
GRAIN_MM = (6.0, 8.0)
"""Range of its wavelength."""


def add_lesion(
    phantom: Phantom, kind: LesionKind, size: LesionSize, seed: int | tuple[int, ...]
) -> Phantom:
    """`phantom` with one lesion, imaged with the same bias, blur and noise: far from it no voxel changes.

    Raises:
        ValueError: the kind or the size is unknown.
    """
    if kind not in LESION_KINDS or size not in LESION_ML:
        raise ValueError(
            f"lesion {kind!r}, {size!r}: kind must be one of {LESION_KINDS}, size one of {tuple(LESION_ML)}"
        )
    entropy = (*((seed,) if isinstance(seed, int) else seed), 0x1E51)
    low, high = LESION_ML[size]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    volume_ml = float(np.exp(rng.uniform(np.log(low * 1.1), np.log(high * 0.9))))
    level = rng.uniform(*LEVELS[phantom.contrast, kind]) if kind in ("bright", "dark") else None
    centre = _centre(rng, phantom, kind, size, level)
    state = rng.bit_generator.state
    core_ml = volume_ml
    for _ in range(
        6
    ):  # the same draws again, with a smaller or larger core, until the mask has the size asked for
        rng.bit_generator.state = state
        clean, mask = _insert(rng, phantom, kind, centre, core_ml, level)
        lesion = _largest_component(
            0.5 * (mask[:, :, 0::2] + mask[:, :, 1::2]) > 0.5, phantom.brain
        )
        found_ml = max(float(lesion.sum()) * VOXEL_MM**2 * SLICE_MM / 1000, 0.1 * low)
        if low <= found_ml <= high:
            break
        core_ml *= float(np.clip(volume_ml / found_ml, 0.4, 2.0))
    inside = phantom.depth_mm > 0
    clean = (np.maximum(clean, 0.02) * inside).astype(np.float32)
    image = render(clean, phantom.bias, phantom.blur_mm, phantom.noise, inside, phantom.seed)
    return replace(
        phantom, image=image, clean=clean, lesion=lesion, lesion_kind=kind, lesion_size=size
    )


def _insert(
    rng: np.random.Generator,
    phantom: Phantom,
    kind: LesionKind,
    centre: Float[np.ndarray, " 3"],
    core_ml: float,
    level: float | None,
) -> tuple[FineField, FineField]:
    """The clean image with the lesion in it, and the lesion's membership, on the 2 mm grid."""
    m = _membership(rng, phantom, centre, core_ml, spare_ventricles=kind != "mass_effect")
    local_mean = _local_mean(phantom, m)
    if level is not None:
        filling = level * (1 + 0.09 * smooth_field(rng, FINE_SHAPE, 16.0)) + 0.15 * (
            phantom.clean - local_mean
        )
        return (1 - m) * phantom.clean + m * filling, m
    if kind == "texture":
        grain = GRAIN[phantom.contrast] * np.tanh(
            1.5 * smooth_field(rng, FINE_SHAPE, rng.uniform(*GRAIN_MM))
        )
        return (1 - m) * phantom.clean + m * (local_mean + grain), m
    pushed, moved_mm = _push(phantom, m, centre, core_ml)
    filling = (
        0.5 * (local_mean + phantom.levels[1]) * (1 + 0.06 * smooth_field(rng, FINE_SHAPE, 12.0))
    )
    clean = (1 - m) * pushed + m * filling
    change = ndimage.gaussian_filter(np.abs(clean - phantom.clean), 1.5)
    rim = (moved_mm > 2.0) & (change > 0.25 * abs(phantom.levels[2] - phantom.levels[1]))
    return clean, np.maximum(m, ndimage.binary_opening(rim).astype(np.float32))


def _largest_component(
    mask: Bool[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"]
) -> np.ndarray:
    labels, n = ndimage.label(mask & brain)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=2)[1:]))
    return np.asarray((labels == largest) & (n > 0))


def _centre(
    rng: np.random.Generator,
    phantom: Phantom,
    kind: LesionKind,
    size: LesionSize,
    level: float | None,
) -> Float[np.ndarray, " 3"]:
    """A voxel of the cerebrum, in white matter or cortex, deep enough for the lesion to lie in the brain.

    Only the half of such voxels is drawn from where the lesion shows best: where the tissue around differs from its
    level, or, for what has no level of its own and shows in bent borders, where there are borders between tissues.
    """
    least, reach = (10.0, 3.5) if size == "large" else (5.0, 1.8)
    fit = (phantom.depth_mm > least) & (phantom.cerebrum > 0.9) & (phantom.ventricles < 0.05)
    fit &= phantom.fractions[0] < 0.3
    candidates = np.flatnonzero(fit)
    if kind != "texture":
        shows = (
            np.abs(phantom.clean - level)
            if level is not None
            else ndimage.gaussian_gradient_magnitude(phantom.clean, 1.0)
        )
        shows = ndimage.gaussian_filter(shows, reach).ravel()[candidates]
        candidates = candidates[shows >= np.median(shows)]
    return np.array(np.unravel_index(candidates[rng.integers(len(candidates))], FINE_SHAPE), float)


def _membership(
    rng: np.random.Generator,
    phantom: Phantom,
    centre: Float[np.ndarray, " 3"],
    volume_ml: float,
    *,
    spare_ventricles: bool,
) -> FineField:
    """Soft membership of an irregular blob of `volume_ml` around `centre`."""
    radius = (volume_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)  # mm
    axes = np.exp(rng.uniform(-0.3, 0.3, 3))
    axes *= radius / np.prod(axes) ** (1 / 3)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    x = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in FINE_SHAPE], indexing="ij"))
    offset = (x - centre[:, None, None, None].astype(np.float32)) * VOXEL_MM
    rotated = np.tensordot((turn.T / axes[:, None]).astype(np.float32), offset, 1)
    q = -np.linalg.norm(rotated, axis=0) + 0.28 * smooth_field(rng, FINE_SHAPE, 1.5 * radius)
    allowed = (phantom.depth_mm > 0) & ((phantom.ventricles < 0.5) | (not spare_ventricles))
    count = min(int(volume_ml * 1000 / VOXEL_MM**3), int(allowed.sum()) - 1)
    threshold = np.partition(q[allowed], -count)[-count]
    softness = rng.uniform(0.5, 1.1) / radius  # mm, in units of the radius
    m = 1 / (1 + np.exp(-np.clip((q - threshold) / softness, -30, 30)))
    m[m < 1e-3] = 0.0
    if spare_ventricles:
        m = m * (1 - phantom.ventricles)
    return np.asarray(m * (phantom.depth_mm > 0), np.float32)


def _local_mean(phantom: Phantom, m: FineField) -> FineField:
    """Mean of the brain tissue (CSF left out) within and just around the lesion, varying smoothly over it."""
    weight = np.clip(ndimage.gaussian_filter(m, 2.0) * (1 - phantom.fractions[0]), 0, 1) * (
        phantom.depth_mm > 0
    )
    box = ndimage.find_objects((m > 0).astype(int))[0]
    grown = tuple(slice(max(s.start - 12, 0), s.stop + 12) for s in box)
    overall = float((phantom.clean * weight).sum() / weight.sum())
    mean = np.full(FINE_SHAPE, overall, np.float32)
    smooth_weight = ndimage.gaussian_filter(weight[grown], 4.0)
    smooth = ndimage.gaussian_filter((phantom.clean * weight)[grown], 4.0)
    mean[grown] = (smooth + 0.02 * overall) / (smooth_weight + 0.02)
    return mean


def _push(
    phantom: Phantom, m: FineField, centre: Float[np.ndarray, " 3"], core_ml: float
) -> tuple[FineField, FineField]:
    """The clean image with tissue pushed away from the core, and how far each voxel's tissue has come (mm).

    The push is 0.85 of the core's radius at its edge, falls off within about one radius (without folding: its slope
    stays under 0.82), and fades out under the hull.
    """
    radius = (core_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    distance = ndimage.distance_transform_edt(m < 0.5) * VOXEL_MM  # outside the core
    x = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in FINE_SHAPE], indexing="ij"))
    away = x - centre[:, None, None, None].astype(np.float32)
    away /= np.maximum(np.linalg.norm(away, axis=0), 1e-3)
    moved = (
        0.85
        * radius
        * np.exp(-((distance / (0.9 * radius)) ** 2))
        * np.clip(phantom.depth_mm / 10.0, 0, 1)
    )
    moved[moved < 0.1] = 0.0
    pushed = ndimage.map_coordinates(
        phantom.clean, x - away * (moved / VOXEL_MM), order=1, mode="nearest"
    )
    return pushed, moved
