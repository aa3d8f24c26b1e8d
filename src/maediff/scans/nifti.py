"""NIfTI files to volumes in RAS+, and volumes to NIfTI files.

    file (any orientation)  --read_nifti-->  Volume: float32 (X, Y, Z), X right, Y front, Z up
    data on that grid       --write_on_scan_grid-->  the file's orientation, shape and affine

The readers check everything that can be wrong with a file, and errors name the file. Free-text
header fields (`descrip`, `aux_file`, `intent_name`), where converters may leave patient names, are
never used, copied or logged.
"""

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float, Shaped
from nibabel.arrayproxy import ArrayProxy
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform

from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.scans.content import Content, check_file, describe_foreign
from maediff.scans.formats import Image3D, read_other_format
from maediff.scans.names import FORMATS, is_image, is_nifti, is_pair, nifti_stem
from maediff.scans.nifti_header import (
    HEADER_BYTES,
    ScanHeader,
    check_range,
    format_sizes,
    parse_header,
)
from maediff.scans.volume import NiftiForms, Volume
from maediff.scans.walk import find_partner, is_header

logger = logging.getLogger(__name__)

RAS = np.array([[0, 1], [1, 1], [2, 1]])
BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
MAX_REST_BYTES = 1 << 20  # content behind the voxels; more does not belong to a header like this
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
    image = _load(path)
    data = _fill_background(path, image.data)
    if data.min() == data.max() and not allow_constant:
        raise InputError(
            f"{path}: constant image, every voxel is {data.flat[0]:g}; export the scan again"
        )
    orientation = io_orientation(image.affine)
    code = (image.forms.sform_code or image.forms.qform_code) if image.forms else 1
    return Volume(
        data=np.ascontiguousarray(apply_orientation(data, orientation), dtype=np.float32),
        affine=image.affine @ inv_ornt_aff(orientation, data.shape),
        source=path,
        native_shape=data.shape,
        native_affine=image.affine,
        space_code=code,
        forms=image.forms,
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
    image = _load(path)
    data = _fill_background(path, image.data)
    orientation = io_orientation(image.affine)
    affine = image.affine @ inv_ornt_aff(orientation, data.shape)
    data = apply_orientation(data, orientation)
    if data.shape != like.data.shape:
        raise InputError(
            f"{path}: a mask of {format_sizes(data.shape)} voxels (in RAS+) for the scan "
            f"{like.source} of {format_sizes(like.data.shape)}; resample the mask onto the "
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
    forms: NiftiForms | None = None,
) -> None:
    """Write a NIfTI file atomically.

    Booleans are stored as uint8, uint8 and uint16 unchanged, and all other types as float32.

    Args:
        path: a .nii or .nii.gz file.
        data: the voxels.
        affine: maps voxel indices to mm in RAS+.
        slope: readers multiply stored values by it (for images stored as integers).
        space_code: NIfTI code of the coordinate frame of `affine` (see `Volume`).
        forms: orientation fields to store. None stores `affine` as sform and qform.

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
    if forms is not None:
        _copy_forms(image.header, forms)
        image = nib.Nifti1Image(data, None, image.header)
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    with atomic_path(Path(path)) as temporary:
        nib.save(image, temporary)


def _copy_forms(header: Any, forms: NiftiForms) -> None:
    header["sform_code"], header["qform_code"] = forms.sform_code, forms.qform_code
    for number, axis in enumerate("xyz"):
        header[f"srow_{axis}"] = forms.srow[number]
        header[f"qoffset_{axis}"] = forms.offset_mm[number]
        header[f"quatern_{'bcd'[number]}"] = forms.quaternion[number]
    header["pixdim"][:4] = forms.pixdim


def write_on_scan_grid(path: str | Path, data: Shaped[np.ndarray, "x y z"], like: Volume) -> None:
    """Write a result of a scan in the orientation, shape, sform and qform of the scan's file.

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
    write_volume(path, native, like.native_affine, space_code=like.space_code, forms=like.forms)


def _load(path: Path) -> Image3D:
    """Return the image of a file; format and geometry are checked, values are not."""
    if not is_image(path):
        check_file(path)
        raise InputError(
            f"{path}: not a scan file ({FORMATS}); convert it, for DICOM with dcm2niix"
        )
    if not (is_nifti(path) or is_pair(path)):
        return read_other_format(path)
    voxel_path = path
    if is_pair(path):
        path, voxel_path = find_pair(path)
    content = Content(path)
    start = content.peek()
    header = parse_header(path, start)
    if header is None:
        foreign = describe_foreign(start)
        if foreign is None and len(start) >= 4 and _is_cut_header(start):
            foreign = f"truncated, it has {len(start)} bytes; copy or export it again"
        raise InputError(
            f"{path}: {foreign}"
            if foreign
            else f"{path}: not a NIfTI file despite its name; convert it, for DICOM with dcm2niix"
        )
    if header.is_pair != is_pair(path):
        raise InputError(
            f"{path}: its header states that its voxels are in "
            f"{'an .img file' if header.is_pair else 'the same file'}; name it "
            f"{'.hdr, beside the .img file' if header.is_pair else '.nii'}"
        )
    if header.is_pair:
        path, content = voxel_path, Content(voxel_path)
    if content.largest_size < header.offset + header.voxel_bytes:
        raise _truncated(path, content.stored_size, header)
    content.skip(header.offset)
    voxels = content.take(header.voxel_bytes)
    n_bytes = voxels.getbuffer().nbytes
    if n_bytes < header.voxel_bytes:
        raise _truncated(path, header.offset + n_bytes, header)
    rest = content.count_rest(MAX_REST_BYTES)
    if rest > (0 if header.is_offset_guessed else MAX_REST_BYTES):
        raise InputError(
            f"{path}: its content is longer than its header states "
            f"({header.offset + header.voxel_bytes} bytes); copy or export it again"
        )
    if header.is_offset_guessed:
        logger.warning(
            "%s: its voxels cannot start inside the header (vox_offset); byte %d is used",
            path,
            header.offset,
        )
    shape, dtype = header.header.get_data_shape(), header.header.get_data_dtype()
    slope, intercept = header.header.get_slope_inter()
    scaling = (1.0, 0.0) if slope is None else (slope, intercept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that overflow float32; infinity is refused
        proxy = ArrayProxy(voxels, (shape, dtype, 0, *scaling))
        data = np.asanyarray(proxy, dtype=np.float32)
        if (dtype.itemsize == 8 and dtype.kind == "f") or slope is not None:
            check_range(path, data, lambda: np.asanyarray(proxy, dtype=np.float64))
    affine = np.asarray(header.header.get_best_affine(), dtype=np.float64)
    return Image3D(data.reshape(shape[:3], order="F"), affine, header.forms)


def _is_cut_header(start: bytes) -> bool:
    """Check for the first field of a NIfTI header in either byte order."""
    return any(int.from_bytes(start[:4], order) in HEADER_BYTES for order in BYTE_ORDERS)


def _truncated(path: Path, size: int, header: ScanHeader) -> InputError:
    return InputError(
        f"{path}: truncated, it has {size} of the {header.offset + header.voxel_bytes} bytes that "
        "its header states; copy or export it again"
    )


def find_pair(path: Path) -> tuple[Path, Path]:
    """Return header file and image file of a NIfTI pair.

    Args:
        path: either of them.

    Raises:
        InputError: the other half is not beside it.
    """
    partner = find_partner(path)
    if partner is not None:
        return (path, partner) if is_header(path) else (partner, path)
    check_file(path)
    stem = nifti_stem(path)
    raise InputError(
        f"{path}: one half of a NIfTI pair without the other; put {stem}.hdr and {stem}.img into "
        "one folder"
    )


def _fill_background(path: Path, data: np.ndarray) -> np.ndarray:
    """Replace NaN outside the brain by 0, as SPM stores the background.

    NaN is background where it reaches the edge of the image. A slice of NaN between other slices
    is lost data, and so is NaN inside the head.

    Raises:
        InputError: the image holds infinity, or NaN that is not background.
    """
    if np.isfinite(data).all():
        return data
    from scipy import ndimage

    is_nan = np.isnan(data)
    labels, _ = ndimage.label(is_nan)
    edges = [labels.take(index, axis) for axis in range(3) for index in (0, -1)]
    at_edge = np.unique(np.concatenate([edge.ravel() for edge in edges]))
    background = np.isin(labels, at_edge[at_edge > 0])
    for axis in range(3):
        is_lost = is_nan.all(axis=tuple(other for other in range(3) if other != axis))
        held = np.flatnonzero(~is_lost)
        if not len(held) or is_lost[held[0] : held[-1]].any():
            background[:] = False
    n_bad = int(data.size - np.isfinite(data).sum() - background.sum())
    if n_bad:
        raise InputError(
            f"{path}: holds NaN or infinity in {n_bad} of {data.size} voxels; replace them or "
            "export the scan again"
        )
    logger.info(
        "%s: %d voxels of NaN at its edge are background and become 0", path, background.sum()
    )
    return np.where(background, np.float32(0), data)


def _format_values(values: np.ndarray) -> str:
    text = ", ".join(f"{value:g}" for value in values[:6])
    return f"{text} ..." if len(values) > 6 else text


def _largest_drift_mm(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance between the places of one corner under two affines."""
    corners = np.array(np.meshgrid(*[(0, size - 1) for size in shape], [1])).reshape(4, -1)
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())
