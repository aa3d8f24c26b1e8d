"""Lesions with known masks in a synthetic brain; the brain is imaged again with the lesion.

    q           = smooth noise - radius in an ellipsoid       irregular shape
    m           = S((q - threshold) / softness)               soft membership of the wanted volume
    bright      clean <- (1 - m) clean + m (high intensity, uneven, with some of the anatomy)
    dark        the same with a low intensity
    texture     clean <- (1 - m) clean + m (local mean + grain of 6 to 8 mm): same mean
    mass_effect clean <- (1 - m) clean(x - push) + m (halfway from local mean to grey matter);
                the push is outwards, up to 0.85 times the radius of the core

The lesion mask is the largest component of m > 0.5. For mass_effect it also holds the rim where
tissue moved by over 2 mm, if the image changed there by over a quarter of the white-grey contrast.

Intensities of lesions overlap with those of normal tissue, so no threshold separates them. CSF is
brighter than a bright T2w lesion, and white matter is about as bright as a bright T1w lesion.
Except in T2w, CSF is darker than a dark lesion.
Lesions spare the ventricles; only mass_effect pushes them aside.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from maediff.core.types import Modality
from maediff.synthetic.brain import FINE_SHAPE, SLICE_MM, FineField, Phantom, simulate_image
from maediff.synthetic.fields import VOXEL_MM, smooth_field

LesionKind = Literal["bright", "dark", "texture", "mass_effect"]
LesionSize = Literal["large", "small"]
LESION_KINDS: tuple[LesionKind, ...] = ("bright", "dark", "texture", "mass_effect")
LESION_ML: dict[LesionSize, tuple[float, float]] = {"large": (15.0, 40.0), "small": (1.0, 4.0)}
"""Range of the volume of each size class, ml."""

LESION_INTENSITY: dict[tuple[Modality, str], tuple[float, float]] = {
    ("T1w", "bright"): (0.84, 0.98),  # as white matter: visible in grey matter
    ("T1w", "dark"): (0.30, 0.46),
    ("T2w", "bright"): (0.62, 0.82),
    ("T2w", "dark"): (0.16, 0.27),
    ("FLAIR", "bright"): (0.68, 0.84),
    ("FLAIR", "dark"): (0.22, 0.36),
}
"""Range of the mean intensity of a lesion, on the scale of `brain.TISSUE_INTENSITY`."""
GRAIN: dict[Modality, float] = {"T1w": 0.22, "T2w": 0.18, "FLAIR": 0.13}
"""Amplitude of the grain of a texture lesion."""
GRAIN_MM = (6.0, 8.0)
"""Range of the wavelength of the grain, mm."""


def add_lesion(
    phantom: Phantom, kind: LesionKind, size: LesionSize, seed: int | tuple[int, ...]
) -> Phantom:
    """Return `phantom` with one lesion, imaged with the same bias, blur and noise.

    Voxels far from the lesion keep their value.

    Args:
        phantom: a healthy brain.
        kind: kind of the lesion.
        size: size class; `LESION_ML` has the range of volumes.
        seed: entropy of the lesion's shape, position and intensity.

    Raises:
        ValueError: unknown kind or size.
    """
    if kind not in LESION_KINDS or size not in LESION_ML:
        raise ValueError(
            f"lesion {kind!r}, {size!r}: choose the kind from {LESION_KINDS} "
            f"and the size from {tuple(LESION_ML)}"
        )
    entropy = (*((seed,) if isinstance(seed, int) else seed), 0x1E51)
    low, high = LESION_ML[size]
    rng = np.random.default_rng(np.random.SeedSequence(entropy))
    volume_ml = float(np.exp(rng.uniform(np.log(low * 1.1), np.log(high * 0.9))))
    level = (
        rng.uniform(*LESION_INTENSITY[phantom.contrast, kind])
        if kind in ("bright", "dark")
        else None
    )
    centre = _choose_centre(rng, phantom, kind, size, level)
    state = rng.bit_generator.state
    core_ml = volume_ml
    # Repeat with the same random numbers and another core until the mask has the wanted volume.
    for _ in range(6):
        rng.bit_generator.state = state
        clean, mask = _insert_lesion(rng, phantom, kind, centre, core_ml, level)
        lesion = _largest_component(
            0.5 * (mask[:, :, 0::2] + mask[:, :, 1::2]) > 0.5, phantom.brain
        )
        mask_ml = max(float(lesion.sum()) * VOXEL_MM**2 * SLICE_MM / 1000, 0.1 * low)
        if low <= mask_ml <= high:
            break
        core_ml *= float(np.clip(volume_ml / mask_ml, 0.4, 2.0))
    inside = phantom.depth_mm > 0
    clean = (np.maximum(clean, 0.02) * inside).astype(np.float32)
    image = simulate_image(
        clean, phantom.bias, phantom.blur_mm, phantom.noise, inside, phantom.seed
    )
    return replace(
        phantom, image=image, clean=clean, lesion=lesion, lesion_kind=kind, lesion_size=size
    )


def _insert_lesion(
    rng: np.random.Generator,
    phantom: Phantom,
    kind: LesionKind,
    centre: Float[np.ndarray, " 3"],
    core_ml: float,
    level: float | None,
) -> tuple[FineField, FineField]:
    """Return the clean image with the lesion and the membership of the lesion."""
    m = _random_membership(rng, phantom, centre, core_ml, spare_ventricles=kind != "mass_effect")
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
    pushed, moved_mm = _push_tissue(phantom, m, centre, core_ml)
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
    """Return the largest component of `mask` in the brain; empty for an empty mask."""
    labels, n = ndimage.label(mask & brain)
    largest = 1 + int(np.argmax(np.bincount(labels.ravel(), minlength=2)[1:]))
    return np.asarray((labels == largest) & (n > 0))


def _choose_centre(
    rng: np.random.Generator,
    phantom: Phantom,
    kind: LesionKind,
    size: LesionSize,
    level: float | None,
) -> Float[np.ndarray, " 3"]:
    """Return a random voxel of the cerebrum outside CSF, deep enough for the lesion.

    The voxel is from the half of the candidates where the lesion is most visible: where the tissue
    differs from the lesion's intensity or, for mass effect, near tissue borders. A texture lesion
    can be at any candidate.
    """
    min_depth_mm, reach = (10.0, 3.5) if size == "large" else (5.0, 1.8)
    fit = (
        (phantom.depth_mm > min_depth_mm) & (phantom.cerebrum > 0.9) & (phantom.ventricles < 0.05)
    )
    fit &= phantom.fractions[0] < 0.3
    candidates = np.flatnonzero(fit)
    if kind != "texture":
        if level is None:
            visible = ndimage.gaussian_gradient_magnitude(phantom.clean, 1.0)
        else:
            visible = np.abs(phantom.clean - level)
        visible = ndimage.gaussian_filter(visible, reach).ravel()[candidates]
        candidates = candidates[visible >= np.median(visible)]
    return np.array(np.unravel_index(candidates[rng.integers(len(candidates))], FINE_SHAPE), float)


def _random_membership(
    rng: np.random.Generator,
    phantom: Phantom,
    centre: Float[np.ndarray, " 3"],
    volume_ml: float,
    *,
    spare_ventricles: bool,
) -> FineField:
    """Return the soft membership of an irregular blob of `volume_ml` around `centre`."""
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
    softness = rng.uniform(0.5, 1.1) / radius  # 0.5 to 1.1 mm in units of the radius
    m = 1 / (1 + np.exp(-np.clip((q - threshold) / softness, -30, 30)))
    m[m < 1e-3] = 0.0
    if spare_ventricles:
        m = m * (1 - phantom.ventricles)
    return np.asarray(m * (phantom.depth_mm > 0), np.float32)


def _local_mean(phantom: Phantom, m: FineField) -> FineField:
    """Return the smooth local mean of brain tissue, without CSF, in and around the lesion."""
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


def _push_tissue(
    phantom: Phantom, m: FineField, centre: Float[np.ndarray, " 3"], core_ml: float
) -> tuple[FineField, FineField]:
    """Push tissue away from the core of the lesion.

    The push is 0.85 times the radius at the edge of the core and decays within about one radius.
    Its slope stays below 0.82, so tissue does not fold. The push vanishes under the hull.

    Returns:
        The clean image after the push, and the distance that the tissue of each voxel moved (mm).
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
