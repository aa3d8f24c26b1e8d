"""Commands for looking: `demo`, the whole way with no data, and `report`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.options import NoDevice, NoQuiet, NoSeed


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
