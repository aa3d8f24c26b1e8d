"""Progress of a series of jobs: a bar on a terminal, otherwise lines that suit a log file.

    detect ━━━━━━━━━━ 3/20 0:00:31 3 min left     terminal; finished scans are printed above it
    3/20 sub-03: 2 regions, 4.1 ml; 3 min left    otherwise, a line for each scan

The lines are log records of level INFO, and those of failed jobs of level ERROR.
"""

import logging
import time
from collections import deque
from typing import Any

logger = logging.getLogger(__name__)

DETAIL_S = (10.0, 60.0)
"""Seconds between two lines of details in a log: at first, and after some time."""


class Progress:
    """Progress of a series of jobs, shown while the object is used as a context manager.

    Args:
        label: short name of the work, shown beside the bar.
        total: number of jobs.
        done: jobs that are finished at the start.
        limit_s: the work stops after this time in seconds; None for no limit.
        window: number of reports behind the estimated time left. It is limited because a resumed
            command skips its first jobs.
        quiet: show only failures.

    Example:
        >>> with Progress("detect", total=2, quiet=True) as progress:
        ...     progress.advance("sub-01: no region")
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        done: int = 0,
        limit_s: float | None = None,
        window: int = 20,
        quiet: bool = False,
    ) -> None:
        self.label, self.total, self.done = label, total, done
        self.limit_s, self.quiet = limit_s, quiet
        self.bar: Any = None
        self.began = self.last_line = time.monotonic()
        self.finished = deque([(self.began, done)], maxlen=window + 1)

    def __enter__(self) -> "Progress":
        self.began = self.last_line = time.monotonic()
        self.finished.clear()
        self.finished.append((self.began, self.done))
        if not self.quiet:
            self.bar = _make_bar()
        if self.bar is not None:
            self.bar.start()
            self.task = self.bar.add_task(
                self.label, total=self.total, completed=self.done, left="", detail=""
            )
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(
        self, text: str = "", *, by: int = 1, detail: bool = False, failed: bool = False
    ) -> None:
        """Report finished jobs.

        Args:
            text: result of the jobs, in one line; empty for no line.
            by: number of finished jobs.
            detail: the text is about one of many short jobs. A terminal shows it beside the bar,
                a log shows some of them.
            failed: the job failed. The text is logged as an error, even if quiet.
        """
        now = time.monotonic()
        self.done += by
        if by:
            self.finished.append((now, self.done))
        left = self.describe_time_left()
        if self.bar is not None:
            shown = {"detail": text} if detail else {}
            self.bar.update(self.task, completed=self.done, left=left, **shown)
        if text and (failed or not self.quiet) and (not detail or self._is_detail_due(now)):
            self.last_line = now
            logger.log(
                logging.ERROR if failed else logging.INFO, "%s", self._format_line(text, left)
            )

    def seconds_left(self) -> float | None:
        """Return the estimated time until the last job is done; None before the first is."""
        (before, done_before), (now, done) = self.finished[0], self.finished[-1]
        if done == done_before:
            return None
        left = (now - before) / (done - done_before) * (self.total - self.done)
        if self.limit_s is not None:
            left = min(left, max(0.0, self.limit_s - (now - self.began)))
        return left

    def describe_time_left(self) -> str:
        """Return the time left in words; empty if it is unknown or nothing is left."""
        seconds = self.seconds_left()
        if seconds is None or self.done >= self.total:
            return ""
        return f"{format_seconds(seconds)} left"

    def _is_detail_due(self, now: float) -> bool:
        """Return True if a log needs a line of details, because the last one is old."""
        first, later = DETAIL_S
        interval = min(later, max(first, (now - self.began) / 10))
        return self.bar is None and now - self.last_line >= interval

    def _format_line(self, text: str, left: str) -> str:
        """Return the text, for a log with the number of finished jobs and the time left."""
        if self.bar is not None or self.total == 1:
            return text
        return f"{self.done}/{self.total} {text}{f'; {left}' if left else ''}"


def format_seconds(seconds: float) -> str:
    """Return a time in words, with two units at most.

    Example:
        >>> format_seconds(40.0), format_seconds(170.0), format_seconds(4000.0)
        ('40 s', '3 min', '1 h 7 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _make_bar() -> Any:
    """Return a bar on the error stream; None if that is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    )
