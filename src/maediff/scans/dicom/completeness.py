"""Check that the images of a DICOM series are one whole volume of equally spaced slices.

positions along the normal of the slices   |   |   |       |   |
^ a slice is missing
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maediff.core.errors import InputError
from maediff.core.text import escape_controls
from maediff.scans.dicom.header import UNCOMPRESSED, Image
from maediff.scans.dicom.series import MIN_SLICES
from maediff.scans.nifti_header import check_voxel_count

STEP_TOLERANCE = 0.1  # largest deviation of a slice position, as a share of the slice distance
MIN_STEP_MM = 1e-3  # slices closer than this are at one position
MIN_LINE_TOLERANCE_MM = 0.05  # slice positions are rounded in the header
MAX_SHEAR_MM = 0.1  # offset of the last slice from the normal through the first one
MAX_COSINE_ERROR = 0.01  # of products of direction cosines, which headers round
SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series
SAME_SPACING = 1e-4  # largest relative difference of pixel spacings: 0.05 mm in 512 pixels


def check_volume(folder: Path, images: Sequence[Image]) -> None:
    """Check that the images of a series are one whole volume of equally spaced slices.

    Args:
        folder: folder of the series, for messages.
        images: headers of the series.

    Raises:
        InputError: a slice has no pixels, no position or truncated pixel data; slices differ in
            size, direction or photometric interpretation, share a position, are missing, unevenly
            spaced, not on one line, or offset obliquely to their normal.
    """
    for image in images:
        _check_image(image)
    check_voxel_count(folder, (images[0].rows, images[0].columns, len(images)))
    _check_uids(folder, images)
    if len(images) < MIN_SLICES:
        raise InputError(
            f"{folder}: a series of {len(images)} image(s), and a scan has {MIN_SLICES} slices or "
            "more; give the whole series"
        )
    orientation = np.array([image.orientation for image in images])
    if np.abs(orientation - orientation[0]).max() > SAME_DIRECTION:
        raise _mixed_series(folder, "one series UID, and slices of different directions")
    if len({(image.rows, image.columns) for image in images}) > 1:
        raise _mixed_series(folder, "one series UID, and slices of different sizes")
    spacings = np.array([image.spacing_mm for image in images])
    if not np.allclose(spacings, spacings[0], rtol=SAME_SPACING, atol=0):
        raise _mixed_series(folder, "one series UID, and pixels of different sizes")
    if len({image.is_inverted for image in images}) > 1:
        raise _mixed_series(folder, "low values are bright in some slices only (MONOCHROME1)")
    positions = np.array([image.position for image in images])
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    along = positions @ normal
    order = np.argsort(along)
    positions, along = positions[order], along[order]
    images = [images[i] for i in order]
    steps = np.diff(along)
    step = float(np.median(steps))
    if steps.min() < max(MIN_STEP_MM, STEP_TOLERANCE * step):
        first = int(np.argmin(steps))
        names = f"{_name_slice(images[first])} and {_name_slice(images[first + 1])}"
        raise _mixed_series(
            folder,
            f"two or more images at one position, as {names} (echoes, time points, or copies)",
        )
    _check_steps(folder, images, steps, step)
    share = (along - along[0]) / (along[-1] - along[0])
    line = positions[0] + np.outer(share, positions[-1] - positions[0])
    tolerance_mm = max(STEP_TOLERANCE * step, MIN_LINE_TOLERANCE_MM)
    if np.linalg.norm(positions - line, axis=1).max() > tolerance_mm:
        raise _mixed_series(folder, "its slices are not behind each other on one line")
    _check_shear(folder, positions[-1] - positions[0], normal)


def _check_uids(folder: Path, images: Sequence[Image]) -> None:
    """Refuse two versions of one image: one SOPInstanceUID, and different content.

    A series whose images all have the same UID was badly anonymised and has no such versions.
    """
    path_of_uid: dict[str, Path] = {}
    for image in images:
        twin = path_of_uid.setdefault(image.uid, image.path)
        is_version = image.uid and twin != image.path
        if is_version and len({other.uid for other in images}) > 1:
            raise InputError(
                f"{folder}: {twin.name} and {image.path.name} are two versions of one image (one "
                "SOPInstanceUID, different content); delete the wrong one"
            )


def _check_shear(folder: Path, extent_mm: np.ndarray, normal: np.ndarray) -> None:
    """Refuse slices that are offset obliquely to their normal: dcm2niix stacks them straight.

    Args:
        folder: folder of the series, for messages.
        extent_mm: from the first slice to the last.
        normal: unit vector.
    """
    height_mm = float(extent_mm @ normal)
    offset_mm = float(np.linalg.norm(extent_mm - height_mm * normal))
    if offset_mm > MAX_SHEAR_MM:
        degrees = np.degrees(np.arctan2(offset_mm, height_mm))
        raise InputError(
            f"{folder}: its slices are offset obliquely to their normal (a tilted gantry or a "
            f"sheared reformat: {degrees:.2g} degrees, {offset_mm:.2g} mm from the first slice to "
            "the last), and such a volume is not read; resample it onto straight slices"
        )


def _name_slice(image: Image) -> str:
    """Return the name of the slice's file, with the number of the frame if it has several."""
    return f"{image.path.name} frame {image.frame + 1}" if image.frames > 1 else image.path.name


def _check_image(image: Image) -> None:
    if image.frames > 1 and image.position is None:
        raise InputError(
            f"{image.path}: multi-frame DICOM that does not state where each of its "
            f"{image.frames} frames is; export it as single-frame or enhanced DICOM"
        )
    if not image.rows or not image.columns or not image.pixel_bytes:
        raise InputError(
            f"{image.path}: holds no image (no rows, columns or bits); remove it from the folder"
        )
    if image.photometric and not image.photometric.startswith("MONOCHROME"):
        raise InputError(
            f"{image.path}: a colour image (PhotometricInterpretation "
            f"{escape_controls(image.photometric)}), whose values are no intensities; give the "
            "series in shades of grey"
        )
    if image.position is None or image.orientation is None or image.spacing_mm is None:
        raise InputError(
            f"{image.path}: does not state where its slice is (position, orientation or pixel "
            "spacing is absent); export the series again"
        )
    _check_pixel_places(image)
    if image.syntax in UNCOMPRESSED and image.stored_bytes < image.pixel_bytes:
        raise InputError(
            f"{image.path}: its pixel data is truncated or absent; copy or export it again"
        )


def _check_pixel_places(image: Image) -> None:
    """Refuse pixels without size, and directions that are not perpendicular unit vectors."""
    assert image.orientation is not None
    assert image.spacing_mm is not None
    if min(image.spacing_mm) <= 0:
        down_mm, across_mm = image.spacing_mm
        raise InputError(
            f"{image.path}: pixels of {down_mm:g} x {across_mm:g} mm (PixelSpacing); correct the "
            "header, or export the series again"
        )
    directions = np.array(image.orientation).reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), rtol=0, atol=MAX_COSINE_ERROR):
        raise InputError(
            f"{image.path}: its rows and columns are not perpendicular directions of length 1 "
            "(ImageOrientationPatient); correct the header, or export the series again"
        )


def _mixed_series(folder: Path, finding: str) -> InputError:
    return InputError(
        f"{folder}: mixed series that cannot be separated: {finding}; put each series in a "
        "separate folder, or export them again with different series UIDs"
    )


def _check_steps(folder: Path, images: Sequence[Image], steps: np.ndarray, step: float) -> None:
    """Check for missing slices and uneven distances.

    Args:
        folder: folder of the series, for messages.
        images: headers in the order of their positions.
        steps: distances in mm from each image to the next.
        step: median of `steps`.
    """
    expected = step
    stated = images[0].slice_step_mm
    if stated and 0 < stated < step and _step_is_true(stated, images, steps):
        expected = stated
    gaps = np.flatnonzero(steps > 1.5 * expected)
    if len(gaps):
        first = gaps[0]
        names = f"{_name_slice(images[first])} and {_name_slice(images[first + 1])}"
        raise InputError(
            f"{folder}: a slice is missing between {names} ({steps[first]:.2f} mm apart, expected "
            f"{expected:.2f} mm; {len(gaps)} such gap{'s' if len(gaps) > 1 else ''}); "
            "copy or export the whole series again"
        )
    if np.abs(steps - step).max() > STEP_TOLERANCE * step:
        raise InputError(
            f"{folder}: its slices are {steps.min():.2f} to {steps.max():.2f} mm apart, and a "
            "volume has even distances; export the series again, or resample it yourself"
        )


def _step_is_true(stated: float, images: Sequence[Image], steps: np.ndarray) -> bool:
    """Check whether SpacingBetweenSlices fits the images, although it is below most distances.

    It fits if two slices have this distance, or if the instance numbers leave out as many images
    as the distances do. Otherwise the positions decide: SimpleITK writes 1 in every series.
    """
    if abs(steps.min() - stated) <= STEP_TOLERANCE * stated:
        return True
    numbers = [image.instance for image in images if image.instance is not None]
    if len(numbers) < len(images):
        return False
    jumps = np.abs(np.diff(numbers))
    return bool((jumps > 1).all() and (jumps == np.round(steps / stated)).all())
