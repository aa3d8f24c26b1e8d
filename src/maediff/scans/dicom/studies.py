"""DICOM in: a folder of DICOM -> references to its scans -> Volume, by way of dcm2niix in a temporary folder.

    find_dicom     which scans are in a folder; several series of one study: they are listed, and one is asked for
    read_volume    any scan, DICOM or NIfTI, as a Volume in RAS+

A subject is named by the folder that its files lie in, relative to what was given: never by a field of the header.
Studies that carry one patient ID are sessions of one subject, so that no split parts them; without an ID those in one
folder right below what was given are.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from maediff.core.errors import InputError
from maediff.scans.dicom.series import OURS, Series, find_series
from maediff.scans.reference import ScanRef

logger = logging.getLogger(__name__)


def find_dicom(
    folder: Path, modality: str | None = None, series: str | None = None
) -> list[ScanRef]:
    """One scan for each study in `folder`; one that cannot be taken carries its `problem`, and the others go on.

    Args:
        modality: which contrast to take where there are several.
        series: number of the series to take in each study, or the UID of one, which the other studies do not heed;
            None takes the only one that fits.

    Raises:
        InputError: no DICOM, or no study of which a scan can be taken.
    """
    damaged: dict[Path, str] = {}
    found = find_series(
        folder.absolute(), damaged
    )  # what is wrong is said of whole paths, which detect cuts
    if not found and not damaged:
        raise InputError(f"{folder}: no DICOM image in this folder; check the path")
    root, dataset = folder.absolute(), folder.resolve().name
    homes: dict[Path, list[list[Series]]] = {}  # where a person's studies lie -> those
    for studies in _by_person(folder, found):
        homes.setdefault(_common(one for study in studies for one in study), []).extend(studies)
    refs = []
    for home, studies in homes.items():
        subject = _joined(root, home) or dataset
        try:
            people = {one.patient for study in studies for one in study if one.patient}
            places = _places(home, studies, len(people))
        except InputError as error:
            refs.append(ScanRef(subject, "", home, dataset, problem=str(error)))
            continue
        for place, study in zip(places, studies, strict=True):
            ref = ScanRef(
                subject, _joined(home, place) if len(studies) > 1 else "", place, dataset
            )
            broken = [path for path in damaged if path.absolute().is_relative_to(place)]
            try:
                if broken:
                    raise InputError(damaged[broken[0]])
                refs.append(_taken(ref, study, modality, series))
            except InputError as error:
                refs.append(replace(ref, problem=str(error)))
    astray = {
        path.absolute().parent: said
        for path, said in reversed(damaged.items())
        if not any(path.absolute().is_relative_to(ref.image) for ref in refs)
    }
    refs += [
        ScanRef(_joined(root, at) or dataset, "", at, dataset, problem=said)
        for at, said in astray.items()
    ]
    refs.sort(key=lambda ref: ref.name)
    problems = [ref.problem for ref in refs if ref.problem]
    if len(problems) == len(refs):
        more = (
            f"\n({len(refs) - 1} more studies in {folder} cannot be taken either)"
            if len(refs) > 1
            else ""
        )
        raise InputError(f"{problems[0]}{more}")
    return refs


def _by_person(folder: Path, found: Sequence[Series]) -> list[list[list[Series]]]:
    """The studies of each person: of one patient ID, or, without one, of one folder right below `folder`."""
    root = folder.absolute()
    studies = {one.study: [other for other in found if other.study == one.study] for one in found}
    top = {uid: _common(study).relative_to(root).parts[:1] for uid, study in studies.items()}
    ids: dict[tuple[str, ...], set[str]] = {}  # of each such folder
    for one in found:
        ids.setdefault(top[one.study], set()).update({one.patient} - {""})
    people: dict[object, dict[str, list[Series]]] = {}  # one study may hold images of several
    for one in found:
        known = ids[top[one.study]]
        person = one.patient or (next(iter(known)) if len(known) == 1 else top[one.study])
        people.setdefault(person, {}).setdefault(one.study, []).append(one)
    if len(top) > 1 and len(people) == 1 and len(set(top.values())) > 1:
        logger.warning(
            "%s: its %d studies carry one patient ID and lie in %d folders; they are taken for sessions of "
            "one subject, in one split. If they are of several people (an ID that was replaced in all), "
            "name each folder with its subject in a manifest CSV",
            folder,
            len(top),
            len(set(top.values())),
        )
    return [list(own.values()) for own in people.values()]


def _places(home: Path, studies: Sequence[Sequence[Series]], people: int) -> list[Path]:
    """The folder of each study.

    Raises:
        InputError: studies, or people, that their folders do not tell apart.
    """
    places = [_common(study) for study in studies]
    if len(studies) > 1 and (people > 1 or len(set(places)) < len(places) or home in places):
        what = "patients" if people > 1 else "studies"
        raise InputError(
            f"{home}: holds several {what} in one folder; put each in a folder of its own"
        )
    return places


def _taken(
    ref: ScanRef, study: Sequence[Series], modality: str | None, series: str | None
) -> ScanRef:
    """`ref` with the series of its study that is to be taken."""
    elsewhere = is_uid(series) and not any(one.uid == series for one in study)
    chosen = choose(ref.image, study, modality, None if elsewhere else series)
    contrast = chosen.contrast if chosen.contrast in OURS else modality
    t1 = None if contrast == "T1w" else plain_t1(study, chosen)
    ref = replace(ref, image=_common([chosen]), modality=contrast, series=chosen.uid)
    return ref if t1 is None else replace(ref, t1=_common([t1]), t1_series=t1.uid)


def is_uid(series: str | None) -> bool:
    """Whether it is a UID, not a number."""
    return series is not None and "." in series


def choose(
    place: Path, found: Sequence[Series], modality: str | None, wanted: str | None
) -> Series:
    """The series of one study to take.

    Raises:
        InputError: none fits, or several do; they are listed.
    """
    listing = "\n".join(one.line() for one in found)
    if wanted is not None:
        fits = [one for one in found if wanted in (one.uid, one.number)]
        if len(fits) != 1:
            what = "no such series" if not fits else "several series of this number; give the UID"
            raise InputError(f"{place}: --series {wanted}: {what}; choose one of\n{listing}")
        if fits[0].kind != "MR":
            raise InputError(
                f"{place}: --series {wanted}: {fits[0].kind}, not MR; choose one of\n{listing}"
            )
        return fits[0]
    fits = [one for one in found if one.may_be_volume and one.contrast != "other"]
    if not fits:
        raise InputError(
            f"{place}: no MR series that may be T1w, T2w or FLAIR by its description, of three slices or "
            f"more; give another folder, or choose with --series one of\n{listing}"
        )
    if modality is not None:
        exact = [one for one in fits if one.contrast == modality]
        fits = exact or [one for one in fits if one.contrast is None]
        if not fits:
            raise InputError(
                f"{place}: no {modality} series by the descriptions; choose another --modality, or one "
                f"with --series, of\n{listing}"
            )
    if len(fits) > 1:
        raise InputError(
            f"{place}: several series; say which with --series NUMBER or UID"
            f"{'' if modality else ', or with --modality'}:\n{listing}"
        )
    return fits[0]


def plain_t1(study: Sequence[Series], chosen: Series) -> Series | None:
    """The study's plain T1w series of the most images, whose brain `chosen` may be given."""
    fits = [
        one for one in study if one is not chosen and one.may_be_volume and one.contrast == "T1w"
    ]
    return max(fits, key=lambda one: len(one.images), default=None)


def _common(series: Iterable[Series]) -> Path:
    """The deepest folder that holds all files of the series."""
    folders = [image.path.absolute().parent for one in series for image in one.images]
    return Path(os.path.commonpath(folders))


def _joined(base: Path, path: Path) -> str:
    return "_".join(path.relative_to(base).parts)
