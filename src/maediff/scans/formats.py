"""Images of other formats than NIfTI, through nibabel (.mgz) and SimpleITK (.nrrd).

Both state their affine in RAS+ or LPS+ mm. The libraries are imported when a file needs them.
"""

import io
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from maediff.core.errors import InputError
from maediff.scans.content import MAX_GZIP_RATIO, Content, describe_foreign
from maediff.scans.nifti_header import check_affine, check_range, check_voxel_count
from maediff.scans.volume import NiftiForms

NRRD_SPACES = {  # names of the axes, and their signs in RAS+
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "lps": (-1.0, -1.0, 1.0),
    "right-anterior-superior": (1.0, 1.0, 1.0),
    "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0),
    "las": (-1.0, 1.0, 1.0),
}
PLAIN_ENCODINGS = ("raw", "txt", "text", "ascii", "hex")
PACKED_ENCODINGS = ("gzip", "gz")
MGH_HEADER_BYTES = 284
NRRD_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
NRRD_FIELD = re.compile(r"^([^:#\n]+):(?!=)[ \t]*(.*?)[ \t\r]*$", re.MULTILINE)
"""A field of the header; `key:=value` is a note of the user, and # starts a comment."""


@dataclass(frozen=True, eq=False)
class Image3D:
    """An image as its file states it, before reorienting.

    Args:
        data: the voxels.
        affine: maps voxel indices to mm in RAS+.
        forms: orientation fields of the file, if it is NIfTI.
    """

    data: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    forms: NiftiForms | None = None


def read_other_format(path: Path) -> Image3D:
    """Read a scan from a .mgz, .mgh or .nrrd file.

    Raises:
        InputError: the file is missing, damaged or of another format, or the image is not one 3-D
            volume of real numbers with a stated orientation.
    """
    reader = _read_nrrd if path.name.lower().endswith(".nrrd") else _read_mgh
    return reader(path)


def _read_mgh(path: Path) -> Image3D:
    """Read a FreeSurfer volume.

    Source: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat
    """
    import nibabel as nib

    content = Content(path)
    start = content.peek()[:MGH_HEADER_BYTES]
    if len(start) < MGH_HEADER_BYTES or int.from_bytes(start[:4], "big") != 1:
        raise _foreign(path, content.peek(), "FreeSurfer volume")
    sizes = [int.from_bytes(start[4 * i : 4 * i + 4], "big", signed=True) for i in (1, 2, 3, 4)]
    _check_sizes(path, sizes)
    if int.from_bytes(start[28:30], "big") != 1:  # goodRASFlag
        raise InputError(
            f"{path}: does not state its orientation (goodRASFlag is 0), and left and right are "
            "never guessed; export it again"
        )
    itemsize = {0: 1, 1: 4, 3: 4, 4: 2}.get(int.from_bytes(start[20:24], "big"))
    if itemsize is None:
        raise InputError(f"{path}: damaged, its data type is unknown; copy or export it again")
    n_bytes = MGH_HEADER_BYTES + math.prod(sizes[:3]) * itemsize
    whole = content.take(n_bytes) if content.largest_size >= n_bytes else io.BytesIO()
    if whole.getbuffer().nbytes < n_bytes:
        raise InputError(
            f"{path}: truncated, its header states {n_bytes} bytes; copy or export it again"
        )
    content.count_rest(1 << 20)  # reads on to the checksum
    try:
        image = nib.MGHImage.from_stream(whole)
        data = np.asarray(image.get_fdata(dtype=np.float32))
    except Exception as error:  # nibabel raises many types on a damaged header
        raise InputError(
            f"{path}: damaged, its voxels cannot be read ({type(error).__name__}); copy or export "
            "it again"
        ) from None
    affine = np.asarray(image.affine, dtype=np.float64)
    data = data.reshape(data.shape[:3])
    check_affine(path, affine, data.shape)
    return Image3D(data, affine)


def _read_nrrd(path: Path) -> Image3D:
    """Read an NRRD file (https://teem.sourceforge.net/nrrd/format.html) with its data attached."""
    start = Content(path).peek()
    if start.startswith(b"NRRD") and not NRRD_MAGIC.match(start):
        raise InputError(
            f"{path}: an NRRD file of an unknown version, expected NRRD0001 to NRRD0005; save it "
            "again as one of these"
        )
    if not NRRD_MAGIC.match(start):
        raise _foreign(path, start, "NRRD file")
    header = re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0].decode("utf-8", "replace")
    header = header.partition("\n")[2]  # without the magic
    fields = {key.strip().lower(): value for key, value in NRRD_FIELD.findall(header)}
    if "data file" in fields or "datafile" in fields:
        raise InputError(
            f"{path}: an NRRD header whose voxels are in another file; save it as one .nrrd file"
        )
    encoding = fields.get("encoding", "raw").lower()
    if encoding not in (*PLAIN_ENCODINGS, *PACKED_ENCODINGS):
        raise InputError(
            f"{path}: its voxels have an encoding that is not read ({encoding[:20]!r}); save it "
            "with the encoding gzip or raw"
        )
    affine = _nrrd_affine(path, fields)
    try:
        sizes = [int(size) for size in fields["sizes"].split()]
    except (KeyError, ValueError):
        raise InputError(f"{path}: damaged, its sizes are not stated; export it again") from None
    _check_sizes(path, sizes)
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # warnings without the file's name
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        itemsize = 1 if "8" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()) else 2
        if reader.GetNumberOfComponents() != 1 or reader.GetDimension() != 3:
            raise InputError(
                f"{path}: an image of shape {tuple(sizes)}, and a scan has three dimensions; "
                "choose one volume of the series"
            )
        limit = path.stat().st_size * (MAX_GZIP_RATIO if encoding in PACKED_ENCODINGS else 1)
        if limit < math.prod(sizes) * itemsize:
            raise InputError(
                f"{path}: truncated, its header states more voxels than it holds; copy or export "
                "it again"
            )
        image = reader.Execute()
    except RuntimeError as error:
        text = str(error).strip().splitlines()[-1] if str(error).strip() else "unknown error"
        raise InputError(
            f"{path}: damaged or truncated, its voxels cannot be read ({text[-120:]}); copy or "
            "export it again"
        ) from None
    values = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    with np.errstate(over="ignore"):  # refused below
        data = values.astype(np.float32)
    check_range(path, data, lambda: values.astype(np.float64))
    check_affine(path, affine, data.shape)
    return Image3D(data, affine)


def _nrrd_affine(path: Path, fields: dict[str, str]) -> Float[np.ndarray, "4 4"]:
    """Return the affine that the header states, in RAS+ mm."""
    signs = NRRD_SPACES.get(fields.get("space", "").lower())
    texts = [*re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))]
    texts.append(fields.get("space origin", "").strip("()"))
    try:
        columns = np.array([[float(number) for number in text.split(",")] for text in texts])
    except ValueError:
        columns = np.zeros(0)
    if signs is None or columns.shape != (4, 3):
        raise InputError(
            f"{path}: does not state its orientation (space, space directions and space origin), "
            "and left and right are never guessed; export it again"
        )
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", "")))
    if units - {"mm", ""}:
        raise InputError(
            f"{path}: its unit of length is {', '.join(sorted(units))}, expected mm; export it "
            "again"
        )
    affine = np.eye(4)
    affine[:3] = columns.T
    return np.diag([*signs, 1.0]) @ affine


def _check_sizes(path: Path, sizes: list[int]) -> None:
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes = sizes[:-1]
    if len(sizes) != 3 or min(sizes) < 1:
        raise InputError(
            f"{path}: an image of shape {tuple(sizes)}, and a scan has three dimensions; choose "
            "one volume of the series"
        )
    check_voxel_count(path, sizes)


def _foreign(path: Path, start: bytes, expected: str) -> InputError:
    finding = describe_foreign(start) or f"not a {expected} despite its name; convert it to NIfTI"
    return InputError(f"{path}: {finding}")
