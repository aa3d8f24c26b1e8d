"""Scans in a folder of DICOM: one reference for each study.

A subject is named by the folder of its files, relative to the folder that was given, never by a
header field. Studies with one patient ID are sessions of one subject, so that no split separates
them. Studies without an ID are sessions of one subject if they share a folder directly below the
folder that was given.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES
from maediff.scans.dicom.series import MIN_SLICES, Series, find_series
from maediff.scans.reference import ScanRef

logger = logging.getLogger(__name__)
SEVERAL_SERIES = "several series may be the scan"
"""Part of the message for a study with several series of a contrast."""
UNSTATED_SERIES = "several series without a stated contrast may be the scan"
"""Part of the message for a study without a series of a contrast, but with unstated ones."""


def find_dicom(
    folder: Path,
    modality: str | None = None,
    series: str | None = None,
    *,
    need_usable: bool = True,
) -> list[ScanRef]:
    """Find one scan for each study in `folder`.

    Args:
        folder: a folder of DICOM files, at any depth.
        modality: T1w, T2w or FLAIR: the contrast to select if a study holds several.
        series: number of the series to select in each study, or UID of a series; a UID does not
            affect studies without it. None selects the only series that fits.
        need_usable: refuse a folder of which every study has a problem.

    Returns:
        References sorted by name. A study from which no scan can be selected has a `problem`.

    Raises:
        InputError: the folder holds no DICOM, or every study has a problem (with `need_usable`).
    """
    root = folder.absolute()  # messages hold absolute paths, which `detect` removes from its files
    dataset = folder.resolve().name
    damaged: dict[Path, str] = {}
    all_series = find_series(root, damaged)
    if not all_series and not damaged:
        raise InputError(f"{folder}: no DICOM image in this folder; check the path")

    studies_of_home: dict[Path, list[list[Series]]] = {}
    for studies in _group_by_person(folder, all_series):
        home = _common_folder(item for study in studies for item in study)
        studies_of_home.setdefault(home, []).extend(studies)
    refs: list[ScanRef] = []
    for home, studies in studies_of_home.items():
        subject = _join_parts(root, home) or dataset
        try:
            places = _locate_studies(home, studies)
        except InputError as error:
            refs.append(
                ScanRef(
                    subject=subject, session="", image=home, dataset=dataset, problem=str(error)
                )
            )
            continue
        for place, study in zip(places, studies, strict=True):
            session = _join_parts(home, place) if len(studies) > 1 else ""
            ref = ScanRef(subject=subject, session=session, image=place, dataset=dataset)
            refs.append(_select_scan(ref, study, damaged, modality, series))
    refs += _report_stray_files(damaged, refs, root, dataset)
    refs.sort(key=lambda ref: ref.name)

    problems = [ref.problem for ref in refs if ref.problem]
    if need_usable and len(problems) == len(refs):
        message = problems[0]
        if len(refs) > 1:
            message += f"\n  ({len(refs) - 1} more studies in {folder} cannot be used either)"
        raise InputError(message)
    return refs


def _group_by_person(folder: Path, all_series: Sequence[Series]) -> list[list[list[Series]]]:
    """Group series by person, and within a person by study.

    A person has one patient ID. Series without an ID belong to the only ID of their top folder
    (directly below `folder`), or, if it has none or several, to a person of this top folder.
    """
    root = folder.absolute()
    by_study: dict[str, list[Series]] = {}
    for item in all_series:
        by_study.setdefault(item.study, []).append(item)
    top_of_study = {
        uid: _common_folder(study).relative_to(root).parts[:1] for uid, study in by_study.items()
    }
    ids_of_top: dict[tuple[str, ...], set[str]] = {}
    for item in all_series:
        ids = ids_of_top.setdefault(top_of_study[item.study], set())
        if item.patient:
            ids.add(item.patient)

    people: dict[object, dict[str, list[Series]]] = {}  # one study may hold images of several
    for item in all_series:
        top = top_of_study[item.study]
        person: object = top
        if item.patient:
            person = item.patient
        elif len(ids_of_top[top]) == 1:
            (person,) = ids_of_top[top]
        people.setdefault(person, {}).setdefault(item.study, []).append(item)

    n_folders = len(set(top_of_study.values()))
    if len(people) == 1 and n_folders > 1:
        logger.warning(
            "%s: its %d studies share one patient ID and are in %d folders; they count as "
            "sessions of one subject, in one split. If they are of several people (because the "
            "ID was replaced in all of them), list each folder with its subject in a manifest "
            "CSV",
            folder,
            len(top_of_study),
            n_folders,
        )
    return [list(studies.values()) for studies in people.values()]


def _locate_studies(home: Path, studies: Sequence[Sequence[Series]]) -> list[Path]:
    """Return the folder of each study below `home`.

    Raises:
        InputError: the folders do not separate the studies, or the patients.
    """
    places = [_common_folder(study) for study in studies]
    patients = {item.patient for study in studies for item in study if item.patient}
    is_shared = len(set(places)) < len(places) or home in places
    if len(studies) > 1 and is_shared:
        what = "patients" if len(patients) > 1 else "studies"
        raise InputError(
            f"{home}: holds several {what} in one folder; put each in a separate folder"
        )
    if len(patients) > 1:
        raise InputError(
            f"{home}: its folders mix the studies of several patients; put those of "
            "each patient in a separate folder, or list the folders in a manifest CSV"
        )
    return places


def _select_scan(
    ref: ScanRef,
    study: Sequence[Series],
    damaged: dict[Path, str],
    modality: str | None,
    series: str | None,
) -> ScanRef:
    """Complete the reference to a study by its scan and T1w, or by the problem with them."""
    for path, message in damaged.items():
        if path.absolute().is_relative_to(ref.image):
            return replace(ref, problem=message)
    is_elsewhere = is_uid(series) and not any(item.uid == series for item in study)
    try:
        selected = choose_series(ref.image, study, modality, None if is_elsewhere else series)
    except InputError as error:
        return replace(ref, problem=str(error))
    is_stated = selected.contrast in MODALITIES
    contrast = selected.contrast if is_stated else modality
    ref = replace(
        ref,
        image=_common_folder([selected]),
        modality=contrast,
        series=selected.uid,
        contrast_is_stated=is_stated,
    )
    t1 = None if contrast == "T1w" else find_plain_t1(study, selected)
    return ref if t1 is None else replace(ref, t1=_common_folder([t1]), t1_series=t1.uid)


def _report_stray_files(
    damaged: dict[Path, str], refs: Sequence[ScanRef], root: Path, dataset: str
) -> list[ScanRef]:
    """Return a reference with a problem for each folder of damaged files outside all studies."""
    message_of_folder: dict[Path, str] = {}
    for path, message in damaged.items():
        if not any(path.absolute().is_relative_to(ref.image) for ref in refs):
            message_of_folder.setdefault(path.absolute().parent, message)
    return [
        ScanRef(
            subject=_join_parts(root, folder) or dataset,
            session="",
            image=folder,
            dataset=dataset,
            problem=message,
        )
        for folder, message in message_of_folder.items()
    ]


def is_uid(series: str | None) -> bool:
    """Check whether a series is given by UID, not by number."""
    return series is not None and "." in series


def choose_series(
    place: Path, study: Sequence[Series], modality: str | None, wanted: str | None
) -> Series:
    """Choose the series of a study to read.

    Args:
        place: folder of the study, for messages.
        study: all series of the study.
        modality: T1w, T2w or FLAIR; selects if several series fit. A series whose contrast is not
            stated is chosen if no other has this contrast.
        wanted: number or UID of the series. None chooses the only one that fits.

    Raises:
        InputError: no series fits, or several do; the message lists all series of the study.
    """
    listing = "\n".join(item.describe() for item in study)
    if wanted is not None:
        matches = [item for item in study if wanted in (item.uid, item.number)]
        if not matches:
            raise InputError(
                f"{place}: `series={wanted!r}`: no such series; choose one of\n{listing}"
            )
        if len(matches) > 1:
            raise InputError(
                f"{place}: `series={wanted!r}`: several series have this number; give one UID of"
                f"\n{listing}"
            )
        if matches[0].dicom_modality != "MR":
            raise InputError(
                f"{place}: `series={wanted!r}`: {matches[0].dicom_modality}, not MR; choose one of"
                f"\n{listing}"
            )
        return matches[0]
    candidates = [item for item in study if item.may_be_volume and item.contrast != "other"]
    if not candidates:
        raise InputError(
            f"{place}: no MR series that may be T1w, T2w or FLAIR by its description, with "
            f"{MIN_SLICES} slices or more; give another folder, or `series` (number or UID), one "
            f"of\n{listing}"
        )
    if modality is not None:
        exact = [item for item in candidates if item.contrast == modality]
        candidates = exact or [item for item in candidates if item.contrast is None]
        if not candidates:
            raise InputError(
                f"{place}: no {modality} series by the descriptions; give another `modality`, or "
                f"`series` (number or UID), one of\n{listing}"
            )
    if len(candidates) > 1:
        or_modality = "" if modality else ", or `modality` (T1w, T2w or FLAIR)"
        is_unstated = modality is not None and candidates[0].contrast is None
        finding = UNSTATED_SERIES if is_unstated else SEVERAL_SERIES
        raise InputError(
            f"{place}: {finding}; give `series` (number or UID){or_modality}:\n{listing}"
        )
    return candidates[0]


def find_plain_t1(study: Sequence[Series], selected: Series) -> Series | None:
    """Return the T1w series of a study with the most images; its brain mask may serve `selected`.

    Returns:
        None if the study has no T1w series without contrast agent beside `selected`.
    """
    candidates = [
        item
        for item in study
        if item is not selected and item.may_be_volume and item.contrast == "T1w"
    ]
    return max(candidates, key=lambda item: len(item.images), default=None)


def _common_folder(series: Iterable[Series]) -> Path:
    """Return the deepest folder that holds all files of the series."""
    folders = [image.path.absolute().parent for item in series for image in item.images]
    return Path(os.path.commonpath(folders))


def _join_parts(base: Path, path: Path) -> str:
    """Return the folders from `base` to `path`, joined by underscores."""
    return "_".join(path.relative_to(base).parts)
