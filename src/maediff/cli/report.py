"""`maediff report`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.shared.errors import echo


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Results of detect, evaluate, compare, train, preprocess or demo.",
            show_default=False,
        ),
    ],
) -> None:
    """Write report.html from the files in a folder of results; merge shards first, if any."""
    from maediff.report import write_report
    from maediff.report.shards import merge_shards

    if merged := merge_shards(folder):
        echo(f"merged: shards {', '.join(merged)}")
    echo(f"report: {write_report(folder)}")
