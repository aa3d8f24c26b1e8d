"""Scripts of `tools/` and `experiments/` for tests, which are no modules of the package."""

import importlib.util
import shlex
from functools import cache
from pathlib import Path
from types import ModuleType

from typer.main import get_command

from maediff.cli import app

ROOT = Path(__file__).parents[2]


@cache
def load_script(path: str) -> ModuleType:
    """Return the script at `path` (relative to the repository) as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_command(command: str) -> None:
    """Parse a `maediff ...` or `python SCRIPT ...` command without running it.

    Raises:
        click.UsageError, SystemExit: the command has an option or value that does not exist.
    """
    program, name, *rest = shlex.split(command)
    if program == "maediff":
        get_command(app).commands[name].make_context(name, rest)
    else:
        assert program == "python", command
        load_script(name).build_parser().parse_args(rest)
