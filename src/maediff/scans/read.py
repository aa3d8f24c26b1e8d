"""One scan, NIfTI or DICOM, as a Volume; and what identifies its files."""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from maediff.core.errors import InputError
from maediff.scans.dicom.convert import _convert, images_of
from maediff.scans.dicom.series import check_volume
from maediff.scans.nifti import read_scan
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume
from maediff.scans.walk import visible


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


def read_volume(ref: ScanRef) -> Volume:
    """The scan that `ref` names, in RAS+; DICOM is converted on the way and the conversion is thrown away.

    Raises:
        InputError: the scan's `problem`; as for `read_scan`; for DICOM also a series that is no whole volume or cannot
            be decoded.
    """
    if ref.problem:
        said, listed, _ = ref.problem.partition(
            "\n"
        )  # the list of series quotes headers, and this goes into files
        raise InputError(said + f" (listed where {ref.image} is the only INPUT)" * bool(listed))
    if ref.series is None:
        return read_scan(ref.image)
    images = images_of(ref.image, ref.series)
    check_volume(ref.image, images)
    with tempfile.TemporaryDirectory(prefix="maediff-dicom-") as scratch:
        volume = read_scan(_convert(ref.image, images, Path(scratch)))
    if sorted(volume.native_shape) != sorted((images[0].rows, images[0].columns, len(images))):
        raise InputError(
            f"{ref.image}: dcm2niix makes {volume.native_shape} voxels of {len(images)} slices; convert "
            "it yourself, look at the result, and give the NIfTI file"
        )
    return replace(volume, source=ref.image)
