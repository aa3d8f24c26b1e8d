"""Commands for looking: `demo`, the whole way with no data, and `report`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.options import Device, NoDevice, NoQuiet, NoSeed, Overwrite, Quiet, Seed


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


def report(
    folder: Annotated[Path, typer.Argument(help="Output of detect, evaluate, train or demo.")],
    device: NoDevice = "auto",
    seed: NoSeed = 0,
    quiet: NoQuiet = False,
) -> None:
    """Write report.html again from what lies in a folder."""
    from maediff.detection.bids import WORK
    from maediff.report import write_report

    del device, seed, quiet
    if (folder / WORK).is_dir():  # a BIDS derivative
        path = write_report(folder / WORK, folder.resolve().name).replace(folder / "report.html")
    else:
        path = write_report(folder)
    typer.echo(f"report: {path}")
