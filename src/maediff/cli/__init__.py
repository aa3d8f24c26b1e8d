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
from maediff.cli.errors import FlagFormatter, collect_flags, name_flags
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


def _fail(message: str) -> NoReturn:
    typer.secho(f"maediff: {message}", err=True, fg="red" if sys.stderr.isatty() else None)
    sys.exit(2)


def main() -> None:
    """Run a command; user errors are one line on the error stream and exit code 2.

    Messages of the library name arguments; the user sees the flags of the command line instead.
    """
    flags = collect_flags(app)
    handler = logging.StreamHandler()
    handler.setFormatter(FlagFormatter(flags))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("maediff").setLevel(logging.INFO)
    try:
        app(standalone_mode=True)
    except InputError as error:
        _fail(name_flags(str(error), flags))
    except OSError as error:  # for example a path too long, a full disk, no permission
        if error.strerror is None:
            raise
        where = error.filename2 or error.filename
        _fail(f"{where}: {error.strerror}" if where else error.strerror)
