import logging
import sys
from itertools import pairwise

import pytest

from maediff.core.progress import Progress, format_seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr("maediff.core.progress.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def test_a_log_has_a_line_for_each_job_with_the_time_left(clock, log):
    with Progress("detect", 3) as progress:
        for seconds, name in ((10, "a"), (20, "b"), (30, "c")):
            clock[0] = float(seconds)
            progress.advance(f"{name}: no region")
    assert log.messages == [
        "1/3 a: no region; 20 s left",
        "2/3 b: no region; 10 s left",
        "3/3 c: no region",
    ]


def test_a_single_job_has_no_counter(clock, log):
    with Progress("detect", 1) as progress:
        progress.advance("a: no region")
    assert log.messages == ["a: no region"]


def test_quiet_shows_only_failures(clock, log):
    with Progress("detect", 2, quiet=True) as progress:
        progress.advance("a: no region")
        progress.advance("b failed: damaged", failed=True)
    assert [(record.levelname, record.getMessage()) for record in log.records] == [
        ("ERROR", "2/2 b failed: damaged")
    ]


def test_skipped_jobs_leave_the_estimate(clock):
    with Progress("detect", 110, window=5) as progress:
        for _ in range(100):  # kept from the run that is resumed
            progress.advance()
        for _ in range(5):
            clock[0] += 8
            progress.advance()
        assert progress.seconds_left() == pytest.approx(5 * 8)


def test_details_are_thinned_out_in_a_log(clock, log):
    with Progress("training", 1000) as progress:
        for _ in range(1000):
            clock[0] += 1
            progress.advance("loss 0.1", detail=True)
    numbers = [int(line.partition("/")[0]) for line in log.messages]
    assert numbers[0] == 10
    assert 20 < len(numbers) < 60
    assert max(b - a for a, b in pairwise(numbers)) <= 61


def test_time_left_ends_at_the_limit(clock):
    with Progress("training", 1000, limit_s=60.0) as progress:
        assert progress.seconds_left() is None
        clock[0] = 10.0
        progress.advance(by=1)
        assert progress.seconds_left() == pytest.approx(50)
        clock[0] = 100.0
        progress.advance(by=1)
        assert progress.seconds_left() == 0


def test_a_terminal_shows_a_bar_and_the_lines_above_it(clock, monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    handler = logging.StreamHandler()
    handler.emit = lambda record: sys.stderr.write(f"{record.getMessage()}\n")  # type: ignore[method-assign]
    logger = logging.getLogger("maediff.core.progress")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with Progress("detect", 2) as progress:
            progress.advance("[bold]a: no region")
            progress.advance("b", detail=True)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "[bold]a: no region\n" in captured.err
    assert "detect" in captured.err
    assert "2/2" in captured.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99.0, "99 s"), (100.0, "2 min"), (3570.0, "1 h 0 min"), (4000.0, "1 h 7 min")],
)
def test_times_in_words(seconds, text):
    assert format_seconds(seconds) == text
