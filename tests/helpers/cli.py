"""The command line, in this process or in one of its own, and its help as one line of text."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import torch
from typer.testing import CliRunner

from maediff.cli import app, main

PLAIN = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
"""Environment for texts without colours and narrow columns."""


def maediff(*arguments, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Run `python -m maediff` and return its exit code and texts; importing takes seconds."""
    return subprocess.run(
        [sys.executable, "-m", "maediff", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=300,
    )


def call_maediff(*arguments, cwd=None) -> subprocess.CompletedProcess:
    """Run `maediff` in this process and return its exit code and texts."""
    words = ["maediff", *map(str, arguments)]
    out, err = StringIO(), StringIO()
    with (
        patch.object(sys, "argv", words),
        chdir(cwd or Path.cwd()),
        redirect_stdout(out),
        redirect_stderr(err),
        restore_process(),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


@contextmanager
def restore_process() -> Iterator[None]:
    """Restore handlers of the log, environment and threads, which a command changes."""
    root, threads = logging.getLogger(), torch.get_num_threads()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # with the handlers of pytest, the command would add none
    try:
        with patch.dict(os.environ):
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        torch.set_num_threads(threads)


def read_help(*arguments) -> str:
    """Return the help of a command without line breaks and borders."""
    result = CliRunner().invoke(app, [*arguments, "--help"], env=PLAIN)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.replace("│", " ").split())
