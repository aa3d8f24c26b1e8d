"""A reference to one scan, as a command line, a manifest or a known folder names it."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from maediff.core.errors import InputError

RESERVED = {
    "cache",
    "manifest.csv",
    "qc.csv",
    "cohort.json",
    "detect.json",
    "report.html",
}  # beside scans' folders


@dataclass(frozen=True)
class ScanRef:
    """One scan and what is known about it; `None` is unknown.

    Args:
        session: BIDS entities but the subject's (`ses-2_run-1`), or the manifest's; empty if there is only one.
        modality: as far as the name tells.
        extra: further columns of the manifest.
        healthy_is_stated: whether a manifest had a `healthy` column, so that an empty cell means unknown.
        t1: a T1w of the same session, for a scan of another contrast; a folder where it is DICOM.
        t1_series: SeriesInstanceUID of a `t1` in DICOM; compared, never written.
        problem: why it cannot be read, where that is known already: it fails by name and the other scans go on.
        lesion_labels: whether the lesion mask holds several labels, each of which is lesion (BraTS), not 0 and 1.
        series: SeriesInstanceUID where `image` is a folder of DICOM; compared, never written.
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
    problem: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The scan's own name, that of its folder in every output: subject, or subject_session."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def files(self) -> list[Path]:
        """All that results are made from: the image (a file, or a folder of DICOM), the masks, the T1w."""
        return [
            path
            for path in (self.image, self.brain_mask, self.lesion_mask, self.t1)
            if path is not None
        ]


def without_folders(text: str, ref: ScanRef) -> str:
    """Replace the paths of a scan's files in a message by their names, because results go to other people."""
    for path in ref.files:
        text = text.replace(f"{path.parent}{os.sep}", "")
    return text


def subject_in_dataset(dataset: str, subject: str) -> str:
    """What a data set calls a subject, which beside others may be DATASET__SUBJECT (`inputs.find_plain_scans`)."""
    return subject.removeprefix(f"{dataset}__")


def check_names(refs: Iterable[ScanRef]) -> None:
    """Refuse names that cannot be folders' or are maediff's own, two scans of one name, and a subject in two splits."""
    seen: dict[str, ScanRef] = {}
    split_of_subject: dict[tuple[str, str], ScanRef] = {}
    for ref in refs:
        if not re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f.][^/\\:*?\"<>|\x00-\x1f]*", ref.name):
            raise InputError(
                f"{ref.image}: the name {ref.name!r} cannot be a folder's; use letters, digits, "
                "- and _ (not first a full stop)"
            )
        if ref.name.casefold() in RESERVED:
            raise InputError(
                f"{ref.image}: a scan cannot be named {ref.name}, which maediff puts beside the scans "
                "in its output; rename it"
            )
        twin = seen.setdefault(ref.name.casefold(), ref)
        if twin is not ref:
            raise InputError(
                f"two scans are both named {ref.name}: {twin.image} and {ref.image}; rename one, or tell "
                "them apart by session in a manifest CSV"
            )
        first = split_of_subject.setdefault(
            (ref.dataset, subject_in_dataset(ref.dataset, ref.subject)), ref
        )
        if first.split != ref.split:
            raise InputError(
                f"subject {ref.subject} stands in split {first.split or 'unknown'} ({first.image}) and "
                f"in {ref.split or 'unknown'} ({ref.image}); one person belongs to one split"
            )
