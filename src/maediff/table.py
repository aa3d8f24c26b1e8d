"""`table.md`: an evaluation as text, in fractions, best baseline marked, with all that a reader has to know."""

from collections.abc import Mapping, Sequence
from typing import Any

from maediff.summary import Summary

TABLE = {  # heading -> key of summary.json
    "AUPRC": "auprc",
    "AUPRC, pooled": "auprc_pooled",
    "AUPRC, no median filter": "auprc_unfiltered",
    "Dice": "dice",
    "Dice, healthy threshold": "dice_healthy_calibrated",
    "Dice, oracle (not achievable)": "dice_oracle",
    "Voxel FPR, healthy": "fpr_healthy",
    "Scan FPR, healthy": "scan_fpr_healthy",
    "l1, healthy": "l1_healthy",
    "PSNR, healthy": "psnr_healthy",
    "SSIM, healthy": "ssim_healthy",
}


def markdown_table(summary: Summary) -> str:
    """`table.md`: a row per run and baseline, then per group, then the differences and the notes."""
    lines = _table(summary["methods"], first=summary["baselines"], mark=summary["best_baseline"])
    if any(len(group["runs"]) > 1 for group in summary["groups"].values()):
        lines += ["", "Pooled over seeds (interval over subjects; ± standard deviation over seeds):", ""]
        lines += _table(summary["groups"])
    for title, key in (("runs", "differences"), ("methods, seeds pooled", "group_differences")):
        if summary[key]:
            lines += [
                "",
                f"Paired differences of AUPRC, {title}:",
                "",
                "| a - b | mean [95 % interval] | subjects |",
                "|---|---|---|",
            ]
            lines += [f"| {d['a']} - {d['b']} | {cell(d, sign='+')} | {d['n_subjects']} |" for d in summary[key]]
    kinds = sorted({kind for method in summary["methods"].values() for kind in method["auprc_by_kind"]})
    if kinds:
        lines += [
            "",
            "AUPRC by kind of lesion:",
            "",
            "| | " + " | ".join(kinds) + " |",
            "|---" * (len(kinds) + 1) + "|",
        ]
        lines += [
            f"| {name} | " + " | ".join(cell(method["auprc_by_kind"].get(kind)) for kind in kinds) + " |"
            for name, method in summary["methods"].items()
        ]
    lines += ["", *(f"- {note}" for note in summary["notes"])]
    return "\n".join(lines) + "\n"


def _table(methods: Mapping[str, Summary], first: Sequence[str] = (), mark: str | None = None) -> list[str]:
    headings = {heading: key for heading, key in TABLE.items() if any(m.get(key) is not None for m in methods.values())}
    lines = ["| | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    for name in [*(n for n in first if n in methods), *(n for n in methods if n not in first)]:
        label = f"{name} (best baseline)" if name == mark else name
        lines.append(f"| {label} | " + " | ".join(cell(methods[name].get(key)) for key in headings.values()) + " |")
    return lines


def cell(value: Any, sign: str = "") -> str:
    if value is None or (isinstance(value, Mapping) and value["mean"] is None):
        return "n/a"
    if not isinstance(value, Mapping):
        return f"{value:{sign}.3f}"
    text = f"{value['mean']:{sign}.3f}"
    if value.get("sd") is not None:
        text += f" ± {value['sd']:.3f}"
    return text if value["low"] is None else f"{text} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"
