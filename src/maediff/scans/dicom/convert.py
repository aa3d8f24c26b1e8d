"""DICOM series to NIfTI with dcm2niix."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maediff.core.errors import InputError
from maediff.scans.dicom.series import UNCOMPRESSED, Image, find_series, silence_dicom_warnings

RLE = "1.2.840.10008.1.2.5"


def find_images(folder: Path, uid: str) -> tuple[Image, ...]:
    """The images of one series in `folder`.

    Raises:
        InputError: the folder does not hold it.
    """
    for one in find_series(folder):
        if one.uid == uid:
            return one.images
    raise InputError(f"{folder}: the series is no longer in this folder; start again")


def convert(folder: Path, images: Sequence[Image], scratch: Path) -> Path:
    """The NIfTI that dcm2niix makes of the images; neither sidecar nor comments, so nothing of the patient in it."""
    source, target = scratch / "dicom", scratch / "nifti"
    source.mkdir()
    target.mkdir()
    for number, image in enumerate(images):
        _check_rle(image)
        link = source / f"{number:06}.dcm"
        try:
            link.symlink_to(image.path.absolute())
        except OSError:  # no links on this file system
            shutil.copyfile(image.path, link)
    options = ["-g", "i", "-b", "n", "-z", "n", "-x", "i", "-c", "", "-f", "scan"]
    done = subprocess.run(
        [_program(), *options, "-o", str(target), str(source)], capture_output=True, check=False
    )
    made = sorted(target.glob("*.nii"))
    if done.returncode or not made:
        plain = all(image.syntax in UNCOMPRESSED for image in images)
        raise InputError(
            f"{folder}: this DICOM cannot be decoded ({_syntaxes(images)}; dcm2niix ended with "
            f"{done.returncode}); "
            + (
                "copy or export it again"
                if plain
                else "decompress it first (dcmdjpeg, gdcmconv --raw), or export it uncompressed"
            )
        )
    if len(made) > 1:
        raise InputError(
            f"{folder}: mixed series that cannot be told apart: dcm2niix makes {len(made)} volumes of it; "
            "put each series in a folder of its own, or convert it yourself and choose one"
        )
    return made[0]


def _program() -> str:
    try:
        import dcm2niix
    except ImportError as error:
        raise InputError(
            "DICOM needs dcm2niix, which comes with maediff: pip install dcm2niix"
        ) from error
    return str(dcm2niix.bin)


def _check_rle(image: Image) -> None:
    """dcm2niix takes a damaged RLE frame for a whole one, so each is unpacked here first."""
    if image.syntax != RLE:
        return
    import pydicom

    try:
        with silence_dicom_warnings():
            size = np.asarray(pydicom.dcmread(image.path).pixel_array).shape[:2]
        if size != (image.rows, image.columns):
            raise ValueError(size)
    except Exception as error:  # whatever a damaged frame leads to
        raise InputError(
            f"{image.path}: this DICOM cannot be decoded (RLE, {type(error).__name__}); copy or export it "
            "again"
        ) from None


def _syntaxes(images: Sequence[Image]) -> str:
    from pydicom.uid import UID

    return ", ".join(sorted({UID(image.syntax).name for image in images}))
