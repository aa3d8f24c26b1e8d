"""Complete calls of detect: their arithmetic, the synthetic scans, and a call that fails."""

import sys

import numpy as np
import pytest

from maediff.core.errors import InputError
from maediff.detection import benchmark_detect as module
from maediff.detection.benchmark_detect import (
    CallFigures,
    benchmark_detect,
    format_table,
    make_scan,
    run_command,
)
from maediff.preparation.background import RawScanError, brain_from_background
from maediff.scans.volume import volume_from_array


@pytest.fixture
def calls(monkeypatch):
    calls = []

    def run(command):
        folder = module.Path(command[command.index("detect") + 1])
        calls.append((len(list(folder.iterdir())), command))
        return CallFigures(wall_s=30.0, cpu_s=40.0, peak_gb=1.25)

    stages = {"network": {"wall": 5.0, "cpu": 10.0}, "rest": {"wall": 1.0, "cpu": 1.0}}
    monkeypatch.setattr(module, "measure_stages", lambda *_: stages)
    monkeypatch.setattr(module, "make_scan", lambda _: (np.ones((2, 2, 2), "f4"), np.eye(4)))
    return calls, run


def test_figures_of_calls(calls):
    made, run = calls
    result = benchmark_detect([4, 1], kinds=["head"], workers=2, threads=1, device="cpu", run=run)
    assert [count for count, _ in made] == [1, 4]
    for _, command in made:
        assert command[1:4] == ["-m", "maediff", "detect"]
        assert " ".join(command).endswith(
            "--workers 2 --device cpu --model t1 --quiet --threads 1"
        )
    one, four = result["head"]["calls"]
    assert (one["scans_per_minute"], four["scans_per_minute"]) == (2.0, 8.0)
    assert one["peak_memory_gb"] == 1.25
    assert result["head"]["network_share"] == 0.25
    assert "stripped" not in result
    table = format_table(result)
    assert "head, 2 worker(s), cpu" in table and "network: 25%" in table


@pytest.mark.parametrize("counts", [[], [0, 1]])
def test_no_scans_are_refused(counts, calls):
    with pytest.raises(InputError, match="give numbers of 1 or more"):
        benchmark_detect(counts, device="cpu", run=calls[1])


def test_a_call_that_fails():
    with pytest.raises(InputError, match="failed:\nno such scan"):
        run_command([sys.executable, "-c", "print('no such scan'); raise SystemExit(2)"])


def test_figures_of_a_process():
    figures = run_command([sys.executable, "-c", "sum(range(10**6))"])
    assert figures.wall_s > 0 and figures.cpu_s > 0 and 0.001 < figures.peak_gb < 64


@pytest.mark.slow
def test_only_the_head_has_a_skull():
    stripped, head = (volume_from_array(*make_scan(kind)) for kind in ("stripped", "head"))
    assert brain_from_background(stripped).any()
    with pytest.raises(RawScanError):
        brain_from_background(head)


def test_the_memory_of_a_command_excludes_that_of_its_caller():
    held = np.ones(40_000_000)  # 320 MB
    small = run_command([sys.executable, "-c", "pass"])
    large = run_command([sys.executable, "-c", "block = bytes(range(256)) * 1_000_000"])
    assert held.all() and small.peak_gb < 0.1 and 0.25 < large.peak_gb < 0.4
