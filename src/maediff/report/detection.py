"""The report of a detection."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maediff.anomaly.snapshots import Snapshot, display_maximum, load_slices
from maediff.core.files import read_json
from maediff.report import slices
from maediff.report.cohort import PICTURE
from maediff.report.elements import Montage, Page, Section, Table, colour_scale, flat

REGIONS_SHOWN = 8


def detection_page(folder: Path) -> Page:
    shared = read_json(folder / "detect.json")
    found = [(path.parent, read_json(path)) for path in sorted(folder.glob("*/summary.json"))]
    threshold = shared["threshold"]
    vmax = display_maximum(threshold)
    flagged = [summary for _, summary in found if summary["regions"]]
    montages = [
        _detect_montage(path, summary, vmax, number)
        for number, (path, summary) in enumerate(found)
    ]
    overview = Table(
        ["Subject", "Score", "Marked volume", "Regions", "Largest region", "Quality flags"],
        [
            [
                summary["subject"],
                f"{summary['score']:.3f}",
                f"{summary['volume_ml']:.2f} ml",
                str(len(summary["regions"])),
                f"{summary['regions'][0]['volume_ml']:.2f} ml" if summary["regions"] else "none",
                "; ".join(_flags(summary)) or "none",
            ]
            for _, summary in found
        ],
        caption="Score: the highest threshold at which something would still be marked; above the threshold, "
        "something is marked.",
        links=[f"#{montage.anchor}" for montage in montages],
    )
    scans = Section(
        "Scans",
        text=[] if found else ["No scan went through."],
        tables=[overview] if found else [],
        scale=colour_scale(vmax, threshold) if found else None,
        legend=[("mask", "anomaly mask: above the threshold")],
        montages=montages,
    )
    failures = shared.get("failures", {})
    failed = [
        Section(
            "Failed",
            tables=[Table(["Scan", "Why"], [[*pair] for pair in sorted(failures.items())])],
        )
    ]
    count = f"{len(found)} scan{'s' if len(found) != 1 else ''}"
    lead = f"{count} compared with what {shared['model']} draws as healthy; {len(flagged)} with a region marked."
    lead += f" {len(failures)} failed." if failures else ""
    origin = shared.get("threshold_from") or {}
    if origin.get("n_marked"):
        lead += (
            f" At this threshold {origin['n_marked']} of the model's {origin['n_scores']} healthy scans have "
            "something marked, too: --scan-fpr gives one that marks few healthy scans."
        )
    facts = [
        (
            "Model",
            ", ".join(
                str(shared[key]) for key in ("model", "model_from", "terms") if shared.get(key)
            ),
        ),
        ("Marks", str(shared.get("marks", ""))),
        ("Method", str(shared.get("method", ""))),
        ("Contrast", shared["modality"]),
        ("Threshold", f"{threshold:.3g} ({_origin(origin)})"),
        ("Seed", str(shared.get("seed", 0))),
        (
            "Versions",
            ", ".join(f"{name} {value}" for name, value in shared.get("versions", {}).items()),
        ),
    ]
    settings: dict[str, Any] = {
        k: shared[k]
        for k in ("config", "postprocess", "grid", "normalise", "model_step")
        if k in shared
    }
    sections = [*(failed if failures else []), scans, Section("Settings", facts=flat(settings))]
    return Page("Detection", folder.resolve().name, lead, facts, sections)


def _detect_montage(path: Path, summary: Mapping[str, Any], vmax: float, number: int) -> Montage:
    snapshot = load_slices(path / "slices.npz")
    regions = summary["regions"][:REGIONS_SHOWN]
    table = Table(
        ["Region", "Volume", "Peak", "Centre (x, y, z), RAS+ mm"],
        [
            [
                str(i),
                f"{r['volume_ml']:.2f} ml",
                f"{r['peak']:.3f}",
                ", ".join(str(round(mm)) for mm in r["center_mm"]),
            ]
            for i, r in enumerate(regions, start=1)
        ],
        caption=f"The {len(regions)} largest of {len(summary['regions'])} regions."
        if len(summary["regions"]) > len(regions)
        else "",
    )
    heights = snapshot.z_mm
    return Montage(
        summary["subject"],
        f"scan-{number}",
        [
            ("Score", f"{summary['score']:.3f}"),
            ("Threshold", f"{summary['threshold']:.3g}"),
            ("Marked", f"{summary['volume_ml']:.2f} ml"),
        ],
        _rows(snapshot, vmax) + _picture(path / PICTURE[2]),
        [str(i) for i in snapshot.slice_ids]
        if heights is None
        else [str(round(float(mm))) for mm in heights],
        "slice" if heights is None else "z, RAS+ mm",
        table if regions else None,
        _flags(summary),
        f"{quote(path.name)}/viewer.html" if (path / "viewer.html").is_file() else None,
    )


def _rows(snapshot: Snapshot, vmax: float) -> list[tuple[str, str, str]]:
    rows = [("Scan", "", slices.scan_row(snapshot))]
    reference = slices.reference_row(snapshot)
    if reference:
        rows.append(("Healthy reference", "as redrawn by the model", reference))
    rows.append(("Anomaly map", f"0 to {vmax:.2f}", slices.anomaly_row(snapshot, vmax)))
    rows.append(("Anomaly mask", "on the scan", slices.mask_row(snapshot)))
    return rows


def _picture(path: Path) -> list[tuple[str, str, str]]:
    return [(*PICTURE[:2], slices.file_uri(path))] if path.is_file() else []


def _flags(summary: Mapping[str, Any]) -> list[str]:
    return [str(flag) for flag in (summary.get("qc") or {}).get("flags", [])]


def _origin(source: Mapping[str, Any]) -> str:
    n, kind = source.get("n_scans", ""), str(source.get("source", "healthy scans"))
    scans = f"{n} {kind.replace('scans', 'scan') if n == 1 else kind}".strip()
    if "scan_fpr" in source:
        return f"at most {source['scan_fpr']:.2%} of new healthy scans flagged, split conformal on {scans}"
    if "fpr" in source:
        return f"{source['fpr']:.3%} of the voxels of {scans}, counted voxel by voxel"
    if "chosen_on" in source:
        return f"the model's own, chosen on {source['chosen_on']}"
    return "as given"
