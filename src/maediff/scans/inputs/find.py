"""Everything that may be named as INPUT -> references to scans: DICOM, layouts of known data sets, the rest.

Each input goes one of three ways:

folder of a known layout    layouts.read_layout       IXI, BraTS, MSLUB, with their masks and roles
folder of DICOM             dicom.find_dicom          one series of each study
all else                    inputs.find_plain_scans         NIfTI, folder of NIfTI, BIDS, manifest CSV

The scans of all of them are then checked together: no two of one name, no subject in two splits.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from maediff.core.errors import InputError
from maediff.core.types import MODALITIES
from maediff.scans.dicom.studies import find_dicom, is_uid
from maediff.scans.inputs.folders import find_plain_scans
from maediff.scans.inputs.layouts import Layout, check_content, read_layout, recognise
from maediff.scans.names import is_nifti
from maediff.scans.reference import ScanRef, check_names
from maediff.scans.walk import is_dicom, niftis, visible

logger = logging.getLogger(__name__)
LAYOUTS = ("auto", "plain", *get_args(Layout))


def find_scans(
    inputs: Sequence[Path],
    modality: str | None = None,
    *,
    layout: str = "auto",
    series: str | None = None,
    fold: int = 0,
    unique: bool = False,
) -> list[ScanRef]:
    """Every scan meant by `inputs`, of one contrast.

    Args:
        layout: ixi, brats or mslub; `auto` recognises them, `plain` takes their folders as any other.
        series: number or UID of the DICOM series to take.
        fold: 0 to 4, of IXI's healthy scans.
        unique: whether scans of known data sets are compared voxel by voxel (reads every file).

    Raises:
        InputError: as for `find_plain_scans` and `read_layout`; DICOM of which no scan can be taken, unless there are others;
            a `series` that is not there; two scans of one name, or, with `unique`, of the same voxels.
    """
    if layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: not known; choose one of {', '.join(LAYOUTS)}")
    if modality is not None and modality not in (*MODALITIES, "PDw"):
        raise InputError(f"modality {modality}: not known; choose one of {', '.join(MODALITIES)}")
    refs: list[ScanRef] = []
    official: list[ScanRef] = []
    plain: list[Path] = []
    for path in map(Path, inputs):
        known = _layout_of(path, layout)
        if known:
            official += read_layout(path, known, modality, fold)
        elif path.is_dir() and is_dicom_folder(path):
            refs += _dicom(path, modality, series)
        else:
            plain.append(path)
            _say_dicom_left_out(path)
    if plain or not (refs or official):
        refs += [_opened(ref, modality, series) for ref in find_plain_scans(plain, modality)]
    problems = [ref.problem for ref in [*refs, *official]]
    if all(problems):
        raise InputError(str(problems[0]))
    if series is not None and not any(ref.series or ref.problem for ref in refs):
        raise InputError(f"--series {series}: there is no DICOM among the inputs; leave it out")
    if is_uid(series) and not any(ref.series == series or ref.problem for ref in refs):
        raise InputError(
            f"--series {series}: no study among the inputs holds it; leave it out to have them listed"
        )
    check_names([*refs, *official])
    if unique:
        check_content(official)
    return [*refs, *official]


def is_dicom_folder(folder: Path) -> bool:
    """Whether a folder holds DICOM and no NIfTI."""
    if next(niftis(folder), None) is not None:
        return False
    return any(is_dicom(path) for path in visible(folder))


def _say_dicom_left_out(path: Path) -> None:
    """In a BIDS dataset DICOM is its source, and no scan is lost with it."""
    if path.is_dir() and not (path / "dataset_description.json").is_file():
        file = next((one for one in visible(path) if not is_nifti(one) and is_dicom(one)), None)
        if file is not None:
            logger.warning(
                "%s: DICOM is left out where there is NIfTI, as %s; give its folder as an INPUT of its own",
                path,
                file.relative_to(path),
            )


def _layout_of(path: Path, layout: str) -> Layout | None:
    if layout == "plain" or not path.is_dir():
        return None
    if layout != "auto":
        return cast(Layout, layout)
    return None if (path / "dataset_description.json").is_file() else recognise(path)


def _opened(ref: ScanRef, modality: str | None, series: str | None) -> ScanRef:
    """A manifest's line whose image is a folder of DICOM, with its one series found."""
    if not ref.image.is_dir():
        return ref
    (found, *more) = _dicom(ref.image, modality, series)
    if more:
        found = replace(
            found,
            problem=f"{ref.image}: a folder of several studies; a manifest's line names that of one",
        )
    t1, t1_series = (ref.t1, None) if ref.t1 else (found.t1, found.t1_series)
    return replace(
        ref,
        image=found.image,
        series=found.series,
        modality=found.modality,
        t1=t1,
        t1_series=t1_series,
        problem=found.problem,
    )


def _dicom(folder: Path, modality: str | None, series: str | None) -> list[ScanRef]:
    """The studies of a folder, or, if none can be taken, one reference that says why: other inputs go on."""
    try:
        return find_dicom(folder, modality, series)
    except InputError as error:
        name = folder.resolve().name
        return [ScanRef(name, "", folder, name, problem=str(error))]
