"""One scan, NIfTI or DICOM, as a Volume; and what identifies its files."""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from maediff.core.errors import InputError
from maediff.scans.dicom.convert import convert, find_images
from maediff.scans.dicom.series import check_volume
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.names import is_nifti
from maediff.scans.nifti import read_nifti
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume
from maediff.scans.walk import is_dicom, visible


def fingerprint(folder: Path, uid: str) -> str:
    """What tells the files of a series from another series and from a later version, without a word of the header."""
    parts = []
    for path in visible(folder):
        status = path.stat()
        parts.append(f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join([uid, *parts]).encode()).hexdigest()


def identity(ref: ScanRef) -> dict[str, Any]:
    """What tells the files that `ref` names from other ones and from a later version, without reading them."""

    def of(path: Path | None) -> list[Any] | None:
        if path is None or not path.exists():
            return None
        status = path.stat()
        return [str(path.absolute()), status.st_size, status.st_mtime_ns]

    found: dict[str, Any] = {
        "files": [of(path) for path in (ref.image, ref.brain_mask, ref.lesion_mask, ref.t1)]
    }
    if ref.series:
        found["dicom"] = fingerprint(ref.image, ref.series)
    if ref.t1 and ref.t1_series:
        found["t1"] = fingerprint(ref.t1, ref.t1_series)
    return found


def read_scan(
    path: str | Path, *, modality: str | None = None, series: str | None = None
) -> Volume:
    """Read one scan from a NIfTI file or a folder with one DICOM series.

    Args:
        path: a NIfTI file (.nii or .nii.gz), or a folder of DICOM files.
        modality: T1w, T2w or FLAIR; selects among several DICOM series. Ignored for NIfTI.
        series: number or UID of the DICOM series to read. Ignored for NIfTI.

    Returns:
        The scan in RAS+, as float32. No voxel is interpolated.

    Raises:
        InputError: the file is missing or unusable (see `read_nifti`), or the folder holds no DICOM
            series, several that fit, several studies, or an incomplete series.

    Example:
        >>> read_scan("patient_T1w.nii.gz")  # doctest: +SKIP
        >>> read_scan("dicom/patient", modality="FLAIR")  # doctest: +SKIP
    """
    path = Path(path)
    if path.is_dir():
        refs = find_dicom(path, modality, series)
        if len(refs) > 1:
            names = ", ".join(ref.name for ref in refs[:5])
            raise InputError(
                f"{path}: holds {len(refs)} studies ({names}{' ...' if len(refs) > 5 else ''}), "
                "and only one scan can be read; give the folder of one study"
            )
        return read_volume(refs[0])
    if path.is_file() and not is_nifti(path) and is_dicom(path):
        raise InputError(
            f"{path}: one DICOM file holds one slice; give the folder that holds its series"
        )
    return read_nifti(path)


def read_volume(ref: ScanRef) -> Volume:
    """The scan that `ref` names, in RAS+; DICOM is converted on the way and the conversion is thrown away.

    Raises:
        InputError: the scan's `problem`; as for `read_nifti`; for DICOM also a series that is no whole volume or cannot
            be decoded.
    """
    if ref.problem:
        said, listed, _ = ref.problem.partition(
            "\n"
        )  # the list of series quotes headers, and this goes into files
        raise InputError(said + f" (listed where {ref.image} is the only INPUT)" * bool(listed))
    if ref.series is None:
        return read_nifti(ref.image)
    images = find_images(ref.image, ref.series)
    check_volume(ref.image, images)
    with tempfile.TemporaryDirectory(prefix="maediff-dicom-") as scratch:
        volume = read_nifti(convert(ref.image, images, Path(scratch)))
    if sorted(volume.native_shape) != sorted((images[0].rows, images[0].columns, len(images))):
        raise InputError(
            f"{ref.image}: dcm2niix makes {volume.native_shape} voxels of {len(images)} slices; convert "
            "it yourself, look at the result, and give the NIfTI file"
        )
    return replace(volume, source=ref.image)
