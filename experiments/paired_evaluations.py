"""The same run in two evaluations of the same subjects, read otherwise: mean difference with its paired interval.

python experiments/paired_evaluations.py EVAL BEFORE RUN [RUN ...]

RUN//OTHER is called OTHER in BEFORE. Prints, for each run, in how many subjects AUPRC has become better, and the mean
over subjects of EVAL - BEFORE: of AUPRC, of AUPRC of the raw residual and of Dice, each with its 95 % bootstrap
interval, as `maediff evaluate` makes them within one evaluation.
"""

import csv
import math
import sys
from pathlib import Path
from typing import Any

from maediff.evaluation.summary import DIFFERENCES, differences


def rows_of(folder: Path, run: str) -> list[dict[str, Any]]:
    """The run's rows of scores.csv; an empty cell is not a number."""
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == run]
    if not rows:
        sys.exit(f"{folder}: scores no run named {run!r}")
    return [
        {
            "subject": row["subject"],
            "person": row.get("person") or row["subject"],
            **{key: float(row[key] or "nan") for key in DIFFERENCES},
        }
        for row in rows
    ]


def main() -> None:
    """Print a line for each run."""
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    for run in sys.argv[3:]:
        new, _, old = run.partition("//")
        now, before = rows_of(Path(sys.argv[1]), new), rows_of(Path(sys.argv[2]), old or new)
        (found,) = differences({"now": now, "before": before}, [("now", "before")])
        parts = {
            "auprc": found,
            **{key: found[key] for key in ("auprc_unfiltered", "dice") if found[key]},
        }
        text = (
            f"{key} {d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
            for key, d in parts.items()
        )
        of = {row["subject"]: row["auprc"] for row in before}
        better = sum(row["auprc"] > of.get(row["subject"], math.nan) for row in now)
        print(run, f"better in {better} of {found['n_subjects']}", *text, sep="\t")


if __name__ == "__main__":
    sys.exit(main())
