"""Threads and memory of a run: processes share the cores of the machine.

    threads of each process = the given number, or cores / workers

By default, idle threads of OpenMP keep a core busy while they wait. On a busy machine, this makes
every program several times slower.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ITK_VARIABLE = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
WORKER_GB = 1.6
"""Largest memory of a worker for a scan of 1 mm (docs/results/speed.md)."""


def let_threads_sleep() -> None:
    """Let the threads of OpenMP sleep while they wait; has no effect once torch is imported.

    A value of OMP_WAIT_POLICY that is set already stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def use_threads(threads: int | None, workers: int = 1) -> int:
    """Set the threads of this process and of its workers, and return their number.

    Args:
        threads: threads of each process. None shares the cores among the workers, and leaves
            this process as it is.
        workers: number of worker processes; 1 works in this process.

    Returns:
        Threads of each worker. A number that exceeds the cores is used as given, with a notice.
        Another notice warns if the free memory may be too small for the workers.
    """
    if threads is None and workers == 1:
        return os.cpu_count() or 1
    from joblib import cpu_count

    cores = int(cpu_count())
    each = threads or max(1, cores // workers)
    if threads is not None and threads * workers > cores:
        logger.warning(
            "`threads=%d` with `workers=%d`: this machine has %d core%s; the number is used as "
            "given, and the threads slow each other down",
            threads,
            workers,
            cores,
            "" if cores == 1 else "s",
        )
    _warn_of_memory(workers, read_free_gb())
    os.environ[ITK_VARIABLE] = str(each)
    if workers == 1:
        _set_own_threads(each)
    return each


def count_threads() -> int:
    """Return SimpleITK's number of threads, which `use_threads` sets; torch may have another."""
    import SimpleITK as sitk  # noqa: N813

    return max(1, int(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()))


def call_in_threads(calls: Iterable[Callable[[], Result]]) -> list[Result]:
    """Make independent calls at once, on as many threads as `count_threads` returns.

    Threads help only where most of a call runs outside Python, for example in SimpleITK or zlib.

    Args:
        calls: functions without arguments.

    Returns:
        The results, in the order of the calls.

    Raises:
        Exception: that of the first call that failed. With several threads, it is raised after
            all calls have ended; with one, the remaining calls are not made.
    """
    threads = count_threads()
    if threads == 1:
        return [call() for call in calls]
    with ThreadPoolExecutor(threads) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def read_free_gb(path: Path = Path("/proc/meminfo")) -> float | None:
    """Return the memory that programs can still get, in GB; None if it is unknown.

    Args:
        path: Linux's table of the memory.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024 / 1e9
    return None


def _warn_of_memory(workers: int, free_gb: float | None) -> None:
    """Log a notice if the workers may need more memory than is free."""
    if workers > 1 and free_gb is not None and workers * WORKER_GB > free_gb:
        logger.warning(
            "`workers=%d`: a scan of 1 mm needs up to %.1f GB in each worker, and %.1f GB are "
            "free; use fewer `workers` if scans fail",
            workers,
            WORKER_GB,
            free_gb,
        )


def _set_own_threads(threads: int) -> None:
    """Set the threads of this process, for libraries that are imported and for later ones."""
    os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "SimpleITK" in sys.modules:
        sys.modules["SimpleITK"].ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
