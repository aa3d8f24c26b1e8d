"""Affine registration of a brain to MNI152, and rigid registration of two scans of one session.

    scan, brain  ->  brain alone, resampled along RAS to 4 mm, then 2 mm  ->  affine to MNI152
    T1w, T2w     ->  the same with whole heads                            ->  rigid

The metric is Mattes mutual information (Mattes et al. 2003, doi 10.1109/TMI.2003.809072).
Registration starts from several positions and refines the best.

Matrices are 4 x 4 and map mm to mm, in RAS+.
SimpleITK gets RAS coordinates instead of its own LPS; it only needs both images in the same frame.
SimpleITK uses one thread and one work unit, so the same scan always gives the same matrix.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.errors import InputError
from maediff.core.processes.threads import call_in_threads
from maediff.preparation.atlas.reduced import load_reduced_atlas
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume

UNREGISTERED = (
    "make the cohort with `registration.enabled=false`, or use a model of unregistered scans"
)
COARSE_MM, FINE_MM = 4.0, 2.0
PITCHES_DEG = (-20.0, 0.0, 20.0)  # starting positions: chin down, level, chin up
BINS = 32
THIN_MM = 20.0  # a brain that is shorter in any direction cannot be registered
SHIFT_MM = 10.0


@config(frozen=True, config=ConfigDict(extra="forbid"))
class RegistrationConfig:
    """Registration to MNI152; without it, the model's grid follows the axes of the scan.

    Args:
        enabled: None uses the default of the contrast (`config.REGISTERED`). A model that does
            not record registration was trained without it.
    """

    enabled: bool | None = None


@dataclass(frozen=True, eq=False)
class Alignment:
    """Position of a scan in MNI152.

    Args:
        to_atlas: mm of the scan -> mm of MNI152.
        turned: mutual information with the template (nats, at 4 mm) of the brain turned upside
            down or back to front, minus that of the brain as it is. If the value is above 0,
            another orientation fits better.
    """

    to_atlas: Float[np.ndarray, "4 4"]
    turned: float


def measure_extent_mm(volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> list[float]:
    """Return the length of the brain along each axis of the scan.

    Args:
        volume: the scan.
        brain: its brain mask; not empty.
    """
    lengths = []
    for axis, step in enumerate(volume.spacing_mm):
        filled = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
        lengths.append(float(filled[-1] - filled[0] + 1) * step)
    return lengths


def align_to_atlas(
    volume: Volume, brain: Bool[np.ndarray, "x y z"], *, quick: bool = False
) -> Alignment:
    """Register a brain to MNI152 with an affine transform.

    Args:
        volume: the scan.
        brain: its brain mask.
        quick: stop at 4 mm, in about a second; enough for quality control.

    Raises:
        ValueError: the brain mask is empty.
        InputError: the brain is too thin, or no starting position led to a result.
    """
    if not brain.any():
        raise ValueError("an empty brain cannot be registered")
    extent = measure_extent_mm(volume, brain)
    if min(extent) < THIN_MM:
        raise InputError(
            f"{volume.source}: the brain measures {' x '.join(f'{mm:.0f}' for mm in extent)} mm, "
            f"too thin to be registered to MNI152 ({THIN_MM:.0f} mm at least); check the brain "
            f"mask if you gave one, or {UNREGISTERED}"
        )
    values = volume.data[brain]
    low, high = np.percentile(values, [1, 99])
    scaled = np.clip((values - low) / max(float(high - low), 1e-6), 0, 1)
    inside = np.zeros(brain.shape, dtype=np.float32)
    inside[brain] = scaled + 0.1  # the brain above background's 0
    atlas = load_reduced_atlas()
    coarse = (
        resample_to_cubes(inside, volume.affine, COARSE_MM),
        *_load_atlas_images(COARSE_MM),
    )
    atlas_centre = atlas.centre_mm
    ratio = atlas.brain_mm3 / (brain.sum() * volume.voxel_mm3)
    scale = float(np.clip(ratio ** (1 / 3), 0.85, 1.2))
    scan_centre = find_centre_mm(brain, volume.affine)

    def make_start(rotation: np.ndarray) -> np.ndarray:
        """Return MNI152 -> scan with matching centres, rotated and scaled."""
        matrix = np.eye(4)
        matrix[:3, :3] = rotation / scale
        matrix[:3, 3] = scan_centre - matrix[:3, :3] @ atlas_centre
        return matrix

    starts = [(_make_rotation(0, pitch), 100) for pitch in PITCHES_DEG]
    starts += [(_make_rotation(axis, 180.0), 40) for axis in range(3)]

    def refine_start(start: tuple[np.ndarray, int]) -> tuple[float, np.ndarray]:
        return _refine(*coarse, make_start(start[0]), atlas_centre, steps=start[1])

    # SimpleITK releases Python's lock, and each start is independent of the others.
    outcomes = call_in_threads(partial(refine_start, start) for start in starts)
    results, turned_results = outcomes[: len(PITCHES_DEG)], outcomes[len(PITCHES_DEG) :]
    information, best = max(results, key=lambda result: result[0])
    if not np.isfinite(information):
        raise InputError(
            f"{volume.source}: registration to MNI152 failed; look at the scan and its mask, or "
            f"{UNREGISTERED}"
        )
    turned = max(result[0] for result in turned_results) - information
    if not quick:
        fine = resample_to_cubes(inside, volume.affine, FINE_MM), *_load_atlas_images(FINE_MM)
        _, best = _refine(*fine, best, atlas_centre)
    return Alignment(np.linalg.inv(best), turned)


def align_rigidly(fixed: Volume, moving: Volume) -> Float[np.ndarray, "4 4"]:
    """Register two scans of one head rigidly.

    Registration starts from the scanner's coordinates, and from matching centres.

    Args:
        fixed: a scan.
        moving: another scan of the same head.

    Returns:
        mm of `fixed` -> mm of `moving`.

    Raises:
        InputError: no starting position led to a result.
    """
    fixed_image, moving_image = (_make_head_image(volume, COARSE_MM) for volume in (fixed, moving))
    centres = [_find_field_centre_mm(volume) for volume in (fixed, moving)]
    shift = np.eye(4)
    shift[:3, 3] = centres[1] - centres[0]
    results = [
        _refine(moving_image, fixed_image, None, start, centres[0], rigid=True)
        for start in (np.eye(4), shift)
    ]
    information, best = max(results, key=lambda result: result[0])
    if not np.isfinite(information):
        raise InputError(
            f"{fixed.source}: rigid registration with {moving.source} failed; look at both, or "
            "use `brain.from_t1=false`"
        )
    fixed_image, moving_image = (_make_head_image(volume, FINE_MM) for volume in (fixed, moving))
    return _refine(moving_image, fixed_image, None, best, centres[0], rigid=True)[1]


def is_local_optimum(fixed: Volume, moving: Volume, to_moving: Float[np.ndarray, "4 4"]) -> bool:
    """Return True if two scans share less information after a shift of 10 mm along any axis.

    Args:
        fixed: a scan.
        moving: another scan of the same head.
        to_moving: mm of `fixed` -> mm of `moving`.
    """
    fixed_image, moving_image = (_make_head_image(volume, COARSE_MM) for volume in (fixed, moving))
    unshifted = _compute_information(moving_image, fixed_image, to_moving)
    for axis in range(3):
        for mm in (-SHIFT_MM, SHIFT_MM):
            shifted = to_moving.copy()
            shifted[axis, 3] += mm
            if _compute_information(moving_image, fixed_image, shifted) > unshifted:
                return False
    return bool(np.isfinite(unshifted))


def _make_head_image(volume: Volume, mm: float) -> Any:
    """Return a scan on cubes of `mm`, without its few brightest voxels.

    These voxels would use up most bins of the joint histogram.
    """
    low, high = np.percentile(volume.data, [0.5, 99.5])
    clipped = np.clip(volume.data, low, max(high, low + 1e-6))
    return resample_to_cubes(np.asarray(clipped, dtype=np.float32), volume.affine, mm)


def _make_method() -> Any:
    """Return SimpleITK's registration with our metric, in one thread.

    `SetNumberOfThreads` alone leaves the metric several work units, whose sums are added in
    varying order.
    """
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _compute_information(moving: Any, fixed: Any, matrix: np.ndarray) -> float:
    """Return the mutual information of two whole images; -inf if they do not overlap.

    Args:
        moving: SimpleITK image.
        fixed: SimpleITK image.
        matrix: mm of `fixed` -> mm of `moving`.
    """
    import SimpleITK as sitk  # noqa: N813

    method = _make_method()
    method.SetMetricSamplingStrategy(method.NONE)
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
    """Maximise the mutual information of two images by gradient descent.

    Args:
        moving: SimpleITK image.
        fixed: SimpleITK image.
        mask: voxels of `fixed` that count; None uses all.
        start: mm of `fixed` -> mm of `moving`.
        centre: centre of rotation, in mm of `fixed`.
        rigid: rotate and shift only.
        steps: number of steps at most.
        samples: voxels of `fixed` that the metric samples.

    Returns:
        The mutual information (-inf if the images do not overlap) and the matrix.
    """
    import SimpleITK as sitk  # noqa: N813

    transform: Any = sitk.VersorRigid3DTransform() if rigid else sitk.AffineTransform(3)
    transform.SetCenter(centre.tolist())
    transform.SetMatrix(start[:3, :3].ravel().tolist())
    transform.SetTranslation((start[:3, 3] + start[:3, :3] @ centre - centre).tolist())
    method = _make_method()
    method.SetMetricSamplingStrategy(method.REGULAR)
    share = min(1.0, samples / max(1, fixed.GetNumberOfPixels()))
    method.SetMetricSamplingPercentage(share, 1)
    if mask is not None:
        method.SetMetricFixedMask(mask)
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
def _load_atlas_images(mm: float) -> tuple[Any, Any]:
    """Return the template and the mask of the metric, as SimpleITK images of `mm` voxels."""
    import SimpleITK as sitk  # noqa: N813

    level = load_reduced_atlas().levels[mm]
    images = [sitk.GetImageFromArray(np.ascontiguousarray(a.T)) for a in (level.image, level.mask)]
    for image in images:
        image.SetSpacing([mm] * 3)
        image.SetOrigin(level.origin_mm.tolist())
    return images[0], images[1]


def resample_to_cubes(data: Shaped[np.ndarray, "x y z"], affine: np.ndarray, mm: float) -> Any:
    """Resample an array to cubes of `mm` along R, A and S; return a SimpleITK image in RAS mm.

    Args:
        data: the array.
        affine: voxel -> mm.
        mm: edge of a cube.
    """
    import SimpleITK as sitk  # noqa: N813

    edges = [(-0.5, size - 0.5) for size in data.shape]
    corners = (affine @ np.array(np.meshgrid(*edges, [1.0])).reshape(4, -1))[:3]
    low, high = corners.min(axis=1), corners.max(axis=1)
    shape = np.maximum(1, np.ceil((high - low) / mm - 1e-3)).astype(int)
    target = np.diag([mm, mm, mm, 1.0])
    target[:3, 3] = (low + high) / 2 - (shape - 1) * mm / 2
    moved = resample(data, np.linalg.inv(affine) @ target, shape.tolist(), "linear")
    image = sitk.GetImageFromArray(np.ascontiguousarray(moved.T))
    image.SetSpacing([mm] * 3)
    image.SetOrigin(target[:3, 3].tolist())
    return image


def find_centre_mm(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the centre of mass of a mask.

    Args:
        mask: the mask; not empty.
        affine: voxel -> mm.
    """
    voxel = [float(indices.mean()) for indices in np.nonzero(mask)]
    return np.asarray(affine[:3, :3] @ voxel + affine[:3, 3])


def _find_field_centre_mm(volume: Volume) -> np.ndarray:
    """Return the centre of a scan's field of view."""
    voxel = (np.array(volume.data.shape) - 1) / 2
    return np.asarray(volume.affine[:3, :3] @ voxel + volume.affine[:3, 3])


def _make_rotation(axis: int, degrees: float) -> np.ndarray:
    """Return the 3 x 3 rotation about an axis of RAS."""
    i, j = [k for k in range(3) if k != axis]
    rotation, angle = np.eye(3), np.deg2rad(degrees)
    rotation[i, i] = rotation[j, j] = np.cos(angle)
    rotation[i, j], rotation[j, i] = -np.sin(angle), np.sin(angle)
    return rotation
