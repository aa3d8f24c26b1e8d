"""DICOM headers: the series in a folder, the contrast of each, and the check for a whole volume.

    files --read_images--> one Image per slice --find_series--> Series (one SeriesInstanceUID)
    check_volume:  positions along the normal of the slices   |   |   |       |   |
                                                                        ^ a slice is missing

Pixel data is not read here. Fields that identify a person (name, ID, dates) are never written.
The patient ID is only compared, so that two studies of one person are known as such.
"""

import filecmp
import logging
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maediff.core.errors import InputError
from maediff.core.text import escape_controls
from maediff.scans.content import PIECE, check_file, describe_foreign, looks_like_dicom, read_error
from maediff.scans.contrast import contrast_from_text
from maediff.scans.nifti_header import check_voxel_count
from maediff.scans.walk import is_dicom, visible_files

MIN_SLICES = 3  # a series of fewer images is a scout, not a volume
STEP_TOLERANCE = 0.1  # largest deviation of a slice position, as a share of the slice distance
MIN_STEP_MM = 1e-3  # slices closer than this are at one position
MIN_LINE_TOLERANCE_MM = 0.05  # slice positions are rounded in the header
MAX_SHEAR_MM = 0.1  # offset of the last slice from the normal through the first one
MAX_COSINE_ERROR = 0.01  # of products of direction cosines, which headers round
SAME_DIRECTION = 1e-3  # largest difference of direction cosines within one series
SAME_SPACING = 1e-4  # largest relative difference of pixel spacings: 0.05 mm in 512 pixels
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
PHASE = {"P", "PHASE", "PHASE MAP", "I", "IMAGINARY"}  # values of ImageType
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


@dataclass(frozen=True)
class Series:
    """The images of one SeriesInstanceUID.

    Args:
        uid: SeriesInstanceUID.
        study: StudyInstanceUID.
        patient: PatientID; compared, never written.
        number: SeriesNumber; empty if the header has none.
        description: SeriesDescription.
        dicom_modality: Modality of DICOM: MR, CT, SEG, ...
        contrast: T1w, T2w, FLAIR, "other", or None if the header does not state it.
        is_localizer: true for a scout.
        images: headers of the slices.
    """

    uid: str
    study: str
    patient: str
    number: str
    description: str
    dicom_modality: str
    contrast: str | None
    is_localizer: bool
    images: tuple[Image, ...]

    @property
    def may_be_volume(self) -> bool:
        """True for MR series with enough slices that are not scouts.

        A multi-frame file without frame positions also counts, so that `check_volume` refuses it
        by name.
        """
        n_slices = sum(image.frames if image.position is None else 1 for image in self.images)
        has_slices = n_slices >= MIN_SLICES
        return self.dicom_modality == "MR" and has_slices and not self.is_localizer

    def describe(self) -> str:
        """Return one line for a list of series to choose from."""
        contrast = {None: "contrast not stated", "other": "another contrast"}.get(
            self.contrast, self.contrast
        )
        return (
            f"  series {escape_controls(self.number) or 'without number'}: "
            f"{escape_controls(self.description) or 'no description'} "
            f"({self.dicom_modality}, {contrast}, {len(self.images)} images, UID {self.uid})"
        )


_Header = tuple[list[Image], dict[str, str]]  # of one file, see `read_images`


def find_series(folder: Path, damaged: dict[Path, str] | None = None) -> list[Series]:
    """Find every DICOM series in `folder`, at any depth; other files are ignored.

    Args:
        folder: the folder to search.
        damaged: filled with unreadable files and their error messages. None raises an error for
            the first unreadable file.

    Returns:
        The series in the order of their numbers.

    Raises:
        InputError: a file cannot be read as DICOM, or has no study or series UID.
    """
    by_uid: dict[str, list[_Header]] = {}
    for path in visible_files(folder):
        if path.name.upper() == "DICOMDIR" or not is_dicom(path):
            continue
        try:
            header = read_images(path)
        except InputError as error:
            if damaged is None:
                raise
            damaged[path] = str(error)
            continue
        if header is not None:
            by_uid.setdefault(header[1]["SeriesInstanceUID"], []).append(header)
    series = [_make_series(_drop_copies(headers)) for headers in by_uid.values()]
    return sorted(series, key=lambda item: (len(item.number), item.number, item.uid))


def _drop_copies(headers: Sequence[_Header]) -> list[_Header]:
    """Keep one of several files that hold the same image (one SOPInstanceUID, one content)."""
    kept: dict[str, list[_Header]] = {}
    for header in headers:
        images, texts = header
        twins = kept.setdefault(images[0].uid or str(images[0].path), [])
        is_copy = any(
            (twin_texts == texts and twin_images[0].position == images[0].position)
            and _same_pixels(twin_images[0].path, images[0].path)
            for twin_images, twin_texts in twins
        )
        if not is_copy:
            twins.append(header)
    return [header for twins in kept.values() for header in twins]


def _same_pixels(path: Path, other: Path) -> bool:
    """Check whether two DICOM files are equal byte by byte, or at least in their pixel data."""
    import pydicom

    if filecmp.cmp(path, other, shallow=False):
        return True
    try:
        with silence_dicom_warnings():
            datasets = [pydicom.dcmread(file, force=True) for file in (path, other)]
        return bool(datasets[0].PixelData == datasets[1].PixelData)
    except Exception:  # pydicom raises many types on a damaged file
        return False


def _make_series(headers: Sequence[_Header]) -> Series:
    texts = headers[0][1]
    image_types = set(texts["ImageType"].upper().split("\\"))
    if texts["ContrastBolusAgent"] or image_types & PHASE:
        contrast: str | None = "other"
    else:
        contrast = contrast_from_text(f"{texts['SeriesDescription']} {texts['ProtocolName']}")
    return Series(
        uid=texts["SeriesInstanceUID"],
        study=texts["StudyInstanceUID"],
        patient=texts["PatientID"],
        number=texts["SeriesNumber"],
        description=texts["SeriesDescription"],
        dicom_modality=texts["Modality"] or "no modality",
        contrast=contrast,
        is_localizer="LOCALIZER" in texts["ImageType"].upper(),
        images=tuple(image for images, _ in headers for image in images),
    )


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
    has_preamble = start[128:132] == b"DICM"
    if has_preamble and DEFLATED.encode() in start:
        _check_deflated(path, start)
    try:
        with silence_dicom_warnings(), path.open("rb") as handle:
            header = pydicom.dcmread(
                handle, stop_before_pixels=True, specific_tags=[*TAGS, *GROUPS], force=True
            )
            header_bytes = handle.tell() + PIXEL_DATA_TAG_BYTES[header.original_encoding[0]]
            meta = header.file_meta
            if meta.get("MediaStorageSOPClassUID") == DICOMDIR_CLASS:
                return None
            texts = {name: _to_text(header.get(name)) for name in TAGS}
            if header.get("ContrastBolusAgentSequence"):  # enhanced MR (PS3.3, C.8.13.3.1)
                texts["ContrastBolusAgent"] = texts["ContrastBolusAgent"] or "stated"
            instance, slice_step = texts["InstanceNumber"], texts["SpacingBetweenSlices"]
            samples = int(texts["SamplesPerPixel"] or 1)
            rows, columns = int(texts["Rows"] or 0), int(texts["Columns"] or 0)
            frames = int(texts["NumberOfFrames"] or 1)
            image = Image(
                path=path,
                sop_class=texts["SOPClassUID"],
                uid=texts["SOPInstanceUID"],
                syntax=str(meta.get("TransferSyntaxUID") or SYNTAX[header.original_encoding]),
                has_preamble=has_preamble,
                instance=int(instance) if instance else None,
                position=_to_numbers(header.get("ImagePositionPatient"), 3),
                orientation=_to_numbers(header.get("ImageOrientationPatient"), 6),
                spacing_mm=_to_numbers(header.get("PixelSpacing"), 2),
                slice_step_mm=float(slice_step) if slice_step else None,
                rows=rows,
                columns=columns,
                frames=frames,
                frame=0,
                photometric=texts["PhotometricInterpretation"].upper(),
                pixel_bytes=(
                    rows * columns * samples * frames * int(texts["BitsAllocated"] or 0) // 8
                ),
                stored_bytes=path.stat().st_size - header_bytes,
            )
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


def check_volume(folder: Path, images: Sequence[Image]) -> None:
    """Check that the images of a series are one whole volume of equally spaced slices.

    Args:
        folder: folder of the series, for messages.
        images: headers of the series.

    Raises:
        InputError: a slice has no pixels, no position or truncated pixel data; slices differ in
            size, direction or photometric interpretation, share a position, are missing, unevenly
            spaced, not on one line, or offset obliquely to their normal.
    """
    for image in images:
        _check_image(image)
    check_voxel_count(folder, (images[0].rows, images[0].columns, len(images)))
    _check_uids(folder, images)
    if len(images) < MIN_SLICES:
        raise InputError(
            f"{folder}: a series of {len(images)} image(s), and a scan has {MIN_SLICES} slices or "
            "more; give the whole series"
        )
    orientation = np.array([image.orientation for image in images])
    if np.abs(orientation - orientation[0]).max() > SAME_DIRECTION:
        raise _mixed_series(folder, "one series UID, and slices of different directions")
    if len({(image.rows, image.columns) for image in images}) > 1:
        raise _mixed_series(folder, "one series UID, and slices of different sizes")
    spacings = np.array([image.spacing_mm for image in images])
    if not np.allclose(spacings, spacings[0], rtol=SAME_SPACING, atol=0):
        raise _mixed_series(folder, "one series UID, and pixels of different sizes")
    if len({image.is_inverted for image in images}) > 1:
        raise _mixed_series(folder, "low values are bright in some slices only (MONOCHROME1)")
    positions = np.array([image.position for image in images])
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    along = positions @ normal
    order = np.argsort(along)
    positions, along = positions[order], along[order]
    images = [images[i] for i in order]
    steps = np.diff(along)
    step = float(np.median(steps))
    if steps.min() < max(MIN_STEP_MM, STEP_TOLERANCE * step):
        first = int(np.argmin(steps))
        names = f"{_name_slice(images[first])} and {_name_slice(images[first + 1])}"
        raise _mixed_series(
            folder,
            f"two or more images at one position, as {names} (echoes, time points, or copies)",
        )
    _check_steps(folder, images, steps, step)
    share = (along - along[0]) / (along[-1] - along[0])
    line = positions[0] + np.outer(share, positions[-1] - positions[0])
    tolerance_mm = max(STEP_TOLERANCE * step, MIN_LINE_TOLERANCE_MM)
    if np.linalg.norm(positions - line, axis=1).max() > tolerance_mm:
        raise _mixed_series(folder, "its slices are not behind each other on one line")
    _check_shear(folder, positions[-1] - positions[0], normal)


def _check_uids(folder: Path, images: Sequence[Image]) -> None:
    """Refuse two versions of one image: one SOPInstanceUID, and different content.

    A series whose images all have the same UID was badly anonymised and has no such versions.
    """
    path_of_uid: dict[str, Path] = {}
    for image in images:
        twin = path_of_uid.setdefault(image.uid, image.path)
        is_version = image.uid and twin != image.path
        if is_version and len({other.uid for other in images}) > 1:
            raise InputError(
                f"{folder}: {twin.name} and {image.path.name} are two versions of one image (one "
                "SOPInstanceUID, different content); delete the wrong one"
            )


def _check_shear(folder: Path, extent_mm: np.ndarray, normal: np.ndarray) -> None:
    """Refuse slices that are offset obliquely to their normal: dcm2niix stacks them straight.

    Args:
        folder: folder of the series, for messages.
        extent_mm: from the first slice to the last.
        normal: unit vector.
    """
    height_mm = float(extent_mm @ normal)
    offset_mm = float(np.linalg.norm(extent_mm - height_mm * normal))
    if offset_mm > MAX_SHEAR_MM:
        degrees = np.degrees(np.arctan2(offset_mm, height_mm))
        raise InputError(
            f"{folder}: its slices are offset obliquely to their normal (a tilted gantry or a "
            f"sheared reformat: {degrees:.2g} degrees, {offset_mm:.2g} mm from the first slice to "
            "the last), and such a volume is not read; resample it onto straight slices"
        )


def _name_slice(image: Image) -> str:
    """Return the name of the slice's file, with the number of the frame if it has several."""
    return f"{image.path.name} frame {image.frame + 1}" if image.frames > 1 else image.path.name


def _check_image(image: Image) -> None:
    if image.frames > 1 and image.position is None:
        raise InputError(
            f"{image.path}: multi-frame DICOM that does not state where each of its "
            f"{image.frames} frames is; export it as single-frame or enhanced DICOM"
        )
    if not image.rows or not image.columns or not image.pixel_bytes:
        raise InputError(
            f"{image.path}: holds no image (no rows, columns or bits); remove it from the folder"
        )
    if image.photometric and not image.photometric.startswith("MONOCHROME"):
        raise InputError(
            f"{image.path}: a colour image (PhotometricInterpretation "
            f"{escape_controls(image.photometric)}), whose values are no intensities; give the "
            "series in shades of grey"
        )
    if image.position is None or image.orientation is None or image.spacing_mm is None:
        raise InputError(
            f"{image.path}: does not state where its slice is (position, orientation or pixel "
            "spacing is absent); export the series again"
        )
    _check_pixel_places(image)
    if image.syntax in UNCOMPRESSED and image.stored_bytes < image.pixel_bytes:
        raise InputError(
            f"{image.path}: its pixel data is truncated or absent; copy or export it again"
        )


def _check_pixel_places(image: Image) -> None:
    """Refuse pixels without size, and directions that are not perpendicular unit vectors."""
    assert image.orientation is not None
    assert image.spacing_mm is not None
    if min(image.spacing_mm) <= 0:
        down_mm, across_mm = image.spacing_mm
        raise InputError(
            f"{image.path}: pixels of {down_mm:g} x {across_mm:g} mm (PixelSpacing); correct the "
            "header, or export the series again"
        )
    directions = np.array(image.orientation).reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), rtol=0, atol=MAX_COSINE_ERROR):
        raise InputError(
            f"{image.path}: its rows and columns are not perpendicular directions of length 1 "
            "(ImageOrientationPatient); correct the header, or export the series again"
        )


def _mixed_series(folder: Path, finding: str) -> InputError:
    return InputError(
        f"{folder}: mixed series that cannot be separated: {finding}; put each series in a "
        "separate folder, or export them again with different series UIDs"
    )


def _check_steps(folder: Path, images: Sequence[Image], steps: np.ndarray, step: float) -> None:
    """Check for missing slices and uneven distances.

    Args:
        folder: folder of the series, for messages.
        images: headers in the order of their positions.
        steps: distances in mm from each image to the next.
        step: median of `steps`.
    """
    expected = step
    stated = images[0].slice_step_mm
    if stated and 0 < stated < step and _step_is_true(stated, images, steps):
        expected = stated
    gaps = np.flatnonzero(steps > 1.5 * expected)
    if len(gaps):
        first = gaps[0]
        names = f"{_name_slice(images[first])} and {_name_slice(images[first + 1])}"
        raise InputError(
            f"{folder}: a slice is missing between {names} ({steps[first]:.2f} mm apart, expected "
            f"{expected:.2f} mm; {len(gaps)} such gap{'s' if len(gaps) > 1 else ''}); "
            "copy or export the whole series again"
        )
    if np.abs(steps - step).max() > STEP_TOLERANCE * step:
        raise InputError(
            f"{folder}: its slices are {steps.min():.2f} to {steps.max():.2f} mm apart, and a "
            "volume has even distances; export the series again, or resample it yourself"
        )


def _step_is_true(stated: float, images: Sequence[Image], steps: np.ndarray) -> bool:
    """Check whether SpacingBetweenSlices fits the images, although it is below most distances.

    It fits if two slices have this distance, or if the instance numbers leave out as many images
    as the distances do. Otherwise the positions decide: SimpleITK writes 1 in every series.
    """
    if abs(steps.min() - stated) <= STEP_TOLERANCE * stated:
        return True
    numbers = [image.instance for image in images if image.instance is not None]
    if len(numbers) < len(images):
        return False
    jumps = np.abs(np.diff(numbers))
    return bool((jumps > 1).all() and (jumps == np.round(steps / stated)).all())


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
