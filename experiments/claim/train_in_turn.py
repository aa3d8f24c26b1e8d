"""Train MAEDiff and pDDPM with the paper's recipe in turn, and keep copies at equal budgets.

    RUNS/maediff-paper, RUNS/pddpm-paper          the runs
    RUNS/maediff-paper-SLICES, ...                the runs as they were after so many slices

The learning rate is constant and without a warm-up, so a copy is the run that a smaller budget
would have given. The copies allow a comparison before the whole budget is spent.
"""

import argparse
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from maediff.core.files import read_json
from maediff.core.options import RunOptions
from maediff.training.train import train

BATCH = 32
METHODS = ("maediff", "pddpm")
# t over the whole schedule, simplex noise, l1 in the patch, no synthetic lesions.
PAPER: dict[str, Any] = {
    "t_train": [0, 1000],
    "noise": "simplex",
    "loss": "l1",
    "s": 16,
    "visible_weight": 0,
    "train": {
        "recommended": False,
        "fabricate": {"share": 0},
        "schedule": "constant",
        "warmup_steps": 0,
        "learning_rate": 1e-4,
        "flip": False,
        "batch_size": BATCH,
        "calibration_scans": 0,
    },
}


class CopyMadeError(Exception):
    """The run reached the step at which the other method continues."""


def train_until(method: str, cohort: Path, runs: Path, step: int, steps: int) -> None:
    """Train a method until a step that has a checkpoint, of `steps`, and copy its run."""
    out = runs / f"{method}-paper"
    copy = runs / f"{out.name}-{step * BATCH}"
    if copy.exists():
        return

    def stop_at_step(folder: Path) -> None:
        if read_json(folder / "provenance.json", dict)["step"] >= step:
            raise CopyMadeError

    with suppress(CopyMadeError):
        result = train(
            method,
            cohort,
            out,
            preset="tiny",
            settings=PAPER | {"train": PAPER["train"] | {"steps": steps}},
            on_checkpoint=stop_at_step,
            run=RunOptions(seed=0, resume=True, quiet=True),
        )
        if result["step"] < step:
            raise KeyboardInterrupt  # the first Ctrl-C has only ended the training
    part = copy.with_name(f"{copy.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(out, part)
    part.rename(copy)
    print(f"{copy}: done", flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, help="cohort to train on")
    parser.add_argument("runs", type=Path, help="folder of the runs: $RUNS of run.sh")
    parser.add_argument("--budget", type=int, default=573_000, help="slices per run; %(default)s")
    parser.add_argument("--interval", type=int, default=500, help="steps between two copies")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train both methods up to each multiple of the interval, and to the end."""
    args = build_parser().parse_args(argv)
    steps = args.budget // BATCH
    for step in [*range(args.interval, steps, args.interval), steps]:
        for method in METHODS:
            train_until(method, args.cohort, args.runs, step, steps)


if __name__ == "__main__":
    main()
