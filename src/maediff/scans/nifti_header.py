"""Check of a NIfTI header before any voxel is read: format, sizes, scaling and geometry.

    first 540 bytes  -->  version, byte order  -->  voxels fit the file? affine stated? mm?

NIfTI-1: https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields; NIfTI-2 has wider fields.
nibabel replaces impossible fields by defaults (a voxel size of 0 by 1 mm). Here they are errors.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np

from maediff.core.errors import InputError
from maediff.scans.volume import NiftiForms

logger = logging.getLogger(__name__)

HEADER_BYTES = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
EXTENSION_FLAG_BYTES = 4  # between the header and the voxels
MAX_QUATERNION = 1e-2  # by how much b^2 + c^2 + d^2 may exceed 1; rounding gives 1e-6
SPACING_RANGE_MM = (0.05, 50.0)  # a voxel size outside it is not in millimetres
MAX_EXTENT_MM = 700.0  # the bore of a scanner is 600 to 700 mm wide
SMALLEST_RANGE = 1e-30  # of the largest value: squares of differences must not vanish
MAX_ORIGIN_MM = 1e5  # headers hold single precision: beyond it, positions are off by 0.01 mm
MAX_OFFSET = 1 << 24  # bytes: header extensions hold text
MAX_VOXELS = 2**29  # 0.25 mm whole-head scans have 5e8 (Luesebrink et al. 2017)
FORM_CODES = range(1, 6)  # scanner, aligned, Talairach, MNI152, another template
UNITS = {1: "metres", 2: "mm", 3: "micrometres"}  # values of xyzt_units & 7


@dataclass(frozen=True, eq=False)
class ScanHeader:
    """Checked header of a NIfTI file.

    Args:
        header: header of nibabel, with the extensions removed.
        is_pair: true for a header file (.hdr) whose voxels are in an image file (.img).
        offset: byte of the first voxel in the file that holds the voxels.
        is_offset_guessed: true if the stated offset is inside the header and `offset` replaces it.
        voxel_bytes: size of all voxels in the file.
        forms: orientation fields of the file.
    """

    header: Any
    is_pair: bool
    offset: int
    is_offset_guessed: bool
    voxel_bytes: int
    forms: NiftiForms


def parse_header(path: Path, start: bytes) -> ScanHeader | None:
    """Return the checked header of a NIfTI file.

    Args:
        path: the file, for messages.
        start: the first bytes of its content, 540 or more if it is that long.

    Returns:
        None if the content is not NIfTI.

    Raises:
        InputError: the image is not one 3-D volume of real numbers, is larger than any scan, or
            does not state its orientation and voxel sizes.
    """
    size, order = _header_size(start)
    if size not in HEADER_BYTES or len(start) < size:
        return None
    header_class = HEADER_BYTES[size]
    raw = np.frombuffer(start[:size], dtype=header_class.template_dtype.newbyteorder(order))
    fields = raw[0]
    magic = bytes(fields["magic"])[:3]
    if magic not in (b"n+1", b"ni1", b"n+2", b"ni2"):
        raise InputError(
            f"{path}: an Analyze 7.5 image, which does not state left and right, or a damaged "
            "NIfTI header; convert it to NIfTI"
        )
    is_pair = magic.startswith(b"ni")
    shape = _check_shape(path, fields)
    qform_problem = _check_forms(path, fields)
    header = _load_header(path, header_class, start[:size], order)
    if header.get_data_dtype().kind not in "iuf":
        raise InputError(
            f"{path}: its voxels are not real numbers (complex or RGB); export it as a plain NIfTI"
        )
    _check_scaling(path, fields)
    stated = float(fields["vox_offset"])
    first = 0 if is_pair else size + EXTENSION_FLAG_BYTES
    is_offset = math.isfinite(stated) and stated == int(stated) and 0 <= stated <= MAX_OFFSET
    if not is_offset:
        raise InputError(
            f"{path}: damaged, its voxels start at byte {stated:g} (vox_offset); copy or export "
            "it again"
        )
    forms = _correct_forms(path, header, qform_problem)
    check_affine(path, np.asarray(header.get_best_affine(), dtype=np.float64), shape)
    return ScanHeader(
        header=header,
        is_pair=is_pair,
        offset=max(first, int(stated)),
        is_offset_guessed=stated < first,
        voxel_bytes=math.prod(shape) * header.get_data_dtype().itemsize,
        forms=forms,
    )


def _header_size(start: bytes) -> tuple[int, Literal["<", ">"]]:
    """Return the first field of the header and its byte order: 348 NIfTI-1, 540 NIfTI-2."""
    big = int.from_bytes(start[:4], "big")
    return (big, ">") if big in HEADER_BYTES else (int.from_bytes(start[:4], "little"), "<")


def _check_shape(path: Path, fields: Any) -> tuple[int, int, int]:
    """Return the shape of a 3-D image; trailing axes of length 1 are ignored."""
    n_axes = int(fields["dim"][0])
    sizes = [int(size) for size in fields["dim"][1 : n_axes + 1]] if 1 <= n_axes <= 7 else []
    if not sizes or min(sizes) < 0:
        raise InputError(
            f"{path}: damaged, its header states the sizes {fields['dim'].tolist()} (dim); copy "
            "or export it again"
        )
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) != 3 or 0 in sizes:
        remedy = "choose one volume of the series" if len(sizes) > 3 else "give the whole stack"
        raise InputError(
            f"{path}: an image of shape {tuple(sizes)}, and a scan has three dimensions; {remedy}"
        )
    check_voxel_count(path, sizes)
    return sizes[0], sizes[1], sizes[2]


def check_voxel_count(path: Path, sizes: Iterable[int]) -> None:
    """Refuse an image with more voxels than any scan of a head has.

    Raises:
        InputError: there are more than `MAX_VOXELS`.
    """
    sizes = list(sizes)
    if math.prod(sizes) > MAX_VOXELS:
        raise InputError(
            f"{path}: its header states {format_sizes(sizes)} voxels, more than a scan of a head "
            f"has ({MAX_VOXELS:.1e}); check the header, or resample the scan"
        )


def _load_header(path: Path, header_class: Any, content: bytes, order: str) -> Any:
    """Return the header of nibabel, which corrects details and logs each correction."""
    try:
        with name_file_in_warnings(path):
            header = header_class(content, endianness=order, check=False)
            header["magic"], header["vox_offset"] = header_class.single_magic, 0
            header.check_fix()
            header.get_data_dtype()
    except Exception as error:  # nibabel raises many types on a damaged header
        text = " ".join(str(error).split())
        raise InputError(
            f"{path}: damaged, its header cannot be used ({text[:120] or type(error).__name__}); "
            "copy or export it again"
        ) from None
    return header


@contextmanager
def name_file_in_warnings(path: Path) -> Iterator[None]:
    """Log the messages of nibabel with the name of the file, which nibabel leaves out."""
    log = logging.getLogger("nibabel.global")
    handlers, propagate = log.handlers[:], log.propagate
    texts: dict[str, None] = {}

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts[record.getMessage()] = None

    log.handlers, log.propagate = [Collector()], False
    try:
        yield
    finally:
        log.handlers, log.propagate = handlers, propagate
        for text in texts:
            logger.warning("%s: header corrected: %s", path, text)


def _check_scaling(path: Path, fields: Any) -> None:
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    is_used = slope != 0 and not math.isnan(slope)  # else the voxels are not scaled
    if is_used and not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(
            f"{path}: damaged, its header scales voxels by {slope:g} and adds {intercept:g} "
            "(scl_slope, scl_inter); copy or export it again"
        )


def _check_forms(path: Path, fields: Any) -> str | None:
    """Return the reason why the qform must be ignored; None if it can be used or is not stated.

    Raises:
        InputError: neither sform nor qform states the orientation.
    """
    sform_code, qform_code = (_form_code(fields, name) for name in ("sform_code", "qform_code"))
    if sform_code == 0 and qform_code == 0:
        raise InputError(
            f"{path}: does not state its orientation (sform and qform codes are 0), and left and "
            "right are never guessed; export it again or set its affine"
        )
    problem = _qform_problem(fields) if qform_code else None
    if problem and sform_code == 0:
        raise InputError(
            f"{path}: its affine is not stated: {problem}; export it again or set its affine"
        )
    return problem


def _form_code(fields: Any, name: str) -> int:
    """Return the code of a coordinate frame; 0 for a code that NIfTI does not have."""
    code = int(fields[name])
    return code if code in FORM_CODES else 0


def _correct_forms(path: Path, header: Any, qform_problem: str | None) -> NiftiForms:
    """Return the orientation fields; correct a qform with a rounding error in the header.

    Args:
        path: the file, for messages.
        header: header of nibabel.
        qform_problem: the reason to ignore the qform, if there is one.
    """
    for name in ("sform_code", "qform_code"):
        header[name] = _form_code(header, name)
    if qform_problem:
        logger.warning("%s: its qform is ignored (%s), its sform is used", path, qform_problem)
        header["qform_code"] = 0
    names = ("quatern_b", "quatern_c", "quatern_d")
    if int(header["qform_code"]):
        try:
            header.get_qform()
        except ValueError:  # longer than 1; the NIfTI library divides likewise
            quaternion = np.array([float(header[name]) for name in names])
            quaternion /= np.linalg.norm(quaternion)
            for name, value in zip(names, quaternion, strict=True):
                header[name] = value
    else:
        header["pixdim"][1:4] = np.linalg.norm(header.get_sform()[:3, :3], axis=0)
    unit = int(header["xyzt_units"]) & 7
    if unit not in (0, 2):
        logger.warning(
            "%s: its header states %s as the unit of length; its voxel sizes are used as mm",
            path,
            UNITS.get(unit, f"the unknown code {unit}"),
        )
    return NiftiForms(
        sform_code=int(header["sform_code"]),
        qform_code=int(header["qform_code"]),
        srow=np.array([header[f"srow_{axis}"] for axis in "xyz"], dtype=np.float64),
        quaternion=np.array([header[name] for name in names], dtype=np.float64),
        offset_mm=np.array([header[f"qoffset_{axis}"] for axis in "xyz"], dtype=np.float64),
        pixdim=np.array(header["pixdim"][:4], dtype=np.float64),
    )


def _qform_problem(fields: Any) -> str | None:
    """Return the reason why a qform cannot be used; None if it can."""
    sizes = [float(size) for size in fields["pixdim"][1:4]]
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        return f"voxels of {format_sizes(sizes)} mm (pixdim)"
    parts = [float(fields[f"quatern_{axis}"]) for axis in "bcd"]
    offsets = [float(fields[f"qoffset_{axis}"]) for axis in "xyz"]
    if not all(map(math.isfinite, (*parts, *offsets))):
        return "the qform holds NaN or infinity"
    if float(fields["pixdim"][0]) not in (-1, 0, 1):  # 0 counts as 1 (nifti1.h, method 2)
        return (
            f"the handedness of the qform is {float(fields['pixdim'][0]):g}, not -1 or 1 (pixdim)"
        )
    if sum(part**2 for part in parts) > 1 + MAX_QUATERNION:
        return "the quaternion of the qform is not a rotation"
    return None


def check_affine(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> None:
    """Check that an affine can be that of a scan of a head.

    Raises:
        InputError: the affine is zero, singular or not finite, voxels or the whole image are too
            small or too large in mm, or the image is too far from the origin.
    """
    if not np.isfinite(affine).all():
        raise InputError(
            f"{path}: its affine holds NaN or infinity; export it again or set its affine"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        is_singular = spacing.min() == 0 or abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3
    if is_singular:
        raise InputError(
            f"{path}: its affine is zero or singular, so voxels have no position in space; "
            "export it again or set its affine"
        )
    low, high = SPACING_RANGE_MM
    if spacing.min() < low or spacing.max() > high:
        raise InputError(
            f"{path}: voxels of {format_sizes(spacing)} mm, expected {low:g} to {high:g}; check "
            "the unit in the header"
        )
    origin_mm = float(np.abs(affine[:3, 3]).max())
    if origin_mm > MAX_ORIGIN_MM:
        raise InputError(
            f"{path}: its affine puts the first voxel {origin_mm:g} mm from the origin, expected "
            f"{MAX_ORIGIN_MM:g} at most; correct the affine"
        )
    extent = spacing * shape
    if extent.max() > MAX_EXTENT_MM:
        raise InputError(
            f"{path}: an image of {format_sizes(np.round(extent))} mm (voxels of "
            f"{format_sizes(spacing)} mm), and a scan of a head has {MAX_EXTENT_MM:g} mm at most; "
            "check the unit in the header"
        )


def check_range(path: Path, data: np.ndarray, read_double: Callable[[], np.ndarray]) -> None:
    """Refuse values that single precision cannot hold, in which a scan is processed.

    Args:
        path: the file, for messages.
        data: the values in single precision.
        read_double: returns the same values in double precision, if the check needs them.

    Raises:
        InputError: values became infinite, or all of them lose precision because they are tiny.
    """
    largest = float(np.abs(data).max(initial=0, where=~np.isnan(data)))
    if SMALLEST_RANGE <= largest < np.inf:
        return
    values = np.abs(read_double())
    true_largest = float(values.max(initial=0, where=np.isfinite(values)))
    limit = float(np.finfo(np.float32).max)
    if true_largest > limit or 0 < true_largest < SMALLEST_RANGE:
        raise InputError(
            f"{path}: its largest value is {true_largest:.3g}, and scans are processed in single "
            f"precision ({SMALLEST_RANGE:.0e} to {limit:.0e}); divide or multiply its values by a "
            "constant"
        )


def format_sizes(sizes: Iterable[Any]) -> str:
    """Return numbers as text: 1 x 1 x 2.5."""
    return " x ".join(f"{size:g}" for size in sizes)
