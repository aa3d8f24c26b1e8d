"""Processes: their identity, whether they still run, workers that end with their parent, stops.

An identity survives the end of its process, so that files of killed runs can be recognised:

    (host, process number, start of the process)

The start distinguishes a process from a later one with the same number.
"""

import multiprocessing
import os
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PARENT_CHECK_SECONDS = 0.3
PR_SET_PDEATHSIG = 1  # linux/prctl.h
PF_EXITING = 4  # linux/sched.h: the process is closing its files
STOPS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask to stop: of a scheduler, and of a terminal that is closed (not on Windows)."""
PROGRAMS: set[int] = set()
"""Process groups of the programs that this process has started and that still run."""


def host_name() -> str:
    """Return the name of this machine, with the process namespace of a container."""
    name = socket.gethostname()
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name  # "pid:[4026531836]"
    except OSError:
        return name
    return f"{name}/{namespace.strip('pid:[]')}"


def start_of(pid: int) -> str:
    """Return a text that is different for a later process of the same number; may be empty.

    Args:
        pid: number of the process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return f"{boot}-{_read_stat(pid)[19]}"  # field 22 of proc(5): starttime
    except (OSError, IndexError):
        return ""


def is_running(pid: int, start: str = "") -> bool:
    """Return True if a process of this machine runs; a process that was killed does not.

    Args:
        pid: number of the process.
        start: from `start_of`; empty accepts any process of this number.
    """
    if pid <= 0:
        return False
    if sys.platform == "win32":
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)  # signal 0 is not sent
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True  # of another user
    try:
        stat = _read_stat(pid)
        # A killed process stays listed until its parent collects it.
        has_ended = stat[0] in ("Z", "X") or bool(int(stat[6]) & PF_EXITING)
    except (OSError, IndexError, ValueError):
        has_ended = False
    return not has_ended and (not start or start_of(pid) in ("", start))


def _read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third one, the state, on."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()  # the name in brackets may hold spaces


def _is_running_on_windows(pid: int) -> bool:
    """Ask Windows, where `os.kill` would end the process."""
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined, unused-ignore]
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return False
    code = ctypes.c_ulong()
    kernel.GetExitCodeProcess(handle, ctypes.byref(code))
    kernel.CloseHandle(handle)
    return code.value == 259  # STILL_ACTIVE


def end_with_parent() -> None:
    """End this worker process when its parent ends; call it before the first task.

    `STOPS` end the worker and the programs that it has started (`PROGRAMS`), unless it ignores
    them (nohup).
    A killed parent cannot stop its workers. Without this, they would write, or wait for ever.
    The parent may have ended before this call: its number is from the start of the worker.
    """
    for number in STOPS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end_with_programs)
    started_by = multiprocessing.parent_process()
    parent = os.getppid() if started_by is None else started_by.pid
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # at once

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


def _end_with_programs(number: int, _: object) -> None:
    """Kill the programs of this process, then end it as the signal does by default."""
    for group in tuple(PROGRAMS):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def pool_settings(threads: int | None) -> dict[str, Any]:
    """Return the arguments of `joblib.parallel_config` for worker processes.

    Args:
        threads: threads of a worker; None for all cores.
    """
    return {"backend": "loky", "inner_max_num_threads": threads, "initializer": end_with_parent}


@contextmanager
def stops_as_interrupt() -> Iterator[None]:
    """Handle `STOPS` like Ctrl-C inside the block.

    A program that handles or ignores one of them (nohup) keeps its handler, and so does any
    thread but the first.
    """
    replaced = [
        number
        for number in STOPS
        if threading.current_thread() is threading.main_thread()
        and signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in replaced:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in replaced:
            if signal.getsignal(number) is interrupt:  # after SIGHUP, further ones are ignored
                signal.signal(number, signal.SIG_DFL)


def interrupt(number: int, frame: Any) -> None:
    """Do what Ctrl-C does now: the handler of `STOPS`.

    A background job may ignore Ctrl-C, but not these.

    Raises:
        KeyboardInterrupt: unless a handler of Ctrl-C stops the work in another way.
    """
    leave_closed_terminal(number)
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, frame)
    else:
        raise KeyboardInterrupt


def leave_closed_terminal(number: int) -> None:
    """After SIGHUP, write to the null device what the closed terminal would refuse.

    Without this, the first message fails, and what should be saved after it is lost. Further
    SIGHUP are ignored: shell and kernel both send one, and the second must not cut the saving.

    Args:
        number: the signal; any other than SIGHUP changes nothing.
    """
    if signal.Signals(number).name != "SIGHUP":
        return
    signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        with suppress(OSError):  # closed
            if stat.S_ISCHR(os.fstat(standard).st_mode):  # not a file or a pipe
                os.dup2(null, standard)
    os.close(null)
