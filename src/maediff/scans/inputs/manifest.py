"""A manifest CSV -> the scans that it lists.

subject,image[,session,brain_mask,lesion_mask,lesion_labels,split,healthy,dataset,t1]     paths relative to it
"""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.files import write_table
from maediff.core.types import MODALITIES, SPLITS
from maediff.scans.names import contrast_of, of_contrast
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


def read_manifest(path: Path, modality: str | None) -> list[ScanRef]:
    """The scans of the manifest `path`, in its order.

    Args:
        modality: which contrast to take where the names of the images tell several.

    Raises:
        InputError: no such table, or one with columns missing, values that mean nothing or files that are not there.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True, restkey="")
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = [
                {key: (value or "").strip() for key, value in row.items() if key} for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8; save the table as one") from error
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
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
        str(file)
        for ref in refs
        for file in ref.files
        if not (file.is_file() or (file == ref.image and file.is_dir()))
    ]
    if not_there:
        raise InputError(
            f"{path}: {len(not_there)} file(s) that it names do not exist: {', '.join(not_there[:5])}"
            f"{' ...' if len(not_there) > 5 else ''}; paths are relative to the manifest's folder"
        )
    # a folder's name does not tell which of its DICOM series is meant
    contrasts = {ref.image: None if ref.image.is_dir() else contrast_of(ref.image) for ref in refs}
    taken = of_contrast(path, contrasts, modality)
    return [ref for ref in refs if ref.image in taken]


def _from_row(manifest: Path, number: int, row: dict[str, str]) -> ScanRef:
    where = f"{manifest}, line {number}"
    subject, image, split = row["subject"], row["image"], row.get("split", "")
    healthy = {"": None, "0": False, "1": True}.get(row.get("healthy", ""), "wrong")
    labels = {"": False, "0": False, "1": True}.get(row.get("lesion_labels", ""))
    if not subject or not image:
        raise InputError(f"{where}: subject and image must not be empty; fill them in")
    if split and split not in SPLITS:
        raise InputError(
            f"{where}: split {split!r}, and it is one of {', '.join(SPLITS)} or empty"
        )
    if isinstance(healthy, str):
        raise InputError(f"{where}: healthy {row['healthy']!r}, and it is 0, 1 or empty")
    if labels is None:
        raise InputError(
            f"{where}: lesion_labels {row['lesion_labels']!r}, and it is 0, 1 or empty"
        )

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
        healthy_is_stated="healthy" in row,
        t1=beside("t1"),
        lesion_labels=labels,
    )


def write_manifest(path: Path, refs: Sequence[ScanRef]) -> None:
    """Write `refs` as a manifest CSV that reads back as the same scans; paths are relative to its folder.

    The column `healthy` is left out where nothing states it, because an empty cell says unknown; beside scans of which
    it is stated, the others get what `preprocess` takes them for.

    Raises:
        InputError: a scan is a DICOM series, which a manifest cannot name, or cannot be taken.
    """
    extra = sorted({key for ref in refs for key in ref.extra})
    stated = any(ref.healthy_is_stated for ref in refs)
    header = [*(name for name in MANIFEST_COLUMNS if stated or name != "healthy"), *extra]
    rows = []
    for ref in refs:
        if ref.problem:
            raise InputError(ref.problem)
        if ref.series:
            raise InputError(
                f"{ref.image}: a DICOM series cannot stand in a manifest; convert it with dcm2niix first"
            )
        *files, t1 = [
            "" if file is None else os.path.relpath(file.absolute(), path.absolute().parent)
            for file in (ref.image, ref.brain_mask, ref.lesion_mask, ref.t1)
        ]
        healthy = [_healthy(ref)] if stated else []
        rows.append(
            [
                ref.subject,
                ref.session,
                *files,
                int(ref.lesion_labels),
                ref.split or "",
                *healthy,
                ref.dataset,
                t1,
                *(ref.extra.get(key, "") for key in extra),
            ]
        )
    write_table(path, header, rows)


def _healthy(ref: ScanRef) -> str:
    """1, 0, or empty for unknown, as `preprocess` takes the scan."""
    if ref.healthy_is_stated:
        return "" if ref.healthy is None else str(int(ref.healthy))
    lesion = (
        ref.lesion_mask
        and read_mask(ref.lesion_mask, read_volume(ref), labels=ref.lesion_labels).any()
    )
    return str(int(not lesion))
