"""`maediff demo`."""

from pathlib import Path
from typing import Annotated

import typer

from maediff.cli.shared.errors import echo
from maediff.cli.shared.options import Device, Overwrite, Quiet, Seed


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the results.")
    ] = Path("demo"),
    train: Annotated[
        bool, typer.Option("--train", help="Train a model instead of using a shipped model.")
    ] = False,
    open_report: Annotated[
        bool, typer.Option("--open", help="Open the report in the web browser.")
    ] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Run the complete pipeline on synthetic brains; needs no data, no GPU and no network."""
    from maediff.demo import demo as run_demo

    page = run_demo(out, train=train, overwrite=overwrite, device=device, seed=seed, quiet=quiet)
    if quiet:
        echo(f"report: {page}")
    if open_report:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            echo(f"no web browser was found; open {page} yourself", err=True)
