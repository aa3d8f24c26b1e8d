"""`maediff demo`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.options import Device, Overwrite, Quiet, Seed


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("demo"),
    train: Annotated[
        bool, typer.Option("--train", help="Train a model instead of using a shipped one.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Phantoms -> shipped model -> calibrate -> detect -> evaluate -> report. No data, no GPU, no network."""
    from maediff.demo import demo as run

    page = run(out, train=train, overwrite=overwrite, device=device, seed=seed, quiet=quiet)
    if quiet:
        typer.echo(f"report: {page}")
