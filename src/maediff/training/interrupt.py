"""Ctrl-C as a request to stop, so that a training step is not cut in half."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread


@contextmanager
def deferred_interrupt() -> Iterator[Event]:
    """Turn the first Ctrl-C inside the block into an event; the second raises KeyboardInterrupt.

    Outside the main thread, or where a program already handles or ignores SIGINT, the signal is
    left alone and the event is never set.

    Yields:
        An event that the first Ctrl-C sets.
    """
    requested = Event()

    def request_stop(*_: object) -> None:
        requested.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handled_here = (
        current_thread() is main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if handled_here:
        signal.signal(signal.SIGINT, request_stop)
    try:
        yield requested
    finally:
        if handled_here:
            signal.signal(signal.SIGINT, signal.default_int_handler)
