"""Library messages in the words of the command line.

Library messages name arguments in backticks; the command line prints the flags instead:

    `overwrite=True`                ->  --overwrite
    `device='cuda'`                 ->  --device cuda
    `scan_fpr`                      ->  --scan-fpr
    `postprocess.symmetry=0`        ->  --set postprocess.symmetry=0

Text in backticks that is no option of any command, for example `maediff train`, stays as it is.
"""

import ast
import logging
import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

import typer

from maediff.core.text import escape_lines, escape_message

ARGUMENT = re.compile(r"`([A-Za-z]\w*(?:\.\w+)*)(?:=([^`]*))?`")
SETTINGS = "settings"  # the library's name for the values of --set


def collect_flags(group: Any) -> dict[str, str]:
    """Return the long flag of every option of every command, by the name of its argument.

    Args:
        group: the command line, from `typer.main.get_command`.
    """
    flags = {
        str(option.name): next(name for name in option.opts if name.startswith("--"))
        for command in group.commands.values()
        for option in command.params
        if any(name.startswith("--") for name in option.opts)
    }
    return flags | {SETTINGS: "--set"}


def name_flags(message: str, flags: Mapping[str, str]) -> str:
    """Replace the arguments that a library message names in backticks by command-line flags.

    Args:
        message: text of an error or a log record.
        flags: from `collect_flags`.
    """

    def replace(match: re.Match[str]) -> str:
        name, value = match.groups()
        if "." in name and value is not None and SETTINGS in flags:
            return f"{flags[SETTINGS]} {shlex.quote(f'{name}={value}')}"
        if name not in flags:
            return match.group()
        if value is None or value == "True":
            return flags[name]
        return f"{flags[name]} {_format_value(value)}"

    return ARGUMENT.sub(replace, message)


def echo(text: str, *, err: bool = False) -> None:
    """Print a result, with control characters in names and paths escaped.

    Args:
        text: the line.
        err: print to the error stream.
    """
    typer.echo(escape_message(text), err=err)


def echo_page(text: str) -> None:
    """Print a result of several lines, such as a table, with control characters escaped.

    Args:
        text: the lines.
    """
    typer.echo(escape_lines(text))


def _format_value(text: str) -> str:
    """Return a Python value as the user types it: without quotes, a list with commas."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text  # a path or a placeholder
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return shlex.quote(value) if isinstance(value, str) else text


class FlagFormatter(logging.Formatter):
    """Log formatter that names flags instead of arguments, and shows external text safely.

    A control character in a file name is escaped, so that no name can forge a line of the log.
    """

    def __init__(self, flags: Mapping[str, str]) -> None:
        super().__init__("%(message)s")
        self.flags = flags

    def format(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)
        record.msg, record.args = escape_message(record.getMessage()), None
        return name_flags(super().format(record), self.flags)


class TerminalHandler(logging.StreamHandler):
    """Log handler for the error stream of the moment.

    A progress bar replaces `sys.stderr` while it is shown, and prints the lines above itself.
    A warning is shown once: a command that searches a folder for each contrast meets the same
    files again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.warnings: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            text = record.getMessage()
            if text in self.warnings:
                return
            self.warnings.add(text)
        self.stream = sys.stderr
        super().emit(record)


def show_log(flags: Mapping[str, str]) -> None:
    """Show the messages of maediff, and the warnings of other packages, on the error stream.

    Args:
        flags: from `collect_flags`.
    """
    handler = TerminalHandler()
    handler.setFormatter(FlagFormatter(flags))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("maediff").setLevel(logging.INFO)
