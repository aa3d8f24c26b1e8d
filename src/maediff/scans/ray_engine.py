"""Scans as tasks on a Ray cluster (https://docs.ray.io), the extra `maediff[ray]`.

    RAY_ADDRESS or the cluster of this machine -> one task for each scan -> outcomes in input order

A worker process of Ray lives for many tasks, so a model that is cached in a module's variable is
loaded once per worker. All nodes must see the inputs and the output folder under the same paths.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from maediff.core.errors import InputError
from maediff.scans.reference import ScanRef

logger = logging.getLogger(__name__)
Done = TypeVar("Done")

ATTEMPTS = 3
"""Attempts for each scan: a failed scan is retried twice."""
PATIENCE_S = 60.0
"""Seconds that a cluster may be without any worker before the command stops."""
MAX_SUBMITTED = 1000
"""Tasks that wait in the cluster at once."""
REMEDY = "finished scans are kept: use `resume=True` to continue"


def run_on_ray(
    do: Callable[[ScanRef], Done],
    refs: Sequence[ScanRef],
    *,
    threads: int = 1,
    patience_s: float = PATIENCE_S,
) -> Iterator[Done | str]:
    """Call `do` for each scan on a Ray cluster, and return the results in the order of `refs`.

    Args:
        do: the work for one scan; it returns an error message as text.
        refs: the scans.
        threads: CPUs of the cluster that one scan uses.
        patience_s: time without any worker after which the function gives up, in seconds.

    Yields:
        The result of `do`, or an error message if all attempts failed.

    Raises:
        InputError: Ray is not installed, no cluster can be reached, or the cluster is lost.
    """
    ray = _import_ray()
    address = os.environ.get("RAY_ADDRESS") or "auto"
    started_here = not ray.is_initialized()
    if started_here:
        _connect(ray, address)
    try:
        yield from _run_tasks(ray, do, refs, threads, patience_s)
    except (ray.exceptions.RaySystemError, ConnectionError) as error:
        raise InputError(f"the Ray cluster {address} was lost ({error}); {REMEDY}") from None
    finally:
        if started_here:
            ray.shutdown()


def _run_tasks(
    ray: Any,
    do: Callable[[ScanRef], Done],
    refs: Sequence[ScanRef],
    threads: int,
    patience_s: float,
) -> Iterator[Done | str]:
    """Submit the tasks, repeat those that fail, and yield the outcomes in order."""
    shared = ray.put(do)
    # Attempts are counted here, because Ray repeats only tasks whose process died.
    task = ray.remote(num_cpus=threads, max_retries=0)(_call)
    running: dict[Any, int] = {}
    attempts = [0] * len(refs)
    outcomes: dict[int, Done | str] = {}
    waiting = list(range(len(refs)))[::-1]
    n_yielded = 0
    last_progress = time.monotonic()
    while n_yielded < len(refs):
        while waiting and len(running) < MAX_SUBMITTED:
            number = waiting.pop()
            attempts[number] += 1
            running[task.remote(shared, refs[number])] = number
        ready, _ = ray.wait(list(running), timeout=2.0)
        if ready or _count_cpus(ray) >= threads:
            last_progress = time.monotonic()
        elif time.monotonic() - last_progress > patience_s:
            raise InputError(
                f"the Ray cluster has no worker left, and {len(refs) - n_yielded} scans are not "
                f"done; start workers (ray start --address ...), {REMEDY}"
            )
        for reference in ready:
            number = running.pop(reference)
            outcome = _get(ray, reference, refs[number])
            if isinstance(outcome, str) and attempts[number] < ATTEMPTS:
                logger.warning(
                    "%s failed, attempt %d of %d: %s",
                    refs[number].name,
                    attempts[number],
                    ATTEMPTS,
                    outcome,
                )
                waiting.append(number)
            else:
                outcomes[number] = outcome
        while n_yielded in outcomes:
            yield outcomes.pop(n_yielded)
            n_yielded += 1


def _call(do: Callable[[ScanRef], Done], ref: ScanRef) -> Done | str:
    """Call the work for one scan, in a worker of the cluster."""
    return do(ref)


def _get(ray: Any, reference: Any, ref: ScanRef) -> Any:
    """Return the result of a task, or an error message if its worker was lost.

    Raises:
        RaySystemError: the cluster itself was lost.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RaySystemError:
        raise
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        return f"{ref.image}: its worker was lost ({type(error).__name__}: {reason})"


def _count_cpus(ray: Any) -> float:
    """Return the CPUs of all nodes that are alive."""
    nodes = (node for node in ray.nodes() if node["Alive"])
    return float(sum(node["Resources"].get("CPU", 0) for node in nodes))


def _import_ray() -> Any:
    """Return the module ray.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise InputError(
            "`engine='ray'`: Ray is not installed; pip install 'maediff[ray]', or leave out "
            "`engine`"
        ) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    """Join the cluster.

    Raises:
        InputError: the cluster cannot be reached.
    """
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        # Ray raises ConnectionError, RuntimeError, ValueError and errors of grpc here.
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"`engine='ray'`: no Ray cluster at {address} ({reason}); start one with "
            "`ray start --head`, set RAY_ADDRESS to its address, or leave out `engine`"
        ) from None


def describe_missing_results(ref: ScanRef) -> str:
    """Return the error message for a scan whose results a worker wrote to its own disk."""
    return (
        f"{ref.image}: a worker has finished this scan, but its files are not in the output "
        "folder of this machine; use a folder that all nodes share"
    )
