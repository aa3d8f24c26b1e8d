"""Report of a cohort: splits, the outline of every brain, and each flagged scan in detail.

qc.png of a scan shows the scan on its own grid. Cohorts of older versions have it for flagged
scans only. The picture of any other scan is then made of its prepared image, which is 0 outside
the brain.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.core.text import plain_cell
from maediff.preparation.picture import render_picture
from maediff.report import slices
from maediff.report.elements import Facts, Montage, Page, Section, Table, Tile, flat
from maediff.scans.nifti import read_mask, read_nifti

QC_COLUMNS = {
    "brain_ml": "Brain, ml",
    "lesion_ml": "Lesion, ml",
    "atlas_overlap": "Overlap with the atlas",
    "brain_mask": "Brain mask",
}
DECIMALS = {"brain_ml": "{:.0f}", "lesion_ml": "{:.1f}", "atlas_overlap": "{:.3f}"}
HEALTH = {"1": "healthy", "0": "with a lesion", "": "health unknown"}
PICTURE = ("Brain outline", "on the scan", "qc.png")
BLACK, FRAME = 24, 2
"""Level up to which a pixel is background, and pixels of background around a view."""
SORTABLE_FROM = 20
"""Number of scans from which the table can be sorted and filtered."""

Rows = Mapping[str, Mapping[str, str]]
"""Lines of a table by the name of the scan."""


def cohort_page(folder: Path) -> Page:
    """Return the page of a cohort.

    A scan whose files are missing or damaged is named, and the others are shown.

    Raises:
        InputError: cohort.json is missing or damaged.
    """
    about = read_json(folder / "cohort.json")
    notes: list[str] = []
    scans = _read_lines(folder / "manifest.csv", notes)
    checks = _read_lines(folder / "qc.csv", notes)
    names = sorted({*scans, *checks})
    failed = [name for name in names if checks.get(name, {}).get("status") == "failed"]
    flagged = [name for name in names if checks.get(name, {}).get("status") == "flagged"]
    kept = [name for name in names if name not in failed]
    contrast = str(about.get("modality", "unknown"))
    tiles = [_make_tile(folder, name, contrast, scans, checks) for name in kept]
    sections = [
        Section(
            "Scans to look at",
            text=["Look at the outline and the scan before you use these scans."],
            montages=[
                _make_montage(folder, name, checks[name], scans.get(name, {}), number)
                for number, name in enumerate(flagged)
            ],
        ),
        Section(
            "Brain outlines",
            text=[
                "Every scan with the outline of its brain mask: three axial views, a coronal and "
                "a sagittal view. Left in a picture is the patient's left."
            ],
            gallery=tiles,
        ),
        Section("Scans", tables=[_make_table(names, scans, checks)] if names else []),
    ]
    if not flagged:
        sections.pop(0)
    if notes:
        sections.insert(0, Section("Missing parts", text=notes))
    known = ("modality", "n_scans", "n_subjects", "n_failed", "format")
    settings = {key: value for key, value in about.items() if key not in known}
    sections.append(Section("Settings", facts=flat(settings)))
    lead = (
        f"{len(kept)} of {len(names)} scans were prepared. "
        f"Quality control flagged {len(flagged) or 'none'} of them."
    )
    facts = [
        ("Contrast", contrast),
        ("Scans by split", _count(scans, kept, "split")),
        ("Health", _count(scans, kept, "healthy", HEALTH)),
        ("Data sets", _count(scans, kept, "dataset")),
        ("Failed", str(len(failed))),
        ("Flagged", str(len(flagged))),
        *_count_subjects(about.get("n_subjects") or {}),
    ]
    return Page("Cohort", folder.resolve().name, lead, facts, sections)


def _count_subjects(numbers: Mapping[str, int]) -> Facts:
    """Return the number of subjects in each split as a fact; none for older cohorts."""
    text = ", ".join(f"{split} {number}" for split, number in numbers.items())
    return [("Subjects by split", text)] if text else []


def _read_lines(path: Path, notes: list[str]) -> dict[str, dict[str, str]]:
    """Return the lines of manifest.csv or qc.csv by scan; add a note if the file is unusable."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [
                {key: plain_cell(value or "") for key, value in line.items() if key is not None}
                for line in csv.DictReader(file)
            ]
        return {_name_scan(line): line for line in lines}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        notes.append(
            f"{path.name} cannot be read ({type(error).__name__}), so its columns are missing "
            "here; preprocess again."
        )
        return {}


def _name_scan(line: Mapping[str, str]) -> str:
    """Return the name of the scan in a line: `name` of qc.csv, or subject and session."""
    if "name" in line:
        return line["name"]
    return f"{line['subject']}_{line['session']}" if line["session"] else line["subject"]


def _count(
    scans: Rows, names: Sequence[str], column: str, labels: Mapping[str, str] | None = None
) -> str:
    """Return how many scans have each value of a column, as "train 10, val 2"."""
    counts = Counter(scans[name].get(column, "") for name in names if name in scans)
    order = ("train", "val", "test", "1", "0", "")
    keys = sorted(counts, key=lambda key: (order.index(key) if key in order else -1, key))
    return ", ".join(f"{(labels or {}).get(key, key)} {counts[key]}" for key in keys) or "unknown"


def _make_tile(folder: Path, name: str, contrast: str, scans: Rows, checks: Rows) -> Tile:
    """Return the tile of a scan; its note names a damaged picture."""
    scan, check = scans.get(name, {}), checks.get(name, {})
    notes = [scan.get("split", ""), contrast, HEALTH.get(scan.get("healthy", ""), "")]
    if check.get("brain_ml"):
        notes.append(f"brain {float(check['brain_ml']):.0f} ml")
    image = ""
    try:
        image = slices.small_uri(crop_views(_render_outline(folder / name)))
    except InputError as error:
        notes.append(f"no picture: {str(error).replace(f'{folder / name}/', '')}")
    flag = check.get("flags", "") if check.get("status") == "flagged" else ""
    return Tile(name, " · ".join(note for note in notes if note), image, flag)


def _render_outline(folder: Path) -> slices.RGB:
    """Return the picture of a scan's brain outline.

    Raises:
        InputError: the scan has neither a picture nor a prepared image.
    """
    if (folder / PICTURE[2]).is_file():
        return slices.read_picture(folder / PICTURE[2])
    volume = read_nifti(folder / "image.nii.gz")
    return render_picture(volume, read_mask(folder / "brain_mask.nii.gz", volume))


def crop_views(picture: slices.RGB) -> slices.RGB:
    """Return a row of square views without the black frame that all of them have.

    Args:
        picture: square views side by side, for example of `render_picture`.
    """
    side = picture.shape[0]
    views = picture[:, : picture.shape[1] // side * side].reshape(side, -1, side, 3)
    bright = views.max(axis=(1, 3)) > BLACK
    if not bright.any():
        return picture
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    top, left = max(0, rows[0] - FRAME), max(0, columns[0] - FRAME)
    cropped = views[top : rows[-1] + FRAME + 1, :, left : columns[-1] + FRAME + 1]
    return np.ascontiguousarray(cropped.reshape(cropped.shape[0], -1, 3))


def _make_table(names: Sequence[str], scans: Rows, checks: Rows) -> Table:
    """Return the table of all scans: split, health, quality control; without empty columns."""
    rows = []
    for name in names:
        scan, check = scans.get(name, {}), checks.get(name, {})
        health = HEALTH.get(scan.get("healthy", ""), "") if scan else ""
        keys = ("flags", *QC_COLUMNS, "notes")
        status = check.get("status", "no line in qc.csv")
        cells = [_format_cell(key, check.get(key) or "") for key in keys]
        rows.append([name, scan.get("split", ""), health, status, *cells])
    head = ["Scan", "Split", "Health", "Status", "Flags", *QC_COLUMNS.values(), "Notes"]
    marked = [number for number, row in enumerate(rows) if row[3] != "ok"]
    used = [column for column in range(len(head)) if any(row[column] for row in rows)]
    head, rows = [head[n] for n in used], [[row[n] for n in used] for row in rows]
    return Table(head, rows, marked=marked, sortable=len(rows) > SORTABLE_FROM)


def _format_cell(column: str, text: str) -> str:
    """Return a cell of qc.csv for the page: numbers are rounded."""
    try:
        return DECIMALS[column].format(float(text)) if column in DECIMALS else text
    except ValueError:
        return text


def _make_montage(
    folder: Path, name: str, check: Mapping[str, str], scan: Mapping[str, str], number: int
) -> Montage:
    """Return a flagged scan with its picture in full size."""
    montage = Montage(
        name,
        f"scan-{number}",
        [("Split", scan["split"])] if scan.get("split") else [],
        [],
        flags=check.get("flags", "").split("; "),
    )
    montage.facts += [(label, check[key]) for key, label in QC_COLUMNS.items() if check.get(key)]
    try:
        picture = slices.small_uri(_render_outline(folder / name), quality=90)
        montage.rows = [(*PICTURE[:2], picture)]
    except InputError as error:
        montage.flags.append(f"No picture: {str(error).replace(f'{folder / name}/', '')}")
    return montage
