"""The tables of an evaluation, as rows of text; and `table.md`, which is made of them.

The first is laid out like the literature's: Dice and AUPRC in percent, mean and standard deviation over seeds, simple
baselines first. All others are in fractions, with intervals over subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maediff.evaluation.summary import Summary

UNFILTERED = "_unfiltered"
MAX_PAIRS = 30  # of runs shown; the others stand in summary.json
TABLE = {  # heading -> key of summary.json
    "AUPRC": "auprc",
    "AUPRC, pooled": "auprc_pooled",
    "AUPRC, all voxels": "auprc_all_voxels",
    "Dice": "dice",
    "Dice, healthy threshold": "dice_healthy_calibrated",
    "Dice, conformal": "dice_conformal",
    "Dice, oracle (not achievable)": "dice_oracle",
    "Lesion recall": "lesion_recall",
    "False positives per scan": "false_positives_per_scan",
    "Voxel FPR, healthy": "fpr_healthy",
    "Scan FPR, healthy": "scan_fpr_healthy",
    "Scan FPR, conformal": "scan_fpr_healthy_conformal",
    "Ill scans flagged, conformal": "scan_recall_conformal",
    "l1, healthy": "l1_healthy",
    "PSNR, healthy": "psnr_healthy",
    "SSIM, healthy": "ssim_healthy",
}
LITERATURE = {
    "Dice [%]": "dice",
    "AUPRC [%]": "auprc",
    "Dice, raw residual [%]": "dice_unfiltered",
    "AUPRC, raw residual [%]": "auprc_unfiltered",
}


@dataclass(frozen=True)
class Rows:
    """A table: its title, its heading and its rows; the first cell of a row names it."""

    title: str
    head: list[str]
    rows: list[list[str]]
    marked: int | None = None


def tables(summary: Summary) -> list[Rows]:
    """Every table of an evaluation, the most read first."""
    methods, groups = summary["methods"], summary["groups"]
    pooled = any(len(group["runs"]) > 1 for group in groups.values())
    shown = [literature(summary)]
    if pooled:
        title = "Methods, seeds pooled (interval over subjects; ± standard deviation over seeds)"
        shown += _details(title, groups)
        shown += _differences("methods, seeds pooled", summary["group_differences"])
    order = [
        *summary["baselines"],
        *(name for name in methods if name not in summary["baselines"]),
    ]
    shown += _details(
        "Runs", {name: methods[name] for name in order}, mark=summary["best_baseline"]
    )
    if len(summary["differences"]) <= MAX_PAIRS:
        shown += _differences("runs", summary["differences"])
    if not pooled and len(summary["differences"]) > MAX_PAIRS:
        shown += _differences("methods", summary["group_differences"])
    kinds = sorted({kind for method in methods.values() for kind in method["auprc_by_kind"]})
    if kinds:
        rows = [
            [name, *(cell(method["auprc_by_kind"].get(kind)) for kind in kinds)]
            for name, method in methods.items()
        ]
        shown.append(Rows("AUPRC by kind of lesion", ["", *kinds], rows))
    return shown


def literature(summary: Summary) -> Rows:
    """Dice and AUPRC in percent, a row per baseline and per group of seeds, post-processed and as the residual is."""
    best = summary["best_baseline"]
    rows: list[list[str]] = []
    marked = None
    for name in summary["baselines"]:
        if name == best:
            marked = len(rows)
        rows.append([_label(name, best), *_percents(summary["methods"][name]), ""])
    for name, group in summary["groups"].items():
        seeds = ", ".join("n/a" if seed is None else str(seed) for seed in group["seeds"])
        rows.append([name, *_percents(group), seeds])
    title = "Dice at the labelled threshold and AUPRC, in percent: mean over subjects, ± standard deviation over seeds"
    return Rows(title, ["Method", *LITERATURE, "Seeds"], rows, marked)


def markdown_table(summary: Summary) -> str:
    """`table.md`: every table, then the notes."""
    lines: list[str] = []
    for table in tables(summary):
        lines += [
            f"{table.title}:",
            "",
            "| " + " | ".join(table.head) + " |",
            "|---" * len(table.head) + "|",
        ]
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in summary["notes"])]) + "\n"


def cell(value: Any, sign: str = "") -> str:
    """A number of the summary as text: mean, deviation over seeds if there is one, interval; n/a for none."""
    if value is None or (isinstance(value, Mapping) and value["mean"] is None):
        return "n/a"
    if not isinstance(value, Mapping):
        return f"{value:{sign}.3f}"
    text = f"{value['mean']:{sign}.3f}"
    if value.get("sd") is not None:
        text += f" ± {value['sd']:.3f}"
    return (
        text
        if value["low"] is None
        else f"{text} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
    )


def _percents(method: Summary) -> list[str]:
    texts = []
    for key in LITERATURE.values():
        value = method.get(key)
        if value is None:
            texts.append("n/a")
        else:
            deviation = "" if value.get("sd") is None else f" ± {100 * value['sd']:.2f}"
            texts.append(f"{100 * value['mean']:.2f}{deviation}")
    return texts


def _details(title: str, methods: Mapping[str, Summary], mark: str | None = None) -> list[Rows]:
    found = []
    for said, suffix in (("post-processed", ""), ("of the raw residual", UNFILTERED)):
        keys = {heading: f"{key}{suffix}" for heading, key in TABLE.items()}
        keys = {
            heading: key
            for heading, key in keys.items()
            if any(m.get(key) is not None for m in methods.values())
        }
        if keys:
            rows = [
                [_label(name, mark), *(cell(m.get(key)) for key in keys.values())]
                for name, m in methods.items()
            ]
            marked = list(methods).index(mark) if mark and mark in methods else None
            found.append(Rows(f"{title}, {said}", ["", *keys], rows, marked))
    return found


def _differences(title: str, found: Sequence[Mapping[str, Any]]) -> list[Rows]:
    if not found:
        return []
    rows = [
        [
            f"{d['a']} - {d['b']}",
            cell(d, sign="+"),
            cell(d["dice"], sign="+"),
            cell(d["auprc_unfiltered"], sign="+"),
            cell(d["dice_unfiltered"], sign="+"),
            str(d["n_subjects"]),
        ]
        for d in found
    ]
    head = [
        "a - b",
        "AUPRC [95 % interval]",
        "Dice",
        "AUPRC, raw residual",
        "Dice, raw residual",
        "subjects",
    ]
    return [Rows(f"Paired differences over subjects, {title}", head, rows)]


def _label(name: str, best: str | None) -> str:
    return f"{name} (best baseline)" if name == best else name
