"""Ctrl-C, SIGTERM or SIGHUP as a request to stop, so that a training step is not cut in half."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread

from maediff.core.processes.process import STOPS, interrupt, leave_closed_terminal

REPLACED = {signal.SIGINT: signal.default_int_handler, **dict.fromkeys(STOPS, interrupt)}
"""Handlers that the block replaces; any other handler is of a program that handles the signal."""


@contextmanager
def deferred_interrupt() -> Iterator[Event]:
    """Turn the first Ctrl-C inside the block into an event; the second raises KeyboardInterrupt.

    SIGTERM and SIGHUP do the same on the command line, where they act like Ctrl-C.
    Outside the main thread, or where a program already handles or ignores a signal, the signal is
    left alone and does not set the event.

    Yields:
        An event that the first of these signals sets.
    """
    requested = Event()

    replaced = {
        number: handler
        for number, handler in REPLACED.items()
        if current_thread() is main_thread() and signal.getsignal(number) is handler
    }

    def restore() -> None:
        for number, handler in replaced.items():
            if signal.getsignal(number) is request_stop:  # SIGHUP stays ignored
                signal.signal(number, handler)

    def request_stop(number: int, _: object) -> None:
        leave_closed_terminal(number)
        requested.set()
        restore()

    for number in replaced:
        signal.signal(number, request_stop)
    try:
        yield requested
    finally:
        restore()
