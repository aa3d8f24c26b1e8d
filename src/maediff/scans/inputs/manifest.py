"""Manifest CSV to references, and references to a manifest CSV.

    column           content
    subject, image   required; image is a NIfTI file or a folder of DICOM files
    session          name of the session; empty if the subject has one scan
    brain_mask       NIfTI file
    lesion_mask      NIfTI file
    lesion_labels    1 if each label above 0 of the lesion mask is lesion; else 0 or empty
    split            train, val, test or empty
    healthy          1, 0 or empty for unknown; if absent, scans without lesion are healthy
    dataset          name of the data set; default: the folder of the manifest
    t1               T1w scan of the same session
    others           kept in `ScanRef.extra`

Paths are relative to the folder of the manifest.
"""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.files import write_table
from maediff.core.reading import is_file, is_folder, read_content
from maediff.core.text import FORMULA_STARTS, escape_controls, plain_cell
from maediff.core.types import MODALITIES, SPLITS
from maediff.scans.names import contrast_from_name, select_contrast
from maediff.scans.nifti import read_mask
from maediff.scans.read import read_volume
from maediff.scans.reference import ScanRef

MANIFEST_COLUMNS = (
    "subject",
    "session",
    "image",
    "brain_mask",
    "lesion_mask",
    "lesion_labels",
    "split",
    "healthy",
    "dataset",
    "t1",
)


MAX_SHOWN = 400
"""Letters of an absent path in a message."""


def read_manifest(path: Path, modality: str | None, *, log_others: bool = True) -> list[ScanRef]:
    """Read the scans of a manifest CSV, in the order of its lines.

    Args:
        path: the CSV file, in UTF-8.
        modality: T1w, T2w or FLAIR: the contrast to select if the image names state several.
        log_others: log the lines of other contrasts.

    Raises:
        InputError: the file is unreadable, has no line, lacks a column or has one twice, a line
            has more cells than the header, a cell holds a value that is not allowed, or a file in
            it does not exist.
    """
    columns, rows = _read_rows(path)
    missing = [name for name in ("subject", "image") if name not in columns]
    if missing:
        raise InputError(
            f"{path}: a manifest needs the columns subject,image separated by commas; missing: "
            f"{', '.join(missing)}; found: {', '.join(columns) or 'nothing'}"
        )
    if not rows:
        raise InputError(f"{path}: the manifest lists no scan; add a line for each")
    refs = [_ref_from_row(path, number, row) for number, row in rows]
    absent = [str(file) for ref in refs for file in ref.files if not _exists(file, ref)]
    if absent:
        shown = [
            name if len(name) <= MAX_SHOWN else f"{name[:MAX_SHOWN]}..." for name in absent[:5]
        ]
        raise InputError(
            f"{path}: {len(absent)} file(s) of the manifest do not exist: {', '.join(shown)}"
            f"{' ...' if len(absent) > 5 else ''}; paths are relative to the manifest's folder"
        )
    contrasts: dict[Path, str | None] = {}
    for ref in refs:
        # The name of a DICOM folder does not state which of its series is wanted.
        contrasts[ref.image] = None if ref.image.is_dir() else contrast_from_name(ref.image)
    selected = select_contrast(path, contrasts, modality, log_others=log_others)
    return [ref for ref in refs if ref.image in selected]


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the columns and the lines of a CSV file, without spaces around the cells.

    Returns:
        The names of the columns, and each line that is not empty with its number.
    """
    try:
        handle = io.StringIO(read_content(path).decode("utf-8-sig"), newline="")
        reader = csv.reader(handle, skipinitialspace=True)
        lines = [
            (reader.line_num, [plain_cell(cell.strip()) for cell in cells])
            for cells in reader
            if cells
        ]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a CSV file in UTF-8; save the table as one") from error
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error}); save the table as one") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    columns = lines[0][1] if lines else []
    twice = {name for name in columns if name and columns.count(name) > 1}
    if twice:
        raise InputError(
            f"{path}: the header names {', '.join(sorted(twice))} twice; keep one of the columns"
        )
    rows = []
    for number, cells in lines[1:]:
        if any(cells[len(columns) :]):
            raise InputError(
                f"{path}, line {number}: {len(cells)} cells, and the header has {len(columns)}; "
                "put a cell that holds a comma into quotes"
            )
        cells += [""] * (len(columns) - len(cells))
        row = {name: cell for name, cell in zip(columns, cells, strict=False) if name}
        rows.append((number, row))
    return columns, rows


def _exists(file: Path, ref: ScanRef) -> bool:
    """Check for a file, or for the DICOM folder of an image."""
    return is_file(file) or (file == ref.image and is_folder(file))


def _ref_from_row(manifest: Path, number: int, row: dict[str, str]) -> ScanRef:
    where = f"{manifest}, line {number}"
    subject, image, split = row["subject"], row["image"], row.get("split", "")
    if not subject or not image:
        raise InputError(f"{where}: subject and image must not be empty; fill them in")
    if split and split not in SPLITS:
        raise InputError(f"{where}: split {split!r}; write {', '.join(SPLITS)}, or leave it empty")
    healthy = _parse_flag(where, "healthy", row)
    lesion_labels = _parse_flag(where, "lesion_labels", row)
    contrast = contrast_from_name(Path(image))
    return ScanRef(
        subject=subject,
        session=row.get("session", ""),
        image=manifest.parent / image,
        dataset=row.get("dataset") or manifest.resolve().parent.name,
        brain_mask=_path_in_cell(manifest, "brain_mask", row),
        lesion_mask=_path_in_cell(manifest, "lesion_mask", row),
        split=split or None,
        healthy=healthy,
        modality=contrast if contrast in MODALITIES else None,
        extra={key: value for key, value in row.items() if key not in MANIFEST_COLUMNS},
        healthy_is_stated="healthy" in row,
        t1=_path_in_cell(manifest, "t1", row),
        lesion_labels=bool(lesion_labels),
    )


def _parse_flag(where: str, column: str, row: dict[str, str]) -> bool | None:
    """Return a cell with 0, 1 or nothing as False, True or None."""
    text = row.get(column, "")
    if text not in ("", "0", "1"):
        raise InputError(f"{where}: {column} {text!r}; write 0 or 1, or leave it empty")
    return bool(int(text)) if text else None


def _path_in_cell(manifest: Path, column: str, row: dict[str, str]) -> Path | None:
    return manifest.parent / row[column] if row.get(column) else None


def write_manifest(path: Path, refs: Sequence[ScanRef]) -> None:
    """Write references as a manifest CSV, from which `read_manifest` reads the same scans.

    The column `healthy` is omitted if no scan states `healthy`, because an empty cell means
    unknown. If some scans state it, the others get the value that `preprocess` would give them.

    Args:
        path: the CSV file; paths in it are relative to its folder.
        refs: the scans.

    Raises:
        InputError: a scan is a DICOM series, which a manifest cannot hold, or has a `problem`; or
            a lesion mask whose content is needed is unusable.
    """
    extra = sorted({key for ref in refs for key in ref.extra})
    has_healthy = any(ref.healthy_is_stated for ref in refs)
    columns = [name for name in MANIFEST_COLUMNS if has_healthy or name != "healthy"]
    rows = []
    for ref in refs:
        if ref.problem:
            raise InputError(ref.problem)
        if ref.series:
            raise InputError(
                f"{ref.image}: a manifest cannot hold a DICOM series; convert it with dcm2niix "
                "first"
            )
        cells: dict[str, str] = {
            "subject": ref.subject,
            "session": ref.session,
            "image": _relative_path(ref.image, path),
            "brain_mask": _relative_path(ref.brain_mask, path),
            "lesion_mask": _relative_path(ref.lesion_mask, path),
            "lesion_labels": str(int(ref.lesion_labels)),
            "split": ref.split or "",
            "healthy": _healthy_cell(ref) if has_healthy else "",
            "dataset": ref.dataset,
            "t1": _relative_path(ref.t1, path),
        }
        rows.append(
            [*(cells[name] for name in columns), *(ref.extra.get(key, "") for key in extra)]
        )
    write_table(path, [*columns, *extra], rows)


def _relative_path(file: Path | None, manifest: Path) -> str:
    """Return a path relative to the manifest's folder; empty for None."""
    if file is None:
        return ""
    # The system follows links before "..", and the files themselves may be links.
    file = file.parent.resolve() / file.name
    try:
        path = os.path.relpath(file, manifest.parent.resolve())
    except ValueError:  # on another drive of Windows
        path = str(file)
    if path != escape_controls(path):
        raise InputError(
            f"{file}: its path holds control characters, which a manifest cannot hold; rename it"
        )
    return f"./{path}" if path.startswith(FORMULA_STARTS) else path  # no formula, the same file


def _healthy_cell(ref: ScanRef) -> str:
    """Return 1, 0, or nothing for unknown, as `preprocess` decides it."""
    if ref.healthy_is_stated:
        return "" if ref.healthy is None else str(int(ref.healthy))
    if ref.lesion_mask is None:
        return "1"
    lesion = read_mask(ref.lesion_mask, read_volume(ref), labels=ref.lesion_labels)
    return str(int(not lesion.any()))
