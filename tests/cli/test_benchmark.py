"""`maediff benchmark`: the figures on the screen and in a file."""

import importlib
import json

import pytest

from maediff.core.errors import InputError
from maediff.detection import benchmark_detect as complete_calls

command = importlib.import_module("maediff.cli.benchmark")
library = importlib.import_module("maediff.detection.benchmark")
DETECT = {"workers": 1, "device": "cpu"}


@pytest.fixture
def figures(monkeypatch):
    figures = {"scans_per_minute": 7.5, "mfu": 0.25}
    monkeypatch.setattr(library, "benchmark", lambda *_, **__: dict(figures))
    monkeypatch.setattr(complete_calls, "benchmark_detect", lambda counts, **_: DETECT)
    monkeypatch.setattr(complete_calls, "format_table", lambda _: "the table\nhas lines")
    return figures


def test_figures_are_printed(figures, capsys):
    command.benchmark()
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["scans_per_minute", "7.5"],
        ["mfu", "0.25"],
        ["the", "table"],
        ["has", "lines"],
    ]


def test_quiet_figures_are_in_the_file(figures, tmp_path, capsys):
    command.benchmark(json=tmp_path / "out.json", quiet=True)
    assert json.loads((tmp_path / "out.json").read_text("utf-8")) == figures | {"detect": DETECT}
    assert capsys.readouterr().out == ""


def test_no_scans(figures, tmp_path):
    command.benchmark(json=tmp_path / "out.json", scans="0", quiet=True)
    assert json.loads((tmp_path / "out.json").read_text("utf-8")) == figures


def test_scans_that_are_no_numbers(figures):
    with pytest.raises(InputError, match="`scans=1,x`: give whole numbers"):
        command.benchmark(scans="1,x")
