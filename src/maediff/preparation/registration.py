"""Where a brain lies in MNI152, and how two scans of one session lie to each other.

    scan, brain  ->  brain alone, axes along RAS, 4 mm then 2 mm  ->  affine to the template: Mattes mutual information
                 (Mattes et al. 2003, doi 10.1109/TMI.2003.809072), several starts, the best one refined
    T1, T2       ->  the same, rigid, whole heads

Matrices are 4 x 4 and take mm (RAS+) to mm. SimpleITK is given RAS coordinates as if they were its own: it only needs
both images to use the same ones. One thread, so that the same scan gives the same matrix.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume

UNREGISTERED = "make the cohort with registration.enabled=false, or take a model that was trained on such a one"
COARSE_MM, FINE_MM = 4.0, 2.0
PITCHES_DEG = (-20.0, 0.0, 20.0)  # starts: the chin down, level, up
BINS = 32
THIN_MM = 20.0  # a brain that reaches less far in any direction does not say where it lies
SETTLED_MM = 10.0
AROUND_MM = 8.0  # the metric looks at the template's brain and this much around it


@config(frozen=True, config=ConfigDict(extra="forbid"))
class RegistrationConfig:
    """Whether the model's grid lies in MNI152 (2 mm) instead of along the scan's own axes.

    Args:
        enabled: None for what is the default of a cohort's contrast (`REGISTERED`); a model without a word is off.
    """

    enabled: bool | None = None


@dataclass(frozen=True, eq=False)
class Atlas:
    """The MNI152 template that nilearn ships (skull-stripped), in [0, 1], and its brain; 1 mm, axes along RAS."""

    t1: Float[np.ndarray, "x y z"]
    brain: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a scan lies in MNI152.

    Args:
        to_atlas: mm of the scan -> mm of MNI152.
        turned: the highest mutual information with the template (nats, at 4 mm) that the brain turned upside down or
            back to front reached, less what it reached as it is; above 0, another orientation fits better.
    """

    to_atlas: Float[np.ndarray, "4 4"]
    turned: float


@lru_cache(maxsize=1)
def load_atlas() -> Atlas:
    """The template (about 2 s, once a process)."""
    from nilearn import datasets

    t1 = datasets.load_mni152_template(resolution=1)
    brain = datasets.load_mni152_brain_mask(resolution=1)
    return Atlas(
        np.asarray(t1.dataobj, dtype=np.float32),
        np.asarray(brain.dataobj) > 0,
        np.asarray(t1.affine, np.float64),
    )


def extent_mm(volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> list[float]:
    """How far the brain reaches along each axis of the scan."""
    return [
        float(np.ptp(along) + 1) * step
        for along, step in zip(np.nonzero(brain), volume.spacing_mm, strict=True)
    ]


def align_to_atlas(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], *, quick: bool = False
) -> Alignment:
    """The affine that takes `volume` to MNI152.

    Args:
        quick: stop at 4 mm (for quality control; about a second).

    Raises:
        ValueError: an empty brain.
        InputError: too little of a brain to say where it lies, or no start that came to an end.
    """
    if not brain.any():
        raise ValueError("an empty brain cannot be registered")
    reach = extent_mm(volume, brain)
    if min(reach) < THIN_MM:
        raise InputError(
            f"{volume.source}: the brain measures {' x '.join(f'{mm:.0f}' for mm in reach)} mm, too thin to be "
            f"registered to MNI152 ({THIN_MM:.0f} mm at least); {UNREGISTERED}"
        )
    low, high = np.percentile(volume.data[brain], [1, 99])
    inside = (
        np.clip((volume.data - low) / max(float(high - low), 1e-6), 0, 1) + 0.1
    )  # above the background's 0
    inside = np.where(brain, inside, 0).astype(np.float32)
    atlas = load_atlas()
    coarse = (_along_axes(inside, volume.affine, COARSE_MM), *_atlas_at(COARSE_MM))
    centre = _centre_mm(atlas.brain, atlas.affine)
    size = (atlas.brain.sum() / (brain.sum() * np.prod(volume.spacing_mm))) ** (1 / 3)
    scale = float(np.clip(size, 0.85, 1.2))
    there = _centre_mm(brain, volume.affine)

    def start(turn: np.ndarray) -> np.ndarray:
        """MNI152 -> scan: centre on centre, turned and scaled."""
        matrix = np.eye(4)
        matrix[:3, :3] = turn / scale
        matrix[:3, 3] = there - matrix[:3, :3] @ centre
        return matrix

    tried = [_refine(*coarse, start(_turn(0, pitch)), centre) for pitch in PITCHES_DEG]
    halves = [_turn(axis, 180.0) for axis in range(3)]
    others = [_refine(*coarse, start(half), centre, steps=40) for half in halves]
    information, best = max(tried, key=lambda one: one[0])
    if not np.isfinite(information):
        raise InputError(
            f"{volume.source}: registration to MNI152 failed; look at the scan and its mask, or {UNREGISTERED}"
        )
    turned = max(one[0] for one in others) - information
    if not quick:
        _, best = _refine(
            _along_axes(inside, volume.affine, FINE_MM), *_atlas_at(FINE_MM), best, centre
        )
    return Alignment(np.linalg.inv(best), turned)


def align_rigidly(fixed: Volume, moving: Volume) -> Float[np.ndarray, "4 4"]:
    """Where a place of `fixed` (mm) lies in `moving` (mm), for two scans of one head.

    It starts from the scanner's own coordinates, and from centre on centre.

    Raises:
        InputError: no start came to an end.
    """
    one, other = (_along_axes(_tamed(v.data), v.affine, COARSE_MM) for v in (fixed, moving))
    centres = [_field_centre(v) for v in (fixed, moving)]
    shift = np.eye(4)
    shift[:3, 3] = centres[1] - centres[0]
    tried = [
        _refine(other, one, None, start, centres[0], rigid=True) for start in (np.eye(4), shift)
    ]
    information, best = max(tried, key=lambda result: result[0])
    if not np.isfinite(information):
        raise InputError(
            f"{fixed.source}: rigid registration with {moving.source} failed; look at both, or add "
            "brain.from_t1=false"
        )
    one, other = (_along_axes(_tamed(v.data), v.affine, FINE_MM) for v in (fixed, moving))
    return _refine(other, one, None, best, centres[0], rigid=True)[1]


def settled(fixed: Volume, moving: Volume, to_moving: Float[np.ndarray, "4 4"]) -> bool:
    """Whether `to_moving` (mm of `fixed` -> mm of `moving`) explains the scans better than 10 mm to any side of it."""
    one, other = (_along_axes(_tamed(v.data), v.affine, COARSE_MM) for v in (fixed, moving))
    here = _information_at(other, one, to_moving)
    for axis in range(3):
        for mm in (-SETTLED_MM, SETTLED_MM):
            shifted = to_moving.copy()
            shifted[axis, 3] += mm
            if _information_at(other, one, shifted) > here:
                return False
    return bool(np.isfinite(here))


def _information_at(moving: Any, fixed: Any, matrix: np.ndarray) -> float:
    """Mutual information of two whole images where `matrix` (fixed mm -> moving mm) puts them; -inf without overlap."""
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    transform = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    method.SetInitialTransform(transform)
    try:
        return -float(method.MetricEvaluate(fixed, moving))
    except RuntimeError:
        return -np.inf


def _refine(
    moving: Any,
    fixed: Any,
    mask: Any,
    start: np.ndarray,
    centre: np.ndarray,
    *,
    rigid: bool = False,
    steps: int = 100,
    samples: int = 10000,
) -> tuple[float, np.ndarray]:
    """Mutual information after a descent from `start` (fixed mm -> moving mm), and the matrix there."""
    import SimpleITK as sitk  # noqa: N813

    transform: Any = sitk.VersorRigid3DTransform() if rigid else sitk.AffineTransform(3)
    transform.SetCenter(centre.tolist())
    transform.SetMatrix(start[:3, :3].ravel().tolist())
    transform.SetTranslation((start[:3, 3] + start[:3, :3] @ centre - centre).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.REGULAR)
    share = min(1.0, samples / max(1, fixed.GetNumberOfPixels()))
    method.SetMetricSamplingPercentage(share, 1)
    if mask is not None:
        method.SetMetricFixedMask(mask)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 0.01, steps, 0.5, 1e-5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
        information = -float(method.GetMetricValue())
    except RuntimeError:  # the images no longer overlap
        return -np.inf, start
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(transform.GetMatrix(), (3, 3))
    matrix[:3, 3] = centre + transform.GetTranslation() - matrix[:3, :3] @ centre
    return information, matrix


@lru_cache(maxsize=4)
def _atlas_at(mm: float) -> tuple[Any, Any]:
    """The template and where the metric looks, as SimpleITK images of `mm` voxels."""
    import SimpleITK as sitk  # noqa: N813
    from scipy import ndimage

    atlas = load_atlas()
    inside = np.where(atlas.brain, atlas.t1 + 0.1, 0).astype(np.float32)
    image, brain = (
        _along_axes(data.astype(np.float32), atlas.affine, mm) for data in (inside, atlas.brain)
    )
    far = ndimage.distance_transform_edt(sitk.GetArrayFromImage(brain) < 0.5) * mm
    near = sitk.GetImageFromArray((far <= AROUND_MM).astype(np.uint8))
    near.CopyInformation(image)
    return image, near


def _along_axes(data: Shaped[np.ndarray, "x y z"], affine: np.ndarray, mm: float) -> Any:
    """`data` on cubes of `mm` along R, A and S, as a SimpleITK image in RAS mm."""
    import SimpleITK as sitk  # noqa: N813

    corners = np.array(np.meshgrid(*[(-0.5, size - 0.5) for size in data.shape], [1.0])).reshape(
        4, -1
    )
    places = (affine @ corners)[:3]
    low, high = places.min(axis=1), places.max(axis=1)
    shape = np.maximum(1, np.ceil((high - low) / mm - 1e-3)).astype(int)
    target = np.diag([mm, mm, mm, 1.0])
    target[:3, 3] = (low + high) / 2 - (shape - 1) * mm / 2
    moved = resample(data, np.linalg.inv(affine) @ target, shape.tolist(), "linear")
    image = sitk.GetImageFromArray(np.ascontiguousarray(moved.T))
    image.SetSpacing([mm] * 3)
    image.SetOrigin(target[:3, 3].tolist())
    return image


def _tamed(data: np.ndarray) -> np.ndarray:
    """Without the few brightest voxels, which would take most bins of the histogram."""
    low, high = np.percentile(data, [0.5, 99.5])
    return np.asarray(np.clip(data, low, max(high, low + 1e-6)), dtype=np.float32)


def _centre_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    place = [float(where.mean()) for where in np.nonzero(mask)]
    return np.asarray(affine[:3, :3] @ place + affine[:3, 3])


def _field_centre(volume: Volume) -> np.ndarray:
    return np.asarray(
        volume.affine[:3, :3] @ ((np.array(volume.data.shape) - 1) / 2) + volume.affine[:3, 3]
    )


def _turn(axis: int, degrees: float) -> np.ndarray:
    """Rotation about an axis of RAS."""
    i, j = [k for k in range(3) if k != axis]
    turn, angle = np.eye(3), np.deg2rad(degrees)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    return turn
