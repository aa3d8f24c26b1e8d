"""DICOM series to NIfTI with dcm2niix."""

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from maediff.core.errors import InputError
from maediff.scans.dicom.series import (
    GROUPS,
    UNCOMPRESSED,
    Image,
    find_series,
    read_dataset,
    silence_dicom_warnings,
)

LITTLE_ENDIAN, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"  # transfer syntaxes
PLAIN_UID = "2.25.1"  # of temporary copies
# Fields that dcm2niix needs to place the pixels, and fields by which images really differ.
IMAGE_FIELDS = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "EchoTime",
    "EchoNumbers",
    "InversionTime",
    "FlipAngle",
    "DiffusionBValue",
    "TemporalPositionIdentifier",
    "NumberOfFrames",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
)
WRITE_ERRORS = (ValueError, TypeError, AttributeError, LookupError, OverflowError, struct.error)
"""Errors of pydicom for fields that cannot be written."""
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
    files = list({image.path: image for image in images}.values())
    for image in files:
        _check_rle(image)
    volumes: list[Path] = []
    if all(image.has_preamble for image in files):
        result, volumes = _run_dcm2niix(files, scratch / "linked", _link)
    if len(volumes) != 1:
        # dcm2niix splits a series by fields such as StudyTime, which say nothing about positions.
        files.sort(key=_height_mm)
        result, volumes = _run_dcm2niix(files, scratch / "plain", _PlainCopies(files))
    if result or not volumes:
        if all(image.syntax in UNCOMPRESSED for image in images):
            remedy = "copy or export it again"
        else:
            remedy = "decompress it first (dcmdjpeg, gdcmconv --raw), or export it uncompressed"
        raise InputError(
            f"{folder}: this DICOM cannot be decoded ({_name_syntaxes(images)}; dcm2niix ended "
            f"with {result}); {remedy}"
        )
    if len(volumes) > 1:
        raise InputError(
            f"{folder}: mixed series that cannot be separated: dcm2niix makes {len(volumes)} "
            "volumes of it; put each series in a separate folder, or convert it yourself and "
            "choose one volume"
        )
    return volumes[0]


def _run_dcm2niix(
    images: Sequence[Image], scratch: Path, place: Callable[[Image, Path], None]
) -> tuple[int, list[Path]]:
    """Convert files with dcm2niix.

    Args:
        images: one header for each file.
        scratch: folder to make.
        place: puts a file at a path.

    Returns:
        The exit code and the volumes.
    """
    source, target = scratch / "dicom", scratch / "nifti"
    source.mkdir(parents=True)
    target.mkdir()
    for number, image in enumerate(images):
        place(image, source / f"{number:06}.dcm")
    options = ["-g", "i", "-b", "n", "-z", "n", "-x", "i", "-c", "", "-f", "scan"]
    result = subprocess.run(
        [_find_dcm2niix(), *options, "-o", str(target), str(source)],
        capture_output=True,
        check=False,
    )
    return result.returncode, sorted(target.glob("*.nii"))


def _link(image: Image, link: Path) -> None:
    try:
        link.symlink_to(image.path.absolute())
    except OSError:  # this file system has no links
        shutil.copyfile(image.path, link)


def _height_mm(image: Image) -> float:
    """Return the position of a slice along its normal."""
    if image.orientation is None or image.position is None:
        return 0.0
    normal = np.cross(image.orientation[:3], image.orientation[3:])
    return float(normal @ np.array(image.position))


class _PlainCopies:
    """Copies of DICOM files with the fields of the image alone, which differ only by slice.

    Args:
        images: one header for each file, in the order of the positions.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        self.number = {image.path: number for number, image in enumerate(images, start=1)}

    def __call__(self, image: Image, copy: Path) -> None:
        import pydicom
        from pydicom.dataset import Dataset, FileMetaDataset

        with silence_dicom_warnings():
            source = read_dataset(image.path, image.syntax)
            plain = Dataset()
            for name in (*IMAGE_FIELDS, *GROUPS, "PixelData"):
                if name in source:
                    plain[name] = source[name]
            if image.frames == 1:
                plain.InstanceNumber = self.number[image.path]
            plain.SOPInstanceUID = f"{PLAIN_UID}.{self.number[image.path]}"
            plain.StudyInstanceUID = plain.SeriesInstanceUID = PLAIN_UID
            plain.SeriesNumber = 1
            plain.file_meta = FileMetaDataset()
            plain.file_meta.MediaStorageSOPClassUID = image.sop_class
            plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPInstanceUID
            plain.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
            if image.syntax == BIG_ENDIAN:
                if plain.BitsAllocated == 16:
                    plain.PixelData = np.frombuffer(plain.PixelData, ">u2").astype("<u2").tobytes()
                plain.file_meta.TransferSyntaxUID = LITTLE_ENDIAN
            try:
                pydicom.dcmwrite(copy, plain, enforce_file_format=True)
            except WRITE_ERRORS as error:  # their texts may quote the header
                raise InputError(
                    f"{image.path}: damaged, its header cannot be copied "
                    f"({type(error).__name__}); copy or export it again"
                ) from None


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
    try:
        with silence_dicom_warnings():
            shape = np.asarray(read_dataset(image.path, image.syntax).pixel_array).shape[-2:]
        if shape != (image.rows, image.columns):
            raise ValueError(shape)
    except Exception as error:  # a damaged frame can raise any type
        raise InputError(
            f"{image.path}: this DICOM cannot be decoded (RLE, {type(error).__name__}); copy or "
            "export it again"
        ) from None


def _name_syntaxes(images: Sequence[Image]) -> str:
    from pydicom.uid import UID

    with silence_dicom_warnings():
        return ", ".join(sorted({UID(image.syntax).name for image in images}))
