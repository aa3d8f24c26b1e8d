"""DICOM series: the images of a folder grouped by SeriesInstanceUID, and the contrast of each.

    files --header.read_images--> one Image per slice --find_series--> Series

The patient ID is only compared, so that two studies of one person are known as such.
"""

import filecmp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.text import escape_controls
from maediff.scans.contrast import contrast_from_text, remove_denied_agents
from maediff.scans.dicom.header import Image, read_images, silence_dicom_warnings
from maediff.scans.walk import is_dicom, visible_files

MIN_SLICES = 3  # a series of fewer images is a scout, not a volume
NO_AGENT = {"", "none", "no", "n", "n/a", "na", "nil", "without", "0", "-"}
"""Values of ContrastBolusAgent that name no agent, in lower case; our choice."""
PHASE = {"P", "PHASE", "PHASE MAP", "I", "IMAGINARY"}  # values of ImageType


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
        has_agent: true if the header names a contrast agent.
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
    has_agent: bool
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
        if self.has_agent:
            contrast = "with contrast agent by its header"
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
    agent = remove_denied_agents(texts["ContrastBolusAgent"].lower()).strip()
    has_agent = agent not in NO_AGENT
    if has_agent or image_types & PHASE:
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
        has_agent=has_agent,
        is_localizer="LOCALIZER" in texts["ImageType"].upper(),
        images=tuple(image for images, _ in headers for image in images),
    )
