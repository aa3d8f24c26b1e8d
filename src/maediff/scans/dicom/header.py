"""Header of a DICOM file: one `Image` for each slice, and the texts that group files into series.

Pixel data is not read here. Fields that identify a person (name, ID, dates) are never written.
"""

import logging
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maediff.core.errors import InputError
from maediff.scans.content import PIECE, check_file, describe_foreign, looks_like_dicom, read_error

# Transfer syntaxes without compression (PS3.5, annex A).
SYNTAX = {  # (implicit value representation, little endian)
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
UNCOMPRESSED = tuple(SYNTAX.values())
# Tag, value representation and length before the pixel data (PS3.5, 7.1.2 and 7.1.3), by whether
# the value representation is implicit.
PIXEL_DATA_TAG_BYTES = {True: 8, False: 12}
DEFLATED = "1.2.840.10008.1.2.1.99"  # the dataset is one zlib stream (PS3.5, A.5)
MAX_DEFLATED_BYTES, MAX_DEFLATED_RATIO = 1 << 26, 20  # unpacked: 64 MiB, or 20 times the file
DICOMDIR_CLASS = "1.2.840.10008.1.3.10"  # media storage directory
TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "Modality",
    "ImageType",
    "PatientID",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "RescaleSlope",
    "RescaleIntercept",
    "ContrastBolusAgent",
)
GROUPS = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ContrastBolusAgentSequence",
)


@dataclass(frozen=True)
class Image:
    """Header fields of one slice; None if the field is absent or empty.

    A slice is a DICOM file, or a frame of an enhanced multi-frame file (PS3.3, A.36).

    Args:
        path: the file.
        sop_class: SOPClassUID.
        uid: SOPInstanceUID; empty if absent.
        syntax: TransferSyntaxUID, or the encoding of a file that does not state it.
        has_preamble: false if the file starts without the 128 bytes and DICM of PS3.10, 7.1.
        instance: InstanceNumber.
        position: mm in LPS of the first pixel.
        orientation: direction cosines of a row and of a column.
        spacing_mm: distance of rows, distance of columns.
        slice_step_mm: SpacingBetweenSlices.
        rows: pixels along a column, 0 if absent.
        columns: pixels along a row, 0 if absent.
        frames: number of frames of the file; 1 if absent.
        frame: index of the slice in a multi-frame file; 0 for a file with one slice.
        photometric: PhotometricInterpretation in capitals; empty if absent.
        pixel_bytes: size of the file's pixel data without compression.
        stored_bytes: size of the value of the pixel data in the file, at most.
    """

    path: Path
    sop_class: str
    uid: str
    syntax: str
    has_preamble: bool
    instance: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    slice_step_mm: float | None
    rows: int
    columns: int
    frames: int
    frame: int
    photometric: str
    pixel_bytes: int
    stored_bytes: int

    @property
    def is_inverted(self) -> bool:
        """True if low values are bright (MONOCHROME1)."""
        return self.photometric == "MONOCHROME1"


def read_images(path: Path) -> tuple[list[Image], dict[str, str]] | None:
    """Read the header of a DICOM file.

    Returns:
        The slices (one, or one for each frame that states its position), and the texts of `TAGS`
        (empty if absent), which group files into series; None for a DICOMDIR file.

    Raises:
        InputError: the file cannot be read as DICOM, or has no study or series UID.
    """
    import pydicom

    check_file(path)
    start = _read_start(path)
    has_preamble = start[128:132] == b"DICM"
    if has_preamble and DEFLATED.encode() in start:
        _check_deflated(path, start)
    try:
        with silence_dicom_warnings(), path.open("rb") as handle:
            header = pydicom.dcmread(
                handle, stop_before_pixels=True, specific_tags=[*TAGS, *GROUPS], force=True
            )
            if header.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR_CLASS:
                return None
            header_bytes = handle.tell() + PIXEL_DATA_TAG_BYTES[header.original_encoding[0]]
            texts = _read_texts(header)
            image = _make_image(path, header, texts, header_bytes, has_preamble=has_preamble)
            images = _split_frames(image, header)
    except Exception as error:  # pydicom raises many types on a damaged header
        raise InputError(
            f"{path}: cannot be read as DICOM ({type(error).__name__}); copy or export it again, "
            "or remove it from the folder"
        ) from None
    if not texts["SeriesInstanceUID"] or not texts["StudyInstanceUID"]:
        raise InputError(
            f"{path}: its header has no series or study UID, so the series of the folder cannot "
            "be separated; export it again, or convert it with dcm2niix yourself"
        )
    return images, texts


def _read_start(path: Path) -> bytes:
    """Return the first bytes of a file, which must look like DICOM."""
    try:
        with path.open("rb") as handle:
            start = handle.read(1024)
    except OSError as error:
        raise read_error(path, error) from None
    if not looks_like_dicom(start):
        finding = describe_foreign(start) or (
            "cannot be read as DICOM (no DICM at byte 128); copy or export it again, or remove it "
            "from the folder"
        )
        raise InputError(f"{path}: {finding}")
    return start


def _read_texts(header: Any) -> dict[str, str]:
    """Return the texts of `TAGS`; empty if absent."""
    texts = {name: _to_text(header.get(name)) for name in TAGS}
    if header.get("ContrastBolusAgentSequence"):  # enhanced MR (PS3.3, C.8.13.3.1)
        texts["ContrastBolusAgent"] = texts["ContrastBolusAgent"] or "stated"
    return texts


def _make_image(
    path: Path, header: Any, texts: Mapping[str, str], header_bytes: int, *, has_preamble: bool
) -> Image:
    """Return a file as one image, before its frames are split.

    Args:
        path: the file.
        header: pydicom dataset.
        texts: from `_read_texts`.
        header_bytes: bytes of the file before the value of the pixel data.
        has_preamble: see `Image`.
    """
    instance, slice_step = texts["InstanceNumber"], texts["SpacingBetweenSlices"]
    rows, columns, frames = (
        int(texts[name] or default)
        for name, default in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1))
    )
    bits = int(texts["SamplesPerPixel"] or 1) * int(texts["BitsAllocated"] or 0)
    syntax = header.file_meta.get("TransferSyntaxUID") or SYNTAX[header.original_encoding]
    return Image(
        path=path,
        sop_class=texts["SOPClassUID"],
        uid=texts["SOPInstanceUID"],
        syntax=str(syntax),
        has_preamble=has_preamble,
        instance=int(float(instance)) if instance else None,
        position=_to_numbers(header.get("ImagePositionPatient"), 3),
        orientation=_to_numbers(header.get("ImageOrientationPatient"), 6),
        spacing_mm=_to_numbers(header.get("PixelSpacing"), 2),
        slice_step_mm=float(slice_step) if slice_step else None,
        rows=rows,
        columns=columns,
        frames=frames,
        frame=0,
        photometric=texts["PhotometricInterpretation"].upper(),
        pixel_bytes=rows * columns * frames * bits // 8,
        stored_bytes=path.stat().st_size - header_bytes,
    )


def _check_deflated(path: Path, start: bytes) -> None:
    """Refuse a deflated file that unpacks to far more than an image: pydicom unpacks it at once.

    Args:
        path: the file.
        start: its first bytes.

    Raises:
        InputError: the file unpacks to too much, or does not state where its dataset begins.
    """
    if start[132:136] != b"\x02\0\0\0":  # FileMetaInformationGroupLength, required first
        raise InputError(
            f"{path}: deflated DICOM that does not state the length of its file header; export it "
            "uncompressed"
        )
    unpacker = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    limit = max(MAX_DEFLATED_BYTES, MAX_DEFLATED_RATIO * path.stat().st_size)
    unpacked = 0
    try:
        with path.open("rb") as handle:
            handle.seek(144 + int.from_bytes(start[140:144], "little"))
            packed = handle.read(PIECE)
            while packed and not unpacker.eof and unpacked <= limit:
                unpacked += len(unpacker.decompress(packed, PIECE))
                packed = unpacker.unconsumed_tail or handle.read(PIECE)
    except (OSError, zlib.error):
        return  # reported when the dataset is read
    if unpacked > limit:
        raise InputError(
            f"{path}: deflated DICOM that unpacks to more than {limit >> 20} MiB, far more than "
            "one image; export it uncompressed"
        )


def _split_frames(image: Image, header: Any) -> list[Image]:
    """Return one image for each frame that the functional groups place (PS3.3, C.7.6.16).

    Returns:
        The image itself if the file has no functional groups, or not one for each frame.
    """
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if not groups or len(groups) != image.frames:
        return [image]
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    images = []
    for number, frame in enumerate(groups):

        def field(sequence: str, name: str, frame: Any = frame) -> Any:
            for group in (frame, shared):
                items = group.get(sequence) if group is not None else None
                if items and items[0].get(name) is not None:
                    return items[0].get(name)
            return None

        step = field("PixelMeasuresSequence", "SpacingBetweenSlices")
        images.append(
            replace(
                image,
                frame=number,
                position=_to_numbers(field("PlanePositionSequence", "ImagePositionPatient"), 3),
                orientation=_to_numbers(
                    field("PlaneOrientationSequence", "ImageOrientationPatient"), 6
                ),
                spacing_mm=_to_numbers(field("PixelMeasuresSequence", "PixelSpacing"), 2),
                slice_step_mm=float(step) if step else None,
            )
        )
    return images


def read_dataset(path: Path, syntax: str, *, with_pixels: bool = True) -> Any:
    """Return the pydicom dataset of a file, which need not have a preamble.

    Args:
        path: the file.
        syntax: transfer syntax of a file that does not state it.
        with_pixels: read the pixel data.
    """
    import pydicom

    dataset = pydicom.dcmread(path, force=True, stop_before_pixels=not with_pixels)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    return dataset


def read_rescaling(dataset: Any, frame: int) -> tuple[float, float]:
    """Return RescaleSlope and RescaleIntercept of a slice; 1 and 0 if they are absent.

    Args:
        dataset: pydicom dataset of the file.
        frame: index of the slice in a multi-frame file.
    """
    sequence = "PixelValueTransformationSequence"
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    places = [frames[frame]] if frame < len(frames) else []
    places += list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    for place in [*(item for group in places for item in group.get(sequence) or []), dataset]:
        if place.get("RescaleSlope") is not None:
            return float(place.RescaleSlope), float(place.get("RescaleIntercept") or 0)
    return 1.0, 0.0


@contextmanager
def silence_dicom_warnings() -> Iterator[None]:
    """Silence pydicom and highdicom, whose warnings quote patient data."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [log.level for log in loggers]
    try:
        for log in loggers:
            log.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(loggers, levels, strict=True):
            log.setLevel(level)


def _to_text(value: object) -> str:
    """Return a header value as text, several values joined by a backslash."""
    if value is None:
        return ""
    if not isinstance(value, str) and isinstance(value, Iterable):
        return "\\".join(str(item) for item in value)
    return str(value).strip()


def _to_numbers(value: object, count: int) -> tuple[float, ...] | None:
    """Return a header value as `count` finite numbers, or None."""
    if value is None or not isinstance(value, Iterable):
        return None
    numbers = tuple(float(item) for item in value)
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None
