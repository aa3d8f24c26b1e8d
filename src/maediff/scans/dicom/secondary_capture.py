"""Scan with coloured anomaly mask as a secondary-capture series, which any DICOM viewer displays.

    grey = (value - low) / (high - low)          the window of the scan
    RGB  = grey, with the mask in orange: its outline opaque, its inside 35 %
    text = "Research use only. Not for diagnosis." along the upper edge of each image

The series has one image per slice of the scan, in the order of the scan's images (PS3.3, A.8.1).
Each image belongs to the patient and the study of the scan, and refers to its slice. Position,
orientation and frame of reference are those of the slice, so viewers can scroll both series
together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from maediff import __version__
from maediff.core.errors import InputError
from maediff.scans.dicom.completeness import check_volume
from maediff.scans.dicom.convert import find_images
from maediff.scans.dicom.header import Image, silence_dicom_warnings
from maediff.scans.dicom.output import (
    check_dicom_output,
    derive_series_number,
    read_sources,
    sample_on_slice,
    shorten,
)
from maediff.scans.reference import ScanRef
from maediff.scans.volume import Volume

CAPTURE_FOLDER = "secondary_capture"
COLOUR = (255, 140, 26)  # orange of the report's mask
OPACITY = 0.35
MIN_PIXELS = 256  # smaller slices are enlarged, so that the text is legible
WINDOW = (0.5, 99.5)  # percentiles of the brain's intensities that become black and white
TEXT = "Research use only. Not for diagnosis."


def check_dicom_sc(refs: Sequence[ScanRef]) -> None:
    """Check, before any work, that a secondary-capture series can be written for every scan.

    Raises:
        InputError: highdicom is not installed, or a scan is not DICOM.
    """
    check_dicom_output(refs, "DICOM secondary capture", "dicom_sc")


def write_dicom_sc(
    folder: Path,
    mask: Bool[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    volume: Volume,
    ref: ScanRef,
    model: str,
) -> None:
    """Write the scan with its anomaly mask as a secondary-capture series.

    Args:
        folder: folder for the files 0001.dcm, 0002.dcm, ...; it is created.
        mask: anomaly mask on the RAS+ grid of `volume`.
        brain: brain mask on the same grid, for the window.
        volume: the scan.
        ref: reference to the scan, with its DICOM folder and series.
        model: name of the model that made the mask, for the description.

    Raises:
        InputError: highdicom is not installed, the scan is not DICOM, its series has changed, is
            not on the grid of `volume`, or lacks header fields; or a file could not be written.
    """
    check_dicom_sc([ref])
    found = find_images(ref.image, ref.series or "")
    check_volume(ref.image, found)
    images = _sort_like_source(found)
    paths = dict.fromkeys(image.path for image in images)
    sources = dict(zip(paths, read_sources(images), strict=True))
    # The window of a MONOCHROME1 header is that of values which `read_volume` has inverted.
    headers = [] if images[0].is_inverted else list(sources.values())
    low, high = choose_window(headers, volume, brain)
    folder.mkdir(parents=True, exist_ok=True)
    series = _make_series(images, sources[images[0].path], model)
    for number, image in enumerate(images, start=1):
        scan, inside = (
            sample_on_slice(data, volume, image, "dicom_sc") for data in (volume.data, mask)
        )
        factor = max(1, -(-MIN_PIXELS // max(image.rows, image.columns)))
        picture = render_overlay(scan, inside, low, high, factor)
        try:
            with silence_dicom_warnings():
                source = sources[image.path]
                capture = _make_capture(picture, image, source, number, factor, series)
                capture.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)
        except OSError:
            raise
        except Exception as error:  # messages of highdicom and pydicom quote the header
            raise InputError(
                f"{ref.image}: no secondary capture can be made of this series "
                f"({type(error).__name__}): its headers lack fields that it needs, or hold "
                "invalid ones; detect without `dicom_sc`"
            ) from None


def choose_window(
    sources: Sequence[Any], volume: Volume, brain: Bool[np.ndarray, "x y z"]
) -> tuple[float, float]:
    """Return the intensities that become black and white, the same for all slices.

    This is the median window of the headers, if it fits the brain: the brain's median is inside,
    and the width is between half and four times the brain's range. Headers of scanners with two
    intensity scales do not fit. Then the range of the brain's intensities is the window.

    Args:
        sources: headers of the series; without any, the range of the brain's intensities counts.
        volume: the scan.
        brain: brain mask; if it is empty, the whole scan counts.
    """
    values = volume.data[brain] if brain.any() else volume.data.ravel()
    low, median, high = (float(v) for v in np.percentile(values, [WINDOW[0], 50, WINDOW[1]]))
    high = max(high, low + 1e-6)
    windows = [window for source in sources if (window := _read_window(source)) is not None]
    if windows and len(windows) == len(sources):
        centre, width = (float(v) for v in np.median(windows, axis=0))
        black, white = centre - width / 2, centre + width / 2
        if black < median < white and 0.5 <= width / (high - low) <= 4:
            return black, white
    return low, high


def render_overlay(
    scan: Float[np.ndarray, "rows columns"],
    mask: Bool[np.ndarray, "rows columns"],
    low: float,
    high: float,
    factor: int = 1,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return a slice in grey with the mask in colour and the text, `factor` times as large.

    Args:
        scan: intensities.
        mask: anomaly mask.
        low: intensity that becomes black.
        high: intensity that becomes white.
        factor: pixels of the picture per pixel of the slice, along both axes.
    """
    from PIL import Image as Picture
    from PIL import ImageDraw

    grey = np.clip((scan - low) / (high - low), 0, 1)
    grey, inside = (np.kron(data, np.ones((factor, factor))) for data in (grey, mask))
    picture = np.repeat(255 * grey[..., None], 3, axis=2)
    inside = inside > 0
    edge = inside & ~ndimage.binary_erosion(inside)
    picture[inside] = (1 - OPACITY) * picture[inside] + OPACITY * np.array(COLOUR)
    picture[edge] = COLOUR
    canvas = Picture.fromarray(np.round(picture).astype(np.uint8))
    drawing = ImageDraw.Draw(canvas)
    for line, text in enumerate(_wrap(TEXT, drawing, canvas.width - 4)):
        drawing.text((2, 1 + 12 * line), text, fill=(255, 255, 255), stroke_width=1, stroke_fill=0)
    return np.asarray(canvas, dtype=np.uint8)


def _wrap(text: str, drawing: Any, width: int) -> list[str]:
    """Return the text in lines that fit into `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if drawing.textlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _sort_like_source(images: Sequence[Image]) -> list[Image]:
    """Return the slices by position, in the direction in which the source numbers them."""
    along_row, along_column = np.array(images[0].orientation, dtype=float).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    ordered = sorted(images, key=lambda image: float(np.dot(image.position or (0, 0, 0), normal)))
    first, last = ordered[0].instance, ordered[-1].instance
    if first is not None and last is not None and first > last:
        ordered.reverse()
    return ordered


def _read_window(source: Any) -> tuple[float, float] | None:
    """Return centre and width of the first window of a header; None if there is none."""
    centre, width = source.get("WindowCenter"), source.get("WindowWidth")
    try:
        centre, width = (
            float(value[0] if isinstance(value, Sequence | list) else value)
            for value in (centre, width)
        )
    except (TypeError, ValueError, IndexError):
        return None
    return (centre, width) if np.isfinite([centre, width]).all() and width > 0 else None


@dataclass(frozen=True)
class _CaptureSeries:
    """Values that all images of the series share.

    Args:
        uid: SeriesInstanceUID.
        number: SeriesNumber.
        step_mm: distance of the slices.
        model: name of the model.
    """

    uid: str
    number: int
    step_mm: float
    model: str


def _make_series(images: Sequence[Image], source: Any, model: str) -> _CaptureSeries:
    """Return the shared values for a series with the header `source`."""
    import highdicom

    positions = np.array([images[0].position, images[-1].position], dtype=float)
    step_mm = float(np.linalg.norm(positions[1] - positions[0])) / (len(images) - 1)
    return _CaptureSeries(highdicom.UID(), derive_series_number(source, 2), step_mm, model)


def _make_capture(
    picture: UInt8[np.ndarray, "height width 3"],
    image: Image,
    source: Any,
    number: int,
    factor: int,
    series: _CaptureSeries,
) -> Any:
    """Return one image of the series as a pydicom dataset."""
    import highdicom
    from pydicom.dataset import Dataset

    assert image.orientation is not None
    assert image.position is not None
    assert image.spacing_mm is not None
    row_mm, column_mm = (step / factor for step in image.spacing_mm)
    along_row, along_column = np.reshape(image.orientation, (2, 3))
    # The first pixel of an enlarged picture is a corner of the slice's first pixel.
    shift = (1 / factor - 1) / 2
    position = (
        np.array(image.position)
        + shift * image.spacing_mm[1] * along_row
        + shift * image.spacing_mm[0] * along_column
    )
    directions = [_name_direction(axis) for axis in (along_row, along_column)]
    capture = highdicom.sc.SCImage.from_ref_dataset(
        source,
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=series.uid,
        series_number=series.number,
        sop_instance_uid=highdicom.UID(),
        instance_number=number,
        manufacturer="maediff",
        pixel_spacing=(row_mm, column_mm),
        patient_orientation=tuple(direction[0] for direction in directions),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        manufacturer_model_name=shorten(series.model),
        software_versions=__version__,
        device_serial_number="0",
        series_description="maediff overlay (research)",
    )
    capture.PatientOrientation = directions  # highdicom accepts one letter for each
    capture.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    capture.DerivationDescription = f"Anomaly mask over the scan. {TEXT}"
    capture.ImageComments = TEXT
    # NO: the text does not identify the patient (PS3.3, C.7.6.1.1.1).
    capture.BurnedInAnnotation = "NO"
    capture.ImagePositionPatient = [_to_decimal(value) for value in position]
    capture.ImageOrientationPatient = [_to_decimal(value) for value in image.orientation]
    capture.SliceThickness = _to_decimal(series.step_mm)
    if source.get("FrameOfReferenceUID"):
        capture.FrameOfReferenceUID = source.FrameOfReferenceUID
        capture.PositionReferenceIndicator = ""
    slice_reference = Dataset()
    slice_reference.ReferencedSOPClassUID = image.sop_class
    slice_reference.ReferencedSOPInstanceUID = image.uid
    if image.frames > 1:
        slice_reference.ReferencedFrameNumber = image.frame + 1
    capture.SourceImageSequence = [slice_reference]
    return capture


def _name_direction(axis: Float[np.ndarray, " 3"]) -> str:
    """Return a direction in LPS as in PatientOrientation (PS3.3, C.7.6.1.1.1): "L", "AF", ..."""
    names = (("L", "R"), ("P", "A"), ("H", "F"))
    order = np.argsort(-np.abs(axis))
    return "".join(names[i][int(axis[i] < 0)] for i in order if abs(axis[i]) > 0.1)


def _to_decimal(value: float) -> str:
    """Return a number as a Decimal String (PS3.5, DS): 16 characters at most."""
    return f"{value:.8g}"
