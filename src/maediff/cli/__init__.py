"""Command line of maediff: one module per command, in which options are read and results printed.

Commands import heavy packages when they run, so `maediff --help` is instant.
"""

import io
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

from maediff import __version__
from maediff.cli.benchmark import benchmark
from maediff.cli.calibrate import calibrate
from maediff.cli.compare import compare
from maediff.cli.demo import demo
from maediff.cli.detect import detect
from maediff.cli.evaluate import evaluate
from maediff.cli.fit import fit
from maediff.cli.models import models
from maediff.cli.preprocess import preprocess
from maediff.cli.report import report
from maediff.cli.shared.commands import Command, Group
from maediff.cli.shared.errors import collect_flags, name_flags, show_log
from maediff.cli.train import train
from maediff.core.errors import InputError
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.process import stops_as_interrupt
from maediff.core.processes.scratch import remove_abandoned_scratch
from maediff.core.processes.threads import let_threads_sleep
from maediff.core.text import escape_message

__all__ = ["app", "main"]

app = typer.Typer(
    name="maediff",
    help="Unsupervised anomaly detection in brain MRI: learn healthy brains, reconstruct a scan "
    "as if it were healthy, and show the difference. For research, not for diagnosis.",
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for command in (
    demo,
    fit,
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
    app.command(cls=Command)(command)


def _print_version(value: bool) -> bool:
    if value:
        typer.echo(f"maediff {__version__}")
        raise typer.Exit
    return value


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    """Options before the command."""


def _escape_unprintable() -> None:
    """Escape letters that the terminal's encoding lacks (Windows), instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str) -> NoReturn:
    message = escape_message(message)
    typer.secho(f"maediff: {message}", err=True, fg="red" if sys.stderr.isatty() else None)
    sys.exit(2)


def _refuse_empty_arguments(arguments: Sequence[str]) -> None:
    """Refuse an empty argument: as a path, it would be the current folder.

    Raises:
        InputError: an argument is empty, for example "$SCAN" without a value.
    """
    for before, argument in pairwise(["maediff", *arguments]):
        if not argument.strip():
            raise InputError(
                f"the argument after {before!r} is empty (a variable without a value?); give a "
                "value, or leave it out"
            )


def main() -> None:
    """Run a command; a user error prints one line to the error stream and exits with code 2.

    Messages of the library name arguments. The user sees the flags of the command line instead.
    """
    let_threads_sleep()
    _escape_unprintable()
    group = typer.main.get_command(app)
    flags = collect_flags(group)
    show_log(flags)
    try:
        _refuse_empty_arguments(sys.argv[1:])
        with stops_as_interrupt(), hold_locks():
            group(prog_name="maediff")
    except InputError as error:
        _fail(name_flags(str(error), flags))
    except OSError as error:  # for example a path too long, a full disk, no permission
        if error.strerror is None:
            raise
        where = error.filename2 or error.filename
        _fail(f"{where}: {error.strerror}" if where else error.strerror)
    finally:
        remove_abandoned_scratch()  # of workers that were stopped with the command
