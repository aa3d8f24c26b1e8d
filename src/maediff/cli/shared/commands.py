"""Command and group classes: flags have no type and take no value; help lists registered names.

A command that Ctrl-C, SIGTERM or SIGHUP stops prints how to continue, and exits with code 130.

Typer shows `<bool>` beside every flag, which invites `--resume true`. The parser then treats
`true` as an INPUT, because a flag takes no value.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from maediff.cli.shared.call import CONTEXT

STOPPED = 130
"""Exit code after Ctrl-C, SIGTERM or SIGHUP: 128 + the number of SIGINT, as in a shell."""
HINTS = {
    "resume": "; finished parts are kept: the same command with --resume continues",
    "overwrite": "; the same command with --overwrite starts again",
}
"""End of the message of a stopped command, by the name of its option."""
ONLY_SHARDS_RESUME = {"evaluate"}
"""Commands that continue with --resume only as a shard."""
BOOLEAN_WORDS = {"true", "false", "yes", "no", "on", "off", "1", "0"}


class Command(TyperCommand):
    """Command whose help shows no type for flags, and that refuses `--flag true`."""

    def get_help_option_names(self, ctx: Any) -> list[str]:
        """Return the names of the help option, `--help` first."""
        return sorted(super().get_help_option_names(ctx))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, flags without a type."""
        return _hide_flag_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the names of the registry."""
        fill_names(self)
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, after a check for flags that are followed by a boolean word.

        Raises:
            UsageError: a flag has a value.
        """
        flags = {flag for param in self.get_params(ctx) if _is_flag(param) for flag in param.opts}
        options = list(takewhile(lambda argument: argument != "--", args))
        for flag, value in pairwise(options):
            is_word = value.lower() in BOOLEAN_WORDS and not Path(value).exists()
            if flag in flags and is_word:
                ctx.fail(f"{flag} is a flag and takes no value: leave out {value!r}")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; if the user stops it, print how to continue.

        Raises:
            Exit: with the code STOPPED.
        """
        token = CONTEXT.set(ctx)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            names = {str(param.name) for param in self.params}
            if self.name in ONLY_SHARDS_RESUME and not ctx.params.get("shard"):
                names.discard("resume")
            hint = next((text for name, text in HINTS.items() if name in names), "")
            typer.echo(f"maediff: stopped{hint}", err=True)
            raise typer.Exit(STOPPED) from None
        finally:
            CONTEXT.reset(token)


class Group(TyperGroup):
    """Group of commands whose help shows no type for flags."""

    def get_help_option_names(self, ctx: Any) -> list[str]:
        """Return the names of the help option, `--help` first."""
        return sorted(super().get_help_option_names(ctx))

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, flags without a type."""
        return _hide_flag_types(super().get_params(ctx))


def fill_names(command: Any) -> None:
    """Replace `{methods}` and `{presets}` in the help of a command by the registered names.

    The registry needs torch, so only commands with such a text import it, and only for help.
    """
    for param in command.params:
        text = getattr(param, "help", None) or ""
        if "{methods}" in text or "{presets}" in text:
            from maediff.methods.registry import PRESETS, TRAINED

            text = text.replace("{methods}", _join_names(TRAINED))
            param.help = text.replace("{presets}", _join_names(PRESETS))


def _join_names(names: Iterable[str]) -> str:
    """Return names as text: `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _is_flag(param: Any) -> bool:
    return bool(getattr(param, "is_flag", False))


def _hide_flag_types(params: Sequence[Any]) -> list[Any]:
    """Return the parameters; the type of each flag, as help shows it, is empty."""
    for param in filter(_is_flag, params):
        param.metavar = ""
    return list(params)
