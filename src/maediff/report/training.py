"""Report of a training run: progress, losses, learning rate, reconstructions over time, settings.

`maediff train` writes the report again while it runs. A shipped model has a card instead of a
course.
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from maediff.anomaly.snapshots import Snapshot
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.core.progress import format_seconds
from maediff.report import charts, slices
from maediff.report.elements import Chart, Facts, Page, Section, flat
from maediff.training.samples import SAMPLES, load_samples

RECENT_CHECKPOINTS = 5  # whose speed predicts the time left

Columns = Mapping[str, Float[np.ndarray, " n"]]
"""Columns of metrics.csv; NaN for an empty cell."""


def run_page(folder: Path) -> Page:
    """Return the page of a run folder or of a shipped model.

    A damaged file is named, and the others are shown.

    Raises:
        InputError: config.json is missing or damaged.
    """
    config = read_json(folder / "config.json")
    notes: list[str] = []
    card = _read_part(folder / "card.json", notes)
    about = card.get("provenance") or _read_part(folder / "provenance.json", notes)
    columns = _read_metrics(folder / "metrics.csv", notes)
    n_steps = (config.get("train") or {}).get("steps")
    progress = _describe_progress(columns, n_steps)
    course = _make_course(columns)
    if course.figure is None:
        course.text = [card["summary"], card["command"]] if card else ["No checkpoint yet."]
    sections = [Section("Missing parts", text=notes)] if notes else []
    sections += [course, *_make_reconstructions(folder / SAMPLES)]
    settings = {key: value for key, value in config.items() if key != "format"}
    sections.append(Section("Settings", facts=flat(settings)))
    if about:
        sections.append(Section("Provenance", facts=flat(about)))
    facts = _make_facts(config, card, about) + progress
    lead = f"A {config['method']} model"
    status = dict(progress).get("Steps")
    lead += f", {status}." if status and not card else "."
    return Page("Training run", folder.resolve().name, lead, facts, sections)


def _read_part(path: Path, notes: list[str]) -> dict[str, Any]:
    """Return a JSON file that may be missing; add a note if it is damaged."""
    if not path.is_file():
        return {}
    try:
        return dict(read_json(path))
    except InputError:
        notes.append(f"{path.name} is damaged, so its entries are missing here.")
        return {}


def _read_metrics(path: Path, notes: list[str]) -> Columns:
    """Return the columns of metrics.csv; empty if it is missing or has no row."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        names = list(rows[0]) if rows else []
        columns = {key: np.array([float(row[key] or "nan") for row in rows]) for key in names}
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        notes.append(f"{path.name} is damaged, so the curves are missing here.")
        return {}
    return columns if "step" in columns else {}


def _describe_progress(columns: Columns, n_steps: int | None) -> Facts:
    """Return steps, time used and time left; empty without a checkpoint."""
    if not columns:
        return []
    done = int(columns["step"][-1])
    if not n_steps:
        return [("Steps", f"{done:,} steps")]
    facts = [("Steps", f"{done:,} of {n_steps:,} steps ({done / n_steps:.0%})")]
    if "seconds" not in columns:
        return facts
    seconds, steps = columns["seconds"], columns["step"]
    facts.append(("Time used", format_seconds(float(seconds[-1]))))
    if done >= n_steps:
        return [*facts, ("Time left", "none, the last step is done")]
    # From the start, or from a recent checkpoint. `seconds` counts over all calls of a run.
    first = len(steps) - 1 - RECENT_CHECKPOINTS
    since_s, since = (float(seconds[first]), steps[first]) if first >= 0 else (0.0, 0.0)
    pace = (float(seconds[-1]) - since_s) / max(1.0, float(done - since))
    return [*facts, ("Time left", f"about {format_seconds(pace * (n_steps - done))}")]


def _make_course(columns: Columns) -> Section:
    """Return the section with losses and learning rate."""
    section = Section("Course")
    if not columns:
        return section
    section.figure, section.figure_alt = charts.training_curve(columns), "loss against step"
    losses = columns.get("val_loss", np.array([math.nan]))
    if np.isfinite(losses).any():
        best = int(np.nanargmin(losses))
        step = int(columns["step"][best])
        section.text = [f"Lowest validation loss {losses[best]:.4f} at step {step}."]
    rates = columns.get("learning_rate")
    if rates is not None and np.isfinite(rates).any():
        known = np.isfinite(rates)
        chart = charts.learning_rate_chart(columns["step"][known], rates[known])
        section.charts = [Chart(chart, "Learning rate at each checkpoint.")]
    return section


def _make_reconstructions(path: Path) -> list[Section]:
    """Return the section with reconstructions over time; empty without them."""
    if not path.is_file():
        return []
    title = "Reconstructions over time"
    try:
        samples = load_samples(path)
    except InputError as error:
        return [Section(title, text=[str(error).replace(f"{path.parent}/", "")])]
    empty = np.zeros_like(samples.images)
    snapshots = [
        Snapshot(
            np.arange(len(samples.images)),
            samples.images,
            empty,
            samples.brain,
            empty > 0,
            (2.0, 2.0, 2.0),
            reference,
        )
        for reference in samples.references
    ]
    rows = [
        (
            f"slice {number + 1}",
            [slices.scan_tile(snapshots[0], number)]
            + [slices.reference_tile(snapshot, number) for snapshot in snapshots],
        )
        for number in range(len(samples.images))
    ]
    columns = ["input", *(f"step {step:,}" for step in samples.steps)]
    chart = Chart(
        charts.tile_chart(rows, columns),
        "reconstructions of the same slices at several checkpoints",
        wide=110 + 110 * len(columns),
    )
    text = [
        "The averaged weights reconstruct the same slices at every checkpoint. The slices are "
        "those of the val split, or of the train split if the val split has none."
    ]
    return [Section(title, text=text, charts=[chart])]


def _make_facts(
    config: Mapping[str, Any], card: Mapping[str, Any], about: Mapping[str, Any]
) -> Facts:
    """Return the facts of the page's head, besides the progress."""
    parameters = about.get("parameters")
    facts = [
        ("Method", str(config["method"])),
        ("Preset", str(config.get("preset", ""))),
        ("Contrast", str((config.get("cohort") or {}).get("modality", ""))),
        ("Seed", str(config.get("seed", ""))),
        ("Parameters", f"{parameters:,}" if parameters else "not known"),
    ]
    if card:
        facts.insert(0, ("Model", card["name"]))
        facts += [
            ("Steps", str(about.get("step", "not known"))),
            ("Licence", card["licence"]),
            *([("Terms", card["terms"])] if card["terms"] else []),
        ]
    return facts
