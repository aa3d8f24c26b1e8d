"""Reports of an evaluation and of a comparison.

evaluation    charts, comparison, tables, and the same slices in each method
comparison    budget and runs of `maediff compare`, then the same for its evaluation
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maediff.anomaly.snapshots import display_maximum
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.core.progress import format_seconds
from maediff.core.text import plain_cell
from maediff.evaluation.table import format_cell, make_tables
from maediff.report import charts, slices
from maediff.report.comparison import (
    comparison,
    curve_charts,
    label_of,
    load_subjects,
    paper_figure,
    shown_runs,
)
from maediff.report.elements import Montage, Page, Section, Table, colour_scale, flat


def evaluation_page(folder: Path) -> Page:
    """Return the page of a folder of `maediff evaluate`.

    A subject whose slices are missing or damaged is named, and the others are shown.

    Raises:
        InputError: summary.json is missing or damaged.
    """
    summary = read_json(folder / "summary.json")
    methods, baselines = summary["methods"], summary["baselines"]
    best = summary["best_baseline"]
    values: dict[str, list[float]] = {name: [] for name in methods}
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            values[plain_cell(row["method"])].append(float(row["auprc"] or math.nan))
    shown = [
        Table(
            table.head,
            table.rows,
            title=table.title,
            marked=[] if table.marked is None else [table.marked],
        )
        for table in make_tables(summary)
    ]
    scores = Section("Scores", text=summary["notes"], tables=shown[:1])
    if best:
        scores.figure = charts.score_chart(
            values, {n: m["auprc"] for n, m in methods.items()}, baselines
        )
        scores.figure_alt = "AUPRC by method"
    sections = [
        scores,
        *paper_figure(folder, summary),
        *comparison(folder, summary),
        *curve_charts(folder, summary),
        Section("All numbers", tables=shown[1:]),
        *_pictures(folder, summary),
    ]
    runs, kinds = (
        _counted(len(methods) - len(baselines), "run"),
        _counted(len(baselines), "simple baseline"),
    )
    lead = f"{runs} and {kinds} on {_counted(summary['n_subjects'], 'subject')}"
    winner = max(
        (n for n in methods if methods[n]["auprc"]),
        key=lambda n: methods[n]["auprc"]["mean"],
        default=None,
    )
    if winner:
        lead += f"; highest mean AUPRC: {winner}, {format_cell(methods[winner]['auprc'])}"
    facts = [
        ("Contrast", str(summary.get("modality", ""))),
        (
            "Scored",
            f"{summary.get('score_split')}: {summary['n_lesion']} with lesion, "
            f"{summary['n_healthy']} healthy",
        ),
        ("Calibrated", str(summary.get("calibrate_split"))),
        ("Seed", str(summary.get("seed", 0))),
        ("Cohort", str(summary.get("cohort_hash", ""))[:12]),
        ("Version", f"maediff {summary.get('version', '')}"),
    ]
    thresholds = {name: method["thresholds"] for name, method in methods.items()}
    settings = {"thresholds": thresholds, "config": summary.get("config", {})}
    sections.append(Section("Settings", facts=flat(settings)))
    return Page("Evaluation", folder.resolve().name, lead + ".", facts, sections)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _pictures(folder: Path, summary: Mapping[str, Any]) -> list[Section]:
    """Return the same slices in one run of each method and in the best baseline."""
    shown = shown_runs(folder, summary)
    if not shown:
        return []
    montages = []
    subjects, _ = load_subjects(folder, list(shown))  # the comparison names missing ones
    for number, (subject, snapshots) in enumerate(subjects.items()):
        rows: list[tuple[str, str, str]] = []
        for name in shown:
            snapshot = snapshots[name]
            vmax = display_maximum(shown[name])
            if not rows:
                truth = snapshot.lesion is not None and bool(snapshot.lesion.any())
                rows.append(
                    (
                        "Scan",
                        "lesion mask outlined" if truth else "",
                        slices.scan_row(snapshot, truth=truth),
                    )
                )
            reference = slices.reference_row(snapshot)
            if reference and name not in summary["baselines"]:
                rows.append((label_of(name, summary), "healthy reference", reference))
            rows.append(
                (
                    label_of(name, summary),
                    f"anomaly map, 0 to {vmax:.2f}",
                    slices.anomaly_row(snapshot, vmax, mask=True),
                )
            )
        montages.append(
            Montage(subject, f"subject-{number}", [], rows, [str(i) for i in snapshot.slice_ids])
        )
    text = [
        "Not hand-picked: the first subjects by name, with and without a lesion in turn. Slices "
        "with the most lesion, and others spread over the brain. Each method's colours run from 0 "
        "to twice its own threshold (at most to 1), the same for every subject."
    ]
    legend = [
        ("truth", "truth: outline of the lesion mask"),
        ("outline", "outline of the anomaly mask: what the method detects"),
    ]
    return [
        Section(
            "Subjects", text=text, scale=colour_scale(None, None), legend=legend, montages=montages
        )
    ]


def compare_page(folder: Path) -> Page:
    """Return the page of a folder of `maediff compare`, also before its runs are scored.

    Raises:
        InputError: compare.json is missing or damaged.
    """
    record = read_json(folder / "compare.json")
    runs = record.get("runs") or {}
    n_done = sum(bool(run.get("done")) for run in runs.values())
    lead = f"{n_done} runs are trained. "
    sections = [_make_runs(folder, runs)]
    facts = [("Contrast", str(record.get("modality", "")))]
    facts += [
        (f"Budget: {key.replace('_', ' ')}", str(value))
        for key, value in (record.get("budget") or {}).items()
        if value is not None
    ]
    if (folder / "eval" / "scores.csv").is_file():
        try:
            scored = evaluation_page(folder / "eval")
            lead += scored.lead
            facts += [fact for fact in scored.facts if fact[0] != "Contrast"]
            sections = [*scored.sections, *sections]
        except (InputError, KeyError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).replace(f"{folder}/", "")
            lead += "Their scores cannot be read."
            sections.insert(0, Section("Missing parts", text=[f"eval: {reason}; evaluate again"]))
    else:
        lead += "They are not scored yet."
    known = ("runs", "budget", "modality")
    record_facts = flat({key: value for key, value in record.items() if key not in known})
    sections.append(Section("Record", facts=record_facts))
    return Page("Comparison", folder.resolve().name, lead, facts, sections)


def _make_runs(folder: Path, runs: Mapping[str, Mapping[str, Any]]) -> Section:
    """Return the table of the runs, with links to those that have a report."""
    rows, links = [], []
    for name, run in runs.items():
        loss = run.get("best_val_loss")
        rows.append(
            [
                name,
                str(run.get("method", "")),
                str(run.get("seed", "")),
                f"{run.get('step', '?')} of {run.get('steps', '?')}",
                format_seconds(float(run.get("seconds") or 0)),
                "none" if loss is None else f"{loss:.4f}",
                "yes" if run.get("done") else "no",
            ]
        )
        has_page = (folder / "runs" / name / "report.html").is_file()
        links.append(f"runs/{quote(name)}/report.html" if has_page else "")
    head = ["Run", "Method", "Seed", "Steps", "Time", "Lowest validation loss", "Trained"]
    caption = "`maediff report RUN` writes the page of a run, with its curves."
    tables = [Table(head, rows, caption=caption, links=links)] if rows else []
    return Section("Runs", text=[] if rows else ["No run is finished."], tables=tables)
