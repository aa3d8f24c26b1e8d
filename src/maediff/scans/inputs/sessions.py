"""Sessions: the scans of one person from one visit, one scan of each contrast.

    BIDS dataset   scans that share `sub-` and `ses-`        name sub-01_ses-2
    folder         files whose names differ only in the      p1_T1.nii, p1_FLAIR.nii -> p1
                   word of the contrast                      p1/T1.nii, p1/FLAIR.nii -> p1
    manifest       lines with the same subject and session   name SUBJECT_SESSION
    DICOM          series of one study                       name of the study

A scan whose name states no contrast belongs to no session.
Nothing here opens an image.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES, Modality
from maediff.scans.contrast import CONTRAST_WORDS
from maediff.scans.dicom.studies import SEVERAL_SERIES
from maediff.scans.inputs.find import find_scans
from maediff.scans.names import contrast_from_name, split_bids_name
from maediff.scans.reference import ScanRef, check_names

logger = logging.getLogger(__name__)
TWO_OF_ONE_NAME = "two scans are both named"
"""Start of the message of `check_names` for two scans of one contrast and name."""


@dataclass(frozen=True)
class SessionRef:
    """References to the scans of one session.

    Args:
        name: name of the session and of its folder in the output.
        scans: reference to the scan of each contrast, in the order of `MODALITIES`.
        notes: remarks, for example on scans of a contrast that were skipped.
    """

    name: str
    scans: Mapping[Modality, ScanRef]
    notes: tuple[str, ...] = field(default=())

    @property
    def files(self) -> list[Path]:
        """Paths that results depend on."""
        return [file for ref in self.scans.values() for file in ref.files]

    def as_scan(self) -> ScanRef:
        """Return a reference with the name of the session and the image of its first scan."""
        first = next(iter(self.scans.values()))
        return replace(first, subject=self.name, session="")


def find_sessions(
    inputs: Sequence[str | Path], *, layout: str = "auto", series: str | None = None
) -> list[SessionRef]:
    """Find the sessions of all inputs.

    Args:
        inputs: NIfTI files, folders, DICOM folders, BIDS datasets, manifests.
        layout: see `find_scans`.
        series: see `find_scans`.

    Returns:
        The sessions, by name. A session may have one contrast only.

    Raises:
        InputError: no input holds a scan whose name states its contrast, or two sessions have the
            same name.

    Example:
        >>> [session.name for session in find_sessions(["bids"])]  # doctest: +SKIP
        ['sub-01_ses-1', 'sub-01_ses-2', 'sub-02']
    """
    by_contrast: dict[Modality, list[ScanRef]] = {}
    problem: InputError | None = None
    found: list[ScanRef] = []
    for modality in MODALITIES:
        try:
            refs = find_scans(inputs, modality, layout=layout, series=series)
        except InputError as error:
            if TWO_OF_ONE_NAME in str(error):
                raise  # otherwise the sessions would lack this contrast
            problem = problem or error
            several = len(inputs) > 1
            if several and any(_holds(path, modality, layout, series) for path in inputs):
                logger.warning(
                    "no session has its %s, because an input has none (%s); give the inputs one "
                    "by one, or the folder that holds them all",
                    modality,
                    error,
                )
            continue
        found += refs
        by_contrast[modality] = [ref for ref in refs if _states(ref, modality)]
    _warn_of_left_out(found)
    if not any(by_contrast.values()):
        raise problem or InputError(
            f"{inputs[0]}: no file name and no DICOM series states a contrast; give `modality` "
            "(T1w, T2w or FLAIR)"
        )
    sessions = _group_scans(by_contrast)
    check_names(session.as_scan() for session in sessions)
    return sessions


def _warn_of_left_out(found: Sequence[ScanRef]) -> None:
    """Log the unusable scans and the DICOM series without a contrast, once each.

    Args:
        found: what `find_scans` returned for all contrasts.
    """
    problems: dict[Path, list[str]] = {}
    for ref in found:
        if ref.problem:
            problems.setdefault(ref.image, []).append(ref.problem)
    for texts in problems.values():
        # One problem for each contrast; most only say that the study has no such series.
        serious = [text for text in texts if SEVERAL_SERIES in text]
        if len(texts) == len(MODALITIES) or serious:
            logger.warning("left out of the sessions: %s", (serious or texts)[0])
    for folder in sorted({r.image for r in found if not (r.contrast_is_stated or r.problem)}):
        logger.warning(
            "%s: a DICOM series that states no contrast, so it belongs to no session; give "
            "`modality` to detect in it alone",
            folder,
        )


def _holds(path: str | Path, modality: Modality, layout: str, series: str | None) -> bool:
    """True if an input alone holds a scan of a contrast."""
    try:
        return bool(find_scans([path], modality, layout=layout, series=series))
    except InputError:
        return False


def has_several_contrasts(refs: Iterable[ScanRef]) -> bool:
    """True if the names of scans state more than one of T1w, T2w and FLAIR."""
    return len({ref.modality for ref in refs} & {*MODALITIES}) > 1


def _states(ref: ScanRef, modality: Modality) -> bool:
    """True if a scan states its contrast itself, and not only by the caller's request."""
    if ref.image.is_dir():
        return ref.problem is None and ref.contrast_is_stated and ref.modality == modality
    return contrast_from_name(ref.image) == modality


def _group_scans(by_contrast: Mapping[Modality, Sequence[ScanRef]]) -> list[SessionRef]:
    """Group scans by session; of several scans of one contrast, the first is used."""
    scans: dict[tuple[str, str], dict[Modality, ScanRef]] = {}
    skipped: dict[tuple[str, str], list[str]] = {}
    for modality, refs in by_contrast.items():
        for ref in sorted(refs, key=lambda ref: (ref.name, str(ref.image))):
            key = (ref.dataset, make_session_name(ref))
            chosen = scans.setdefault(key, {})
            if modality in chosen:
                note = f"{ref.image.name} skipped: another {modality} of the session"
                skipped.setdefault(key, []).append(note)
                logger.warning("%s: %s", key[1], note)
            else:
                chosen[modality] = replace(ref, modality=modality)
    return [
        SessionRef(name, chosen, tuple(skipped.get((dataset, name), ())))
        for (dataset, name), chosen in sorted(scans.items(), key=lambda item: item[0][::-1])
    ]


def make_session_name(ref: ScanRef) -> str:
    """Return the name of the session of a scan.

    Example:
        >>> image = Path("sub-1_ses-2_run-1_T1w.nii")
        >>> make_session_name(ScanRef("sub-1", "ses-2_run-1", image, "study"))
        'sub-1_ses-2'
        >>> make_session_name(ScanRef("p1_T1", "", Path("p1_T1.nii"), "study"))
        'p1'
    """
    bids = split_bids_name(ref.image)
    if bids and ref.subject.endswith(bids[0]) and ref.session == bids[1]:
        visits = [part for part in ref.session.split("_") if part.startswith("ses-")]
        return "_".join([ref.subject, *visits])
    if ref.session or ref.series:  # a manifest's session, or a DICOM study; T1 may be a visit
        return ref.name
    words = re.split(r"([^A-Za-z0-9]+)", ref.name)  # words and the separators between them
    for index in range(len(words) - 1, -1, -2):
        if CONTRAST_WORDS.get(words[index].lower()) in MODALITIES:
            start = max(0, index - 1)
            del words[start : start + 2]
            break
    return "".join(words).strip("_-. ") or ref.dataset
