"""Comparison of methods: one slice of each subject in all methods, and their curves.

    scan | reference, anomaly map of the first method | of the second | ... | truth

The sources are `slices/` and `curves.json`, so a report can be written again without scans and
models.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from maediff.anomaly.snapshots import Snapshot, display_maximum, load_slices
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.report import charts, slices
from maediff.report.elements import Chart, Section, colour_scale

PAPER_METHODS: dict[str, tuple[str, int | None]] = {
    "AnoDDPM": ("anoddpm", None),
    "pDDPM (s48)": ("pddpm", 48),
    "pDDPM (s16)": ("pddpm", 16),
    "MAEDiff": ("maediff", None),
}
"""Method and stride of the columns of the paper's Figure 3, in its order."""
SMALLEST_FIGURE = 680
"""Width in pixels of a page that a figure has at least, so that its text is legible."""
VOLUME_EDGES_ML = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, float("inf"))


def shown_runs(folder: Path, summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the shown runs and their thresholds: one run per method, and the best baseline."""
    names = [group["runs"][0] for group in summary["groups"].values()]
    names += [summary["best_baseline"]] if summary["best_baseline"] else []
    shown = {}
    for name in names:
        if (folder / "slices" / name).is_dir():
            shown[name] = _threshold_of(name, summary)
    return shown


def _threshold_of(name: str, summary: Mapping[str, Any]) -> float | None:
    """Return the threshold of a run in figures: from lesion labels, else from healthy scans."""
    found = summary["methods"][name]["thresholds"]
    chosen: float | None = found["healthy"] if found["label"] is None else found["label"]
    return chosen


def label_of(name: str, summary: Mapping[str, Any]) -> str:
    """Return the label of a run in figures: its group, or its own name for a baseline."""
    return next(
        (group for group, found in summary["groups"].items() if name in found["runs"]), name
    )


def comparison(folder: Path, summary: Mapping[str, Any]) -> list[Section]:
    """The comparison figure: a row of pictures for each subject that has slices."""
    shown = shown_runs(folder, summary)
    if not shown:
        return []
    rows, columns = [], ["scan"]
    subjects, notes = load_subjects(folder, list(shown))
    for subject, snapshots in subjects.items():
        pictures: list[slices.RGB] = []
        columns = ["scan"]
        for name, threshold in shown.items():
            snapshot = snapshots[name]
            at = _most_lesion(snapshot)
            vmax = display_maximum(threshold)
            if not pictures:
                pictures.append(slices.scan_tile(snapshot, at))
                truth = slices.truth_tile(snapshot, at)
            if snapshot.reference is not None and name not in summary["baselines"]:
                pictures.append(slices.reference_tile(snapshot, at))
                columns.append(f"{label_of(name, summary)}\nreference")
            pictures.append(slices.anomaly_tile(snapshot, at, vmax))
            columns.append(f"{label_of(name, summary)}\n0 to {vmax:.2f}")
        rows.append((subject, [*pictures, truth]))
        columns.append("truth")
    if not rows:
        return [Section("Comparison", text=notes)] if notes else []
    chart = Chart(
        charts.tile_chart(rows, columns),
        "one slice of each subject through every method",
        wide=max(SMALLEST_FIGURE, 110 + 82 * len(columns)),
    )
    text = [
        "One run of each method, the slice with most lesion (or most brain) of the first subjects "
        "by name. Colours of an anomaly map run from 0 to twice the method's own threshold, the "
        "same for every subject.",
        *notes,
    ]
    return [Section("Comparison", text=text, charts=[chart], scale=colour_scale(None, None))]


def load_subjects(
    folder: Path, names: Sequence[str]
) -> tuple[dict[str, dict[str, Snapshot]], list[str]]:
    """Load the slices of each subject in several runs; the subjects are those of the first run.

    Returns:
        Slices by subject and run, and a note for each subject with a missing or damaged file,
        which is left out.
    """
    subjects: dict[str, dict[str, Snapshot]] = {}
    notes: list[str] = []
    for path in sorted((folder / "slices" / names[0]).glob("*.npz")):
        try:
            subjects[path.stem] = {
                name: load_slices(folder / "slices" / name / path.name) for name in names
            }
        except InputError as error:
            text = str(error).replace(f"{folder}/", "")
            notes.append(f"{path.stem} is missing here: {text}")
    return subjects, notes


def paper_figure(folder: Path, summary: Mapping[str, Any]) -> list[Section]:
    """Return the figure of the paper (Figure 3) with the methods that the evaluation has.

        subject, reconstruction   input | AnoDDPM | pDDPM (s48) | pDDPM (s16) | MAEDiff | truth
        subject, anomaly map      input | ...                                           | truth

    Each method is shown by its first run. There is no section with fewer than two of the methods.
    """
    runs = _find_paper_runs(folder, summary)
    if len(runs) < 2:
        return []
    rows: list[tuple[str, list[slices.RGB]]] = []
    subjects, notes = load_subjects(folder, list(runs.values()))
    for subject, snapshots in subjects.items():
        scan = next(iter(snapshots.values()))
        at = _most_lesion(scan)
        inputs, truth = slices.scan_tile(scan, at), slices.truth_tile(scan, at)
        references = [
            inputs * 0 if shot.reference is None else slices.reference_tile(shot, at)
            for shot in snapshots.values()
        ]
        maps = [
            slices.anomaly_tile(shot, at, display_maximum(_threshold_of(name, summary)))
            for name, shot in snapshots.items()
        ]
        rows.append((f"{subject} reconstruction", [inputs, *references, truth]))
        rows.append((f"{subject} anomaly map", [inputs, *maps, truth]))
    columns = ["input", *runs, "truth"]
    charts_of_figure = []
    if rows:
        chart = charts.tile_chart(rows, columns)
        caption = "reconstructions and anomaly maps of the methods of the paper's Figure 3"
        wide = max(SMALLEST_FIGURE, 110 + 110 * len(columns))
        charts_of_figure = [Chart(chart, caption, wide=wide)]
    missing = [label for label in PAPER_METHODS if label not in runs]
    text = [
        "The layout of the paper's Figure 3: the slice with most lesion of each subject. Colours "
        "of an anomaly map run from 0 to twice the method's own threshold.",
        *([f"Not in this evaluation: {', '.join(missing)}."] if missing else []),
        *notes,
    ]
    return [Section("Figure as in the paper", text=text, charts=charts_of_figure)]


def _find_paper_runs(folder: Path, summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the first run of each method of the paper's figure, by the label of its column."""
    records = summary.get("runs")
    found: dict[str, str] = {}
    for label, (method, stride) in PAPER_METHODS.items():
        for name, record in (records if isinstance(records, Mapping) else {}).items():
            settings = record.get("config") or {}
            fits = record.get("method") == method and stride in (None, settings.get("s"))
            if fits and name in summary["methods"] and (folder / "slices" / name).is_dir():
                found.setdefault(label, name)
    return found


def curve_charts(folder: Path, summary: Mapping[str, Any]) -> list[Section]:
    """Return the curves: precision by recall, Dice by threshold, recall by lesion volume.

    Without a lesion there are none.
    """
    if not (folder / "curves.json").is_file():
        return []
    curves = read_json(folder / "curves.json")
    groups = {name: group["runs"] for name, group in summary["groups"].items()}
    best = summary["best_baseline"]
    groups |= {best: [best]} if best else {}
    drawn = []
    lines = _lines(groups, curves, "precision_recall", "recall", "precision")
    if lines:
        drawn.append(
            Chart(
                charts.line_chart(lines, best, "recall", "precision", x_limits=(0.0, 1.0)),
                "Precision against recall, the voxels of all subjects with a lesion pooled; "
                "a line per run.",
            )
        )
    lines = _lines(groups, curves, "dice_by_threshold", "threshold", "dice")
    if lines:
        label = {run: method["thresholds"]["label"] for run, method in summary["methods"].items()}
        marks = {
            name: [label[run] for run in groups[name] if label[run] is not None] for name in lines
        }
        drawn.append(
            Chart(
                charts.line_chart(lines, best, "threshold", "mean Dice", marks=marks),
                "Mean Dice of the scored subjects against the threshold; dots: the threshold "
                "chosen on labelled calibration subjects.",
            )
        )
    found = {name: [curves[run]["lesions"] for run in runs] for name, runs in groups.items()}
    recalls = {
        name: [_recall_by_volume(one) for one in every if one["found"]]
        for name, every in found.items()
    }
    recalls = {name: every for name, every in recalls.items() if every}
    if recalls:
        drawn.append(
            Chart(
                charts.volume_chart(recalls, best, VOLUME_EDGES_ML),
                "Share of lesions touched at the labelled threshold, by their volume; mean over "
                "runs, n lesions.",
            )
        )
    return [Section("Curves", charts=drawn)] if drawn else []


def _lines(
    groups: Mapping[str, Sequence[str]], curves: Mapping[str, Any], curve: str, x: str, y: str
) -> dict[str, list[charts.Line]]:
    lines = {
        name: [(curves[r][curve][x], curves[r][curve][y]) for r in runs]
        for name, runs in groups.items()
    }
    return {
        name: [line for line in own if line[0]]
        for name, own in lines.items()
        if any(line[0] for line in own)
    }


def _recall_by_volume(lesions: Mapping[str, list]) -> tuple[list[float], list[int]]:
    """Share found and number of lesions in each bin of VOLUME_EDGES_ML; nan for an empty bin."""
    volume, found = (
        np.array(lesions["volume_ml"], dtype=float),
        np.array(lesions["found"], dtype=float),
    )
    shares, counts = [], []
    for low, high in pairwise(VOLUME_EDGES_ML):
        inside = (volume >= low) & (volume < high)
        counts.append(int(inside.sum()))
        shares.append(float(found[inside].mean()) if inside.any() else float("nan"))
    return shares, counts


def _most_lesion(snapshot: Snapshot) -> int:
    weight = (
        snapshot.lesion
        if snapshot.lesion is not None and snapshot.lesion.any()
        else snapshot.brain
    )
    return int(weight.sum(axis=(1, 2)).argmax())
