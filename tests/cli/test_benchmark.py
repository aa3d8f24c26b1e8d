"""`maediff benchmark`: the figures on the screen and in a file."""

import importlib
import json

import pytest

command = importlib.import_module("maediff.cli.benchmark")
library = importlib.import_module("maediff.detection.benchmark")


@pytest.fixture
def figures(monkeypatch):
    figures = {"scans_per_minute": 7.5, "mfu": 0.25}
    monkeypatch.setattr(library, "benchmark", lambda *_, **__: figures)
    return figures


def test_figures_are_printed(figures, capsys):
    command.benchmark()
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["scans_per_minute", "7.5"],
        ["mfu", "0.25"],
    ]


def test_quiet_figures_are_in_the_file(figures, tmp_path, capsys):
    command.benchmark(json=tmp_path / "out.json", quiet=True)
    assert json.loads((tmp_path / "out.json").read_text()) == figures
    assert capsys.readouterr().out == ""
