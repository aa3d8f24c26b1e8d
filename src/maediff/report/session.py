"""Report of sessions: the combined result of each session, with its contrasts side by side.

More than `detection.MAX_ON_PAGE` sessions have one page each, as scans have.
"""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maediff.anomaly.snapshots import load_slices
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.core.types import MODALITIES
from maediff.detection.findings import REPAIR
from maediff.detection.methods_text import describe_rule
from maediff.preparation.quality.flags import describe_flags
from maediff.report import slices
from maediff.report.detection import (
    MAX_ON_PAGE,
    list_flags,
    make_method_section,
    make_outline,
    make_region_table,
    make_scan_montage,
    read_summaries,
    read_summary,
    scan_address,
)
from maediff.report.elements import Facts, Montage, Page, Section, Table, colour_scale, flat
from maediff.report.viewer import make_session_viewer

VMAX = 2.0
"""Upper end of the colour scale, in thresholds."""


def is_session_folder(folder: Path) -> bool:
    """True for results of several contrasts of each person."""
    path = folder / "detect.json"
    return path.is_file() and bool(read_json(path, remedy=REPAIR).get("session"))


def sessions_page(folder: Path) -> Page:
    """Return the page of a folder of sessions; with many sessions it is an index.

    Raises:
        InputError: detect.json is missing or damaged.
    """
    shared = read_json(folder / "detect.json", remedy=REPAIR)
    summaries, unreadable = read_summaries(folder)
    on_one_page = len(summaries) <= MAX_ON_PAGE
    montages = []
    links = []
    for number, (name, summary) in enumerate(summaries.items()):
        links.append(f"#scan-{number}" if on_one_page else quote(scan_address(folder, name)))
        if on_one_page:
            montages.append(_make_montage(folder / name, summary, shared, f"scan-{number}"))
    alone, damaged = _read_contrasts_alone(folder, set(summaries))
    sections = []
    failures = {**shared.get("failures", {}), **unreadable, **damaged}
    if failures:
        rows = [[*pair] for pair in sorted(failures.items())]
        sections.append(Section("Failed", tables=[Table(["Session or scan", "Reason"], rows)]))
    if summaries:
        overview = _make_overview(summaries, links, sortable=not on_one_page)
        title = "Session" if len(summaries) == 1 else "Sessions"
        section = _make_section(title, montages, [overview] if len(summaries) > 1 else [])
        section.scale_last = len(summaries) == 1
        sections.append(section)
    if alone:
        sections.append(_make_section_alone(alone, shared))
    if not summaries and not alone:
        sections.append(Section("Sessions", text=["No session was finished."]))
    method = make_method_section(shared, _make_method_facts(shared))
    sections += [method, _make_settings(shared)]
    lead = _describe(summaries, failures, alone)
    return Page("Detection", folder.resolve().name, lead, _make_facts(shared), sections)


def session_page(folder: Path, name: str) -> Page:
    """Return the page of one session.

    Raises:
        InputError: a file of the session is missing or damaged.
    """
    shared = read_json(folder / "detect.json", remedy=REPAIR)
    summary = read_json(folder / name / "summary.json")
    section = _make_section(
        "Session", [_make_montage(folder / name, summary, shared, "scan-0")], []
    )
    section.scale_last = True
    method = make_method_section(shared, _make_method_facts(shared))
    sections = [section, method, _make_settings(shared)]
    return Page("Detection", name, _make_sentence(summary), _make_facts(shared), sections)


def _make_section(title: str, montages: list[Montage], tables: list[Table]) -> Section:
    """Return a section of sessions, with the colour scale in thresholds."""
    bar, _ = colour_scale(None, None)
    ticks = [(0.0, "0"), (50.0, "1: threshold of a contrast"), (100.0, "2")]
    return Section(
        title,
        tables=tables,
        scale=(bar, ticks) if montages else None,
        legend=[("mask", "anomaly mask: the detected regions")],
        montages=montages,
    )


def _describe(
    summaries: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, str],
    alone: Mapping[Path, Any],
) -> str:
    """Return the lead of the page.

    Args:
        summaries: those of combined results.
        failures: reasons by name.
        alone: from `_read_contrasts_alone`.
    """
    n_alone = len({path.parent.name for path in alone})
    n, with_regions = len(summaries), sum(bool(each["regions"]) for each in summaries.values())
    lead = f"{n} session{'s' * (n != 1)} with a combined map"
    lead += f"; regions detected in {with_regions} of {n}." if n > 1 else "."
    if n_alone:
        lead = f"{lead if n else ''} {n_alone} without a combined map.".lstrip()
    flagged = sum(bool(list_flags(each)) for each in [*summaries.values(), *alone.values()])
    lead += f" {flagged} flagged by quality control: look at those first." if flagged else ""
    return lead + (f" {len(failures)} failed." if failures else "")


def _make_overview(
    summaries: Mapping[str, Mapping[str, Any]], links: list[str], *, sortable: bool
) -> Table:
    """Return the table of all sessions, with the volumes of the contrasts."""
    rows = []
    for summary in summaries.values():
        contrasts = summary["contrasts"]
        rows.append(
            [
                str(summary["subject"]),
                f"{summary['score']:.2f}",
                f"{summary['threshold']:.3g}",
                f"{summary['volume_ml']:.2f} ml",
                *(
                    f"{contrasts[each]['volume_ml']:.2f} ml" if each in contrasts else "no scan"
                    for each in MODALITIES
                ),
                str(len(summary["regions"])),
                "; ".join(list_flags(summary)) or "none",
            ]
        )
    head = ["Session", "Score", "Threshold", "Combined", *MODALITIES, "Regions", "Quality flags"]
    caption = (
        "Score: the lowest threshold that leaves no region. A session has regions if its "
        "score is above its threshold."
    )
    return Table(head, rows, caption=caption, links=links, sortable=sortable)


def _make_montage(
    path: Path, summary: Mapping[str, Any], shared: Mapping[str, Any], anchor: str
) -> Montage:
    """Return everything about one session."""
    regions = make_region_table(summary, f"{anchor}-viewer-regions")
    montage = Montage(
        title=str(summary["subject"]),
        anchor=anchor,
        facts=[
            ("Score", f"{summary['score']:.2f}"),
            ("Threshold", f"{summary['threshold']:.3g}"),
            ("Volume", f"{summary['volume_ml']:.2f} ml"),
        ],
        rows=[],
        table=regions if summary["regions"] else None,
        tables=[_make_contrast_table(summary)],
        flags=[f"{flag}." for flag in describe_flags(summary.get("qc") or {})],
        sentence=_make_sentence(summary),
    )
    try:
        used = {key: each.get("postprocess", {}) for key, each in shared["contrasts"].items()}
        montage.viewer = make_session_viewer(path, summary, used)
        if montage.viewer:
            montage.table = regions  # at a lower threshold, the viewer may have some
        combined = load_slices(path / "slices.npz")
        for contrast in summary["contrasts"]:
            snapshot = load_slices(path / f"slices_{contrast}.npz")
            montage.rows += [
                (contrast, "the scan", slices.scan_row(snapshot)),
                (f"{contrast} map", f"0 to {VMAX:g}", slices.anomaly_row(snapshot, VMAX)),
            ]
    except InputError as error:
        montage.flags.append(f"Pictures are missing: {str(error).replace(f'{path}/', '')}")
        return montage
    montage.rows += [
        ("Combined map", f"0 to {VMAX:g}", slices.anomaly_row(combined, VMAX)),
        ("Combined mask", f"on the {summary['grid_of']}", slices.mask_row(combined)),
    ]
    heights = combined.z_mm if combined.z_mm is not None else combined.slice_ids
    montage.slices = [str(round(float(mm))) for mm in heights]
    montage.axis = "z, RAS+ mm" if combined.z_mm is not None else "slice"
    for contrast in summary["contrasts"]:
        for title, text, uri in make_outline(path / contrast):
            montage.below.append((f"{title}, {contrast}", text, uri))
    return montage


def _make_contrast_table(summary: Mapping[str, Any]) -> Table:
    """Return the results of the contrasts, and the combined result, side by side."""
    rows = [
        [
            contrast,
            str(each["model"]),
            f"{each['score_in_thresholds']:.2f}",
            f"{each['volume_ml']:.2f} ml",
            str(each["n_regions"]),
            "none" if contrast == summary["grid_of"] else _format_movement(each),
        ]
        for contrast, each in summary["contrasts"].items()
    ]
    total = f"{summary['volume_ml']:.2f} ml"
    combined = ["Combined", "", f"{summary['score']:.2f}", total, str(len(summary["regions"])), ""]
    head = ["Contrast", "Model", "Score in thresholds", "Volume", "Regions", "Moved by"]
    caption = f"Moved: between the scan and the {summary['grid_of']}, at the brain's centre."
    return Table(head, [*rows, combined], caption=caption)


def _format_movement(contrast: Mapping[str, Any]) -> str:
    """Return the movement of the head between two scans."""
    return f"{contrast['shift_mm']:.1f} mm, {contrast['turn_deg']:.1f} degrees"


def _make_sentence(summary: Mapping[str, Any]) -> str:
    """Return the combined finding in one sentence."""
    n = len(summary["regions"])
    finding = f"{n} region{'s' * (n != 1)}, {summary['volume_ml']:.1f} ml" if n else "No region"
    finding += f" in the combined map of {', '.join(summary['contrasts'])}"
    return f"{finding}. {describe_origin(summary.get('threshold_from') or {})}."


def _read_contrasts_alone(
    folder: Path, with_combined: set[str]
) -> tuple[dict[Path, dict[str, Any]], dict[str, str]]:
    """Read the summaries of contrasts whose session has no combined result.

    Returns:
        The summaries by their folder, and the reason for each that cannot be read.
    """
    summaries: dict[Path, dict[str, Any]] = {}
    damaged: dict[str, str] = {}
    for path in sorted(folder.glob("[!.]*/*/summary.json")):  # a killed run leaves hidden folders
        session, contrast = path.parts[-3:-1]
        if session not in with_combined:
            try:
                summaries[path.parent] = read_summary(path)
            except InputError as error:
                damaged[f"{session} {contrast}"] = str(error)
    return summaries, damaged


def _make_section_alone(
    summaries: Mapping[Path, Mapping[str, Any]], shared: Mapping[str, Any]
) -> Section:
    """Return the scans of sessions without a combined result, each as in a report of scans."""
    montages = []
    for number, (path, summary) in enumerate(islice(summaries.items(), 3 * MAX_ON_PAGE)):
        settings = shared["contrasts"][path.name]
        montage = make_scan_montage(path, summary, settings, f"alone-{number}")
        montage.title = f"{path.parent.name}, {path.name}"
        montages.append(montage)
    section = _make_section("Contrasts without a combined map", montages, [])
    if len(summaries) > len(montages):
        section.text.append(f"The first {len(montages)} of {len(summaries)} scans.")
    if section.scale:  # each row states its range, and contrasts may have different thresholds
        section.scale = (section.scale[0], [(0.0, "0"), (100.0, "end of the row's range")])
    return section


def _make_facts(shared: Mapping[str, Any]) -> Facts:
    """Return the facts of the page's head: all that a reader of the pictures needs."""
    models = (f"{key}: {each['model']}" for key, each in shared["contrasts"].items())
    return [("Models", ", ".join(models)), ("Detects", str(shared.get("marks", "")))]


def _make_method_facts(shared: Mapping[str, Any]) -> Facts:
    """Return the facts of the section about the method."""
    versions = (f"{name} {value}" for name, value in shared.get("versions", {}).items())
    thresholds = (f"{key}: {each['threshold']:.3g}" for key, each in shared["contrasts"].items())
    return [
        ("Combined map", describe_rule(shared.get("rule"))),
        ("Thresholds", ", ".join(thresholds)),
        ("Seed", str(shared.get("seed", 0))),
        ("Versions", ", ".join(versions)),
    ]


def describe_origin(origin: Mapping[str, Any]) -> str:
    """Return the origin of the threshold of a combined map as a sentence without its full stop."""
    if "n_scans" in origin:
        people = f"{origin['n_marked']} of {origin['n_scans']} healthy people"
        return f"At this threshold, {people} have a region ({origin['source']})"
    return f"Threshold: {origin.get('reason', 'given')}"


def _make_settings(shared: Mapping[str, Any]) -> Section:
    """Return all settings of the contrasts."""
    keys = ("config", "postprocess", "grid", "normalise", "model_step")
    facts = [
        fact
        for contrast, settings in shared["contrasts"].items()
        for fact in flat({key: settings[key] for key in keys if key in settings}, f"{contrast}.")
    ]
    return Section("Settings", facts=facts)
