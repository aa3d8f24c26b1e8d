"""DICOM headers: which series a folder holds, what each of them is, and whether it is one whole volume.

    files --read_image--> one Image each --find_series--> Series (one SeriesInstanceUID)
    check_volume:  positions along the normal of the slices   |   |   |       |   |
                                                                        ^ a slice is missing

Pixel data is not read here. Fields that identify a person (name, ID, birth date, dates) are never written anywhere:
the patient's ID is only compared, so that two studies of one person are known as such.
"""

import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maediff.core.errors import InputError
from maediff.scans.names import AGENT, affirmed
from maediff.scans.walk import is_dicom, visible

MIN_SLICES = 3  # fewer are a scout, not a volume
STEP_TOLERANCE = 0.1  # of the slice distance: how uneven slices may lie
SAME_DIRECTION = 1e-3  # direction cosines of one series agree to this
UNCOMPRESSED = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
)  # PS3.5, annex A
NOT_IMAGES = "1.2.840.10008.1.3.10"  # media storage directory: the DICOMDIR file
TAGS = (
    "SOPClassUID",
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
    "BitsAllocated",
    "ContrastBolusAgent",
)
# What a description says about the contrast; the first that fits counts, and two of ours together count as none.
OTHER = re.compile(
    r"t1rho|t[12][ _-]?map|t2 ?\*|t2[ _-]?star|\b(swi|dwi|dti|adc|trace|bold|fmri|asl|tof|mra|angio|mag|pha|phase|flow|"
    r"perf|perfusion|pd|pdw|proton|spectro|mip|post(?!erior)\w*|gd|gad|ce|t1c|km|enh|enhanced|epi|ep2d|field ?map|"
    r"scout|localizer|survey)\b"
)
PHASE = {"P", "PHASE", "PHASE MAP", "I", "IMAGINARY"}  # values of ImageType
OURS = {
    "FLAIR": re.compile(r"flair|dark[ _-]?fluid"),
    "T1w": re.compile(r"(?<![a-z0-9])[se]?t1(?!\d)|mp2?rage|\b(bravo|fspgr|spgr)\b"),
    "T2w": re.compile(r"(?<![a-z0-9])[se]?t2(?!\d)"),
}


@dataclass(frozen=True)
class Image:
    """The header of one file, as far as it matters; `None` where the field is absent or empty.

    Args:
        pixel_bytes, stored_bytes: what an uncompressed image takes, and what the file has after its header.
    """

    path: Path
    sop_class: str
    syntax: str
    instance: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    slice_step_mm: float | None
    rows: int
    columns: int
    frames: int
    pixel_bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class Series:
    """The images of one SeriesInstanceUID.

    Args:
        patient: of the header, to be compared and never to be written.
        number: "" where the header has none.
        kind: DICOM's Modality: MR, CT, SEG, ...
        contrast: T1w, T2w, FLAIR, "other", or None where the description does not say.
    """

    uid: str
    study: str
    patient: str
    number: str
    description: str
    kind: str
    contrast: str | None
    localizer: bool
    images: tuple[Image, ...]

    @property
    def may_be_volume(self) -> bool:
        """Whether it may be a scan: MR, and not a scout; a file of several frames counts, to be refused by name."""
        several = len(self.images) >= MIN_SLICES or any(
            is_multiframe(image) for image in self.images
        )
        return self.kind == "MR" and several and not self.localizer

    def line(self) -> str:
        """One line of a list to choose from."""
        what = {None: "contrast not told", "other": "another contrast"}.get(
            self.contrast, self.contrast
        )
        return (
            f"  series {self.number or 'without number'}: {self.description or 'no description'} "
            f"({self.kind}, {what}, {len(self.images)} images, UID {self.uid})"
        )


def find_series(folder: Path, damaged: dict[Path, str] | None = None) -> list[Series]:
    """Every series in `folder`, at any depth, by series number; other files than DICOM are passed over.

    Args:
        damaged: takes the files that cannot be read, with the reason, instead of an error.

    Raises:
        InputError: a file cannot be read as DICOM, or its header lacks what tells series apart.
    """
    grouped: dict[str, list[tuple[Image, dict[str, str]]]] = {}
    for path in _files(folder):
        try:
            read = read_image(path)
        except InputError as error:
            if damaged is None:
                raise
            damaged[path] = str(error)
            continue
        if read is not None:
            grouped.setdefault(read[1]["SeriesInstanceUID"], []).append(read)
    found = []
    for uid, members in grouped.items():
        texts = members[0][1]
        said = f"{texts['SeriesDescription']} {texts['ProtocolName']}"
        kinds = set(texts["ImageType"].upper().split("\\"))
        found.append(
            Series(
                uid,
                texts["StudyInstanceUID"],
                texts["PatientID"],
                texts["SeriesNumber"],
                texts["SeriesDescription"],
                texts["Modality"] or "no modality",
                "other"
                if texts["ContrastBolusAgent"] or kinds & PHASE
                else contrast_of_text(said),
                "LOCALIZER" in texts["ImageType"].upper(),
                tuple(image for image, _ in members),
            )
        )
    return sorted(found, key=lambda one: (len(one.number), one.number, one.uid))


def contrast_of_text(text: str) -> str | None:
    """T1w, T2w, FLAIR or "other" where the words leave no doubt, else None."""
    text = affirmed(text.lower().replace("_", " "))
    if OTHER.search(text) or AGENT.search(text):
        return "other"
    told = {name for name, pattern in OURS.items() if pattern.search(text)}
    if told == {"FLAIR", "T2w"}:  # FLAIR is a T2-weighted sequence; T1 FLAIR is another one
        return "FLAIR"
    return told.pop() if len(told) == 1 else None


def is_multiframe(image: Image) -> bool:
    """Whether one file holds several slices: an enhanced or multi-frame object (PS3.3, A.36)."""
    return image.frames > 1 or image.sop_class == "1.2.840.10008.5.1.4.1.1.4.1"


def read_image(path: Path) -> tuple[Image, dict[str, str]] | None:
    """A file's header, and the texts of it that group files into series; None for a DICOMDIR.

    Raises:
        InputError: it cannot be read as DICOM, or lacks what tells series apart.
    """
    import pydicom

    try:
        with silence_dicom_warnings(), path.open("rb") as handle:
            header = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=list(TAGS))
            header_bytes = handle.tell()
            meta = header.file_meta
            if meta.get("MediaStorageSOPClassUID") == NOT_IMAGES:
                return None
            texts = {name: _text(header.get(name)) for name in TAGS}
            samples = int(texts["SamplesPerPixel"] or 1)
            rows, columns = int(texts["Rows"] or 0), int(texts["Columns"] or 0)
            image = Image(
                path=path,
                sop_class=texts["SOPClassUID"],
                syntax=str(meta.get("TransferSyntaxUID", "")),
                instance=int(texts["InstanceNumber"]) if texts["InstanceNumber"] else None,
                position=_numbers(header.get("ImagePositionPatient"), 3),
                orientation=_numbers(header.get("ImageOrientationPatient"), 6),
                spacing_mm=_numbers(header.get("PixelSpacing"), 2),
                slice_step_mm=float(texts["SpacingBetweenSlices"])
                if texts["SpacingBetweenSlices"]
                else None,
                rows=rows,
                columns=columns,
                frames=int(texts["NumberOfFrames"] or 1),
                pixel_bytes=rows * columns * samples * int(texts["BitsAllocated"] or 0) // 8,
                stored_bytes=path.stat().st_size - header_bytes,
            )
    except Exception as error:  # pydicom raises many kinds on a damaged header
        raise InputError(
            f"{path}: cannot be read as DICOM ({type(error).__name__}); copy or export it again, "
            "or take it out of the folder"
        ) from None
    if not texts["SeriesInstanceUID"] or not texts["StudyInstanceUID"]:
        raise InputError(
            f"{path}: its header has no series or study UID, so the series of the folder cannot "
            "be told apart; export it again, or convert it with dcm2niix yourself"
        )
    return image, texts


@contextmanager
def silence_dicom_warnings() -> Iterator[None]:
    """Nothing of what pydicom and highdicom warn of is shown or logged, because they quote the header."""
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
    """Refuse a series that is not one whole volume of equally spaced slices.

    Args:
        folder: what messages name.

    Raises:
        InputError: several frames in a file, no position, slices of unlike size or direction, two at one place,
            a missing slice, uneven distances, a file that is cut short.
    """
    for image in images:
        if is_multiframe(image):
            raise InputError(
                f"{image.path}: multi-frame (enhanced) DICOM ({image.frames} frames) is not read; export "
                "it as single-frame DICOM, or convert it with dcm2niix and check the result"
            )
        if not image.rows or not image.columns or not image.pixel_bytes:
            raise InputError(
                f"{image.path}: holds no image (no rows, columns or bits); take it out of the folder"
            )
        if image.position is None or image.orientation is None or image.spacing_mm is None:
            raise InputError(
                f"{image.path}: does not say where its slice lies (position, orientation or pixel spacing "
                "is absent); export the series again"
            )
        if image.syntax in UNCOMPRESSED and image.stored_bytes < image.pixel_bytes:
            raise InputError(
                f"{image.path}: its pixel data is cut short or absent; copy or export it again"
            )
    if len(images) < MIN_SLICES:
        raise InputError(
            f"{folder}: a series of {len(images)} image(s), and a scan has {MIN_SLICES} slices or more; "
            "give the whole series"
        )
    mixed = f"{folder}: mixed series that cannot be told apart: "
    advice = (
        "; put each series in a folder of its own, or export them again with their own series UIDs"
    )
    orientation = np.array([image.orientation for image in images])
    if np.abs(orientation - orientation[0]).max() > SAME_DIRECTION:
        raise InputError(
            f"{mixed}one series UID, and slices that point in different directions{advice}"
        )
    if len({(image.rows, image.columns, image.spacing_mm) for image in images}) > 1:
        raise InputError(f"{mixed}one series UID, and slices of different sizes{advice}")
    places = np.array([image.position for image in images])
    along = places @ np.cross(orientation[0, :3], orientation[0, 3:])
    order = np.argsort(along)
    steps = np.diff(along[order])
    step = float(np.median(steps))
    if steps.min() < max(1e-3, STEP_TOLERANCE * step):
        one, two = (images[order[np.argmin(steps) + k]].path.name for k in (0, 1))
        raise InputError(
            f"{mixed}two or more images at one place, as {one} and {two} (echoes, time points, or copies)"
            f"{advice}"
        )
    _check_steps(folder, [images[i] for i in order], steps, step)
    line = places[order[0]] + np.outer(
        (along[order] - along[order[0]]) / (along.max() - along.min()),
        places[order[-1]] - places[order[0]],
    )
    if np.linalg.norm(places[order] - line, axis=1).max() > max(STEP_TOLERANCE * step, 0.05):
        raise InputError(f"{mixed}its slices do not lie behind each other on one line{advice}")


def _check_steps(folder: Path, images: Sequence[Image], steps: np.ndarray, step: float) -> None:
    """`images` and `steps` in the order of their places."""
    said = images[0].slice_step_mm
    expected = min(step, said) if said and said > 0 else step
    wide = np.flatnonzero(steps > 1.5 * expected)
    if len(wide):
        first = wide[0]
        near = " and ".join(images[first + k].path.name for k in (0, 1))
        raise InputError(
            f"{folder}: a slice is missing between {near} ({steps[first]:.2f} mm apart, expected "
            f"{expected:.2f} mm; {len(wide)} such gap{'s' if len(wide) > 1 else ''}); "
            "copy or export the whole series again"
        )
    if np.abs(steps - step).max() > STEP_TOLERANCE * step:
        raise InputError(
            f"{folder}: its slices lie {steps.min():.2f} to {steps.max():.2f} mm apart, and a volume's "
            "lie evenly; export the series again, or resample it yourself"
        )


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in visible(folder) if path.name.upper() != "DICOMDIR" and is_dicom(path))


def _text(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) and isinstance(value, Iterable):
        return "\\".join(str(item) for item in value)
    return str(value).strip()


def _numbers(value: object, count: int) -> tuple[float, ...] | None:
    if value is None or not isinstance(value, Iterable):
        return None
    numbers = tuple(float(item) for item in value)
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None
