"""Report of a detection: an overview, then each scan with a viewer, its regions and pictures.

More than MAX_ON_PAGE scans have one page each. The report is then an index, which can be sorted
and filtered.
"""

from collections.abc import Mapping, Sequence
from math import floor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maediff.anomaly.snapshots import Snapshot, display_maximum, load_slices
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.detection.bids import SCAN_REPORTS, WORK
from maediff.detection.findings import REPAIR, describe_usual
from maediff.detection.methods_text import (
    describe_combination,
    describe_methods,
    describe_origin,
)
from maediff.models.thresholds import IN_THRESHOLDS
from maediff.preparation.quality.flags import describe_flags
from maediff.report import slices
from maediff.report.cohort import PICTURE
from maediff.report.elements import Facts, Montage, Page, Section, Table, colour_scale, flat
from maediff.report.viewer import make_viewer

REGIONS_SHOWN = 8
MAX_ON_PAGE = 20


def detection_page(folder: Path) -> Page:
    """Return the page of a folder of `maediff detect`; with many scans it is an index.

    Raises:
        InputError: detect.json is missing or damaged.
    """
    shared = read_json(folder / "detect.json", remedy=REPAIR)
    summaries, unreadable = read_summaries(folder)
    on_one_page = len(summaries) <= MAX_ON_PAGE
    numbers = range(len(summaries))
    montages = (
        [
            make_scan_montage(folder / name, summary, shared, f"scan-{number}")
            for number, (name, summary) in zip(numbers, summaries.items(), strict=True)
        ]
        if on_one_page
        else []
    )
    links = [
        f"#scan-{number}" if on_one_page else quote(scan_address(folder, name))
        for number, name in zip(numbers, summaries, strict=True)
    ]
    vmax, threshold = _find_maximum(shared), shared["threshold"]
    scans = Section(
        "Scan" if len(summaries) == 1 else "Scans",
        text=[] if summaries else ["No scan was finished."],
        tables=[_overview(folder, summaries, links, is_index=not on_one_page)]
        if len(summaries) > 1
        else [],
        scale_last=len(summaries) == 1,
        scale=colour_scale(vmax, threshold) if montages else None,
        legend=[("mask", "anomaly mask: the detected regions")],
        montages=montages,
    )
    failures = {**shared.get("failures", {}), **unreadable}
    failed = Section(
        "Failed",
        tables=[Table(["Scan", "Reason"], [[*pair] for pair in sorted(failures.items())])],
    )
    with_regions = sum(bool(summary["regions"]) for summary in summaries.values())
    flagged = sum(bool(list_flags(summary)) for summary in summaries.values())
    n = len(summaries)
    lead = f"{n} scan{'s' * (n != 1)} compared with the healthy references of {shared['model']}"
    lead += f"; regions detected in {with_regions} of {n}." if n > 1 else "."
    lead += f" {flagged} flagged by quality control: look at those first." if flagged else ""
    lead += f" {len(failures)} failed." if failures else ""
    method = make_method_section(shared, _make_method_facts(shared))
    sections = [*([failed] if failures else []), scans, method]
    sections.append(_settings(shared))
    return Page("Detection", folder.resolve().name, lead, _make_facts(shared), sections)


def scan_page(folder: Path, name: str) -> Page:
    """Return the page of one scan of a folder of `maediff detect`.

    Raises:
        InputError: a file of the scan is missing or damaged.
    """
    shared = read_json(folder / "detect.json", remedy=REPAIR)
    summary = read_json(folder / name / "summary.json")
    section = Section(
        "Scan",
        scale_last=True,
        scale=colour_scale(_find_maximum(shared), shared["threshold"]),
        legend=[("mask", "anomaly mask: the detected regions")],
        montages=[make_scan_montage(folder / name, summary, shared, "scan-0")],
    )
    lead = _sentence(summary, shared)
    method = make_method_section(shared, _make_method_facts(shared))
    sections = [section, method, _settings(shared)]
    return Page("Detection", name, lead, _make_facts(shared), sections)


def make_method_section(shared: Mapping[str, Any], facts: Facts) -> Section:
    """Return the processing as a paragraph for a paper, and the command that made the results.

    Args:
        shared: content of detect.json. Folders of older versions lack some keys; the paragraph is
            then left out.
        facts: facts of the section.
    """
    by_contrast = shared.get("contrasts") or {"": shared}
    try:
        paragraphs = [describe_methods(settings) for settings in by_contrast.values()]
        paragraphs += describe_combination(shared)
    except KeyError:
        paragraphs = []
    command = str(shared.get("command", ""))
    title = "Method and command" if command else "Method"
    return Section(title, text=paragraphs, open_facts=facts, command=command)


def scan_address(folder: Path, name: str) -> str:
    """Return the address of a scan's page, relative to the index.

    The index of a BIDS derivative is in the derivative's folder, and its detection is in a hidden
    folder. The pages of the scans are then beside the index.
    """
    in_derivative = folder.name == WORK
    return f"{SCAN_REPORTS}/{name}.html" if in_derivative else f"{name}/report.html"


def scans_with_own_page(folder: Path) -> list[str]:
    """Return the scans with a page each: all scans of a folder with more than MAX_ON_PAGE."""
    summaries, _ = read_summaries(folder)
    return list(summaries) if len(summaries) > MAX_ON_PAGE else []


def read_summaries(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the summaries by name of the scan, and the reason for each that cannot be read."""
    summaries: dict[str, dict[str, Any]] = {}
    unreadable: dict[str, str] = {}
    for path in sorted(folder.glob("[!.]*/summary.json")):
        try:
            summaries[path.parent.name] = read_summary(path)
        except InputError as error:
            unreadable[path.parent.name] = str(error)
    return summaries, unreadable


def read_summary(path: Path) -> dict[str, Any]:
    """Return the content of a summary.json.

    Raises:
        InputError: the file is damaged; the message does not name its folder.
    """
    try:
        summary: dict[str, Any] = read_json(path)
        _ = summary["regions"], summary["score"], summary["volume_ml"], summary["threshold"]
    except (InputError, KeyError) as error:
        reason = str(error).replace(f"{path.parent}/", "")
        raise InputError(f"summary.json is damaged ({reason}); detect again") from None
    return summary


def _overview(
    folder: Path, summaries: Mapping[str, Mapping[str, Any]], links: list[str], *, is_index: bool
) -> Table:
    """Return the table of all scans; an index has thumbnails and can be sorted."""
    return Table(
        ["Scan", "Quality flags", "Score", "Volume", "Regions", "Largest region"],
        [
            [
                str(summary["subject"]),
                "; ".join(list_flags(summary)) or "none",
                f"{summary['score']:.3g}",
                f"{summary['volume_ml']:.2f} ml",
                str(len(summary["regions"])),
                f"{summary['regions'][0]['volume_ml']:.2f} ml" if summary["regions"] else "none",
            ]
            for summary in summaries.values()
        ],
        caption="Score: the lowest threshold that leaves no region. A score above the "
        "threshold means a detection.",
        links=links,
        images=[_thumbnail(folder / name) for name in summaries] if is_index else [],
        sortable=is_index,
    )


def _thumbnail(folder: Path) -> str:
    """Return a small picture of a scan; empty if its pictures are missing or damaged."""
    try:
        return slices.thumbnail(load_slices(folder / "slices.npz"))
    except InputError:
        return ""


def _make_facts(shared: Mapping[str, Any]) -> Facts:
    """Return the facts of the page's head: all that a reader of the pictures needs."""
    model = (str(shared[key]) for key in ("model", "model_from", "terms") if shared.get(key))
    return [("Model", ", ".join(model)), ("Detects", str(shared.get("marks", "")))]


def _make_method_facts(shared: Mapping[str, Any]) -> Facts:
    """Return the facts of the section about the method."""
    origin = shared.get("threshold_from") or {}
    versions = (f"{name} {value}" for name, value in shared.get("versions", {}).items())
    return [
        ("Method", str(shared.get("method", ""))),
        ("Contrast", str(shared["modality"])),
        ("Threshold", f"{shared['threshold']:.3g} ({describe_origin(origin)})"),
        ("Unit", _describe_unit(shared)),
        ("Seed", str(shared.get("seed", 0))),
        ("Versions", ", ".join(versions)),
    ]


def _find_maximum(shared: Mapping[str, Any]) -> float:
    """Return the upper end of the colour scale of all maps of a folder.

    Args:
        shared: content of detect.json; folders of older versions have no unit.
    """
    return display_maximum(shared["threshold"], scaled=shared.get("unit") == IN_THRESHOLDS)


def _describe_unit(shared: Mapping[str, Any]) -> str:
    """Return the unit of map, score and threshold in words."""
    if shared.get("unit") != IN_THRESHOLDS:
        return "residual, 0 to 1"
    scale = f": a residual of {shared['scale']:.3g}" if shared.get("scale") else ""
    return f"1 is the default threshold of the model{scale}"


def _settings(shared: Mapping[str, Any]) -> Section:
    keys = ("config", "postprocess", "grid", "normalise", "model_step")
    return Section("Settings", facts=flat({key: shared[key] for key in keys if key in shared}))


def make_scan_montage(
    path: Path, summary: Mapping[str, Any], shared: Mapping[str, Any], anchor: str
) -> Montage:
    """Return everything about one scan: flags, the finding, viewer, regions and still pictures."""
    vmax = _find_maximum(shared)
    regions = make_region_table(summary, f"{anchor}-viewer-regions")
    facts = [
        ("Score", f"{summary['score']:.3g}"),
        ("Threshold", f"{summary['threshold']:.3g}"),
        ("Volume", f"{summary['volume_ml']:.2f} ml"),
    ]
    montage = Montage(
        title=str(summary["subject"]),
        anchor=anchor,
        facts=facts,
        rows=[],
        table=regions if summary["regions"] else None,
        flags=[f"{flag}." for flag in describe_flags(summary.get("qc") or {})],
        sentence=_sentence(summary, shared),
    )
    try:
        used = shared.get("postprocess", {})
        limits = {key: used[key] for key in ("min_volume_mm3", "extent") if key in used}
        montage.viewer = make_viewer(path / "volumes.npz", {**limits, **summary})
        if montage.viewer:
            montage.table = regions  # at a lower threshold, the viewer may have some
        snapshot = load_slices(path / "slices.npz")
    except InputError as error:
        montage.flags.append(f"Pictures are missing: {str(error).replace(f'{path}/', '')}")
        return montage
    heights = snapshot.z_mm
    montage.rows, montage.below = make_rows(snapshot, vmax), make_outline(path)
    montage.slices = (
        [str(i) for i in snapshot.slice_ids]
        if heights is None
        else [str(round(float(mm))) for mm in heights]
    )
    montage.axis = "slice" if heights is None else "z, RAS+ mm"
    return montage


def _sentence(summary: Mapping[str, Any], shared: Mapping[str, Any]) -> str:
    """Return the finding in one sentence, with what is usual in healthy scans."""
    n = len(summary["regions"])
    finding = f"{n} region{'s' * (n != 1)}, {summary['volume_ml']:.1f} ml." if n else "No region."
    usual = describe_usual(shared)
    return f"{finding} {usual[0].upper()}{usual[1:]}." if usual else finding


def make_region_table(summary: Mapping[str, Any], anchor: str) -> Table:
    shown = summary["regions"][:REGIONS_SHOWN]
    rows = [
        [
            str(number),
            f"{region['volume_ml']:.2f} ml",
            f"{region['peak']:.3g}",
            _format_mean(region.get("mean")),
            str(region.get("location", "")),
            _format_position(region["center_mm"]),
            _format_position(region.get("mni_mm")),
        ]
        for number, region in enumerate(shown, start=1)
    ]
    total = len(summary["regions"])
    caption = "Regions." if shown else "No region."
    if total > len(shown):
        caption = f"The {len(shown)} largest of {total} regions."
    head = ["Region", "Volume", "Peak", "Mean", "Location", "Centre in RAS+ mm", "In MNI152, mm"]
    return Table(head, rows, caption=caption, anchor=anchor)


def _format_mean(mean: float | None) -> str:
    """Return the mean of the anomaly map in a region; folders of older versions have none."""
    return "" if mean is None else f"{mean:.3g}"


def _format_position(mm: Sequence[float] | None) -> str:
    """Return x, y and z in whole mm; empty for a scan that is not registered."""
    return "" if mm is None else ", ".join(str(floor(value + 0.5)) for value in mm)


def make_rows(snapshot: Snapshot, vmax: float) -> list[tuple[str, str, str]]:
    rows = [("Scan", "", slices.scan_row(snapshot))]
    reference = slices.reference_row(snapshot)
    if reference:
        rows.append(("Healthy reference", "the model's reconstruction", reference))
    rows.append(("Anomaly map", f"0 to {vmax:.2f}", slices.anomaly_row(snapshot, vmax)))
    rows.append(("Anomaly mask", "on the scan", slices.mask_row(snapshot)))
    return rows


def make_outline(folder: Path) -> list[tuple[str, str, str]]:
    """Return the row with the brain outline of a scan; empty if its folder has no such picture."""
    path = folder / PICTURE[2]
    return [(*PICTURE[:2], slices.file_uri(path))] if path.is_file() else []


def list_flags(summary: Mapping[str, Any]) -> list[str]:
    return [str(flag) for flag in (summary.get("qc") or {}).get("flags", [])]
