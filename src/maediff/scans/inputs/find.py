"""Scans of all inputs: NIfTI, DICOM, folders, BIDS datasets, manifests and known data sets.

    folder of a known layout   layouts.read_layout        IXI, BraTS, MSLUB, with masks and splits
    folder of DICOM            dicom.find_dicom           one series of each study
    any other                  folders.find_plain_scans   NIfTI file, folder, BIDS, manifest CSV

The scans of all inputs are then checked together: no name twice, no subject in two splits.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES
from maediff.scans.content import path_problem
from maediff.scans.dicom.studies import find_dicom, is_uid
from maediff.scans.inputs.folders import find_plain_scans, is_bids_dataset
from maediff.scans.inputs.layouts import Layout, read_layout, recognise_layout, refuse_same_voxels
from maediff.scans.names import is_nifti
from maediff.scans.reference import ScanRef, check_names
from maediff.scans.walk import (
    is_dicom,
    nifti_files,
    other_images,
    unreadable_folders,
    visible_files,
)

logger = logging.getLogger(__name__)
LAYOUTS = ("auto", "plain", *get_args(Layout))
LOCKED = "_folder"
"""End of the name of a folder that may not be read, which must not be the name of a scan."""


def find_scans(
    inputs: Sequence[str | Path],
    modality: str | None = None,
    *,
    layout: str = "auto",
    series: str | None = None,
    fold: int = 0,
    unique: bool = False,
    need_usable: bool = True,
) -> list[ScanRef]:
    """Find the scans of all inputs, of one contrast. No image is read.

    Subjects of BIDS datasets that share names of scans (most have a sub-01) are renamed to
    DATASET__SUBJECT.

    Args:
        inputs: NIfTI files, folders of NIfTI files, DICOM folders, BIDS datasets, manifests.
        modality: T1w, T2w or FLAIR (for IXI also PDw): the contrast to select if an input holds
            several. Names of single files that agree on a contrast are overridden.
        layout: ixi, brats or mslub for folders of these data sets; `auto` recognises them,
            `plain` ignores their masks and splits.
        series: number or UID of the DICOM series to select.
        fold: 0 to 4: the block of IXI's healthy scans that is val.
        unique: compare the scans of known data sets voxel by voxel, which reads every file.
        need_usable: refuse inputs of which every scan has a problem, and log files of other
            contrasts. False is for callers that search one contrast after the other.

    Returns:
        References to the scans. A scan that is known to be unusable has a `problem`, and so has
        each folder that may not be read. A DICOM folder with such a folder inside is not read at
        all, because slices may be missing.

    Raises:
        InputError: an input does not exist or holds no scan, a manifest is invalid, there are
            several contrasts without `modality` or none of them is `modality`, `series` does not
            exist, every scan has a problem (with `need_usable`), two scans have the same name or
            (with `unique`) the same voxels, or a subject is in two splits.

    Example:
        >>> [ref.name for ref in find_scans(["bids_dataset"], "T1w")]  # doctest: +SKIP
        ['sub-01', 'sub-02_ses-1']
    """
    if layout not in LAYOUTS:
        raise InputError(f"`layout={layout!r}`: not known; choose one of {', '.join(LAYOUTS)}")
    if modality is not None and modality not in (*MODALITIES, "PDw"):
        raise InputError(
            f"`modality={modality!r}`: not known; choose one of {', '.join(MODALITIES)}"
        )
    refs: list[ScanRef] = []
    layout_refs: list[ScanRef] = []
    plain: list[Path] = []
    locked_refs: list[ScanRef] = []
    for path in map(Path, inputs):
        problem = path_problem(path)
        if problem and len(inputs) == 1:
            raise InputError(problem)
        if problem:
            plain.append(path)
            continue
        locked = _find_locked(path)
        locked_refs += _refs_of_locked(locked, path)
        if locked and not _has_images(path):
            continue
        known = _choose_layout(path, layout)
        if known:
            layout_refs += read_layout(path, known, modality, fold)
        elif path.is_dir() and is_dicom_folder(path):
            refs += _find_dicom(path, modality, series, need_usable=need_usable)
        else:
            plain.append(path)
            if not locked:
                _warn_of_skipped_dicom(path)
    if plain or not (refs or layout_refs or locked_refs):
        refs += [
            _resolve_dicom_folder(ref, modality, series)
            for ref in find_plain_scans(plain, modality, log_others=need_usable)
        ]
    refs += locked_refs
    problems = [ref.problem for ref in [*refs, *layout_refs]]
    if need_usable and all(problems):
        raise InputError(str(problems[0]))
    if series is not None and not any(ref.series or ref.problem for ref in refs):
        raise InputError(f"`series={series!r}`: there is no DICOM among the inputs; omit `series`")
    if is_uid(series) and not any(ref.series == series or ref.problem for ref in refs):
        raise InputError(
            f"`series={series!r}`: no study among the inputs holds it; omit `series` to list all"
        )
    check_names([*refs, *layout_refs])
    _warn_of_shared_files([*refs, *layout_refs])
    if unique:
        refuse_same_voxels(layout_refs)
    return [*refs, *layout_refs]


def _warn_of_shared_files(refs: Sequence[ScanRef]) -> None:
    """Log scans that are one file: listed twice, or reached through a link.

    In a cohort, such a scan may be in two splits, and it counts twice in every mean.
    """
    ref_of_file: dict[tuple[int, int, str | None], ScanRef] = {}
    for ref in refs:
        try:
            status = ref.image.stat()
        except OSError:
            continue  # reported when it is read
        first = ref_of_file.setdefault((status.st_dev, status.st_ino, ref.series), ref)
        if first is not ref and status.st_ino:
            logger.warning(
                "%s: the same file as %s, listed as the two scans %s and %s; remove one of them",
                ref.image,
                first.image,
                first.name,
                ref.name,
            )


def is_dicom_folder(folder: Path) -> bool:
    """Check whether a folder holds DICOM and no NIfTI."""
    if next(nifti_files(folder), None) is not None:
        return False
    return any(is_dicom(path) for path in visible_files(folder))


def _find_locked(path: Path) -> dict[Path, str]:
    """Return the folders in an input that may not be read, with the reason.

    In a BIDS dataset, only folders of subjects are searched for scans.
    """
    if not path.is_dir():
        return {}
    locked = unreadable_folders(path)
    if path in locked or not is_bids_dataset(path):
        return locked
    return {
        folder: reason
        for folder, reason in locked.items()
        if folder.relative_to(path).parts[0].startswith("sub-")
    }


def _has_images(folder: Path) -> bool:
    """True if a folder that may be read holds an image file other than DICOM."""
    return any(True for files in (nifti_files, other_images) for _ in files(folder))


def _refs_of_locked(locked: Mapping[Path, str], base: Path) -> list[ScanRef]:
    """Return a reference with a `problem` for each folder of an input that may not be read."""
    refs = []
    for folder, reason in locked.items():
        place = Path(os.path.realpath(folder))
        name = "_".join(folder.relative_to(base).parts) or place.name
        refs.append(
            ScanRef(
                subject=f"{name}{LOCKED}",
                session="",
                image=folder,
                dataset=place.parent.name,
                problem=reason,
            )
        )
    return refs


def _choose_layout(path: Path, layout: str) -> Layout | None:
    if layout == "plain" or not path.is_dir():
        return None
    if layout != "auto":
        return cast(Layout, layout)
    return None if is_bids_dataset(path) else recognise_layout(path)


def _warn_of_skipped_dicom(path: Path) -> None:
    """Warn of DICOM in a folder of NIfTI; in a BIDS dataset, DICOM is the source of the NIfTI."""
    if not path.is_dir() or is_bids_dataset(path):
        return
    for file in visible_files(path):
        if not is_nifti(file) and is_dicom(file):
            logger.warning(
                "%s: DICOM is skipped in a folder with NIfTI, as %s; give its folder as a "
                "separate input",
                path,
                file.relative_to(path),
            )
            return


def _resolve_dicom_folder(ref: ScanRef, modality: str | None, series: str | None) -> ScanRef:
    """Complete a manifest's line whose image is a DICOM folder; leave other lines unchanged."""
    if not ref.image.is_dir():
        return ref
    (found, *more) = _find_dicom(ref.image, modality, series)
    problem = found.problem
    if more:
        problem = (
            f"{ref.image}: a folder of several studies; give the folder of one study in this line "
            "of the manifest"
        )
    t1, t1_series = (ref.t1, None) if ref.t1 else (found.t1, found.t1_series)
    return replace(
        ref,
        image=found.image,
        series=found.series,
        modality=found.modality,
        contrast_is_stated=found.contrast_is_stated,
        t1=t1,
        t1_series=t1_series,
        problem=problem,
    )


def _find_dicom(
    folder: Path, modality: str | None, series: str | None, *, need_usable: bool = True
) -> list[ScanRef]:
    """Find the scans of a DICOM folder; an error becomes the `problem` of one reference."""
    try:
        return find_dicom(folder, modality, series, need_usable=need_usable)
    except InputError as error:
        name = folder.resolve().name
        return [ScanRef(subject=name, session="", image=folder, dataset=name, problem=str(error))]
