"""Scans in NIfTI files, folders, BIDS datasets and manifests.

    NIfTI file       the scan
    folder           every NIfTI file in it, at any depth, except masks by name
    BIDS dataset     (dataset_description.json) sub-*/**/*_<T1w|T2w|FLAIR>.nii[.gz]
    manifest CSV     its lines, see `manifest`

A subject is named by BIDS entities or, failing that, by its path relative to the input. Nothing
here opens a scan. `find` adds DICOM folders and the layouts of known data sets.
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES
from maediff.scans.content import path_problem
from maediff.scans.inputs.bidsignore import read_bidsignore
from maediff.scans.inputs.manifest import read_manifest
from maediff.scans.inputs.spaces import choose_versions, warn_about_versions
from maediff.scans.names import (
    FORMATS,
    NOT_SCANS,
    bids_labels,
    contrast_from_name,
    is_image,
    is_nifti,
    nifti_stem,
    relative_name,
    select_contrast,
    session_key,
    several_contrasts_error,
    split_bids_name,
)
from maediff.scans.reference import ScanRef, check_names
from maediff.scans.walk import is_dicom, log_skipped_files, nifti_files, other_images

logger = logging.getLogger(__name__)

MASK_REASON = "masks by their names"
OTHER_REASON = "with contrast agent or of another sequence by their names"
SCAN_SUFFIXES = (*MODALITIES, "inplaneT2", "UNIT1")
"""BIDS suffixes of the scans that are used."""


def find_plain_scans(
    inputs: Sequence[Path], modality: str | None = None, *, log_others: bool = True
) -> list[ScanRef]:
    """Find the scans of inputs that are neither DICOM nor of a known layout, in a stable order.

    Subjects of BIDS datasets that share names of scans (most have a sub-01) are renamed to
    DATASET__SUBJECT.

    Args:
        inputs: NIfTI files, folders, BIDS datasets and manifests.
        modality: T1w, T2w or FLAIR: the contrast to select from a BIDS dataset or a folder, and
            from several files or lines whose names state different contrasts. Names that agree
            are overridden.
        log_others: log the files and lines of other contrasts.

    Raises:
        InputError: an input does not exist or holds no scan, a manifest is invalid, there are
            several contrasts without `modality` or none of them is `modality`, or two scans have
            the same name.
    """
    if modality is not None and modality not in MODALITIES:
        raise InputError(
            f"`modality={modality!r}`: not known; choose one of {', '.join(MODALITIES)}"
        )
    paths = [Path(item) for item in inputs]
    files = [path for path in paths if _is_scan_file(path)]
    base = Path()
    if files:
        base = _common_folder(files)
    contrasts = {path: contrast_from_name(path) for path in files}
    selected = select_contrast(base, contrasts, modality, log_others=log_others)
    datasets = [path for path in paths if is_bids_dataset(path)]
    dataset_refs = iter(
        _prefix_shared_names(datasets, [_find_in_bids(root, modality) for root in datasets])
    )
    refs: list[ScanRef] = []
    for path in paths:
        if path in datasets:
            refs += next(dataset_refs)
        elif path.is_dir():
            refs += _find_in_folder(path, modality)
        elif not path.exists() and path not in files:
            raise InputError(f"{path}: no such file or folder; check the path")
        elif path.suffix.lower() == ".csv":
            refs += read_manifest(path, modality, log_others=log_others)
        else:
            ref = _ref_from_file(path, base)
            if path in selected:
                refs.append(ref)
    warn_about_versions([ref for ref in refs if ref.image in selected])
    if not refs:
        raise InputError(
            "no input was given; name a NIfTI file, a folder, a BIDS dataset or a manifest CSV"
        )
    refs = [replace(ref, problem=path_problem(ref.image)) for ref in refs]
    check_names(refs)
    return _add_t1s(refs)


def is_bids_dataset(path: Path) -> bool:
    """Check whether a folder is the root of a BIDS dataset."""
    return (path / "dataset_description.json").is_file()


def _is_scan_file(path: Path) -> bool:
    """Check for any file except a manifest; a broken link and a pipe count as files."""
    if path_problem(path):
        return True
    return path.is_file() and path.suffix.lower() != ".csv"


def _common_folder(files: Sequence[Path]) -> Path:
    """Return the folder that holds all files.

    Raises:
        InputError: the files are on several drives (Windows).
    """
    try:
        return Path(os.path.commonpath([path.absolute().parent for path in files]))
    except ValueError:
        raise InputError(
            f"{files[0]}, {files[-1]}: scans on several drives; list them in a manifest CSV"
        ) from None


def _prefix_shared_names(
    datasets: Sequence[Path], refs_of_dataset: Sequence[list[ScanRef]]
) -> list[list[ScanRef]]:
    """Rename subjects to DATASET__SUBJECT in data sets that share a scan's name with another.

    No subject is renamed if one data set is inside another, or two have the same folder name. They
    may hold the same people, and `check_names` then refuses the shared names.
    """
    places = [root.resolve() for root in datasets]
    has_twins = len({place.name for place in places}) < len(places)
    is_nested = any(outer in inner.parents for outer, inner in permutations(places, 2))
    if len(places) < 2 or has_twins or is_nested:
        return list(refs_of_dataset)
    # Names of all contrasts decide, so that every contrast of a subject gets the same name.
    names = [_names_in_bids(root) for root in datasets]
    counts = Counter(name for dataset_names in names for name in dataset_names)
    renamed = []
    for refs, dataset_names in zip(refs_of_dataset, names, strict=True):
        if any(counts[name] > 1 for name in dataset_names):
            refs = [replace(ref, subject=f"{ref.dataset}__{ref.subject}") for ref in refs]
        renamed.append(refs)
    if any(count > 1 for count in counts.values()):
        logger.info("BIDS datasets share names of scans: subjects are renamed DATASET__SUBJECT")
    return renamed


def _add_t1s(refs: Sequence[ScanRef]) -> list[ScanRef]:
    """Give each scan of another contrast the T1w of its session, if its folder has one."""
    t1s_of_folder: dict[Path, dict[tuple[str, ...], Path]] = {}
    completed = []
    for ref in refs:
        if ref.t1 is None and ref.modality != "T1w":
            folder = ref.image.parent
            if folder not in t1s_of_folder:
                t1s_of_folder[folder] = t1s_by_session(folder)
            t1s, key = t1s_of_folder[folder], session_key(ref.image)
            space = bids_labels(ref.image).get("space", "")
            ref = replace(ref, t1=t1s.get((space, *key)) or t1s.get(("", *key)))
        completed.append(ref)
    return completed


def t1s_by_session(folder: Path) -> dict[tuple[str, ...], Path]:
    """Return the first T1w scan of each session in `folder` itself, by space and `session_key`.

    NIfTI files come first. Files of a subject that the .bidsignore of the data set lists are left
    out. The space is that of the BIDS name, empty for the scan's own.
    """
    place = folder.absolute()
    roots = [root for root in place.parents if is_bids_dataset(root)]
    holding = [root for root in roots if place.relative_to(root).parts[0].startswith("sub-")]
    is_excluded = read_bidsignore(holding[0] if holding else place)
    t1s: dict[tuple[str, ...], Path] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir(), key=lambda path: (not is_nifti(path), path)):
            is_t1 = is_image(path) and contrast_from_name(path) == "T1w"
            if is_t1 and not is_excluded(path.absolute()):
                space = bids_labels(path).get("space", "")
                t1s.setdefault((space, *session_key(path)), path)
    return t1s


def _ref_from_file(path: Path, base: Path) -> ScanRef:
    problem = path_problem(path)
    if problem and not is_image(path):
        raise InputError(problem)
    if not problem and not is_nifti(path) and is_dicom(path):
        raise InputError(
            f"{path}: one DICOM file is one slice; give the folder that holds its series"
        )
    if not is_image(path):
        raise InputError(
            f"{path}: not a scan file ({FORMATS}), a folder or a manifest CSV; convert it"
        )
    bids = split_bids_name(path)
    subject, session = bids or (relative_name(path.absolute(), base), "")
    # The label of a BIDS subject may contain `gt`.
    name = path.name.partition("_")[2] if bids else path.name
    if NOT_SCANS.search(name):
        raise InputError(
            f"{path}: by its name a mask (*mask*, *seg*, *consensus*, *gt*), not a scan; rename "
            "it if it is one"
        )
    contrast = contrast_from_name(path)
    return ScanRef(
        subject=subject,
        session=session,
        image=path,
        dataset=path.absolute().parent.name,
        modality=contrast if contrast in MODALITIES else None,
    )


def _without_subject(path: Path) -> str:
    """Return a file's name without a BIDS subject, whose label may look like a word (sub-gt05)."""
    return path.name.partition("_")[2] if split_bids_name(path) else path.name


def _find_in_folder(folder: Path, modality: str | None) -> list[ScanRef]:
    others = list(other_images(folder))
    every = list(nifti_files(folder)) or others
    if every is not others:
        log_skipped_files(folder, others, "because the folder has .nii or .nii.gz files")
    masks = {path for path in every if NOT_SCANS.search(_without_subject(path))}
    log_skipped_files(folder, masks, MASK_REASON)
    contrasts: dict[Path, str | None] = {}
    for path in every:
        if path not in masks:
            # A BIDS name with a suffix that is not a contrast names another kind of image.
            unknown = "other" if split_bids_name(path) else None
            contrasts[path] = contrast_from_name(path) or unknown
    others = [path for path, contrast in contrasts.items() if contrast == "other"]
    log_skipped_files(folder, others, OTHER_REASON)
    available = [name for name in MODALITIES if name in contrasts.values()]
    if modality is None and len(available) > 1:
        raise several_contrasts_error(folder, available)
    wanted = {modality, None} if modality else set(contrasts.values()) - {"other"}
    refs = []
    for path, contrast in contrasts.items():
        if contrast in wanted:
            subject, session = split_bids_name(path) or (relative_name(path, folder), "")
            refs.append(
                ScanRef(
                    subject=subject,
                    session=session,
                    image=path,
                    dataset=folder.resolve().name,
                    modality=contrast or modality,
                )
            )
    if not refs:
        raise InputError(
            f"{folder}: no NIfTI scan{f' of modality {modality}' if modality else ''} in this "
            "folder (masks are skipped by name); check the path, or write a manifest CSV"
        )
    return choose_versions(refs, folder)


def list_bids_contrasts(root: Path) -> list[str]:
    """List the contrasts, of T1w, T2w and FLAIR, that a BIDS dataset has scans of."""
    by_suffix = _find_by_suffix(root)
    return [name for name in MODALITIES if name in by_suffix]


def _find_by_suffix(root: Path) -> dict[str, list[ScanRef]]:
    """Return the scans of a BIDS dataset by suffix, and log which files are skipped."""
    by_suffix: dict[str, list[ScanRef]] = {}
    is_excluded = read_bidsignore(root)
    excluded: list[Path] = []
    nameless: list[Path] = []
    others: list[Path] = []
    for folder in sorted(path for path in root.glob("sub-*") if path.is_dir()):
        for path in nifti_files(folder):
            bids = split_bids_name(path)
            suffix = nifti_stem(path).rsplit("_", 1)[-1]
            if is_excluded(path):
                excluded.append(path)
            elif bids is None:
                nameless.append(path)
            elif suffix in SCAN_SUFFIXES and contrast_from_name(path) == "other":
                others.append(path)
            else:
                subject, session = bids
                ref = ScanRef(
                    subject=subject,
                    session=session,
                    image=path,
                    dataset=root.resolve().name,
                    modality=suffix,
                )
                by_suffix.setdefault(suffix, []).append(ref)
    _use_unit1_as_t1w(by_suffix)
    log_skipped_files(root, excluded, "because .bidsignore lists them")
    log_skipped_files(root, nameless, "their names are no BIDS names (sub-01_ses-1_T1w.nii.gz)")
    log_skipped_files(root, others, OTHER_REASON)
    return by_suffix


def _names_in_bids(root: Path) -> set[str]:
    """Return the names of the T1w, T2w and FLAIR scans of a BIDS dataset, in lower case."""
    names = set()
    for folder in root.glob("sub-*"):
        for path in nifti_files(folder) if folder.is_dir() else ():
            bids = split_bids_name(path)
            if bids and nifti_stem(path).rsplit("_", 1)[-1] in SCAN_SUFFIXES:
                names.add("_".join(filter(None, bids)).casefold())
    return names


def _find_in_bids(root: Path, modality: str | None) -> list[ScanRef]:
    by_suffix = _find_by_suffix(root)
    available = [name for name in MODALITIES if name in by_suffix]
    if modality is None and len(available) > 1:
        raise several_contrasts_error(root, available)
    wanted = modality or (available[0] if available else None)
    if wanted == "T2w" and wanted not in by_suffix and "inplaneT2" in by_suffix:
        t2s = [replace(ref, modality="T2w") for ref in by_suffix["inplaneT2"]]
        return choose_versions(t2s, root)
    if wanted not in by_suffix:
        raise InputError(
            f"{root}: no {wanted or 'T1w, T2w or FLAIR'} scan in this BIDS dataset (it has "
            f"{', '.join(sorted(by_suffix)) or 'no NIfTI file under sub-*'}); give another "
            "`modality` or write a manifest CSV"
        )
    return choose_versions(by_suffix[wanted], root)


def _use_unit1_as_t1w(by_suffix: dict[str, list[ScanRef]]) -> None:
    """Move each UNIT1 image (MP2RAGE) whose session has no T1w to the T1w scans."""
    with_t1w = {session_key(ref.image) for ref in by_suffix.get("T1w", [])}
    moved = [
        replace(ref, modality="T1w")
        for ref in by_suffix.pop("UNIT1", [])
        if session_key(ref.image) not in with_t1w
    ]
    if moved:
        t1ws = [*by_suffix.get("T1w", []), *moved]
        by_suffix["T1w"] = sorted(t1ws, key=lambda ref: ref.image)
