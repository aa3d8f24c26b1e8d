"""Seconds of the stages of a detection, for `maediff benchmark`.

with record_stages() as seconds:
    detector.detect(scan)          # code below runs `with stage("network"): ...`
seconds["network"].wall
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class StageSeconds:
    """Time of a stage, summed over its calls.

    Args:
        wall: seconds that passed.
        cpu: seconds of all threads of the process.
    """

    wall: float = 0.0
    cpu: float = 0.0


_RECORD: ContextVar[dict[str, StageSeconds] | None] = ContextVar("stages", default=None)


@contextmanager
def record_stages() -> Iterator[dict[str, StageSeconds]]:
    """Record the stages that run inside the block, by name, in the order of their first end."""
    seconds: dict[str, StageSeconds] = {}
    token = _RECORD.set(seconds)
    try:
        yield seconds
    finally:
        _RECORD.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the time of the block to a stage, if somebody records; stages are not nested."""
    seconds = _RECORD.get()
    if seconds is None:
        yield
        return
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        total = seconds.setdefault(name, StageSeconds())
        total.wall += time.perf_counter() - wall
        total.cpu += time.process_time() - cpu
