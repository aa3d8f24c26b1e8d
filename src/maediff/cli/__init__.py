"""The command line: `maediff COMMAND --help`. Heavy packages are imported inside the commands, so help is instant."""

import logging
import sys
from typing import Annotated, NoReturn

import typer

from maediff import __version__
from maediff.cli.benchmark import benchmark
from maediff.cli.calibrate import calibrate
from maediff.cli.compare import compare
from maediff.cli.demo import demo
from maediff.cli.detect import detect
from maediff.cli.evaluate import evaluate
from maediff.cli.models import models
from maediff.cli.preprocess import preprocess
from maediff.cli.report import report
from maediff.cli.train import train
from maediff.core.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    name="maediff",
    help="Learn healthy brains, redraw a scan as if healthy, show what is abnormal. For research, not diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    demo,
    preprocess,
    train,
    calibrate,
    detect,
    evaluate,
    compare,
    models,
    report,
    benchmark,
):
    app.command()(command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"maediff {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Options before the command."""


def _fail(said: str) -> NoReturn:
    typer.secho(f"maediff: {said}", err=True, fg="red" if sys.stderr.isatty() else None)
    sys.exit(2)


def main() -> None:
    """Entry point: user errors are one line and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("maediff").setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except InputError as error:
        _fail(str(error))
    except (
        OSError
    ) as error:  # what the file system says no to: a path too long, a full disk, no permission
        if error.strerror is None:
            raise
        where = error.filename2 or error.filename
        _fail(f"{where}: {error.strerror}" if where else error.strerror)
