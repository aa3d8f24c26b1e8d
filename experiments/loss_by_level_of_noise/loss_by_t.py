"""Measure the validation loss of runs at single noise levels.

    python experiments/loss_by_level_of_noise/loss_by_t.py COHORT RUN RUN --t 125 250 500

The loss is that of training, on the fixed validation slices, patches and noise, with the averaged
weights of the run. The noise level t has one value instead of the range that the run was trained
with.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_fabric import Fabric

from maediff.cohort.cohort import Cohort
from maediff.cohort.slices import SliceSet
from maediff.core.device import has_bf16
from maediff.core.errors import InputError
from maediff.models.model import read_model
from maediff.training.config import TrainConfig
from maediff.training.loop import validation_loss


def losses(run: str, slices: SliceSet, levels: Sequence[int]) -> list[float]:
    """Return the loss of a run at each noise level, in bf16 where the CPU supports it."""
    fabric = Fabric(
        accelerator="cpu", devices=1, precision="bf16-mixed" if has_bf16("cpu") else "32-true"
    )
    separator = "," if "@" in run else "@"
    methods = [read_model(f"{run}{separator}t_train=[{t},{t + 1}]").method for t in levels]
    return [
        validation_loss(method, slices, TrainConfig(batch_size=16), fabric) for method in methods
    ]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, help="cohort made by `maediff preprocess`")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders or model names")
    parser.add_argument(
        "--t",
        nargs="+",
        type=int,
        default=[125, 250, 375, 500, 700],
        help="noise levels; default: 125 250 375 500 700",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each run."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        slices = Cohort.open(args.cohort).training_slices("val")
        for run in args.runs:
            values = zip(args.t, losses(run, slices, args.t), strict=True)
            print(run, *(f"t={t}: {loss:.4f}" for t, loss in values), sep="  ", flush=True)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
