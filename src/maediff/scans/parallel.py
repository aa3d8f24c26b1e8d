"""One function over many scans, in this process or in several; a scan that fails never stops the rest."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from maediff.core.errors import InputError
from maediff.scans.reference import ScanRef

logger = logging.getLogger(__name__)
Done = TypeVar("Done")


def run_scans(
    do: Callable[[ScanRef], Done],
    refs: Sequence[ScanRef],
    workers: int,
    *,
    threads: int | None = None,
) -> Iterator[Done | str]:
    """What `do` returns for each scan, in order; a string that says why for each that failed.

    Args:
        workers: scans done at once, a process each; 1 stays in this process.
        threads: of each of several processes; None shares the cores out.
    """
    if workers == 1:
        yield from (_safely(do, ref) for ref in refs)
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left = list(refs)
    try:
        with parallel_config(backend="loky", inner_max_num_threads=threads):
            pool = Parallel(n_jobs=workers, return_as="generator")
        for outcome in pool(delayed(_safely)(do, ref) for ref in refs):
            left.pop(0)
            yield outcome
    except (
        TerminatedWorkerError
    ):  # out of memory, most likely; which scan it was shows when each runs alone
        for ref in left:
            try:
                with parallel_config(backend="loky", inner_max_num_threads=threads):
                    (outcome,) = Parallel(n_jobs=2)([delayed(_safely)(do, ref)])
            except TerminatedWorkerError:
                outcome = f"{ref.image}: its process was killed, most likely for want of memory; use fewer --workers"
            yield outcome


def progress(outcomes: Iterator[Done], what: str, total: int, *, quiet: bool) -> Iterator[Done]:
    """The outcomes, with a bar on the error stream."""
    from rich.console import Console
    from rich.progress import track

    yield from track(outcomes, what, total=total, console=Console(stderr=True), disable=quiet)


def _safely(do: Callable[[ScanRef], Any], ref: ScanRef) -> Any:
    try:
        return do(ref)
    except Exception as error:
        logger.debug("%s", ref.name, exc_info=True)
        return (
            str(error)
            if isinstance(error, InputError)
            else f"{ref.image}: {type(error).__name__}: {error}"
        )
