"""One function over many scans, in one or more processes; a failed scan does not stop the rest."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from maediff.core.errors import InputError
from maediff.core.processes.process import pool_settings
from maediff.scans.reference import ScanRef

logger = logging.getLogger(__name__)
Done = TypeVar("Done")


def run_scans(
    do: Callable[[ScanRef], Done],
    refs: Sequence[ScanRef],
    workers: int,
    *,
    threads: int | None = None,
    engine: str = "local",
) -> Iterator[Done | str]:
    """Call `do` for each scan, and return the results in the order of `refs`.

    Args:
        do: the work for one scan.
        refs: the scans.
        workers: processes, each for one scan at a time; 1 works in this process.
        threads: threads of each process. None shares the cores among the processes.
        engine: "local", or "ray": tasks on a Ray cluster, see `ray_engine`.

    Yields:
        The result of `do`, or an error message if `do` failed or its process was killed.
    """
    if engine == "ray":
        from maediff.scans.ray_engine import run_on_ray

        yield from run_on_ray(partial(_run_safely, do), refs, threads=threads or 1)
        return
    if workers == 1:
        yield from (_run_safely(do, ref) for ref in refs)
        return
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    remaining = list(refs)
    try:
        with parallel_config(**pool_settings(threads)):
            pool = Parallel(n_jobs=workers, return_as="generator")
        for outcome in pool(delayed(_run_safely)(do, ref) for ref in refs):
            remaining.pop(0)
            yield outcome
    except TerminatedWorkerError:
        # Probably out of memory. Running each scan alone shows which one it was.
        for ref in remaining:
            try:
                with parallel_config(**pool_settings(threads)):
                    (outcome,) = Parallel(n_jobs=2)([delayed(_run_safely)(do, ref)])
            except TerminatedWorkerError:
                outcome = (
                    f"{ref.image}: its process was killed, probably because memory ran out; "
                    "use fewer `workers`"
                )
            yield outcome


def _run_safely(do: Callable[[ScanRef], Any], ref: ScanRef) -> Any:
    """Return the result of `do`, or the message of any error that it raises."""
    try:
        return do(ref)
    except Exception as error:
        logger.debug("%s", ref.name, exc_info=True)
        if isinstance(error, InputError):
            return str(error)
        return f"{ref.image}: {type(error).__name__}: {error}"
