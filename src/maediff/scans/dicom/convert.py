"""DICOM series to NIfTI with dcm2niix.

files --links-->                                      dcm2niix --> one volume
files --rebuild: one plain file per slice, without the fields that mislead dcm2niix-->  ^
"""

import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maediff.core.errors import InputError
from maediff.scans.dicom.header import (
    DEFLATED,
    UNCOMPRESSED,
    Image,
    read_dataset,
    read_rescaling,
    silence_dicom_warnings,
)
from maediff.scans.dicom.series import find_series

LITTLE_ENDIAN, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"  # transfer syntaxes
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"  # SOP class of a file with one slice
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
PULSE_FIELDS = ("EchoTime", "InversionTime", "FlipAngle")
MAX_DRIFT = 0.01  # relative; headers state measured values of one setting, which differ a little
OTHER_IMAGES = ("ImageType", "EchoNumbers", "DiffusionBValue", "TemporalPositionIdentifier")
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


def convert(
    folder: Path, images: Sequence[Image], scratch: Path, *, rebuild: bool = False
) -> Path:
    """Convert the images of one series to a NIfTI file.

    dcm2niix writes neither a sidecar nor comments, so the NIfTI file holds no patient data.

    Args:
        folder: folder of the series, for messages.
        images: headers of the series.
        scratch: empty folder for temporary files and the result.
        rebuild: give dcm2niix a plain file for each slice, without fields that say nothing about
            positions: dcm2niix splits a series by StudyTime, and trusts a wrong
            SpacingBetweenSlices. False gives it the files themselves.

    Returns:
        The NIfTI file in `scratch`.

    Raises:
        InputError: dcm2niix is not installed, cannot decode the series, or makes several volumes.
    """
    files = list({image.path: image for image in images}.values())
    for image in files:
        if image.syntax == RLE:  # dcm2niix does not report a damaged frame
            _decode(image)
    if rebuild:
        slices = sorted(images, key=_height_mm)
        result, volumes = _run_dcm2niix(slices, scratch, _PlainCopies(slices))
    else:
        result, volumes = _run_dcm2niix(files, scratch, _link)
    if result or not volumes:
        raise _decoding_error(folder, images, f"dcm2niix ended with {result}")
    if len(volumes) > 1:
        fields = [*PULSE_FIELDS, *OTHER_IMAGES]
        differing = [name for name, texts in _read_fields(files, fields).items() if len(texts) > 1]
        finding = f", whose slices differ in {', '.join(differing)}" if differing else ""
        raise InputError(
            f"{folder}: mixed series that cannot be separated: dcm2niix makes {len(volumes)} "
            f"volumes of it{finding}; put each series in a separate folder, or convert it "
            "yourself and choose one volume"
        )
    return volumes[0]


def _read_fields(files: Sequence[Image], names: Sequence[str]) -> dict[str, set[str]]:
    """Return the different values of header fields in the files of a series, as texts."""
    import pydicom

    texts: dict[str, set[str]] = {name: set() for name in names}
    with silence_dicom_warnings():
        for image in files:
            header = pydicom.dcmread(
                image.path, force=True, stop_before_pixels=True, specific_tags=list(names)
            )
            for name in names:
                texts[name].add(str(header.get(name, "")))
    return texts


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
    """Copies of slices, each a file with the fields of one image alone.

    Args:
        images: headers in the order of the positions.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        self._number = {(image.path, image.frame): n for n, image in enumerate(images, start=1)}
        self._steady = _find_steady_fields(list({image.path: image for image in images}.values()))
        self._frames: dict[Path, np.ndarray] = {}

    def __call__(self, image: Image, copy: Path) -> None:
        import pydicom
        from pydicom.dataset import Dataset, FileMetaDataset

        if image.frames > 1 and image.path not in self._frames:
            self._frames = {image.path: _decode(image)}  # of one file at a time
        with silence_dicom_warnings():
            source = read_dataset(image.path, image.syntax)
            plain = Dataset()
            plain.file_meta = FileMetaDataset()
            plain.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
            try:
                for name in (*IMAGE_FIELDS, "PixelData"):
                    if name in source:
                        plain[name] = source[name]
                for name, value in self._steady.items():
                    setattr(plain, name, value)
                if image.frames > 1:
                    self._fill_frame(plain, image, source)
                elif image.syntax in (BIG_ENDIAN, DEFLATED):
                    if image.syntax == BIG_ENDIAN and plain.BitsAllocated == 16:
                        words = np.frombuffer(plain.PixelData, ">u2")
                        plain.PixelData = words.astype("<u2").tobytes()
                    plain.file_meta.TransferSyntaxUID = LITTLE_ENDIAN
                plain.InstanceNumber = self._number[image.path, image.frame]
                plain.SOPInstanceUID = f"{PLAIN_UID}.{plain.InstanceNumber}"
                plain.StudyInstanceUID = plain.SeriesInstanceUID = PLAIN_UID
                plain.SeriesNumber = 1
                plain.file_meta.MediaStorageSOPClassUID = plain.get("SOPClassUID", MR_IMAGE)
                plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPInstanceUID
                pydicom.dcmwrite(copy, plain, enforce_file_format=True)
            except WRITE_ERRORS as error:  # their texts may quote the header
                raise InputError(
                    f"{image.path}: damaged, its header cannot be copied "
                    f"({type(error).__name__}); copy or export it again"
                ) from None

    def _fill_frame(self, plain: Any, image: Image, source: Any) -> None:
        """Make a single slice of a copied multi-frame header.

        Args:
            plain: the copied fields of the file.
            image: header of the frame.
            source: dataset of the file.
        """
        assert image.position is not None
        assert image.orientation is not None
        assert image.spacing_mm is not None
        pixels = np.ascontiguousarray(self._frames[image.path][image.frame])
        plain.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        plain.file_meta.TransferSyntaxUID = LITTLE_ENDIAN
        del plain.NumberOfFrames
        plain.SOPClassUID = MR_IMAGE
        for name, numbers in (
            ("ImagePositionPatient", image.position),
            ("ImageOrientationPatient", image.orientation),
            ("PixelSpacing", image.spacing_mm),
        ):
            setattr(plain, name, [f"{number:.10g}" for number in numbers])
        plain.RescaleSlope, plain.RescaleIntercept = (
            f"{number:.10g}" for number in read_rescaling(source, image.frame)
        )


def _find_steady_fields(files: Sequence[Image]) -> dict[str, float]:
    """Return one value for each field of the pulse sequence that differs by rounding alone.

    dcm2niix makes a volume of each value.
    """
    steady = {}
    for name, texts in _read_fields(files, PULSE_FIELDS).items():
        try:
            values = [float(text) for text in texts]
        except ValueError:  # absent from some files, or no number
            continue
        if len(values) > 1 and max(values) - min(values) <= MAX_DRIFT * abs(max(values)):
            steady[name] = min(values)
    return steady


def _find_dcm2niix() -> str:
    try:
        import dcm2niix
    except ImportError as error:
        raise InputError(
            "DICOM needs dcm2niix, which is installed with maediff: pip install dcm2niix"
        ) from error
    return str(dcm2niix.bin)


def _decode(image: Image) -> np.ndarray:
    """Return the stored pixels of a file.

    Raises:
        InputError: the file is damaged, or pydicom has no decoder for its compression.
    """
    try:
        with silence_dicom_warnings():
            pixels = np.asarray(read_dataset(image.path, image.syntax).pixel_array)
        if pixels.shape[-2:] != (image.rows, image.columns):
            raise ValueError(pixels.shape)
    except Exception as error:  # a damaged frame can raise any type
        raise _decoding_error(image.path, [image], type(error).__name__) from None
    return pixels


def _decoding_error(place: Path, images: Sequence[Image], finding: str) -> InputError:
    """Return the error of a file or folder whose pixels cannot be decoded."""
    if all(image.syntax in (*UNCOMPRESSED, RLE) for image in images):
        remedy = "copy or export it again"
    else:
        remedy = "decompress it first (dcmdjpeg, gdcmconv --raw), or export it uncompressed"
    return InputError(
        f"{place}: this DICOM cannot be decoded ({_name_syntaxes(images)}; {finding}); {remedy}"
    )


def _name_syntaxes(images: Sequence[Image]) -> str:
    from pydicom.uid import UID

    with silence_dicom_warnings():
        return ", ".join(sorted({UID(image.syntax).name for image in images}))
