"""`maediff report`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.errors import echo


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Results of detect, evaluate, train, preprocess or demo.",
            show_default=False,
        ),
    ],
) -> None:
    """Write report.html again from the files in a folder of results."""
    from maediff.report import write_report

    echo(f"report: {write_report(folder)}")
