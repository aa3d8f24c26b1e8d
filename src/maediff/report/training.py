"""The report of a training run."""

import csv
import math
from pathlib import Path

import numpy as np

from maediff.core.files import read_json
from maediff.report import charts
from maediff.report.elements import Page, Section, flat


def run_page(folder: Path) -> Page:
    config = read_json(folder / "config.json")
    about = read_json(folder / "provenance.json") if (folder / "provenance.json").is_file() else {}
    section = Section("Training")
    if (folder / "metrics.csv").is_file():
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = (
            {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0]}
            if rows
            else {}
        )
        if "step" in columns:
            section.figure, section.figure_alt = (
                charts.training_curve(columns),
                "loss against step",
            )
            losses = columns.get("val_loss", np.array([math.nan]))
            if np.isfinite(losses).any():
                best = int(np.nanargmin(losses))
                step = int(columns["step"][best])
                section.text = [f"Lowest validation loss {losses[best]:.4f} at step {step}."]
    card = (
        read_json(folder / "card.json") if (folder / "card.json").is_file() else {}
    )  # a shipped model's
    about = card.get("provenance", about)
    parameters = about.get("parameters")
    if section.figure is None:
        section.text = [card["summary"], card["command"]] if card else ["No checkpoint yet."]
    facts = [
        ("Method", config["method"]),
        ("Preset", str(config.get("preset", ""))),
        ("Contrast", str((config.get("cohort") or {}).get("modality", ""))),
        ("Seed", str(config.get("seed", ""))),
        ("Parameters", f"{parameters:,}" if parameters else "not known"),
        ("Steps", str(about.get("step", "not known"))),
    ]
    if card:
        facts.insert(0, ("Model", card["name"]))
        facts += [
            ("Licence", card["licence"]),
            *([("Terms", card["terms"])] if card["terms"] else []),
        ]
    sections = [
        section,
        Section("Settings", facts=flat({k: v for k, v in config.items() if k != "format"})),
    ]
    if about:
        sections.append(Section("Provenance", facts=flat(about)))
    return Page(
        "Training run", folder.resolve().name, f"A {config['method']} model.", facts, sections
    )
