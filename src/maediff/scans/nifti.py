"""NIfTI files to volumes in RAS+, and volumes to NIfTI files.

    file (any orientation)  --read_nifti-->  Volume: float32 (X, Y, Z), X right, Y front, Z up
    data on that grid       --write_on_scan_grid-->  the file's orientation, shape and affine

The readers check everything that can be wrong with a file, and errors name the file. Free-text
header fields (`descrip`, `aux_file`, `intent_name`), where converters may leave patient names, are
never used, copied or logged.
"""

import gzip
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.scans.names import is_nifti
from maediff.scans.volume import Volume

RAS = np.array([[0, 1], [1, 1], [2, 1]])
BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
SPACING_RANGE_MM = (0.05, 50.0)  # a voxel size outside it is not in millimetres
MAX_DRIFT = 0.1  # voxels: how far corners of a mask may be from those of its scan


def read_nifti(path: str | Path, *, allow_constant: bool = False) -> Volume:
    """Read a scan from a NIfTI file and reorient it to the closest RAS+ axes.

    No voxel is interpolated. Oblique and anisotropic scans are accepted, and so is a 3-D file with
    one slice, because the methods work slice by slice. A 2-D file does not state the position of
    its slice and is refused.

    Args:
        path: a .nii or .nii.gz file.
        allow_constant: accept an image with a single value, such as an empty anomaly map.

    Raises:
        InputError: the file is missing, empty, damaged or not NIfTI, the image is not 3-D or
            constant or has NaN or infinity, the orientation is not stated, the affine is zero or
            singular, or the voxel sizes cannot be millimetres.
    """
    path = Path(path)
    image, data = _load_nifti(path)
    if not np.isfinite(data).all():
        n_bad = int(np.size(data) - np.isfinite(data).sum())
        raise InputError(
            f"{path}: holds NaN or infinity in {n_bad} of {data.size} voxels; replace them or "
            "export the scan again"
        )
    if data.min() == data.max() and not allow_constant:
        raise InputError(
            f"{path}: constant image, every voxel is {data.flat[0]:g}; export the scan again"
        )
    orientation = io_orientation(image.affine)
    header = image.header
    return Volume(
        data=np.ascontiguousarray(apply_orientation(data, orientation), dtype=np.float32),
        affine=image.affine @ inv_ornt_aff(orientation, data.shape),
        source=path,
        native_shape=data.shape,
        native_affine=np.asarray(image.affine, dtype=np.float64),
        space_code=int(header["sform_code"]) or int(header["qform_code"]),
    )


def read_mask(
    path: str | Path, like: Volume, *, allow_empty: bool = True, labels: bool = False
) -> Bool[np.ndarray, "x y z"]:
    """Read a mask from a NIfTI file onto the RAS+ grid of its scan.

    The file may store the axes in another order than the scan's file.

    Args:
        path: a .nii or .nii.gz file.
        like: the scan.
        allow_empty: accept a mask without any voxel.
        labels: accept any whole numbers from 0; each label above 0 belongs to the mask. If false,
            the file holds 0 and 1 only.

    Raises:
        InputError: the file is unusable (see `read_nifti`), the mask is on another grid than the
            scan, has values that are not accepted, or is empty although `allow_empty` is false.
    """
    path = Path(path)
    image, data = _load_nifti(path)
    orientation = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(orientation, data.shape)
    data = apply_orientation(data, orientation)
    if data.shape != like.data.shape:
        raise InputError(
            f"{path}: a mask of {_format_sizes(data.shape)} voxels (in RAS+) for the scan "
            f"{like.source} of {_format_sizes(like.data.shape)}; resample the mask onto the "
            "scan's grid"
        )
    drift_mm = _largest_drift_mm(affine, like.affine, data.shape)
    if drift_mm > MAX_DRIFT * float(like.spacing_mm.min()):
        raise InputError(
            f"{path}: up to {drift_mm:.2f} mm away from its scan {like.source} (the affines "
            "differ); resample the mask onto the scan's grid"
        )
    values = np.unique(data)
    if labels and (values.min() < 0 or (values != np.round(values)).any()):
        raise InputError(
            f"{path}: labels are whole numbers of 0 and above, this file holds "
            f"{_format_values(values)}; export the mask again"
        )
    if not labels and not np.isin(values, (0.0, 1.0)).all():
        raise InputError(
            f"{path}: a mask holds 0 and 1 only, this file holds {_format_values(values)}; choose "
            "the labels and write them as 1"
        )
    if not allow_empty and not data.any():
        raise InputError(f"{path}: the mask is empty; segment the scan again or omit the mask")
    return np.ascontiguousarray(data > 0.5)


def write_volume(
    path: str | Path,
    data: Shaped[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    *,
    slope: float | None = None,
    space_code: int = 1,
) -> None:
    """Write a NIfTI file atomically.

    Booleans are stored as uint8, uint8 and uint16 unchanged, and all other types as float32.

    Args:
        path: a .nii or .nii.gz file.
        data: the voxels.
        affine: maps voxel indices to mm in RAS+.
        slope: readers multiply stored values by it (for images stored as integers).
        space_code: NIfTI code of the coordinate frame of `affine` (see `Volume`).

    Raises:
        InputError: the file could not be written.
    """
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    elif data.dtype not in (np.uint8, np.uint16):
        data = data.astype(np.float32)
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=space_code)
    image.set_qform(affine, code=space_code)
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    with atomic_path(Path(path)) as temporary:
        nib.save(image, temporary)


def as_nifti(data: Shaped[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]) -> Any:
    """Return a nibabel image of float32, for libraries that take images."""
    return nib.Nifti1Image(data.astype(np.float32), affine)


def write_on_scan_grid(path: str | Path, data: Shaped[np.ndarray, "x y z"], like: Volume) -> None:
    """Write a result of a scan in the orientation, shape and affine of the scan's file.

    Args:
        path: a .nii or .nii.gz file.
        data: the result on the RAS+ grid of `like`.
        like: the scan.

    Raises:
        ValueError: `data` has another shape than the scan.
        InputError: the file could not be written.
    """
    if data.shape != like.data.shape:
        raise ValueError(
            f"data of shape {data.shape} is not on the grid {like.data.shape} of {like.source}"
        )
    native = apply_orientation(data, ornt_transform(RAS, io_orientation(like.native_affine)))
    write_volume(path, native, like.native_affine, space_code=like.space_code)


def _load_nifti(path: Path) -> tuple[Any, np.ndarray]:
    """Return the nibabel image and its voxels as a 3-D float32 array.

    Format and geometry are checked, values are not.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or export it again")
    if not is_nifti(path):
        raise InputError(
            f"{path}: not a NIfTI file (.nii or .nii.gz); convert it, for DICOM with dcm2niix"
        )
    try:
        content = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            content = gzip.decompress(content)  # to the end, which checks the checksum
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: damaged or truncated, it cannot be unpacked ({type(error).__name__}); copy "
            "or export it again"
        ) from error
    image_class: Any = {348: nib.Nifti1Image, 540: nib.Nifti2Image}.get(_header_size(content))
    if image_class is None:
        raise InputError(
            f"{path}: not a NIfTI file despite its name; convert it, for DICOM with dcm2niix"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nibabel warns of headers that are checked below
            image = image_class.from_bytes(content)
            if image.get_data_dtype().kind in "iuf":
                _check_geometry(path, image)
                return image, _as_3d(path, image.get_fdata(dtype=np.float32))
    except InputError:
        raise
    except Exception as error:  # nibabel raises a dozen types on a damaged header
        raise InputError(
            f"{path}: damaged or truncated, its voxels cannot be read ({type(error).__name__}); "
            "copy or export it again"
        ) from error
    raise InputError(
        f"{path}: its voxels are not real numbers (complex or RGB); export it as a plain NIfTI"
    )


def _header_size(content: bytes) -> int:
    """Return the first field of the header in either byte order: 348 NIfTI-1, 540 NIfTI-2."""
    little, big = (int.from_bytes(content[:4], order) for order in BYTE_ORDERS)
    return big if big in (348, 540) else little


def _as_3d(path: Path, data: np.ndarray) -> np.ndarray:
    """Remove trailing axes of length 1; refuse an array that is then not 3-D."""
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or 0 in data.shape:
        remedy = "choose one volume of the series" if data.ndim > 3 else "give the whole stack"
        raise InputError(
            f"{path}: an image of shape {data.shape}, and a scan has three dimensions; {remedy}"
        )
    return data


def _check_geometry(path: Path, image: Any) -> None:
    if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
        raise InputError(
            f"{path}: does not state its orientation (sform and qform codes are 0), and left and "
            "right are never guessed; export it again or set its affine"
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise InputError(
            f"{path}: its affine holds NaN or infinity; export it again or set its affine"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() == 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise InputError(
            f"{path}: its affine is zero or singular, so voxels have no position in space; "
            "export it again or set its affine"
        )
    low, high = SPACING_RANGE_MM
    if spacing.min() < low or spacing.max() > high:
        raise InputError(
            f"{path}: voxels of {_format_sizes(spacing)} mm, expected {low:g} to {high:g}; check "
            "the unit in the header"
        )


def _format_sizes(sizes: Iterable[Any]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def _format_values(values: np.ndarray) -> str:
    text = ", ".join(f"{value:g}" for value in values[:6])
    return f"{text} ..." if len(values) > 6 else text


def _largest_drift_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance between the places of one corner under two affines."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1])).reshape(4, -1)
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())
