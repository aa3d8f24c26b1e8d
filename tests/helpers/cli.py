"""The command line in a process of its own, and its help as one line of text."""

import os
import subprocess
import sys

from typer.testing import CliRunner

from maediff.cli import app

PLAIN = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
"""Environment for texts without colours and narrow columns."""


def maediff(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run `python -m maediff` and return its exit code and texts."""
    return subprocess.run(
        [sys.executable, "-m", "maediff", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )


def read_help(*arguments) -> str:
    """Return the help of a command without line breaks and borders."""
    result = CliRunner().invoke(app, [*arguments, "--help"], env=PLAIN)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.replace("│", " ").split())
