"""Folders of IXI, BraTS 2018 to 2023 and MSLUB (3D-MR-MS), with masks and splits.

    ixi     IXI-T1/IXI012-HH-1211-T1.nii.gz, IXI-T2/..., IXI-PD/...       healthy: train, val, test
    brats   [HGG|LGG/]Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1_{t1,t2,flair,t1ce,seg}.nii.gz
            (2018, 2019); BraTS20_Training_001/..., BraTS2021_00000/...,
            BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t2w,t2f,t1c,seg}         val, test
    mslub   patient01/[patient01_]{T1W,T2W,FLAIR,T1WKS,brainmask,consensus_gt}.nii.gz     val, test

Splits follow the sha256 of `dataset/subject`, so they are the same on every machine and for every
contrast:

    IXI     158 of 560 test; of the other 402, 44 val (another block of 44 in each of five folds)
    BraTS   100 of 1251 val, the rest test, in every fold
    MSLUB   10 of 30 val, the rest test, in every fold

The sizes are those of published comparisons. Which subjects these used is not published.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from maediff.core.errors import InputError
from maediff.core.text import hash_text
from maediff.scans.content import PIECE, Content, path_problem
from maediff.scans.names import NOT_SCANS, several_contrasts_error
from maediff.scans.nifti_header import parse_header
from maediff.scans.reference import ScanRef
from maediff.scans.walk import log_skipped_files, nifti_files

Layout = Literal["ixi", "brats", "mslub"]
FOLDS = 5
IXI_TEST, IXI_VAL = 158 / 560, 44 / 402
BRATS_VAL, MSLUB_VAL = 100 / 1251, 10 / 30
NII = r"\.(?i:nii(?:\.gz)?)"
IXI_FILE = re.compile(rf"(?P<subject>IXI\d{{3}})-\w+-\d{{4}}-(?P<kind>T1|T2|PD|MRA|DTI-\d+){NII}")
BRATS_CASE = (
    r"Brats1[78]_\w+?|BraTS19_\w+?|BraTS20_(?:Training|Validation)_\d{3}|BraTS2021_\d{5}|"
    r"BraTS-[A-Za-z]+-\d{5}-\d{3}"
)
BRATS_FILE = re.compile(
    rf"(?P<case>{BRATS_CASE})[_-](?P<kind>t1|t2|flair|t1ce|t1n|t1c|t2w|t2f|seg){NII}"
)
# The mask of BraTS20_Training_355 has another name than the others.
BRATS_STRAY_MASK = re.compile(rf".*segm{NII}", re.IGNORECASE)
# Data set of a BraTS case by the start of its name; the first match counts.
BRATS_DATASETS = {
    "Brats17": "BraTS2017",
    "Brats18": "BraTS2018",
    "BraTS19": "BraTS2019",
    "BraTS2021": "BraTS2021",
    "BraTS20": "BraTS2020",
    "BraTS-": "BraTS2023",
}
MSLUB_FILE = re.compile(
    rf"(?:(?P<case>patient\d+)_)?(?P<kind>T1W|T2W|FLAIR|T1WKS|brainmask|consensus_gt){NII}",
    re.IGNORECASE,
)
CONTRAST_OF_KIND = {
    "t1": "T1w",
    "t1n": "T1w",
    "t1w": "T1w",
    "t2": "T2w",
    "t2w": "T2w",
    "flair": "FLAIR",
    "t2f": "FLAIR",
    "pd": "PDw",
}
MIN_MATCHES = 2  # a single file may match a layout by accident


@dataclass(frozen=True)
class _Case:
    """One visit of one subject.

    Args:
        dataset: IXI, BraTS2018, ..., MSLUB.
        subject: name in the data set.
        session: number of the visit; empty if the data set has one visit of each subject.
        folder: folder of the files.
        files: file of each kind, in lower case (t1, flair, seg, ...).
    """

    dataset: str
    subject: str
    session: str
    folder: Path
    files: dict[str, Path]


def recognise_layout(folder: Path) -> Layout | None:
    """Return the layout that the scans in `folder` follow; None for any other folder.

    Masks by name that do not match the layout are ignored.

    Raises:
        InputError: some scans match BraTS or MSLUB and others do not. Treated as a plain folder,
            its patients would lose masks and splits and count as healthy.
    """
    paths = list(nifti_files(folder))
    for layout, kind_of in KIND_OF.items():
        kinds: dict[Path, str] = {}
        for path in paths:
            kind = kind_of(path)
            if kind:
                kinds[path] = kind
        matches = any(kind in CONTRAST_OF_KIND for kind in kinds.values())
        if (
            layout == "mslub"
        ):  # others use its scan names (patient01/FLAIR), but not its mask names
            matches = matches and "consensus_gt" in kinds.values()
        if not matches:
            continue
        strays = [path for path in paths if path not in kinds and not NOT_SCANS.search(path.name)]
        if not strays:
            return layout
        # Subjects of IXI are healthy in any layout.
        if len(kinds) >= MIN_MATCHES and layout != "ixi":
            raise InputError(
                f"{strays[0]}: does not fit the {layout} layout, as {len(kinds)} file(s) of "
                f"{folder} do; remove it, or give `layout={layout!r}` (skips it) or "
                "`layout='plain'` (no masks, no splits)"
            )
    return None


def read_layout(
    folder: Path, layout: Layout, modality: str | None = None, fold: int = 0
) -> list[ScanRef]:
    """Find the scans of one contrast in a folder of a known layout, with masks and splits.

    Args:
        folder: the folder of the data set, or a part of it.
        layout: ixi, brats or mslub.
        modality: T1w, T2w, FLAIR or (IXI) PDw. None if the folder holds only one of them.
        fold: 0 to 4: the block of IXI's healthy scans that is val.

    Raises:
        InputError: no file matches the layout, there are several contrasts without `modality`, or
            no scan of `modality`.
    """
    if not 0 <= fold < FOLDS:
        raise InputError(f"`fold={fold}`: there are {FOLDS} folds; choose 0 to {FOLDS - 1}")
    cases = FINDERS[layout](folder)
    if not cases:
        raise InputError(
            f"{folder}: no file named as in the {layout} layout; "
            "see docs/reference/folder_layouts.md, or omit `layout`"
        )
    strays = [path for path in nifti_files(folder) if not KIND_OF[layout](path)]
    log_skipped_files(folder, strays, f"their names do not fit the {layout} layout")
    kinds = sorted({kind for case in cases for kind in case.files})
    available = sorted({CONTRAST_OF_KIND[kind] for kind in kinds if kind in CONTRAST_OF_KIND})
    if not available:
        raise InputError(
            f"{folder}: no T1w, T2w or FLAIR scan in this {layout} folder (it has "
            f"{', '.join(kinds)}); give a folder with one"
        )
    if modality is None and len(available) > 1:
        raise several_contrasts_error(folder, available)
    wanted = modality or available[0]
    refs = [
        _make_ref(case, path, wanted)
        for case in cases
        for kind, path in case.files.items()
        if CONTRAST_OF_KIND.get(kind) == wanted
    ]
    if not refs:
        raise InputError(
            f"{folder}: no {wanted} scan in this {layout} folder (it has {', '.join(available)}); "
            "give another `modality`"
        )
    return assign_splits(refs, layout, fold)


def assign_splits(refs: Sequence[ScanRef], layout: Layout, fold: int = 0) -> list[ScanRef]:
    """Return the references with the split of each subject (see the module's docstring)."""
    if layout == "ixi":
        return [replace(ref, split=_ixi_split(ref, fold)) for ref in refs]
    val_share = BRATS_VAL if layout == "brats" else MSLUB_VAL
    val: set[tuple[str, str]] = set()
    for dataset in {ref.dataset for ref in refs}:
        labelled = {ref.subject for ref in refs if ref.dataset == dataset and ref.lesion_mask}
        ranked = sorted(labelled, key=lambda subject: _hash_to_unit(f"{dataset}/{subject}"))
        n_val = round(val_share * len(ranked))
        val |= {(dataset, subject) for subject in ranked[:n_val]}
    return [
        replace(ref, split="val" if (ref.dataset, ref.subject) in val else "test") for ref in refs
    ]


def _ixi_split(ref: ScanRef, fold: int) -> str:
    place = _hash_to_unit(f"IXI/{ref.subject}")
    if place < IXI_TEST:
        return "test"
    place = (place - IXI_TEST) / (1 - IXI_TEST)
    return "val" if fold * IXI_VAL <= place < (fold + 1) * IXI_VAL else "train"


def _hash_to_unit(name: str) -> float:
    """Return a number in [0, 1) that depends on the name alone, uniform over names."""
    return int(hash_text(name)[:13], 16) / 16**13


def refuse_same_voxels(refs: Iterable[ScanRef]) -> None:
    """Check that no two scans have the same voxels: one person could be on both sides of a split.

    Unreadable files are ignored here, because each of them fails by name when it is read.

    Raises:
        InputError: two scans have the same voxels; the message names both files.
    """
    ref_of_digest: dict[str, ScanRef] = {}
    for ref in refs:
        try:
            digest = voxel_digest(ref.image)
        except InputError:
            continue
        twin = ref_of_digest.setdefault(digest, ref)
        if twin is not ref:
            raise InputError(
                f"{twin.image} and {ref.image}: the same voxels under two names; remove one of "
                "them"
            )


def voxel_digest(path: Path) -> str:
    """Return the sha256 of a NIfTI file's stored voxels, whatever its header and compression.

    Raises:
        InputError: the file cannot be read.
    """
    content = Content(path)
    header = parse_header(path, content.peek())
    size = content.largest_size
    if header is not None:
        content.skip(header.offset)
        size = header.voxel_bytes
    digest = hashlib.sha256()
    while size > 0 and (piece := content.take(min(size, PIECE)).getvalue()):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()


def _make_ref(case: _Case, image: Path, modality: str) -> ScanRef:
    lesion_mask = case.files.get("seg") or case.files.get("consensus_gt")
    healthy = None
    if lesion_mask is not None:
        healthy = False
    elif case.dataset == "IXI":
        healthy = True
    t1 = None
    if modality != "T1w":
        t1s = [path for kind, path in case.files.items() if CONTRAST_OF_KIND.get(kind) == "T1w"]
        t1 = t1s[0] if t1s else None
    return ScanRef(
        subject=case.subject,
        session=case.session,
        image=image,
        dataset=case.dataset,
        brain_mask=case.files.get("brainmask"),
        lesion_mask=lesion_mask,
        healthy=healthy,
        modality=modality,
        healthy_is_stated=True,
        lesion_labels="seg" in case.files,
        t1=t1,
        problem=path_problem(image),
    )


def _ixi_kind(path: Path) -> str | None:
    match = IXI_FILE.fullmatch(path.name)
    return match["kind"].lower() if match else None


def _brats_kind(path: Path) -> str | None:
    parts = _split_brats_name(path)
    return parts[1] if parts else None


def _mslub_kind(path: Path) -> str | None:
    parts = _split_mslub_name(path)
    return parts[1] if parts else None


def _find_ixi_cases(folder: Path) -> list[_Case]:
    cases: dict[str, _Case] = {}
    for path in nifti_files(folder):
        match = IXI_FILE.fullmatch(path.name)
        if not match or match["kind"].lower() not in CONTRAST_OF_KIND:
            continue  # IXI also has MRA and DTI
        subject = match["subject"]
        case = cases.setdefault(
            subject, _Case(dataset="IXI", subject=subject, session="", folder=folder, files={})
        )
        _add_file(case, match["kind"].lower(), path)
    return list(cases.values())


def _find_brats_cases(folder: Path) -> list[_Case]:
    cases: dict[str, _Case] = {}
    for path in nifti_files(folder):
        parts = _split_brats_name(path)
        if not parts:
            continue
        name, kind = parts
        # BraTS-GLI-00000-001 is the second visit of patient BraTS-GLI-00000.
        subject, session = name.rsplit("-", 1) if name.startswith("BraTS-") else (name, "")
        case = cases.setdefault(
            name,
            _Case(
                dataset=_brats_dataset(name),
                subject=subject,
                session=session,
                folder=path.parent,
                files={},
            ),
        )
        _add_file(case, kind, path)
    return list(cases.values())


def _brats_dataset(case: str) -> str:
    for start, dataset in BRATS_DATASETS.items():
        if case.startswith(start):
            return dataset
    raise AssertionError(f"{case} does not match BRATS_CASE")


def _split_brats_name(path: Path) -> tuple[str, str] | None:
    """Return (case, kind) of a BraTS file; None for any other file."""
    match = BRATS_FILE.fullmatch(path.name)
    if match:
        return match["case"], match["kind"]
    case = path.parent.name
    if BRATS_STRAY_MASK.fullmatch(path.name) and re.fullmatch(BRATS_CASE, case):
        return case, "seg"
    return None


def _find_mslub_cases(folder: Path) -> list[_Case]:
    """Find the cases with a brain mask, or all cases if none has one.

    The raw images beside the co-registered ones have no brain mask and other grids.

    Raises:
        InputError: a patient occurs twice.
    """
    cases: dict[tuple[Path, str], _Case] = {}
    for path in nifti_files(folder):
        parts = _split_mslub_name(path)
        if not parts:
            continue
        subject, kind = parts
        case = cases.setdefault(
            (path.parent, subject),
            _Case(dataset="MSLUB", subject=subject, session="", folder=path.parent, files={}),
        )
        _add_file(case, kind, path)
    with_mask = [case for case in cases.values() if "brainmask" in case.files]
    selected = with_mask or list(cases.values())
    first_of_subject: dict[str, _Case] = {}
    for case in selected:
        twin = first_of_subject.setdefault(case.subject, case)
        if twin is not case:
            raise InputError(
                f"{twin.folder} and {case.folder}: {case.subject} twice (coregistered and "
                "resampled?); give the folder of one of them"
            )
    return selected


def _split_mslub_name(path: Path) -> tuple[str, str] | None:
    """Return (patient, kind) of an MSLUB file; None for any other file.

    The file or its folder names the patient.
    """
    match = MSLUB_FILE.fullmatch(path.name)
    if not match:
        return None
    home = path.parent.parent if path.parent.name == "raw" else path.parent
    subject = match["case"] or home.name
    if not re.fullmatch(r"patient\d+", subject, re.IGNORECASE):
        return None
    return subject, match["kind"].lower()


def _add_file(case: _Case, kind: str, path: Path) -> None:
    if kind in case.files:
        raise InputError(
            f"{case.files[kind]} and {path}: two {kind} files of {case.subject}; remove one"
        )
    case.files[kind] = path


FINDERS: dict[Layout, Callable[[Path], list[_Case]]] = {
    "ixi": _find_ixi_cases,
    "brats": _find_brats_cases,
    "mslub": _find_mslub_cases,
}
KIND_OF: dict[Layout, Callable[[Path], str | None]] = {
    "ixi": _ixi_kind,
    "brats": _brats_kind,
    "mslub": _mslub_kind,
}
