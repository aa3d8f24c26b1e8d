"""Scans in, results out: NIfTI <-> arrays in RAS+, volumes <-> slices.

    file (any orientation)  --read_nifti-->  Volume: float32 (X, Y, Z), X to the right, Y forward, Z up
    data on that grid       --write_on_scan_grid-->  the file's own orientation, shape and affine

    slice = volume[:, ::-1, k] transposed:   row 0 = anterior (largest Y), column 0 = left (smallest X)

Everything that can be wrong with a file is refused here, with its name. Free-text header fields (`descrip`,
`aux_file`, `intent_name`: where converters leave patient names) are neither read nor copied nor logged.
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
ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
SPACING_RANGE_MM = (0.05, 50.0)  # outside it the header's unit is not millimetres


def read_nifti(path: str | Path, *, allow_constant: bool = False) -> Volume:
    """The scan in `path`, reoriented to the closest RAS+ axes; no voxel is interpolated.

    Oblique and anisotropic scans are fine. So is a 3-D file with one slice: the method works slice by slice.
    A 2-D file is refused, because it does not say where its slice lies.

    Args:
        allow_constant: for maps, which may be zero all over.

    Raises:
        InputError: missing or empty file, not a NIfTI, damaged data, not 3-D, NaN or infinity, a constant image, no
            known orientation, a zero or singular affine, voxel sizes that cannot be millimetres.
    """
    path = Path(path)
    image, data = _load(path)
    if not np.isfinite(data).all():
        bad = int(np.size(data) - np.isfinite(data).sum())
        raise InputError(
            f"{path}: holds NaN or infinity in {bad} of {data.size} voxels; replace them or export the scan again"
        )
    if data.min() == data.max() and not allow_constant:
        raise InputError(
            f"{path}: constant image, every voxel is {data.flat[0]:g}; export the scan again"
        )
    ornt = io_orientation(image.affine)
    header = image.header
    return Volume(
        data=np.ascontiguousarray(apply_orientation(data, ornt), dtype=np.float32),
        affine=image.affine @ inv_ornt_aff(ornt, data.shape),
        source=path,
        native_shape=data.shape,
        native_affine=np.asarray(image.affine, dtype=np.float64),
        space_code=int(header["sform_code"]) or int(header["qform_code"]),
    )


def read_mask(
    path: Path, like: Volume, *, allow_empty: bool = True, labels: bool = False
) -> Bool[np.ndarray, "x y z"]:
    """The mask in `path` on the RAS+ grid of `like`; its file may list the axes in another order.

    Args:
        labels: the file holds whole numbers, and every label above 0 belongs to the mask.

    Raises:
        InputError: as for `read_nifti`, and where the mask is on another grid, holds other values than 0 and 1, or is
            empty although `allow_empty` is false.
    """
    path = Path(path)
    image, data = _load(path)
    ornt = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(ornt, data.shape)
    data = apply_orientation(data, ornt)
    if data.shape != like.data.shape:
        raise InputError(
            f"{path}: a mask of {_times(data.shape)} voxels (in RAS+) for the scan {like.source} of "
            f"{_times(like.data.shape)}; resample the mask onto the scan's grid"
        )
    drift_mm = _largest_drift_mm(affine, like.affine, data.shape)
    if drift_mm > 0.1 * float(like.spacing_mm.min()):
        raise InputError(
            f"{path}: lies up to {drift_mm:.2f} mm away from its scan {like.source} (the affines "
            "differ); resample the mask onto the scan's grid"
        )
    values = np.unique(data)
    if labels and (values.min() < 0 or (values != np.round(values)).any()):
        raise InputError(f"{path}: labels are whole numbers of 0 and above; export the mask again")
    if not labels and not np.isin(values, (0.0, 1.0)).all():
        raise InputError(
            f"{path}: a mask holds 0 and 1 only, this file holds "
            f"{', '.join(f'{value:g}' for value in values[:6])}"
            f"{' ...' if len(values) > 6 else ''}; choose the labels and write them as 1"
        )
    if not allow_empty and not data.any():
        raise InputError(f"{path}: the mask is empty; draw it again or leave it out")
    return np.ascontiguousarray(data > 0.5)


def write_volume(
    path: str | Path,
    data: Shaped[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    *,
    slope: float | None = None,
    space_code: int = 1,
) -> None:
    """Write a NIfTI atomically: booleans as uint8, unsigned integers as they are, the rest as float32.

    Args:
        slope: stored value times `slope` is what a reader gets (for images kept as integers).
        space_code: NIfTI code of the frame that `affine` leads to.
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
    """For libraries that take images: nibabel's, as float32."""
    return nib.Nifti1Image(data.astype(np.float32), affine)


def write_on_scan_grid(path: str | Path, data: Shaped[np.ndarray, "x y z"], like: Volume) -> None:
    """Write `data`, which lies on the RAS+ grid of `like`, in the orientation, shape and affine of its file."""
    if data.shape != like.data.shape:
        raise ValueError(
            f"data of shape {data.shape} is not on the grid {like.data.shape} of {like.source}"
        )
    native = apply_orientation(data, ornt_transform(RAS, io_orientation(like.native_affine)))
    write_volume(path, native, like.native_affine, space_code=like.space_code)


def _load(path: Path) -> tuple[Any, np.ndarray]:
    """The opened file and its data as a 3-D float32 array, checked for form but not for content."""
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
            content = gzip.decompress(content)  # to the end, so that the checksum is looked at
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: damaged or truncated, it cannot be unpacked ({type(error).__name__}); copy or export it again"
        ) from error
    kind: Any = {348: nib.Nifti1Image, 540: nib.Nifti2Image}.get(_header_size(content))
    if kind is None:
        raise InputError(
            f"{path}: not a NIfTI file, whatever its name says; convert it, for DICOM with dcm2niix"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged file is judged by what comes out, below
            image = kind.from_bytes(content)
            if image.get_data_dtype().kind in "iuf":
                _check_geometry(path, image)
                return image, _three_dimensional(path, image.get_fdata(dtype=np.float32))
    except InputError:
        raise
    except Exception as error:  # nibabel raises a dozen kinds on a damaged header
        raise InputError(
            f"{path}: damaged or truncated, its voxels cannot be read ({type(error).__name__}); copy or export it again"
        ) from error
    raise InputError(
        f"{path}: its voxels are not real numbers (complex or RGB); export it as a plain NIfTI"
    )


def _header_size(content: bytes) -> int:
    """The header's first field, in either byte order: 348 for NIfTI-1, 540 for NIfTI-2."""
    little, big = (int.from_bytes(content[:4], order) for order in ORDERS)
    return big if big in (348, 540) else little


def _three_dimensional(path: Path, data: np.ndarray) -> np.ndarray:
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or 0 in data.shape:
        raise InputError(
            f"{path}: an image of shape {data.shape}, and a scan has three dimensions; "
            + ("choose one volume of the series" if data.ndim > 3 else "give the whole stack")
        )
    return data


def _check_geometry(path: Path, image: Any) -> None:
    if not (int(image.header["sform_code"]) or int(image.header["qform_code"])):
        raise InputError(
            f"{path}: says nothing about its orientation (sform and qform codes are 0), and left and "
            "right are not guessed; export it again or set its affine"
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        raise InputError(
            f"{path}: its affine holds NaN or infinity; export it again or set its affine"
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() == 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise InputError(
            f"{path}: its affine is zero or singular, so voxels have no place in space; "
            "export it again or set its affine"
        )
    low, high = SPACING_RANGE_MM
    if spacing.min() < low or spacing.max() > high:
        raise InputError(
            f"{path}: voxels of {_times(spacing)} mm, expected {low:g} to {high:g}; check the header's unit"
        )


def _times(sizes: Iterable[Any]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


def _largest_drift_mm(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """How far apart two affines put the same corner of the volume."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1])).reshape(4, -1)
    return float(np.linalg.norm(((one - other) @ corners)[:3], axis=0).max())
