"""Compare a run in two evaluations of the same subjects, for example before and after a change.

    python experiments/paired_comparison/paired_evaluations.py NEW_EVAL OLD_EVAL RUN RUN//OLD_NAME

NEW_EVAL and OLD_EVAL are folders written by `maediff evaluate`. RUN//OLD_NAME is a run that has
another name in OLD_EVAL. The script prints a line for each run: in how many subjects the AUPRC is
higher, then the mean of NEW - OLD over subjects with its paired 95 % bootstrap interval, for the
AUPRC, the AUPRC of the residual without median filter and blur, and the Dice. `maediff evaluate`
computes the same intervals for two runs of one evaluation.
"""

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maediff.core.errors import InputError
from maediff.evaluation.summary import DIFFERENCES, differences


def read_scores(folder: Path, run: str) -> list[dict[str, Any]]:
    """Return the scores of a run from `scores.csv`, a row for each subject; an empty cell is NaN.

    Raises:
        InputError: `folder` is no evaluation, or did not score the run.
    """
    path = folder / "scores.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}; give a folder written by `maediff evaluate`"
        ) from None
    runs = dict.fromkeys(row["method"] for row in rows)
    if run not in runs:
        raise InputError(f"{path}: has no run {run!r}; it has {', '.join(runs)}")
    return [
        {
            "subject": row["subject"],
            "person": row.get("person") or row["subject"],
            **{key: float(row[key] or "nan") for key in DIFFERENCES},
        }
        for row in rows
        if row["method"] == run
    ]


def compare(new: Sequence[dict[str, Any]], old: Sequence[dict[str, Any]]) -> list[str]:
    """Return the count of subjects with a higher AUPRC, then the mean differences as texts."""
    (result,) = differences({"new": new, "old": old}, [("new", "old")])
    intervals = {"auprc": result, "auprc_unfiltered": result["auprc_unfiltered"]}
    intervals["dice"] = result["dice"]
    texts = [
        f"{key} {format_signed(value['mean'])} "
        f"[{format_signed(value['low'])}, {format_signed(value['high'])}]"
        for key, value in intervals.items()
        if value
    ]
    new_auprc, old_auprc = average_by_person(new), average_by_person(old)
    better = sum(new_auprc[person] > old_auprc.get(person, math.nan) for person in new_auprc)
    return [f"better in {better} of {result['n_subjects']}", *texts]


def format_signed(value: float | None) -> str:
    """Return a difference with its sign; one person has no interval."""
    return "n/a" if value is None else f"{value:+.3f}"


def average_by_person(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the mean AUPRC of each person."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["person"], []).append(row["auprc"])
    return {person: sum(values) / len(values) for person, values in scores.items()}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("new", type=Path, metavar="NEW_EVAL", help="evaluation to judge")
    parser.add_argument("old", type=Path, metavar="OLD_EVAL", help="evaluation to compare with")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="name in scores.csv; RUN//OLD_NAME if it changed"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each run."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        for run in args.runs:
            name, _, old_name = run.partition("//")
            new, old = read_scores(args.new, name), read_scores(args.old, old_name or name)
            print(run, *compare(new, old), sep="\t")
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
