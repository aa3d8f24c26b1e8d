"""Report of a cohort: the number of scans, and a picture of each flagged scan."""

import csv
from pathlib import Path

from maediff.core.files import read_json
from maediff.report.elements import Montage, Page, Section, Table, flat
from maediff.report.slices import file_uri

QC_COLUMNS = {
    "brain_ml": "Brain, ml",
    "atlas_overlap": "Overlap with the atlas",
    "brain_mask": "Brain mask",
}
PICTURE = ("Brain outline", "on the scan", "qc.png")


def cohort_page(folder: Path) -> Page:
    """The page of a cohort."""
    about = read_json(folder / "cohort.json")
    with (folder / "qc.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    failed, flagged = (
        [row for row in rows if row["status"] == status] for status in ("failed", "flagged")
    )
    montages = [_montage(folder, row, number) for number, row in enumerate(flagged)]
    table = Table(
        ["Scan", "Status", "Check", *QC_COLUMNS.values(), "Notes"],
        [
            [
                row["name"],
                row["status"],
                row["flags"],
                *(row.get(key) or "" for key in QC_COLUMNS),
                row["notes"],
            ]
            for row in rows
        ],
        marked=[number for number, row in enumerate(rows) if row["status"] != "ok"],
    )
    lead = (
        f"{len(rows) - len(failed)} of {len(rows)} scans went through; {len(flagged)} of them "
        "should be looked at."
    )
    facts = [
        ("Contrast", str(about["modality"])),
        ("Failed", str(len(failed))),
        ("Flagged", str(len(flagged))),
        *_splits(about.get("n_subjects") or {}),
    ]
    sections = [Section("Scans", tables=[table])]
    if montages:
        sections.insert(0, Section("To look at", montages=montages))
    known = ("modality", "n_scans", "n_subjects", "n_failed", "format")
    settings = {key: value for key, value in about.items() if key not in known}
    return Page(
        "Preprocessing",
        folder.resolve().name,
        lead,
        facts,
        [*sections, Section("Settings", facts=flat(settings))],
    )


def _splits(numbers: dict[str, int]) -> list[tuple[str, str]]:
    """Return the number of subjects in each split as a fact; none for older cohorts."""
    text = ", ".join(f"{number} {split}" for split, number in numbers.items())
    return [("Subjects", text)] if text else []


def _montage(folder: Path, row: dict[str, str], number: int) -> Montage:
    picture = folder / row["name"] / PICTURE[2]
    return Montage(
        row["name"],
        f"scan-{number}",
        [(label, row[key]) for key, label in QC_COLUMNS.items() if row.get(key)],
        [(*PICTURE[:2], file_uri(picture))] if picture.is_file() else [],
        flags=row["flags"].split("; "),
    )
