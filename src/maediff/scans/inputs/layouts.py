"""The folders that IXI, BraTS 2018 to 2023 and MSLUB / 3D-MR-MS come in -> references with the field's roles.

    ixi     IXI-T1/IXI012-HH-1211-T1.nii.gz, IXI-T2/..., IXI-PD/...         healthy: train, val, test
    brats   [HGG|LGG/]Brats18_CBICA_AAB_1/Brats18_CBICA_AAB_1_{t1,t2,flair,t1ce,seg}.nii.gz     (2018, 2019)
            BraTS20_Training_001/..., BraTS2021_00000/..., BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t2w,t2f,t1c,seg}
    mslub   patient01/[patient01_]{T1W,T2W,FLAIR,T1WKS,brainmask,consensus_gt}.nii.gz           val, test

Roles, by sha256 of `dataset/subject`, so that they are the same on every machine and every contrast:
    IXI     158 of 560 to test; of the rest 44 of 402 to val, another block of 44 in each of five folds
    BraTS   100 of 1251 to val, the rest to test; MSLUB 10 of 30 to val, the rest to test; the same in every fold
The shares are those of the field's comparisons; which subjects they took is not published with the data.
"""

import gzip
import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from maediff.core.errors import InputError
from maediff.scans.names import NOT_SCANS
from maediff.scans.reference import ScanRef
from maediff.scans.walk import absent, niftis, say_left_out

Layout = Literal["ixi", "brats", "mslub"]
FOLDS = 5
IXI_TEST, IXI_VAL = 158 / 560, 44 / 402
BRATS_VAL, MSLUB_VAL = 100 / 1251, 10 / 30
NII = r"\.(?i:nii(?:\.gz)?)"
IXI_FILE = re.compile(rf"(?P<subject>IXI\d{{3}})-\w+-\d{{4}}-(?P<kind>T1|T2|PD|MRA|DTI-\d+){NII}")
BRATS_CASE = r"Brats1[78]_\w+?|BraTS19_\w+?|BraTS20_(?:Training|Validation)_\d{3}|BraTS2021_\d{5}|BraTS-[A-Za-z]+-\d{5}-\d{3}"
BRATS_FILE = re.compile(
    rf"(?P<case>{BRATS_CASE})[_-](?P<kind>t1|t2|flair|t1ce|t1n|t1c|t2w|t2f|seg){NII}"
)
BRATS_STRAY_MASK = re.compile(
    rf".*segm{NII}", re.IGNORECASE
)  # BraTS20_Training_355 has its mask under another name
MSLUB_FILE = re.compile(
    rf"(?:(?P<case>patient\d+)_)?(?P<kind>T1W|T2W|FLAIR|T1WKS|brainmask|consensus_gt){NII}",
    re.IGNORECASE,
)
KINDS = {
    "t1": "T1w",
    "t1n": "T1w",
    "t1w": "T1w",
    "t2": "T2w",
    "t2w": "T2w",
    "flair": "FLAIR",
    "t2f": "FLAIR",
    "pd": "PDw",
}
MIN_FITS = 2  # one file among others may be named so by accident
Case = dict[str, Path]  # what a file shows (t1, seg, ...) -> the file


@dataclass(frozen=True)
class _Case:
    """One visit of one subject with all its files, by lower-case kind."""

    dataset: str
    subject: str
    session: str
    files: Case
    folder: Path


def recognise(folder: Path) -> Layout | None:
    """The layout of `folder`, or None; masks by name that do not fit one are passed over.

    Raises:
        InputError: some scans fit a layout and others do not: taken as any other folder, the patients of BraTS and
            MSLUB would lose their masks and their splits, and be healthy.
    """
    paths = list(niftis(folder))
    for layout, kind_of in KIND_OF.items():
        fits = {path: kind for path in paths if (kind := kind_of(path))}
        told = any(kind in KINDS for kind in fits.values())
        if (
            layout == "mslub"
        ):  # its scans' names (patient01/FLAIR) are anybody's, its masks' are not
            told = told and "consensus_gt" in fits.values()
        if not told:
            continue
        strays = [path for path in paths if path not in fits and not NOT_SCANS.search(path.name)]
        if not strays:
            return layout
        if len(fits) >= MIN_FITS and layout != "ixi":  # whose people are healthy anyway
            raise InputError(
                f"{strays[0]}: does not fit the {layout} layout, as {len(fits)} file(s) of {folder} do; take it away, "
                f"or say --layout {layout} (which leaves it out) or --layout plain (no masks, no splits)"
            )
    return None


def read_layout(
    folder: Path, layout: Layout, modality: str | None = None, fold: int = 0
) -> list[ScanRef]:
    """The scans of one contrast in `folder`, with their masks and roles.

    Args:
        modality: T1w, T2w, FLAIR or (IXI) PDw; None where the folder holds only one of them.
        fold: 0 to 4: which block of IXI's healthy scans is val.

    Raises:
        InputError: nothing of that layout there, or no scan of the contrast.
    """
    if not 0 <= fold < FOLDS:
        raise InputError(f"--fold {fold}: there are {FOLDS} folds, 0 to {FOLDS - 1}")
    cases = FINDERS[layout](folder)
    if not cases:
        raise InputError(
            f"{folder}: no file named as in the {layout} layout; see docs/data.md, or leave --layout out"
        )
    astray = (path for path in niftis(folder) if not KIND_OF[layout](path))
    say_left_out(folder, astray, f"their names do not fit the {layout} layout")
    have = sorted({KINDS[kind] for case in cases for kind in case.files if kind in KINDS})
    if not have:
        kinds = ", ".join(sorted({kind for case in cases for kind in case.files}))
        raise InputError(
            f"{folder}: no T1w, T2w or FLAIR scan in this {layout} folder (it has {kinds})"
        )
    if modality is None and len(have) > 1:
        raise InputError(f"{folder}: holds {' and '.join(have)}; say which with --modality")
    wanted = modality or have[0]
    refs = [
        _reference(case, path, wanted)
        for case in cases
        for kind, path in case.files.items()
        if KINDS.get(kind) == wanted
    ]
    if not refs:
        raise InputError(
            f"{folder}: no {wanted} scan in this {layout} folder (it has {', '.join(have)}); "
            "choose another --modality"
        )
    return assign_roles(refs, layout, fold)


def assign_roles(refs: Sequence[ScanRef], layout: Layout, fold: int = 0) -> list[ScanRef]:
    """`refs` with the split of each subject."""
    if layout == "ixi":
        return [replace(ref, split=_ixi_role(ref, fold)) for ref in refs]
    share = BRATS_VAL if layout == "brats" else MSLUB_VAL
    drawn: set[tuple[str, str]] = set()
    for dataset in {ref.dataset for ref in refs}:
        labelled = {ref.subject for ref in refs if ref.dataset == dataset and ref.lesion_mask}
        ranked = sorted(labelled, key=lambda subject: _draw(f"{dataset}/{subject}"))
        drawn |= {(dataset, subject) for subject in ranked[: round(share * len(ranked))]}
    return [
        replace(ref, split="val" if (ref.dataset, ref.subject) in drawn else "test")
        for ref in refs
    ]


def check_content(refs: Iterable[ScanRef]) -> None:
    """Refuse two scans with the same voxels under two names: one person would stand on both sides of a split.

    Raises:
        InputError: naming both files.
    """
    seen: dict[str, ScanRef] = {}
    for ref in refs:
        try:
            digest = voxel_digest(ref.image)
        except OSError:  # it fails by name when it is read, and the others go on
            continue
        twin = seen.setdefault(digest, ref)
        if twin is not ref:
            raise InputError(
                f"{twin.image} and {ref.image}: the same voxels under two names; take one of them away"
            )


def voxel_digest(path: Path) -> str:
    """sha256 of a NIfTI's voxels as they are stored, whatever its header's texts and its compression."""
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        with suppress(OSError, EOFError, zlib.error):  # damaged: refused by name when it is read
            content = gzip.decompress(content)
    return hashlib.sha256(content[_voxels_at(content) :] or content).hexdigest()


def _voxels_at(content: bytes) -> int:
    """Where the voxels of a NIfTI-1 or NIfTI-2 start, behind the header's extensions: `vox_offset`; 0 if unknown."""
    for order in "<>":
        for size, at, kind in ((348, 108, "f"), (540, 168, "q")):
            if len(content) >= size and struct.unpack_from(f"{order}i", content)[0] == size:
                offset = struct.unpack_from(order + kind, content, at)[0]
                return int(offset) if 0 <= offset < len(content) else 0
    return 0


def _reference(case: _Case, image: Path, modality: str) -> ScanRef:
    healthy = True if case.dataset == "IXI" else None
    lesion = case.files.get("seg") or case.files.get("consensus_gt")
    t1 = next((path for kind, path in case.files.items() if KINDS.get(kind) == "T1w"), None)
    return ScanRef(
        case.subject,
        case.session,
        image,
        case.dataset,
        brain_mask=case.files.get("brainmask"),
        lesion_mask=lesion,
        healthy=healthy if lesion is None else False,
        modality=modality,
        healthy_is_stated=True,
        lesion_labels="seg" in case.files,
        t1=None if modality == "T1w" else t1,
        problem=absent(image),
    )


def _ixi_kind(path: Path) -> str | None:
    fits = IXI_FILE.fullmatch(path.name)
    return fits["kind"].lower() if fits else None


def _brats_kind(path: Path) -> str | None:
    part = _brats_part(path)
    return part[1] if part else None


def _mslub_kind(path: Path) -> str | None:
    part = _mslub_part(path)
    return part[1] if part else None


def _ixi_cases(folder: Path) -> list[_Case]:
    found: dict[str, _Case] = {}
    for path in niftis(folder):
        fits = IXI_FILE.fullmatch(path.name)
        if fits and fits["kind"].lower() in KINDS:  # MRA and DTI lie beside them
            case = found.setdefault(fits["subject"], _Case("IXI", fits["subject"], "", {}, folder))
            _add(case, fits["kind"].lower(), path)
    return list(found.values())


def _brats_cases(folder: Path) -> list[_Case]:
    found: dict[str, _Case] = {}
    for path in niftis(folder):
        part = _brats_part(path)
        if part:
            name, kind = part
            year = {
                "Brats17": "2017",
                "Brats18": "2018",
                "BraTS19": "2019",
                "BraTS20": "2020",
                "BraTS-G": "2023",
            }.get(name[:7], "2023")
            dataset = "BraTS2021" if name.startswith("BraTS2021") else f"BraTS{year}"
            # BraTS-GLI-00000-001: the second visit of patient BraTS-GLI-00000
            subject, session = name.rsplit("-", 1) if name.startswith("BraTS-") else (name, "")
            _add(
                found.setdefault(name, _Case(dataset, subject, session, {}, path.parent)),
                kind,
                path,
            )
    return list(found.values())


def _brats_part(path: Path) -> tuple[str, str] | None:
    """(case, kind) of a file of BraTS, else None."""
    fits = BRATS_FILE.fullmatch(path.name)
    if fits:
        return fits["case"], fits["kind"]
    stray = BRATS_STRAY_MASK.fullmatch(path.name) and re.fullmatch(BRATS_CASE, path.parent.name)
    return (path.parent.name, "seg") if stray else None


def _mslub_cases(folder: Path) -> list[_Case]:
    """The co-registered images where there are any; the raw ones beside them have no brain mask and other grids."""
    found: dict[tuple[Path, str], _Case] = {}
    for path in niftis(folder):
        if part := _mslub_part(path):
            subject, kind = part
            case = found.setdefault(
                (path.parent, subject), _Case("MSLUB", subject, "", {}, path.parent)
            )
            _add(case, kind, path)
    with_mask = [case for case in found.values() if "brainmask" in case.files]
    cases = with_mask or list(found.values())
    for case in cases:
        twin = next(other for other in cases if other.subject == case.subject)
        if twin is not case:
            raise InputError(
                f"{twin.folder} and {case.folder}: {case.subject} twice (coregistered and resampled?); "
                "give the folder of one of them"
            )
    return cases


def _mslub_part(path: Path) -> tuple[str, str] | None:
    """(patient, kind) of a file of MSLUB, which itself or whose folder names the patient; else None."""
    fits = MSLUB_FILE.fullmatch(path.name)
    home = path.parent.parent if path.parent.name == "raw" else path.parent
    subject = fits["case"] if fits and fits["case"] else home.name
    return (
        (subject, fits["kind"].lower())
        if fits and re.fullmatch(r"patient\d+", subject, re.IGNORECASE)
        else None
    )


def _add(case: _Case, kind: str, path: Path) -> None:
    if kind in case.files:
        raise InputError(
            f"{case.files[kind]} and {path}: two {kind} files of {case.subject}; take one of them away"
        )
    case.files[kind] = path


def _ixi_role(ref: ScanRef, fold: int) -> str:
    place = _draw(f"IXI/{ref.subject}")
    if place < IXI_TEST:
        return "test"
    place = (place - IXI_TEST) / (1 - IXI_TEST)
    return "val" if fold * IXI_VAL <= place < (fold + 1) * IXI_VAL else "train"


def _draw(name: str) -> float:
    """A number in [0, 1) that belongs to the name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:13], 16) / 16**13


FINDERS: dict[str, Callable[[Path], list[_Case]]] = {
    "ixi": _ixi_cases,
    "brats": _brats_cases,
    "mslub": _mslub_cases,
}
KIND_OF: dict[Layout, Callable[[Path], str | None]] = {
    "ixi": _ixi_kind,
    "brats": _brats_kind,
    "mslub": _mslub_kind,
}
