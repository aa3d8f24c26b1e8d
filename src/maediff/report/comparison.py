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
from maediff.core.files import read_json
from maediff.report import charts, slices
from maediff.report.elements import Chart, Section, colour_scale

VOLUME_EDGES_ML = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, float("inf"))


def shown_runs(folder: Path, summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the shown runs and their thresholds: one run per method, and the best baseline."""
    names = [group["runs"][0] for group in summary["groups"].values()]
    names += [summary["best_baseline"]] if summary["best_baseline"] else []
    shown = {}
    for name in names:
        if (folder / "slices" / name).is_dir():
            found = summary["methods"][name]["thresholds"]
            shown[name] = found["healthy"] if found["label"] is None else found["label"]
    return shown


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
    subjects = sorted(path.stem for path in (folder / "slices" / next(iter(shown))).glob("*.npz"))
    for subject in subjects:
        pictures: list[slices.RGB] = []
        columns = ["scan"]
        for name, threshold in shown.items():
            snapshot = load_slices(folder / "slices" / name / f"{subject}.npz")
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
    chart = Chart(
        charts.tile_chart(rows, columns),
        "one slice of each subject through every method",
        wide=110 + 82 * len(columns),
    )
    text = [
        "One run of each method, the slice with most lesion (or most brain) of the first subjects "
        "by name. Colours of an anomaly map run from 0 to twice the method's own threshold, the "
        "same for every subject."
    ]
    return [Section("Comparison", text=text, charts=[chart], scale=colour_scale(None, None))]


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
