"""Places of DICOM pixels in a volume, and the check of a converted volume against its slices.

    pixel (row, column) of a slice  ->  mm (LPS -> RAS)  ->  voxel (X, Y, Z) of the volume

The place of a pixel follows from position, direction cosines and spacing (PS3.3, C.7.6.2.1.1).
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from jaxtyping import Float

from maediff.core.errors import InputError
from maediff.scans.dicom.header import Image, read_dataset, read_rescaling, silence_dicom_warnings
from maediff.scans.volume import Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
MAX_ERROR_MM = 0.1  # largest distance between a pixel in the header and in the converted volume
MIN_CORRELATION = 0.999  # of the pixels of a slice with its voxels; rescaling keeps it at 1
MAX_SCALE_ERROR = 0.01  # relative difference of the scales of two slices


def pixel_to_voxel(image: Image, affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3 3"]:
    """Return the matrix from (row, column, 1) of a slice to the voxel indices of a volume.

    Args:
        image: header of the slice, with position, orientation and spacing.
        affine: of the volume, voxel indices to mm in RAS+.
    """
    assert image.orientation is not None
    assert image.position is not None
    assert image.spacing_mm is not None
    # Directions of the next column and of the next row.
    along_row, along_column = np.array(image.orientation).reshape(2, 3)
    to_mm = np.eye(4)
    to_mm[:3, 0] = LPS_TO_RAS @ along_column * image.spacing_mm[0]
    to_mm[:3, 1] = LPS_TO_RAS @ along_row * image.spacing_mm[1]
    to_mm[:3, 3] = LPS_TO_RAS @ np.array(image.position)
    return np.asarray((np.linalg.inv(affine) @ to_mm)[:3, [0, 1, 3]])


def check_conversion(folder: Path, images: Sequence[Image], volume: Volume) -> None:
    """Check that a converted volume holds every slice of its series at the slice's place.

    Three corners of each slice must fall on voxels, within `MAX_ERROR_MM`. The voxels of each
    slice must be its pixels, except for a linear change of intensity that all slices share.
    Pixels in a compression that pydicom cannot decode are not compared.

    Args:
        folder: folder of the series, for messages.
        images: headers of the slices.
        volume: the volume that dcm2niix made of them.

    Raises:
        InputError: a slice is elsewhere, or holds other pixels.
    """
    if volume.data.size != len(images) * images[0].rows * images[0].columns:
        raise InputError(
            f"{folder}: dcm2niix makes {volume.native_shape} voxels of {len(images)} slices; "
            "convert it yourself, check the result, and give the NIfTI file"
        )
    corners = {_corner_voxel(folder, image, volume) for image in images}
    if len(corners) < len(images):
        raise _conversion_error(folder, "puts two slices at one place")
    syntax_of = {image.path: image.syntax for image in images}
    by_path = sorted(images, key=lambda image: str(image.path))
    scales = []
    for path, slices in groupby(by_path, key=lambda image: image.path):
        pixels = _read_pixels(path, syntax_of[path])
        for image in slices:
            if pixels is None or pixels.shape[1:] != (image.rows, image.columns):
                continue
            voxels = volume.data[pixel_indices(image, volume.affine)]
            scale = _find_scale(pixels[image.frame].ravel(), voxels)
            if scale is None:
                raise _conversion_error(
                    folder, f"changes the pixels of {path.name} (frame {image.frame + 1})"
                )
            scales += [scale] * (scale > 0)
    if scales and max(scales) > (1 + MAX_SCALE_ERROR) * min(scales):
        raise _conversion_error(folder, "scales the intensities of slices differently")


def pixel_indices(image: Image, affine: Float[np.ndarray, "4 4"]) -> tuple[np.ndarray, ...]:
    """Return the indices of the voxels that are nearest to the pixels of a slice, row by row.

    Args:
        image: header of the slice.
        affine: of the volume.
    """
    row, column = np.indices((image.rows, image.columns)).reshape(2, -1)
    places = pixel_to_voxel(image, affine) @ np.stack([row, column, np.ones_like(row)])
    return tuple(np.round(places).astype(int))


def _corner_voxel(folder: Path, image: Image, volume: Volume) -> tuple[int, ...]:
    """Return the voxel of the first pixel of a slice.

    Raises:
        InputError: three corners of the slice are not on voxels, or not along two axes.
    """
    last_row, last_column = image.rows - 1, image.columns - 1
    corners = np.array([[0, 0, 1], [last_row, 0, 1], [0, last_column, 1]]).T
    places = pixel_to_voxel(image, volume.affine) @ corners
    voxels = np.round(places).astype(int)
    error_mm = np.linalg.norm(volume.affine[:3, :3] @ (places - voxels), axis=0).max()
    is_inside = (voxels >= 0).all() and (volume.data.shape > voxels.T).all()
    steps = np.sort(np.abs(voxels[:, 1:] - voxels[:, :1]), axis=0).T.tolist()
    is_straight = steps == [[0, 0, last_row], [0, 0, last_column]]
    if error_mm > MAX_ERROR_MM or not is_inside or not is_straight:
        raise _conversion_error(
            folder, f"moves {image.path.name} away from the position in its header"
        )
    return tuple(voxels[:, 0].tolist())


def _conversion_error(folder: Path, finding: str) -> InputError:
    return InputError(
        f"{folder}: not converted correctly: dcm2niix {finding}; convert it yourself, check the "
        "result, and give the NIfTI file"
    )


def _read_pixels(path: Path, syntax: str) -> Float[np.ndarray, "n r c"] | None:
    """Return the pixels of a file frame by frame, rescaled; None if pydicom cannot decode them."""
    try:
        with silence_dicom_warnings():
            dataset = read_dataset(path, syntax)
            pixels = np.asarray(dataset.pixel_array, dtype=np.float64)
    except Exception:  # a missing decoder, or a field that pydicom needs and dcm2niix does not
        return None
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    for number, frame in enumerate(pixels):
        slope, intercept = read_rescaling(dataset, number)
        frame[...] = slope * frame + intercept
    return pixels


def _find_scale(pixels: np.ndarray, voxels: np.ndarray) -> float | None:
    """Return the positive factor from pixels to voxels, 0 if both are constant.

    Returns:
        None if the relation is not linear, or negative.
    """
    voxels = voxels.astype(np.float64)
    constant = np.ptp(pixels) == 0, np.ptp(voxels) == 0
    if any(constant):
        return 0.0 if all(constant) else None
    spreads = pixels.std(), voxels.std()
    products = (pixels - pixels.mean()) * (voxels - voxels.mean())
    is_linear = products.mean() / (spreads[0] * spreads[1]) > MIN_CORRELATION
    return float(spreads[1] / spreads[0]) if is_linear else None
