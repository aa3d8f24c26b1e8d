"""Start one process for each device of this machine, and watch the processes.

The processes get the environment variables of torchrun, so that Fabric finds them:
https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import current_thread, main_thread
from typing import Any

from maediff.core.errors import InputError
from maediff.core.processes.process import STOPS, end_with_parent, leave_closed_terminal
from maediff.training.ranks import LostRankError

logger = logging.getLogger(__name__)
GRACE_S = 3.0
"""Seconds that the other ranks have to end by themselves, after one has ended early."""


def run_ranks(function: Callable[..., Any], arguments: Mapping[str, Any], count: int) -> Any:
    """Call `function(**arguments)` in `count` processes and return the result of rank 0.

    Args:
        function: a function of a module; it finds its rank in the environment.
        arguments: values that can be pickled.
        count: number of processes.

    Raises:
        InputError: the error of a rank, or the name of a rank that died.
        KeyboardInterrupt: a rank was stopped by Ctrl-C.
    """
    context = multiprocessing.get_context("spawn")
    environment = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_find_free_port()),
        "TORCHELASTIC_RUN_ID": "maediff",
    }
    level = logging.getLogger("maediff").getEffectiveLevel()
    readers: list[Connection] = []
    processes: list[BaseProcess] = []
    for rank in range(count):
        reader, writer = context.Pipe(duplex=False)
        variables = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = context.Process(
            target=_run_rank, args=(function, dict(arguments), variables, level, writer)
        )
        process.start()
        writer.close()
        readers.append(reader)
        processes.append(process)
    with _stopped_by_ranks(processes):  # after the start: a process inherits an ignored signal
        dead = _wait(processes)
        outcomes = [_receive(reader) for reader in readers]
    return _choose_outcome(outcomes, processes, dead)


def _receive(reader: Connection) -> tuple[str, Any] | None:
    """Return the outcome that a rank sent before it ended; None if it sent nothing."""
    try:
        outcome: tuple[str, Any] = reader.recv()
    except EOFError:
        return None
    return outcome


def _choose_outcome(
    outcomes: list[tuple[str, Any] | None], processes: list[BaseProcess], dead: list[int]
) -> Any:
    """Return the result of rank 0, or raise the error that explains the others best.

    Args:
        outcomes: kind and value that each rank sent; None for a rank that sent nothing.
        processes: the processes.
        dead: ranks in the order in which they ended early.
    """
    causes = [outcome for outcome in outcomes if outcome]
    for kind, value in causes:
        if kind == "error":
            raise InputError(value)
        if kind == "interrupt":
            raise KeyboardInterrupt
    for rank in dead:
        if outcomes[rank] is None:
            raise InputError(
                f"rank {rank} of {len(processes)} died ({_describe_exit(processes[rank])}); the "
                "last checkpoint is kept: use `resume=True` to continue"
            )
    for kind, value in causes:
        if kind == "lost":
            raise InputError(value)
        if kind == "crash":
            raise RuntimeError(value)
    assert outcomes[0] is not None
    return outcomes[0][1]


def _run_rank(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    environment: Mapping[str, str],
    level: int,
    writer: Connection,
) -> None:
    """Call the function in one process, and send its result or its error."""
    end_with_parent()
    os.environ.update(environment)
    # STOPS come to all processes; the first one forwards them as Ctrl-C.
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, lambda number, _: leave_closed_terminal(number))
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("maediff").setLevel(level)
    try:
        writer.send(("result", function(**arguments)))
    except LostRankError as error:
        writer.send(("lost", str(error)))
        sys.exit(2)
    except InputError as error:
        writer.send(("error", str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        writer.send(("interrupt", None))
        sys.exit(130)
    except Exception:
        writer.send(("crash", f"rank {environment['RANK']}: {traceback.format_exc()}"))
        sys.exit(1)


def _wait(processes: list[BaseProcess]) -> list[int]:
    """Wait until all processes have ended; end the others if one ended early.

    Returns:
        Ranks that ended with an error, in the order in which they ended.
    """
    dead: list[int] = []
    running: dict[Any, int] = {process.sentinel: n for n, process in enumerate(processes)}
    while running:
        ended = wait(list(running), timeout=GRACE_S if dead else None)
        if not ended:
            for rank in running.values():
                processes[rank].kill()
        for sentinel in ended:
            rank = running.pop(sentinel)
            processes[rank].join()
            if processes[rank].exitcode:
                dead.append(rank)
    return dead


def _describe_exit(process: BaseProcess) -> str:
    """Return the reason for which a process ended, as text."""
    code = process.exitcode or 0
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    hint = ", probably because memory ran out" if name == "SIGKILL" else ""
    return f"killed by {name}{hint}"


def _find_free_port() -> int:
    """Return a port of this machine that no program uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _stopped_by_ranks(processes: list[BaseProcess]) -> Iterator[None]:
    """Leave the stop to the ranks: a terminal sends them Ctrl-C, and `STOPS` are forwarded so."""
    if current_thread() is not main_thread():
        yield
        return

    def forward(number: int, _: object) -> None:
        leave_closed_terminal(number)
        for process in processes:
            if process.pid and process.is_alive():
                os.kill(process.pid, signal.SIGINT)

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        **{
            number: signal.signal(number, forward)
            for number in STOPS
            if signal.getsignal(number) is not signal.SIG_IGN
        },
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
