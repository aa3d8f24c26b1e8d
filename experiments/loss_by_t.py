"""Validation loss of runs at single noise levels: python experiments/loss_by_t.py COHORT RUN [RUN ...].

The averaged weights, on the fixed val slices, patches and noise that training validates on, with t held at one value.
"""

import sys
from pathlib import Path

from lightning_fabric import Fabric

from maediff.cohort.cohort import Cohort
from maediff.core.device import has_bf16
from maediff.models.model import load_model
from maediff.training.config import TrainConfig
from maediff.training.loop import validation_loss

LEVELS = (125, 250, 375, 500, 700)


def main() -> None:
    """Print a line for each run."""
    cohort, *runs = sys.argv[1:]
    slices = Cohort.open(Path(cohort)).training_slices("val")
    fabric = Fabric(
        accelerator="cpu", devices=1, precision="bf16-mixed" if has_bf16("cpu") else "32-true"
    )
    for run in runs:
        methods = {t: load_model(f"{run}@t_train=[{t},{t + 1}]")[0] for t in LEVELS}
        losses = (
            validation_loss(m, slices, TrainConfig(batch_size=16), fabric)
            for m in methods.values()
        )
        print(
            run,
            *(f"t={t}: {loss:.4f}" for t, loss in zip(LEVELS, losses, strict=True)),
            sep="  ",
            flush=True,
        )


if __name__ == "__main__":
    main()
