"""Batches through a network: on a CPU, each thread computes a batch of its own.

    results = function(batch 1), function(batch 2), ...     in the order of the batches

The networks of this package are small. Two threads that share each layer take 1.4 times as long
as two threads with a batch each (docs/results/speed.md), because they wait for each other after
every layer. The batches and the order of the results do not depend on the threads.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def map_batches(
    function: Callable[[Batch], Result], batches: Iterable[Batch], device: torch.device
) -> Iterator[Result]:
    """Yield `function(batch)` for each batch, in order.

    On a CPU, as many batches are computed at once as torch has threads, with one thread each.
    The autograd and autocast modes of the caller hold in all threads.

    Args:
        function: computes a batch; it must not change anything that other batches use.
        batches: all batches. On a CPU with several threads they are read at once, so they should
            be small.
        device: device of the computation.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        yield from map(function, batches)
        return
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()
    autocast, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

    def compute(batch: Batch) -> Result:
        with (
            torch.inference_mode(inference),
            torch.set_grad_enabled(grad),
            torch.autocast("cpu", dtype, enabled=autocast),
        ):
            return function(batch)

    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield from pool.map(compute, batches)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # those of the pool set it to 1 for new threads


def apply_in_batches(
    network: Callable[[Float[Tensor, "b 1 h w"]], Float[Tensor, "b 1 h w"]],
    x0: Float[Tensor, "n 1 h w"],
    batch_size: int,
) -> Float[Tensor, "n 1 h w"]:
    """Run `network` on `batch_size` slices at a time and return all results in float32.

    Args:
        network: maps slices to slices.
        x0: all slices.
        batch_size: slices of a call.
    """
    results = map_batches(network, torch.split(x0, batch_size), x0.device)
    return torch.cat([result.float() for result in results])
