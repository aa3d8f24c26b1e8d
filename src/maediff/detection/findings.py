"""Findings as a sentence, and as tables: regions of a scan, and scans of a folder.

    regions.tsv                  one row per region, largest first
    participants_findings.tsv    one row per scan: flags, contrast, score, volume, regions, version

Both are tab-separated with a header, as in BIDS; an unknown value is "n/a". A cell never starts a
formula in a spreadsheet program and holds no control character.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maediff.core.files import write_text
from maediff.core.text import escape_cell
from maediff.models.thresholds import describe_healthy
from maediff.preparation.quality.flags import describe_flags

REGION_COLUMNS = (
    "region",
    "volume_ml",
    "peak",
    "mean",
    "x_mm",
    "y_mm",
    "z_mm",
    "mni_x_mm",
    "mni_y_mm",
    "mni_z_mm",
    "side",
    "location",
)
SCAN_COLUMNS = (
    "participant_id",
    "status",
    "flag_codes",
    "flags",
    "modality",
    "score",
    "threshold",
    "volume_ml",
    "n_regions",
    "largest_region_ml",
    "largest_region_location",
    "brain_ml",
    "model",
    "maediff_version",
    "reason",
)
MISSING = "n/a"
REPAIR = "delete it and resume the command that made it: finished scans are kept"
"""Remedy for a damaged detect.json: `detect` writes it again before it looks for results."""


def describe_finding(summary: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Return a line about a scan for the terminal and for logs: flags, finding, what is usual.

    Args:
        summary: content of summary.json.
        shared: content of detect.json.
    """
    flags = describe_flags(summary["qc"])
    parts = [
        f"FLAGGED ({' | '.join(flags)})" if flags else "",
        _count_regions(summary),
        f"score {summary['score']:.3g}, threshold {summary['threshold']:.3g}",
        describe_usual(shared),
    ]
    return f"{summary['subject']}: {'; '.join(part for part in parts if part)}"


def describe_usual(shared: Mapping[str, Any]) -> str:
    """Return what the model detects in its healthy calibration scans; empty if that is unknown.

    Args:
        shared: content of detect.json.
    """
    usual = describe_healthy(shared.get("threshold_from") or {})
    return f"in healthy scans, {shared['model']} detects {usual}" if usual else ""


def _count_regions(summary: Mapping[str, Any]) -> str:
    """Return number, volume and the largest of the regions."""
    regions = summary["regions"]
    if not regions:
        return "no region"
    text = f"{len(regions)} region{'s' * (len(regions) > 1)}, {summary['volume_ml']:.1f} ml"
    place = regions[0].get("location")
    if len(regions) == 1:
        return f"{text}{f', {place}' if place else ''}"
    return f"{text}, largest {regions[0]['volume_ml']:.1f} ml{f', {place}' if place else ''}"


def write_regions(path: Path, regions: Sequence[Mapping[str, Any]]) -> None:
    """Write regions.tsv.

    Args:
        path: the file.
        regions: the entry `regions` of summary.json.
    """
    rows = [
        [
            number,
            region["volume_ml"],
            region["peak"],
            region.get("mean"),
            *region["center_mm"],
            *(region.get("mni_mm") or (None, None, None)),
            region.get("side"),
            region.get("location"),
        ]
        for number, region in enumerate(regions, start=1)
    ]
    _write_tsv(path, REGION_COLUMNS, rows)


def write_findings(
    path: Path, summaries: Sequence[Mapping[str, Any]], failures: Mapping[str, str]
) -> None:
    """Write participants_findings.tsv.

    Args:
        path: the file.
        summaries: content of summary.json of each finished scan.
        failures: the reason for each scan that failed, by name.
    """
    rows = [_make_scan_row(summary) for summary in summaries]
    empty = [None] * (len(SCAN_COLUMNS) - 3)
    rows += [[name, "failed", *empty, reason] for name, reason in failures.items()]
    _write_tsv(path, SCAN_COLUMNS, sorted(rows, key=lambda row: str(row[0])))


def _make_scan_row(summary: Mapping[str, Any]) -> list[Any]:
    regions = summary["regions"]
    flags = summary["qc"].get("flags", [])
    return [
        summary["subject"],
        "flagged" if flags else "ok",
        ", ".join(summary["qc"].get("flag_codes", [])),
        "; ".join(flags),
        summary["modality"],
        summary["score"],
        summary["threshold"],
        summary["volume_ml"],
        len(regions),
        regions[0]["volume_ml"] if regions else 0.0,
        regions[0].get("location") if regions else None,
        summary["qc"].get("brain_ml"),
        summary["model"],
        summary["versions"]["maediff"],
        None,
    ]


def _write_tsv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    lines = [header, *([_format_cell(value) for value in row] for row in rows)]
    write_text(path, "".join("\t".join(line) + "\n" for line in lines))


def _format_cell(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, float):
        return f"{value:.6g}"
    return escape_cell(str(value).strip()) or MISSING
