"""Report while a training runs: seldom, and without an error for the training."""

import itertools
import logging

from maediff import report as live
from maediff.core.errors import InputError


def test_report_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    clock, calls = [100.0], []

    def write(folder):
        calls.append(clock[0])
        clock[0] += 2.0

    monkeypatch.setattr(live, "write_report", write)
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    writer = live.LiveReport()
    for _ in range(400):
        writer(tmp_path)
        clock[0] += 1.0
    assert calls[0] == 100.0 and len(calls) == 4
    assert min(b - a for a, b in itertools.pairwise(calls)) >= 2 / live.SHARE


def test_training_goes_on_without_a_report(tmp_path, monkeypatch, caplog):
    errors = [InputError("disk full"), ModuleNotFoundError("no", name="matplotlib")]
    for error, text in zip(errors, ("disk full", "matplotlib is not installed"), strict=True):
        calls = []

        def write(folder, error=error, calls=calls):
            calls.append(folder)
            raise error

        monkeypatch.setattr(live, "write_report", write)
        writer = live.LiveReport()
        with caplog.at_level(logging.INFO, logger="maediff.report"):
            writer(tmp_path)
            writer.due = 0.0
            writer(tmp_path)
        assert len(calls) == 1 and text in caplog.text
