"""Reference to an unopened scan, as a command line, a manifest or a known data set names it."""

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.text import escape_controls

# Names that maediff uses in an output folder beside the folders of the scans.
RESERVED = {
    "cache",
    "manifest.csv",
    "qc.csv",
    "cohort.json",
    "detect.json",
    "participants_findings.tsv",
    "report.html",
    "shards",
}

# Names of devices, which Windows refuses with any suffix: results are copied to other systems.
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)

# File systems allow names of 255 bytes. The longest that maediff adds to the name of a scan is
# that of a temporary file: ".", "_desc-anomaly_summary.json" and ".tmp-4194304.json".
MAX_NAME_BYTES = 200


@dataclass(frozen=True)
class ScanRef:
    """Reference to one unopened scan, and everything known about it; None is unknown.

    Args:
        subject: name of the person; scans of one person share it.
        session: BIDS entities after the subject (`ses-2_run-1`) or the manifest's session; empty
            if the subject has one scan.
        image: NIfTI file, or folder of DICOM files.
        dataset: name of the data set; splits are assigned within it.
        brain_mask: NIfTI file on the scan's grid.
        lesion_mask: NIfTI file on the scan's grid.
        split: train, val or test.
        healthy: true if the scan shows no lesion.
        modality: contrast that the name or the description states.
        extra: further columns of the manifest.
        healthy_is_stated: true if the source states `healthy` for its scans, so that None means
            unknown. If false, `preprocess` counts a scan without a lesion as healthy.
        t1: T1w of the same session, for a scan of another contrast; a folder if it is DICOM.
        lesion_labels: true if each label above 0 of the lesion mask is lesion (as in BraTS).
            If false, the mask holds 0 and 1 only.
        series: SeriesInstanceUID if `image` is a DICOM folder; compared, never written.
        t1_series: SeriesInstanceUID if `t1` is a DICOM folder; compared, never written.
        contrast_is_stated: false for a DICOM series whose header names no contrast; `modality` is
            then the caller's.
        problem: error message if the scan is known to be unreadable. Commands report the message
            for this scan and process the other scans.
    """

    subject: str
    session: str
    image: Path
    dataset: str
    brain_mask: Path | None = None
    lesion_mask: Path | None = None
    split: str | None = None
    healthy: bool | None = None
    modality: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    healthy_is_stated: bool = False
    t1: Path | None = None
    lesion_labels: bool = False
    series: str | None = field(default=None, repr=False)
    t1_series: str | None = field(default=None, repr=False)
    contrast_is_stated: bool = True
    problem: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Name of the scan and of its folder in every output: SUBJECT or SUBJECT_SESSION."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def files(self) -> list[Path]:
        """Paths that results depend on: image (file or DICOM folder), masks and T1w."""
        paths = (self.image, self.brain_mask, self.lesion_mask, self.t1)
        return [path for path in paths if path is not None]

    @property
    def is_unusable_folder(self) -> bool:
        """True for a DICOM study or an unreadable folder with a `problem`: no scan is known."""
        return bool(self.problem) and self.image.is_dir()


def short_problem(ref: ScanRef) -> str:
    """Return the `problem` of a scan without the list of series, which quotes DICOM headers.

    Commands write this text to files.
    """
    message, listing, _ = str(ref.problem).partition("\n")
    return f"{message} (give {ref.image} alone to list them)" if listing else message


def remove_folders(text: str, ref: ScanRef) -> str:
    """Remove the folders of a scan's files from a message.

    Folder names may identify a person, and results with messages are given to other people.
    """
    # A folder inside another goes first: removing the outer one would leave the name of the inner.
    for folder in sorted({str(path.parent) for path in ref.files}, key=len, reverse=True):
        text = text.replace(f"{folder}{os.sep}", "")
    return text


def subject_in_dataset(dataset: str, subject: str) -> str:
    """Return the name that a data set itself gives a subject.

    `find_scans` renames subjects to DATASET__SUBJECT if data sets share names of scans; this
    function removes the prefix.
    """
    return subject.removeprefix(f"{dataset}__")


def check_names(refs: Iterable[ScanRef]) -> None:
    """Check that every scan can have a folder of its name, and every subject one split.

    Raises:
        InputError: a name cannot be a folder name, is too long or is reserved, two scans have
            the same name (in any case), or a subject is in two splits.
    """
    ref_of_name: dict[str, ScanRef] = {}
    first_of_subject: dict[tuple[str, str], ScanRef] = {}
    for ref in refs:
        if ref.name != escape_controls(ref.name) or not re.fullmatch(
            r"[^/\\:*?\"<>|\x00-\x1f.][^/\\:*?\"<>|\x00-\x1f]*", ref.name
        ):
            raise InputError(
                f"{ref.image}: the name {ref.name!r} cannot be a folder name; use letters, digits,"
                " - and _, and no full stop at the start"
            )
        if ref.name.endswith((".", " ")) or DEVICES.fullmatch(ref.name):
            raise InputError(
                f"{ref.image}: Windows allows no folder named {ref.name!r}, so results could not "
                "be copied there; rename the scan, or name it in a manifest CSV"
            )
        if len(os.fsencode(ref.name)) > MAX_NAME_BYTES:
            raise InputError(
                f"{ref.image}: the name {ref.name!r} has {len(os.fsencode(ref.name))} bytes, and "
                f"a scan's name has {MAX_NAME_BYTES} at most, so that file names can be made of "
                "it; rename the scan or its folders, or name it in a manifest CSV"
            )
        if ref.name.casefold() in RESERVED:
            raise InputError(
                f"{ref.image}: a scan cannot be named {ref.name}, because maediff writes a file "
                "or folder of this name beside the scans; rename the scan"
            )
        # macOS and Windows: two ways to write a letter, or its case, make no other folder.
        twin = ref_of_name.setdefault(unicodedata.normalize("NFC", ref.name).casefold(), ref)
        if twin is not ref:
            raise InputError(
                f"two scans are both named {ref.name}: {twin.image} and {ref.image}; rename one, "
                "or give them different sessions in a manifest CSV"
            )
        person = (ref.dataset, subject_in_dataset(ref.dataset, ref.subject))
        first = first_of_subject.setdefault(person, ref)
        if first.split != ref.split:
            raise InputError(
                f"subject {ref.subject} is in split {first.split or 'unknown'} ({first.image}) "
                f"and in {ref.split or 'unknown'} ({ref.image}); one person belongs to one split, "
                "so correct the manifest"
            )
