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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES, Modality
from maediff.scans.dicom.studies import SEVERAL_SERIES, UNSTATED_SERIES
from maediff.scans.inputs.find import find_scans
from maediff.scans.names import (
    contrast_from_name,
    find_contrast,
    is_separator,
    nifti_stem,
    split_bids_name,
    split_tokens,
)
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
        unusable: reference, with a `problem`, of each contrast whose scan cannot be used.
    """

    name: str
    scans: Mapping[Modality, ScanRef]
    notes: tuple[str, ...] = field(default=())
    unusable: Mapping[Modality, ScanRef] = field(default_factory=dict)

    @property
    def refs(self) -> list[ScanRef]:
        """References to all scans, those of unusable ones last."""
        return [*self.scans.values(), *self.unusable.values()]

    @property
    def files(self) -> list[Path]:
        """Paths that results depend on."""
        return [file for ref in self.refs for file in ref.files]

    def as_scan(self) -> ScanRef:
        """Return a reference with the name of the session and the image of its first scan."""
        return replace(self.refs[0], subject=self.name, session="")


def find_sessions(
    inputs: Sequence[str | Path], *, layout: str = "auto", series: str | None = None
) -> list[SessionRef]:
    """Find the sessions of all inputs.

    Args:
        inputs: NIfTI files, folders, DICOM folders, BIDS datasets, manifests.
        layout: see `find_scans`.
        series: see `find_scans`.

    Returns:
        The sessions, by name. A session may have one contrast only. A session of an unusable
        DICOM study, or of a folder that may not be read, has no scan, but an unusable one.

    Raises:
        InputError: no input holds a scan whose name states its contrast, or two sessions have the
            same name.

    Example:
        >>> [session.name for session in find_sessions(["bids"])]  # doctest: +SKIP
        ['sub-01_ses-1', 'sub-01_ses-2', 'sub-02']
    """
    found: dict[Modality, list[ScanRef]] = {}
    problem: InputError | None = None
    for modality in MODALITIES:
        try:
            found[modality] = find_scans(
                inputs, modality, layout=layout, series=series, need_usable=False
            )
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
    _warn_of_unstated(ref for refs in found.values() for ref in refs)
    unusable = _find_unusable(found)
    by_contrast = {
        modality: [ref for ref in refs if _states(ref, modality)]
        for modality, refs in found.items()
    }
    if not any(by_contrast.values()):
        if unusable:
            raise InputError(str(next(iter(unusable[0].values())).problem))
        raise problem or InputError(
            f"{inputs[0]}: no file name and no DICOM series states a contrast; give `modality` "
            "(T1w, T2w or FLAIR)"
        )
    sessions = _group_scans(by_contrast, unusable)
    check_names(session.as_scan() for session in sessions)
    return sessions


def _find_unusable(found: Mapping[Modality, Sequence[ScanRef]]) -> list[dict[Modality, ScanRef]]:
    """Return the contrasts that cannot be used, for each DICOM study and unreadable folder.

    A study without a series of a contrast has a `problem`, too, but lacks nothing as long as it
    has another contrast.

    Args:
        found: what `find_scans` returned for each contrast.
    """
    by_folder: dict[Path, dict[Modality, ScanRef]] = {}
    for modality, refs in found.items():
        for ref in refs:
            if ref.is_unusable_folder:
                by_folder.setdefault(ref.image, {})[modality] = ref
    unusable = []
    for problems in by_folder.values():
        ambiguous = {m: ref for m, ref in problems.items() if SEVERAL_SERIES in str(ref.problem)}
        if ambiguous:
            unusable.append(ambiguous)
            continue
        is_damaged = len(problems) > 1 and len({ref.problem for ref in problems.values()}) == 1
        lacks_all = len(problems) == len(MODALITIES)
        if (is_damaged or lacks_all) and not any(map(_has_unstated, problems.values())):
            first = next(iter(problems))
            unusable.append({first: problems[first]})
    return unusable


def _warn_of_unstated(found: Iterable[ScanRef]) -> None:
    """Log the DICOM series that state no contrast, and studies with several, once each."""
    unstated = (r for r in found if _has_unstated(r) or not (r.contrast_is_stated or r.problem))
    for folder in sorted({ref.image for ref in unstated}):
        logger.warning(
            "%s: DICOM that states no contrast, so it belongs to no session; give `modality` to "
            "detect in it alone",
            folder,
        )


def _has_unstated(ref: ScanRef) -> bool:
    """True if a study has several series without a stated contrast."""
    return UNSTATED_SERIES in str(ref.problem)


def _holds(path: str | Path, modality: Modality, layout: str, series: str | None) -> bool:
    """True if an input alone holds a scan of a contrast."""
    try:
        refs = find_scans([path], modality, layout=layout, series=series, need_usable=False)
    except InputError:
        return False
    return any(_states(ref, modality) for ref in refs)


def has_several_contrasts(refs: Iterable[ScanRef]) -> bool:
    """True if the names of scans state more than one of T1w, T2w and FLAIR."""
    return len({ref.modality for ref in refs} & {*MODALITIES}) > 1


def _states(ref: ScanRef, modality: Modality) -> bool:
    """True if a scan states its contrast itself, and not only by the caller's request."""
    if ref.image.is_dir():
        return ref.problem is None and ref.contrast_is_stated and ref.modality == modality
    is_inplane = split_bids_name(ref.image) and nifti_stem(ref.image).endswith("_inplaneT2")
    return modality == ("T2w" if is_inplane else contrast_from_name(ref.image))


def _group_scans(
    by_contrast: Mapping[Modality, Sequence[ScanRef]],
    unusable: Iterable[Mapping[Modality, ScanRef]],
) -> list[SessionRef]:
    """Group scans by session; of several scans of one contrast, the first is used.

    Args:
        by_contrast: scans that state their contrast.
        unusable: what `_find_unusable` returns.
    """
    scans: dict[tuple[str, str], dict[Modality, ScanRef]] = {}
    skipped: dict[tuple[str, str], list[str]] = {}
    for modality, refs in by_contrast.items():
        for ref in sorted(refs, key=lambda ref: (ref.name, str(ref.image))):
            keys = [(ref.dataset, name) for name in make_session_names(ref)]
            key = next((key for key in keys if key in scans), keys[-1])
            chosen = scans.setdefault(key, {})
            if modality in chosen:
                note = f"{ref.image.name} skipped: another {modality} of the session"
                skipped.setdefault(key, []).append(note)
                logger.warning("%s: %s", key[1], note)
            else:
                chosen[modality] = replace(ref, modality=modality)
    lost: dict[tuple[str, str], Mapping[Modality, ScanRef]] = {}
    for each in unusable:
        ref = next(iter(each.values()))
        key = (ref.dataset, make_session_names(ref)[-1])
        lost[key] = each
        scans.setdefault(key, {})
    return [
        SessionRef(key[1], chosen, tuple(skipped.get(key, ())), lost.get(key, {}))
        for key, chosen in sorted(scans.items(), key=lambda item: item[0][::-1])
    ]


def make_session_names(ref: ScanRef) -> list[str]:
    """Return the names that the session of a scan may have, the one to use by default last.

    "p1_T2_FLAIR" may be the FLAIR of p1, or the FLAIR of p1 at the time point T2.

    Example:
        >>> image = Path("sub-1_ses-2_run-1_T1w.nii")
        >>> make_session_names(ScanRef("sub-1", "ses-2_run-1", image, "study"))
        ['sub-1_ses-2']
        >>> make_session_names(ScanRef("p1_T1", "", Path("p1_T1.nii"), "study"))
        ['p1']
        >>> make_session_names(ScanRef("p1_T2_FLAIR", "", Path("p1_T2_FLAIR.nii"), "study"))
        ['p1_T2', 'p1']
    """
    bids = split_bids_name(ref.image)
    if bids and ref.subject.endswith(bids[0]) and ref.session == bids[1]:
        visits = [part for part in ref.session.split("_") if part.startswith("ses-")]
        return ["_".join([ref.subject, *visits])]
    if ref.session or ref.image.is_dir():  # a manifest's session, or DICOM; T1 may be a visit
        return [ref.name]
    tokens = split_tokens(ref.name)
    words = [index for index, token in enumerate(tokens) if not is_separator(token)]
    first, end = find_contrast([tokens[index] for index in words])
    if first == end:
        return [ref.name]
    names = []
    for start in reversed(words[first:end]):  # fewest words of the contrast first
        before, after = tokens[:start], tokens[words[end - 1] + 1 :]
        if before and is_separator(before[-1]):
            before.pop()
        elif after and is_separator(after[0]):
            after.pop(0)
        names.append("".join(before + after).strip("_-. ") or ref.dataset)
    return names
