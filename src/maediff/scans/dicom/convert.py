"""DICOM series to NIfTI with dcm2niix."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maediff.core.errors import InputError
from maediff.scans.dicom.series import UNCOMPRESSED, Image, find_series, silence_dicom_warnings

RLE = "1.2.840.10008.1.2.5"  # transfer syntax


def find_images(folder: Path, uid: str) -> tuple[Image, ...]:
    """Find the images of one series in `folder`.

    Args:
        folder: the folder to search, at any depth.
        uid: SeriesInstanceUID.

    Raises:
        InputError: the folder does not hold the series, or holds an unreadable file.
    """
    for series in find_series(folder):
        if series.uid == uid:
            return series.images
    raise InputError(
        f"{folder}: the series is no longer in this folder; restore its files or start again"
    )


def convert(folder: Path, images: Sequence[Image], scratch: Path) -> Path:
    """Convert the images of one series to a NIfTI file.

    dcm2niix writes neither a sidecar nor comments, so the NIfTI file holds no patient data.

    Args:
        folder: folder of the series, for messages.
        images: headers of the series.
        scratch: empty folder for temporary files and the result.

    Returns:
        The NIfTI file in `scratch`.

    Raises:
        InputError: dcm2niix is not installed, cannot decode the series, or makes several volumes.
    """
    source, target = scratch / "dicom", scratch / "nifti"
    source.mkdir()
    target.mkdir()
    for number, image in enumerate({image.path: image for image in images}.values()):
        _check_rle(image)
        link = source / f"{number:06}.dcm"
        try:
            link.symlink_to(image.path.absolute())
        except OSError:  # this file system has no links
            shutil.copyfile(image.path, link)
    options = ["-g", "i", "-b", "n", "-z", "n", "-x", "i", "-c", "", "-f", "scan"]
    result = subprocess.run(
        [_find_dcm2niix(), *options, "-o", str(target), str(source)],
        capture_output=True,
        check=False,
    )
    volumes = sorted(target.glob("*.nii"))
    if result.returncode or not volumes:
        if all(image.syntax in UNCOMPRESSED for image in images):
            remedy = "copy or export it again"
        else:
            remedy = "decompress it first (dcmdjpeg, gdcmconv --raw), or export it uncompressed"
        raise InputError(
            f"{folder}: this DICOM cannot be decoded ({_name_syntaxes(images)}; dcm2niix ended "
            f"with {result.returncode}); {remedy}"
        )
    if len(volumes) > 1:
        raise InputError(
            f"{folder}: mixed series that cannot be separated: dcm2niix makes {len(volumes)} "
            "volumes of it; put each series in a separate folder, or convert it yourself and "
            "choose one volume"
        )
    return volumes[0]


def _find_dcm2niix() -> str:
    try:
        import dcm2niix
    except ImportError as error:
        raise InputError(
            "DICOM needs dcm2niix, which is installed with maediff: pip install dcm2niix"
        ) from error
    return str(dcm2niix.bin)


def _check_rle(image: Image) -> None:
    """Unpack an RLE image, because dcm2niix does not report a damaged RLE frame."""
    if image.syntax != RLE:
        return
    import pydicom

    try:
        with silence_dicom_warnings():
            shape = np.asarray(pydicom.dcmread(image.path).pixel_array).shape[-2:]
        if shape != (image.rows, image.columns):
            raise ValueError(shape)
    except Exception as error:  # a damaged frame can raise any type
        raise InputError(
            f"{image.path}: this DICOM cannot be decoded (RLE, {type(error).__name__}); copy or "
            "export it again"
        ) from None


def _name_syntaxes(images: Sequence[Image]) -> str:
    from pydicom.uid import UID

    return ", ".join(sorted({UID(image.syntax).name for image in images}))
