"""Windows and macOS, by simulation: modules, paths and names that only Linux has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import maediff

SOURCE = Path(maediff.__file__).parent
POSIX_MODULES = ("fcntl", "grp", "posix", "pwd", "resource", "termios")


def top_level_imports(tree):
    """Return the names of the modules that are imported when a module is imported."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def problems_of(tree):
    """Yield what in a module works on Linux only."""
    text = ast.dump(tree)
    for name in {name.partition(".")[0] for name in top_level_imports(tree)} & {*POSIX_MODULES}:
        yield f"imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("fork", "getuid", "mkfifo"):
            if "hasattr" not in text:
                yield f"line {node.lineno}: {node.attr}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith(("/tmp/", "/dev/shm")):
                yield f"line {node.lineno}: {node.value}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_text = node.func.attr in ("read_text", "write_text")
            if is_text and not _has_encoding(node):
                yield f"line {node.lineno}: {node.func.attr} without encoding"


def test_modules_need_no_posix():
    problems = {
        str(path.relative_to(SOURCE)): found
        for path in SOURCE.rglob("*.py")
        if (found := list(problems_of(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert not problems


def test_problems_are_noticed():
    code = """
import fcntl
os.fork()
Path("/dev/shm/x").read_text("utf-8")
"""
    assert len(list(problems_of(ast.parse(code)))) == 4


def _has_encoding(node):
    """Return True for an encoding; `write_text(path, text)` of core.files always writes UTF-8."""
    return any(word.arg == "encoding" for word in node.keywords) or len(node.args) == 2


def test_commands_start_without_posix_modules():
    blocked = ", ".join(f"{name!r}: None" for name in POSIX_MODULES if name != "posix")
    code = (
        f"import sys; sys.modules.update({{{blocked}}})\n"
        "import maediff.detection.benchmark, maediff.detection.detect, maediff.training.train\n"
        "import maediff.evaluation.evaluate, maediff.cohort.preprocess\n"
        "import maediff.cli.bids_app.main\n"
        "from maediff.cli import main\n"
        "sys.argv = ['maediff', 'models']; main()"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=200
    )
    assert result.returncode == 0, result.stderr
    assert "flair" in result.stdout
