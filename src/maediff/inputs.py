"""What a user names on the command line -> the list of scans meant by it.

    NIfTI file       the scan
    folder           every NIfTI in it, at any depth, but masks (*mask* *seg* *consensus* *gt*)
    BIDS dataset     (dataset_description.json) sub-*/**/*_<T1w|T2w|FLAIR>.nii[.gz]
    manifest CSV     subject,image[,session,brain_mask,lesion_mask,lesion_labels,split,healthy,dataset,t1], paths
                     relative to it

A subject is named by its BIDS entities, else by the path relative to what was given. Nothing here opens a scan.
DICOM folders and the layouts of known data sets come on top in `sources`.
"""

import csv
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from maediff.errors import InputError
from maediff.files import MARKER

logger = logging.getLogger(__name__)
Modality = Literal["T1w", "T2w", "FLAIR"]
Split = Literal["train", "val", "test"]
MODALITIES: tuple[str, ...] = get_args(Modality)
SPLITS: tuple[str, ...] = get_args(Split)
MANIFEST_COLUMNS = (
    "subject", "session", "image", "brain_mask", "lesion_mask", "lesion_labels", "split", "healthy", "dataset",
    "t1",
)  # fmt: skip
RESERVED = {"cache", "manifest.csv", "qc.csv", "cohort.json", "detect.json", "report.html"}  # beside scans' folders
NOT_SCANS = re.compile("mask|seg|consensus|gt", re.IGNORECASE)
# Words in file names that tell the contrast. "other": never taken for one of ours (contrast agent, proton density).
# `post`, `ce`, `gd` count as the others do, by the last word: `post_T1` may be a time point, `T1_post` is not plain.
CONTRAST_WORDS = {
    "t1": "T1w",
    "t1w": "T1w",
    "t1n": "T1w",
    "t2": "T2w",
    "t2w": "T2w",
    "flair": "FLAIR",
    "t2f": "FLAIR",
    "t1ce": "other",
    "t1c": "other",
    "t1post": "other",
    "t1gd": "other",
    "post": "other",
    "ce": "other",
    "gd": "other",
    "gado": "other",
    "pd": "other",
    "mra": "other",
    "tof": "other",
    "dti": "other",
    "dwi": "other",
    "adc": "other",
    "swi": "other",
    "bold": "other",
}
# A contrast agent, wherever the words stand (lower case, spaces for _ - and full stops): no name of a time point or a
# person is like them.
OTHER_BY_NAME = "with contrast agent or of other kinds by their names"
AGENT = re.compile(
    r"\bt1w? ?(gd|gad|gado\w*|km|ce|post(?!erior)\w*)\b|\bgado|\bpost ?(con|gd|gad|km)|\b[ck]ontrast|\bc ?\+|"
    r"\+ ?(c|gd|km)\b|"
    r"\b(gadavist|dotarem|dotagraf|clariscan|magnevist|magnograf|prohance|multihance|omniscan|optimark|vasovist|"
    r"primovist|eovist|ablavar|elucirem|vueway|artirem|cyclolux)\b"
)
NO_AGENT = re.compile(
    r"\b(w(ith)?\W*o(ut)?|no|non|pre|ohne)(\W*(i\W?v|gad\w*|gd|km|enh\w*|[ck]ontrast\w*))+\b"  # w/o iv contrast
)
WITH = re.compile(r"\b(w|with|mit)\b(?!\W*(o|out|no)\b)")


@dataclass(frozen=True)
class ScanRef:
    """One scan and what is known about it; `None` is unknown.

    Args:
        session: BIDS entities but the subject's (`ses-2_run-1`), or the manifest's; empty if there is only one.
        modality: as far as the name tells.
        extra: further columns of the manifest.
        stated: whether a manifest had a `healthy` column, so that an empty cell means unknown.
        t1: a T1w of the same session, for a scan of another contrast; a folder where it is DICOM.
        t1_series: SeriesInstanceUID of a `t1` in DICOM; compared, never written.
        problem: why it cannot be read, where that is known already: it fails by name and the other scans go on.
        lesion_labels: whether the lesion mask holds several labels, each of which is lesion (BraTS), not 0 and 1.
        series: SeriesInstanceUID where `image` is a folder of DICOM; compared, never written.
    """

    subject: str
    session: str
    image: Path
    dataset: str
    brain_mask: Path | None = None
    lesion_mask: Path | None = None
    split: str | None = None
    healthy: bool | None = None
    modality: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    stated: bool = False
    t1: Path | None = None
    lesion_labels: bool = False
    series: str | None = field(default=None, repr=False)
    t1_series: str | None = field(default=None, repr=False)
    problem: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The scan's own name, that of its folder in every output: subject, or subject_session."""
        return f"{self.subject}_{self.session}" if self.session else self.subject

    @property
    def files(self) -> list[Path]:
        """All that results are made from: the image (a file, or a folder of DICOM), the masks, the T1w."""
        return [path for path in (self.image, self.brain_mask, self.lesion_mask, self.t1) if path is not None]


def is_nifti(path: Path) -> bool:
    """Whether the name says NIfTI."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def is_dicom(path: Path) -> bool:
    """Whether it is a DICOM file by its name, or by `DICM` at byte 128 (DICOM PS3.10, section 7.1).

    A file that cannot be read and is not named so is none.
    """
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_scans(inputs: Sequence[Path], modality: str | None = None) -> list[ScanRef]:
    """Every scan meant by `inputs`, in a stable order.

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
    files = [path for path in paths if (path.is_file() and path.suffix.lower() != ".csv") or absent(path)]
    base = Path(os.path.commonpath([path.absolute().parent for path in files])) if files else Path()
    taken = _of_contrast(base, {path: contrast_of(path) for path in files}, modality)
    refs: list[ScanRef] = []
    for path in paths:
        if path.is_dir():
            bids = (path / "dataset_description.json").is_file()
            refs += _from_bids(path, modality) if bids else _from_folder(path, modality)
        elif not path.exists() and path not in files:
            raise InputError(f"{path}: no such file or folder; check the path")
        elif path.suffix.lower() == ".csv":
            refs += _from_manifest(path, modality)
        else:
            ref = _from_file(path, base)
            refs += [ref] if path in taken else []
    if not refs:
        raise InputError("no input was given; name a NIfTI file, a folder, a BIDS dataset or a manifest CSV")
    check_names(refs)
    refs = [replace(ref, problem=absent(ref.image)) for ref in refs]
    alone = [ref.image for ref in refs if not (ref.t1 or ref.modality == "T1w")]
    t1s = {folder: t1s_by_session(folder) for folder in {image.parent for image in alone}}
    return [replace(ref, t1=t1s[ref.image.parent].get(session_of(ref.image))) if ref.image in alone else ref
            for ref in refs]  # fmt: skip


def t1s_by_session(folder: Path) -> dict[tuple[str, ...], Path]:
    """The T1w scans in `folder` itself, the first by name of each `session_of`."""
    if not folder.is_dir():
        return {}
    t1s = [path for path in sorted(folder.iterdir()) if is_nifti(path) and contrast_of(path) == "T1w"]
    return {session_of(path): path for path in reversed(t1s)}


def session_of(path: Path) -> tuple[str, ...]:
    """What the scans of one session in a folder share: BIDS subject and session, else all words but the contrast's."""
    bids = _bids_name(path)
    if bids:
        return bids[0], *(part for part in bids[1].split("_") if part.startswith("ses-"))
    return tuple(word for word in _words(path) if CONTRAST_WORDS.get(word) not in MODALITIES)


def contrast_of(path: Path) -> str | None:
    """T1w, T2w, FLAIR or "other" as the last word of the file's name that tells it, else None.

    A contrast agent (of a BIDS name: `ce-`, or in `acq-`) and a phase, real or imaginary part (`part-`) are "other".
    """
    bids = _bids_name(path)
    if bids:
        labels = dict(entity.split("-", 1) for entity in bids[1].split("_") if entity)
        if "ce" in labels or labels.get("part", "mag") != "mag" or AGENT.search(f"t1{labels.get('acq', '')}".lower()):
            return "other"
        return CONTRAST_WORDS.get(_words(path)[-1])
    text = affirmed(re.sub(r"[_.-]", " ", _stem(path).lower()))
    if AGENT.search(text):
        return "other"
    words = re.split(r"[^a-z0-9]+", text)
    return next((CONTRAST_WORDS[word] for word in reversed(words) if word in CONTRAST_WORDS), None)


def affirmed(text: str) -> str:
    """`text` without the contrast agent that it denies (`pre contrast`), all of it where it says `with` as well.

    Args:
        text: lower case, no `_`; "brain w wo contrast" is a study's name and leaves open which of both it is.
    """
    return text if WITH.search(text) else NO_AGENT.sub(" ", text)


def _from_file(path: Path, base: Path) -> ScanRef:
    if is_dicom(path):
        raise InputError(f"{path}: one DICOM file is one slice; give the folder that holds its series")
    if not is_nifti(path):
        raise InputError(f"{path}: not a NIfTI file (.nii or .nii.gz), a folder or a manifest CSV; convert it")
    bids = _bids_name(path)
    subject, session = bids or (_relative_name(path.absolute(), base), "")
    said = path.name.partition("_")[2] if bids else path.name  # `gt` may stand in a BIDS subject's label
    if NOT_SCANS.search(said):
        raise InputError(
            f"{path}: by its name a mask (*mask*, *seg*, *consensus*, *gt*), not a scan; rename it if it is one"
        )
    contrast = contrast_of(path)
    return ScanRef(
        subject, session, path, path.absolute().parent.name, modality=contrast if contrast in MODALITIES else None
    )


def _of_contrast(place: Path, contrasts: dict[Path, str | None], modality: str | None) -> set[Path]:
    """The named scans that are to be taken: where names tell several contrasts, those that tell `modality` or none."""
    told = {contrast for contrast in contrasts.values() if contrast}
    if modality is None or len(told) < 2:
        return set(contrasts)
    if modality not in told:
        raise InputError(f"{place}: the names of its scans tell {' and '.join(sorted(told))}, and --modality says "
                         f"{modality}; give those of one contrast")  # fmt: skip
    taken = {path for path, contrast in contrasts.items() if contrast in (modality, None)}
    names = sorted(path.name for path in contrasts if path not in taken)
    logger.warning("%s: %d named scan(s) left out, not %s by their names: %s%s; a manifest CSV of their own takes them",
                   place, len(names), modality, ", ".join(names[:5]), " ..." if len(names) > 5 else "")  # fmt: skip
    return taken


def _from_folder(folder: Path, modality: str | None) -> list[ScanRef]:
    every = list(niftis(folder))
    found = [path for path in every if not NOT_SCANS.search(path.name)]
    say_left_out(folder, set(every) - set(found), "masks by their names")
    say_left_out(folder, (path for path in found if contrast_of(path) == "other"), OTHER_BY_NAME)
    contrasts = {contrast_of(path) for path in found}
    ours = [name for name in MODALITIES if name in contrasts]
    if modality is None and len(ours) > 1:
        raise InputError(f"{folder}: holds {' and '.join(ours)}; say which with --modality")
    wanted = {modality, None} if modality else contrasts - {"other"}
    found = [path for path in found if contrast_of(path) in wanted]
    if not found:
        raise InputError(
            f"{folder}: no NIfTI scan{f' of modality {modality}' if modality else ''} in this folder "
            "(masks are left out by name); check the path, or write a manifest CSV"
        )
    refs = []
    for path in found:
        subject, session = _bids_name(path) or (_relative_name(path, folder), "")
        contrast = contrast_of(path)
        refs.append(ScanRef(subject, session, path, folder.resolve().name, modality=contrast or modality))
    return refs


def _from_bids(root: Path, modality: str | None) -> list[ScanRef]:
    by_suffix: dict[str, list[ScanRef]] = {}
    nameless: list[Path] = []
    others: list[Path] = []
    for folder in sorted(path for path in root.glob("sub-*") if path.is_dir()):
        for path in niftis(folder):
            bids = _bids_name(path)
            suffix = _stem(path).rsplit("_", 1)[-1]
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


def say_left_out(place: Path, paths: Iterable[Path], why: str) -> None:
    """Log the files in the folder `place` that are not taken for scans."""
    names = sorted(str(path.relative_to(place)) for path in paths)
    if names:
        logger.warning("%s: %d NIfTI file(s) left out, %s: %s%s; a manifest CSV can name them",
                       place, len(names), why, ", ".join(names[:5]), " ..." if len(names) > 5 else "")  # fmt: skip


def _from_manifest(path: Path, modality: str | None) -> list[ScanRef]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True, restkey="")
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8; save the table as one") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    missing = [name for name in ("subject", "image") if name not in columns]
    if missing:
        raise InputError(
            f"{path}: a manifest needs the columns subject,image separated by commas; missing: "
            f"{', '.join(missing)}; found: {', '.join(columns) or 'nothing'}"
        )
    if not rows:
        raise InputError(f"{path}: the manifest lists no scan; add a line for each")
    refs = [_from_row(path, number, row) for number, row in enumerate(rows, start=2)]
    not_there = [
        str(file) for ref in refs for file in ref.files if not (file.is_file() or (file == ref.image and file.is_dir()))
    ]
    if not_there:
        raise InputError(
            f"{path}: {len(not_there)} file(s) that it names do not exist: {', '.join(not_there[:5])}"
            f"{' ...' if len(not_there) > 5 else ''}; paths are relative to the manifest's folder"
        )
    # a folder's name does not tell which of its DICOM series is meant
    contrasts = {ref.image: None if ref.image.is_dir() else contrast_of(ref.image) for ref in refs}
    taken = _of_contrast(path, contrasts, modality)
    return [ref for ref in refs if ref.image in taken]


def _from_row(manifest: Path, number: int, row: dict[str, str]) -> ScanRef:
    where = f"{manifest}, line {number}"
    subject, image, split = row["subject"], row["image"], row.get("split", "")
    healthy = {"": None, "0": False, "1": True}.get(row.get("healthy", ""), "wrong")
    labels = {"": False, "0": False, "1": True}.get(row.get("lesion_labels", ""))
    if not subject or not image:
        raise InputError(f"{where}: subject and image must not be empty; fill them in")
    if split and split not in SPLITS:
        raise InputError(f"{where}: split {split!r}, and it is one of {', '.join(SPLITS)} or empty")
    if isinstance(healthy, str):
        raise InputError(f"{where}: healthy {row['healthy']!r}, and it is 0, 1 or empty")
    if labels is None:
        raise InputError(f"{where}: lesion_labels {row['lesion_labels']!r}, and it is 0, 1 or empty")

    def beside(name: str) -> Path | None:
        return manifest.parent / row[name] if row.get(name) else None

    contrast = contrast_of(Path(image))
    return ScanRef(
        subject=subject,
        session=row.get("session", ""),
        image=manifest.parent / image,
        dataset=row.get("dataset") or manifest.resolve().parent.name,
        brain_mask=beside("brain_mask"),
        lesion_mask=beside("lesion_mask"),
        split=split or None,
        healthy=healthy,
        modality=contrast if contrast in MODALITIES else None,
        extra={key: value for key, value in row.items() if key not in MANIFEST_COLUMNS},
        stated="healthy" in row,
        t1=beside("t1"),
        lesion_labels=labels,
    )


def check_names(refs: Iterable[ScanRef]) -> None:
    """Refuse names that cannot be folders' or are maediff's own, two scans of one name, and a subject in two splits."""
    seen: dict[str, ScanRef] = {}
    split_of_subject: dict[tuple[str, str], ScanRef] = {}
    for ref in refs:
        if not re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f.][^/\\:*?\"<>|\x00-\x1f]*", ref.name):
            raise InputError(
                f"{ref.image}: the name {ref.name!r} cannot be a folder's; use letters, digits, "
                "- and _ (not first a full stop)"
            )
        if ref.name.casefold() in RESERVED:
            raise InputError(f"{ref.image}: a scan cannot be named {ref.name}, which maediff puts beside the scans "
                             "in its output; rename it")  # fmt: skip
        twin = seen.setdefault(ref.name.casefold(), ref)
        if twin is not ref:
            raise InputError(
                f"two scans are both named {ref.name}: {twin.image} and {ref.image}; rename one, or tell "
                "them apart by session in a manifest CSV"
            )
        first = split_of_subject.setdefault((ref.dataset, ref.subject), ref)
        if first.split != ref.split:
            raise InputError(
                f"subject {ref.subject} stands in split {first.split or 'unknown'} ({first.image}) and "
                f"in {ref.split or 'unknown'} ({ref.image}); one person belongs to one split"
            )


def niftis(folder: Path) -> Iterator[Path]:
    """NIfTI files at any depth, sorted, without hidden ones and without what maediff wrote below the folder.

    Links that lead nowhere are among them, so that each fails by name (`absent`).
    """
    for path in _entries(folder):
        ours = (path.parent / "image.json").exists() and (path.parent.parent / MARKER).exists()  # a scan of a cohort
        if is_nifti(path) and (path.is_file() or absent(path)) and not ours:
            yield path


def visible(folder: Path) -> Iterator[Path]:
    """Files at any depth, sorted, without hidden ones and without those in a folder below that maediff wrote."""
    return (path for path in _entries(folder) if path.is_file())


def absent(path: Path) -> str | None:
    """What to say of a link that leads nowhere, None of all else."""
    if not path.is_symlink() or path.exists():
        return None
    return f"{path}: a link whose content is not there; `datalad get` it (git-annex, DataLad), or copy it"


def _entries(folder: Path) -> list[Path]:
    """What `visible` looks among, and links that lead nowhere; folders behind links are entered, none of them twice."""
    found: list[Path] = []
    seen: set[Path] = set()
    places = [folder]
    for place in places:  # grows by the links, which come after all else, so that a scan has the name of its own folder
        for root, folders, files in os.walk(place):
            here = Path(root)
            ours = MARKER in files and here != folder
            if ours or here.resolve() in seen:
                folders.clear()
                continue
            seen.add(here.resolve())
            folders[:] = [name for name in folders if not name.startswith(".")]
            places += sorted(here / name for name in folders if (here / name).is_symlink())
            found += [here / name for name in files if not name.startswith(".")]
    return sorted(found)


def _stem(path: Path) -> str:
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def _words(path: Path) -> list[str]:
    return re.split(r"[^a-z0-9]+", _stem(path).lower())


def _relative_name(path: Path, base: Path) -> str:
    return "_".join([*path.relative_to(base).parts[:-1], _stem(path)])


def _bids_name(path: Path) -> tuple[str, str] | None:
    """`sub-01_ses-2_run-1_T1w.nii.gz` -> ("sub-01", "ses-2_run-1"); None if the name is not of that kind."""
    *entities, suffix = _stem(path).split("_")
    if not entities or not re.fullmatch(r"sub-[^-_]+", entities[0]) or "-" in suffix:
        return None
    if not all(re.fullmatch(r"[A-Za-z]+-[^-_]+", entity) for entity in entities):
        return None
    return entities[0], "_".join(entities[1:])
