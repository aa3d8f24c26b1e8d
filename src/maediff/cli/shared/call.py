"""Command line of a call, as a report shows it: the arguments that the user gave, no folders."""

import re
import shlex
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

CONTEXT: ContextVar[Any] = ContextVar("CONTEXT", default=None)
"""Context of the command that runs; `Command.invoke` sets it."""
MAX_INPUTS = 4
"""More inputs are shown as their number."""
WITHOUT_EFFECT = ("resume", "overwrite", "quiet", "shard")
"""Options that change no result; a copied `--overwrite` could delete a folder."""
FOLDER = re.compile(r"^.*[/\\]")
NETWORK = "hf:"


def describe_call() -> str:
    """Return the present command line, with files and folders reduced to their names.

    A report is given to other people, so it holds no folder of the machine.

    Returns:
        The command line; empty if no command runs.
    """
    context = CONTEXT.get()
    if context is None:
        return ""
    words = ["maediff", str(context.info_name)]
    params = context.command.params
    for param in sorted(params, key=lambda param: param.param_type_name != "argument"):
        source = context.get_parameter_source(param.name)
        given = source is not None and source.name == "COMMANDLINE"
        if given and param.name not in WITHOUT_EFFECT:
            words += _describe_parameter(param, context.params[param.name])
    return shlex.join(words)


def _describe_parameter(param: Any, value: Any) -> Iterator[str]:
    """Yield the words of one parameter."""
    values = value if isinstance(value, list | tuple) else [value]
    if param.param_type_name == "argument":
        shown = values if len(values) <= MAX_INPUTS else [f"({len(values)} inputs)"]
        yield from map(_hide_folder, shown)
    elif getattr(param, "is_flag", False):
        names = param.opts if value else param.secondary_opts
        yield max(names, key=len)
    else:
        for each in values:
            yield from (max(param.opts, key=len), _hide_uid(param, each) or _hide_folder(each))


def _hide_uid(param: Any, value: Any) -> str:
    """Return UID for the UID of a DICOM series, which would identify the scan; else no text."""
    if param.name != "series":
        return ""
    from maediff.scans.dicom.studies import is_uid

    return "UID" if is_uid(value) else ""


def _hide_folder(value: Any) -> str:
    """Return a value as text; a path is reduced to its last part.

    Example:
        >>> _hide_folder(Path("/home/ann/run@t_test=125")), _hide_folder("hf:ORG/NAME")
        ('run@t_test=125', 'hf:ORG/NAME')
    """
    from maediff.models.reference import split_mean

    if isinstance(value, Path):
        return value.name or value.resolve().name
    parts = split_mean(str(value))
    return "+".join(each if each.startswith(NETWORK) else FOLDER.sub("", each) for each in parts)
