"""Tables of an evaluation as rows of text, and table.md, which holds all of them.

The first table has the layout of the literature: Dice and AUPRC in percent, mean and standard
deviation over seeds, baselines first. The other tables show fractions with intervals over
subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maediff.evaluation.summary import UNFILTERED, Summary

MAX_PAIRS = 30
"""Largest number of pairs of runs in table.md; summary.json has all of them."""
DETAIL_COLUMNS = {
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
    "Lesion scans flagged, conformal": "scan_recall_conformal",
    "l1, healthy": "l1_healthy",
    "PSNR, healthy": "psnr_healthy",
    "SSIM, healthy": "ssim_healthy",
}
"""Heading -> key of summary.json, for the tables in fractions."""
LITERATURE_COLUMNS = {
    "Dice [%]": "dice",
    "AUPRC [%]": "auprc",
    "Dice, raw residual [%]": "dice_unfiltered",
    "AUPRC, raw residual [%]": "auprc_unfiltered",
}
"""Heading -> key of summary.json, for the first table, in percent."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table of texts.

    Args:
        title: without a full stop.
        head: one heading per column.
        rows: the first cell of a row names it.
        marked: index of the row to highlight; None for no row.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    marked: int | None = None


def make_tables(summary: Summary) -> list[TextTable]:
    """Return all tables of an evaluation, the most important first.

    Args:
        summary: content of summary.json.
    """
    methods, groups, baselines = summary["methods"], summary["groups"], summary["baselines"]
    has_seeds = any(len(group["runs"]) > 1 for group in groups.values())
    tables = [literature_table(summary)]
    if has_seeds:
        title = "Methods, seeds pooled (interval over subjects; ± standard deviation over seeds)"
        tables += _detail_tables(title, groups)
        tables += _difference_tables("methods, seeds pooled", summary["group_differences"])
    order = [*baselines, *(name for name in methods if name not in baselines)]
    tables += _detail_tables(
        "Runs", {name: methods[name] for name in order}, best=summary["best_baseline"]
    )
    if len(summary["differences"]) <= MAX_PAIRS:
        tables += _difference_tables("runs", summary["differences"])
    elif not has_seeds:
        tables += _difference_tables("methods", summary["group_differences"])
    kinds = sorted({kind for method in methods.values() for kind in method["auprc_by_kind"]})
    if kinds:
        rows = [
            [name, *(format_cell(method["auprc_by_kind"].get(kind)) for kind in kinds)]
            for name, method in methods.items()
        ]
        tables.append(TextTable(title="AUPRC by kind of lesion", head=["", *kinds], rows=rows))
    return tables


def literature_table(summary: Summary) -> TextTable:
    """Return Dice and AUPRC in percent, one row per baseline and per group of seeds.

    Args:
        summary: content of summary.json.
    """
    best = summary["best_baseline"]
    rows: list[list[str]] = []
    marked = None
    for name in summary["baselines"]:
        if name == best:
            marked = len(rows)
        rows.append([_label(name, best), *_format_percents(summary["methods"][name]), ""])
    for name, group in summary["groups"].items():
        seeds = ", ".join("n/a" if seed is None else str(seed) for seed in group["seeds"])
        rows.append([name, *_format_percents(group), seeds])
    return TextTable(
        title="Dice at the labelled threshold and AUPRC, in percent: "
        "mean over subjects, ± standard deviation over seeds",
        head=["Method", *LITERATURE_COLUMNS, "Seeds"],
        rows=rows,
        marked=marked,
    )


def markdown_table(summary: Summary) -> str:
    """Return the content of table.md: all tables, then the notes.

    Args:
        summary: content of summary.json.
    """
    lines: list[str] = []
    for table in make_tables(summary):
        lines += [
            f"{table.title}:",
            "",
            "| " + " | ".join(table.head) + " |",
            "|---" * len(table.head) + "|",
        ]
        lines += ["| " + " | ".join(row) + " |" for row in table.rows]
        lines.append("")
    return "\n".join([*lines, *(f"- {note}" for note in summary["notes"])]) + "\n"


def format_cell(value: Any, sign: str = "") -> str:
    """Return a value of the summary as text: `mean ± sd [low, high]`; n/a for None.

    Args:
        value: a number, a mapping with `mean`, `low`, `high` and perhaps `sd`, or None.
        sign: "+" writes a plus before positive numbers.
    """
    if value is None or (isinstance(value, Mapping) and value["mean"] is None):
        return "n/a"
    if not isinstance(value, Mapping):
        return f"{value:{sign}.3f}"
    text = f"{value['mean']:{sign}.3f}"
    if value.get("sd") is not None:
        text += f" ± {value['sd']:.3f}"
    if value["low"] is None:
        return text
    return f"{text} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def _format_percents(method: Summary) -> list[str]:
    """Return the cells of LITERATURE_COLUMNS: mean and standard deviation over seeds."""
    texts = []
    for key in LITERATURE_COLUMNS.values():
        value = method.get(key)
        if value is None:
            texts.append("n/a")
        else:
            deviation = "" if value.get("sd") is None else f" ± {100 * value['sd']:.2f}"
            texts.append(f"{100 * value['mean']:.2f}{deviation}")
    return texts


def _detail_tables(
    title: str, methods: Mapping[str, Summary], best: str | None = None
) -> list[TextTable]:
    """Return a table of the post-processed scores and one of the raw residual's.

    Columns without a value are omitted, and so is a table without a column.

    Args:
        title: first part of the titles.
        methods: rows.
        best: name of the best baseline, to highlight.
    """
    tables = []
    marked = list(methods).index(best) if best and best in methods else None
    for version, suffix in (("post-processed", ""), ("raw residual", UNFILTERED)):
        keys = {
            heading: f"{key}{suffix}"
            for heading, key in DETAIL_COLUMNS.items()
            if any(method.get(f"{key}{suffix}") is not None for method in methods.values())
        }
        if keys:
            rows = [
                [_label(name, best), *(format_cell(method.get(key)) for key in keys.values())]
                for name, method in methods.items()
            ]
            tables.append(
                TextTable(title=f"{title}, {version}", head=["", *keys], rows=rows, marked=marked)
            )
    return tables


def _difference_tables(title: str, entries: Sequence[Mapping[str, Any]]) -> list[TextTable]:
    """Return the table of paired differences; no table without a pair."""
    if not entries:
        return []
    rows = [
        [
            f"{entry['a']} - {entry['b']}",
            format_cell(entry, sign="+"),
            format_cell(entry["dice"], sign="+"),
            format_cell(entry["auprc_unfiltered"], sign="+"),
            format_cell(entry["dice_unfiltered"], sign="+"),
            str(entry["n_subjects"]),
        ]
        for entry in entries
    ]
    head = [
        "a - b",
        "AUPRC [95 % interval]",
        "Dice",
        "AUPRC, raw residual",
        "Dice, raw residual",
        "subjects",
    ]
    return [TextTable(title=f"Paired differences over subjects, {title}", head=head, rows=rows)]


def _label(name: str, best: str | None) -> str:
    return f"{name} (best baseline)" if name == best else name
