"""One scan, NIfTI or DICOM, as a Volume; and the identity of its files."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from maediff.core.errors import InputError
from maediff.core.processes.scratch import scratch_folder
from maediff.core.reading import is_file, is_folder
from maediff.core.text import hash_text
from maediff.scans.dicom.completeness import check_volume
from maediff.scans.dicom.convert import convert, find_images
from maediff.scans.dicom.geometry import check_conversion
from maediff.scans.dicom.header import Image
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.names import is_nifti, is_pair
from maediff.scans.nifti import find_pair, read_nifti
from maediff.scans.reference import ScanRef, short_problem
from maediff.scans.volume import Volume
from maediff.scans.walk import is_dicom, visible_files


def read_scan(
    path: str | Path, *, modality: str | None = None, series: str | None = None
) -> Volume:
    """Read one scan from a NIfTI file or from a folder with one DICOM study.

    Args:
        path: a NIfTI file (.nii or .nii.gz), or a folder of DICOM files.
        modality: T1w, T2w or FLAIR; selects among the DICOM series. Ignored for NIfTI.
        series: number or UID of the DICOM series to read. Ignored for NIfTI.

    Returns:
        The scan in RAS+, as float32. No voxel is interpolated.

    Raises:
        InputError: the file is missing or unusable (see `read_nifti`), or the folder holds no
            DICOM series that may be a scan, several that fit, several studies, or an incomplete
            series.

    Example:
        >>> read_scan("patient_T1w.nii.gz").data.shape  # doctest: +SKIP
        (176, 240, 256)
        >>> flair = read_scan("dicom/patient", modality="FLAIR")  # doctest: +SKIP
    """
    path = Path(path)
    if is_folder(path):
        refs = find_dicom(path, modality, series)
        if len(refs) > 1:
            names = ", ".join(ref.name for ref in refs[:5])
            raise InputError(
                f"{path}: holds {len(refs)} studies ({names}{' ...' if len(refs) > 5 else ''}); "
                "give the folder of one study"
            )
        return read_volume(refs[0])
    if is_file(path) and not is_nifti(path) and is_dicom(path):
        raise InputError(
            f"{path}: one DICOM file is one slice; give the folder that holds its series"
        )
    return read_nifti(path)


def read_volume(ref: ScanRef) -> Volume:
    """Read the scan that `ref` refers to, in RAS+.

    DICOM is converted in a temporary folder, which is removed afterwards.

    Raises:
        InputError: the scan has a `problem`, its file is unusable (see `read_nifti`), or its DICOM
            series is not one whole volume or cannot be decoded.
    """
    if ref.problem:
        raise InputError(short_problem(ref))
    if ref.series is None:
        return read_nifti(ref.image)
    images = find_images(ref.image, ref.series)
    check_volume(ref.image, images)
    volume = _convert_series(ref.image, images)
    if images[0].is_inverted:  # MONOCHROME1: the lowest value is white (PS3.3, C.7.6.3.1.2)
        volume = replace(volume, data=volume.data.max() - volume.data)
    return replace(volume, source=ref.image)


def _convert_series(folder: Path, images: Sequence[Image]) -> Volume:
    """Return the volume of a series, converted from its files or, if that fails, rebuilt ones.

    Raises:
        InputError: neither conversion gives a volume that holds every slice at its place.
    """
    problem = ""
    for rebuild in (False, True):
        with scratch_folder() as scratch:
            try:
                volume = read_nifti(convert(folder, images, scratch, rebuild=rebuild))
                check_conversion(folder, images, volume)
            except InputError as error:  # the user knows the folder, not the temporary file
                problem = re.sub(rf"{re.escape(str(scratch))}\S*?:", f"{folder}:", str(error))
            else:
                return volume
    raise InputError(problem)


def fingerprint(folder: Path, uid: str) -> str:
    """Return a hash that changes with the series and with the files in its folder.

    The hash is made from the UID and from names, sizes and times of the files, and reveals none.

    Args:
        folder: DICOM folder of the series.
        uid: SeriesInstanceUID.
    """
    parts = [uid]
    for path in visible_files(folder):
        status = path.stat()
        parts.append(f"{path.relative_to(folder)} {status.st_size} {status.st_mtime_ns}")
    return hash_text("\n".join(parts))


def source_code(ref: ScanRef) -> str:
    """Return a code that tells another scan of the same name from this one, moved or changed.

    Place and content (size and time of the image) have 16 bits each, so that the code cannot be
    traced to a folder name.

    Example: "3f0a-91c2"
    """
    status = ref.image.stat()
    parts = str(ref.image.absolute()), f"{status.st_size} {status.st_mtime_ns}"
    return "-".join(hash_text(part)[:4] for part in parts)


def identity(ref: ScanRef) -> dict[str, Any]:
    """Return a record that changes with the files of a scan, without reading the files.

    Returns:
        `files`: path, size and modification time of image, masks and T1w, None for a missing one;
        `pairs`: the same for both files of each of them that is a NIfTI pair, if there is one;
        `dicom` and `t1`: the `fingerprint` of the image's and the T1w's series, if they are DICOM.
    """
    files = (ref.image, ref.brain_mask, ref.lesion_mask, ref.t1)
    record: dict[str, Any] = {"files": [_file_identity(path) for path in files]}
    pairs = [find_pair(path) for path in files if path and is_pair(path) and path.is_file()]
    if pairs:
        record["pairs"] = [[_file_identity(half) for half in pair] for pair in pairs]
    if ref.series:
        record["dicom"] = fingerprint(ref.image, ref.series)
    if ref.t1 and ref.t1_series:
        record["t1"] = fingerprint(ref.t1, ref.t1_series)
    return record


def _file_identity(path: Path | None) -> list[Any] | None:
    if path is None or not path.exists():
        return None
    status = path.stat()
    return [str(path.absolute()), status.st_size, status.st_mtime_ns]
