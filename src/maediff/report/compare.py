"""Report of a comparison: budget, the runs and their course, then the scores of all methods."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.report.elements import Page, Section, Table, flat
from maediff.report.evaluation import evaluation_page
from maediff.report.training import format_duration


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
                format_duration(float(run.get("seconds") or 0)),
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
