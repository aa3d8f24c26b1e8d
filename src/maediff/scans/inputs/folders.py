"""What a user names on the command line -> the list of scans meant by it.

    NIfTI file       the scan
    folder           every NIfTI in it, at any depth, but masks (*mask* *seg* *consensus* *gt*)
    BIDS dataset     (dataset_description.json) sub-*/**/*_<T1w|T2w|FLAIR>.nii[.gz]
    manifest CSV     subject,image[,session,brain_mask,lesion_mask,lesion_labels,split,healthy,dataset,t1], paths
                     relative to it

A subject is named by its BIDS entities, else by the path relative to what was given. Nothing here opens a scan.
DICOM folders and the layouts of known data sets come on top in `sources`.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES
from maediff.scans.inputs.manifest import read_manifest
from maediff.scans.names import (
    NOT_SCANS,
    OTHER_BY_NAME,
    bids_name,
    contrast_of,
    is_nifti,
    of_contrast,
    relative_name,
    session_of,
    stem,
)
from maediff.scans.reference import ScanRef, check_names
from maediff.scans.walk import absent, is_dicom, niftis, say_left_out

logger = logging.getLogger(__name__)


def find_plain_scans(inputs: Sequence[Path], modality: str | None = None) -> list[ScanRef]:
    """Every scan meant by `inputs`, in a stable order.

    The subjects of BIDS datasets that share a scan's name (most have a sub-01) are called DATASET__SUBJECT.

    Args:
        modality: which contrast to take from a BIDS dataset, from a folder whose file names tell the contrast, and from
            the files or a manifest's lines whose names tell several; where those agree they are taken as they are.

    Raises:
        InputError: an input that does not exist or holds no scan, a manifest with missing columns or files, several
            contrasts and no `modality`, or none of them it, or two scans of one name.
    """
    if modality is not None and modality not in MODALITIES:
        raise InputError(f"modality {modality}: not known; choose one of {', '.join(MODALITIES)}")
    paths = [Path(item) for item in inputs]
    files = [
        path
        for path in paths
        if (path.is_file() and path.suffix.lower() != ".csv") or absent(path)
    ]
    base = (
        Path(os.path.commonpath([path.absolute().parent for path in files])) if files else Path()
    )
    taken = of_contrast(base, {path: contrast_of(path) for path in files}, modality)
    refs: list[ScanRef] = []
    roots = [
        path for path in paths if path.is_dir() and (path / "dataset_description.json").is_file()
    ]
    of_bids = _told_apart(roots, [_from_bids(root, modality) for root in roots])
    for path in paths:
        if path.is_dir():
            refs += of_bids.pop(0) if path in roots else _from_folder(path, modality)
        elif not path.exists() and path not in files:
            raise InputError(f"{path}: no such file or folder; check the path")
        elif path.suffix.lower() == ".csv":
            refs += read_manifest(path, modality)
        else:
            ref = _from_file(path, base)
            refs += [ref] if path in taken else []
    if not refs:
        raise InputError(
            "no input was given; name a NIfTI file, a folder, a BIDS dataset or a manifest CSV"
        )
    refs = [replace(ref, problem=absent(ref.image)) for ref in refs]
    check_names(refs)
    t1s = {
        folder: t1s_by_session(folder)
        for folder in {ref.image.parent for ref in refs if _lacks_t1(ref)}
    }
    return [
        replace(ref, t1=t1s[ref.image.parent].get(session_of(ref.image)))
        if _lacks_t1(ref)
        else ref
        for ref in refs
    ]


def _told_apart(roots: Sequence[Path], found: Sequence[list[ScanRef]]) -> list[list[ScanRef]]:
    """`found` in each of `roots`, its subjects renamed where another data set has a scan of the same name; not where
    one dataset lies in another or has its name: those may be the same people, and are refused.
    """
    places = [root.resolve() for root in roots]
    if len({place.name for place in places}) < len(places) or any(
        a in b.parents for a, b in permutations(places, 2)
    ):
        return list(found)
    names = [{ref.name.casefold() for ref in refs} for refs in found]
    shared = [
        any(own & other for j, other in enumerate(names) if j != i) for i, own in enumerate(names)
    ]
    if any(shared):
        logger.info(
            "BIDS datasets share names of scans: their subjects are called DATASET__SUBJECT"
        )
    return [
        [replace(ref, subject=f"{ref.dataset}__{ref.subject}") for ref in refs]
        if is_shared
        else refs
        for refs, is_shared in zip(found, shared, strict=True)
    ]


def _lacks_t1(ref: ScanRef) -> bool:
    return not (ref.t1 or ref.modality == "T1w")


def t1s_by_session(folder: Path) -> dict[tuple[str, ...], Path]:
    """The T1w scans in `folder` itself, the first by name of each `session_of`."""
    if not folder.is_dir():
        return {}
    t1s = [
        path for path in sorted(folder.iterdir()) if is_nifti(path) and contrast_of(path) == "T1w"
    ]
    return {session_of(path): path for path in reversed(t1s)}


def _from_file(path: Path, base: Path) -> ScanRef:
    if is_dicom(path):
        raise InputError(
            f"{path}: one DICOM file is one slice; give the folder that holds its series"
        )
    if not is_nifti(path):
        raise InputError(
            f"{path}: not a NIfTI file (.nii or .nii.gz), a folder or a manifest CSV; convert it"
        )
    bids = bids_name(path)
    subject, session = bids or (relative_name(path.absolute(), base), "")
    said = (
        path.name.partition("_")[2] if bids else path.name
    )  # `gt` may stand in a BIDS subject's label
    if NOT_SCANS.search(said):
        raise InputError(
            f"{path}: by its name a mask (*mask*, *seg*, *consensus*, *gt*), not a scan; rename it if it is one"
        )
    contrast = contrast_of(path)
    return ScanRef(
        subject,
        session,
        path,
        path.absolute().parent.name,
        modality=contrast if contrast in MODALITIES else None,
    )


def _from_folder(folder: Path, modality: str | None) -> list[ScanRef]:
    every = list(niftis(folder))
    found = [path for path in every if not NOT_SCANS.search(path.name)]
    say_left_out(folder, set(every) - set(found), "masks by their names")
    told = {path: contrast_of(path) or ("other" if bids_name(path) else None) for path in found}
    say_left_out(folder, (path for path in found if told[path] == "other"), OTHER_BY_NAME)
    contrasts = set(told.values())
    ours = [name for name in MODALITIES if name in contrasts]
    if modality is None and len(ours) > 1:
        raise InputError(f"{folder}: holds {' and '.join(ours)}; say which with --modality")
    wanted = {modality, None} if modality else contrasts - {"other"}
    found = [path for path in found if told[path] in wanted]
    if not found:
        raise InputError(
            f"{folder}: no NIfTI scan{f' of modality {modality}' if modality else ''} in this folder "
            "(masks are left out by name); check the path, or write a manifest CSV"
        )
    refs = []
    for path in found:
        subject, session = bids_name(path) or (relative_name(path, folder), "")
        refs.append(
            ScanRef(subject, session, path, folder.resolve().name, modality=told[path] or modality)
        )
    return refs


def _from_bids(root: Path, modality: str | None) -> list[ScanRef]:
    by_suffix: dict[str, list[ScanRef]] = {}
    nameless: list[Path] = []
    others: list[Path] = []
    for folder in sorted(path for path in root.glob("sub-*") if path.is_dir()):
        for path in niftis(folder):
            bids = bids_name(path)
            suffix = stem(path).rsplit("_", 1)[-1]
            if bids is None:
                nameless.append(path)
            elif suffix in (*MODALITIES, "inplaneT2") and contrast_of(path) == "other":
                others.append(path)
            else:
                ref = ScanRef(bids[0], bids[1], path, root.resolve().name, modality=suffix)
                by_suffix.setdefault(suffix, []).append(ref)
    say_left_out(root, nameless, "their names are no BIDS names (sub-01_ses-1_T1w.nii.gz)")
    say_left_out(root, others, OTHER_BY_NAME)
    usable = [name for name in MODALITIES if name in by_suffix]
    if modality is None and len(usable) > 1:
        raise InputError(f"{root}: holds {' and '.join(usable)}; say which with --modality")
    wanted = modality or (usable[0] if usable else None)
    if wanted == "T2w" and wanted not in by_suffix and "inplaneT2" in by_suffix:
        return [replace(ref, modality="T2w") for ref in by_suffix["inplaneT2"]]
    if wanted not in by_suffix:
        raise InputError(
            f"{root}: no {wanted or 'T1w, T2w or FLAIR'} scan in this BIDS dataset (it has "
            f"{', '.join(sorted(by_suffix)) or 'no NIfTI file under sub-*'}); choose another --modality "
            "or write a manifest CSV"
        )
    return by_suffix[wanted]
