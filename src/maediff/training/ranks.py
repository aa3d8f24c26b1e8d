"""Training by several processes ("ranks"), one for each device.

    rank r of R trains on rows  r b / R  to  (r + 1) b / R  of the global batch of b slices

Every rank makes the same global batch and draws the random numbers of all its rows, then keeps its
own rows. Drawing is cheap compared with the network. The gradients are averaged over the ranks, so
the weights are those of one process with the same batch, up to the order of summation.
DAE is an exception: its loss is a mean over brain pixels, whose number differs between ranks.
A run can therefore be resumed with another number of devices.

Launchers:

    maediff train --devices 2                     starts the ranks itself, see `launch`
    torchrun --nproc-per-node 2 -m maediff ...    the launcher has started the ranks
    srun --ntasks-per-node 2 maediff ...
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.overrides import TorchFunctionMode

from maediff.core.errors import InputError

DRAWS: tuple[Callable[..., Any], ...] = (torch.rand, torch.randn, torch.randint)
"""Functions that losses draw random numbers with."""
ANSWER_S = 10.0
"""Seconds that a rank waits for the others to answer, after the connection was lost."""


class LostRankError(InputError):
    """The connection to another rank was lost."""


@dataclass(frozen=True)
class Ranks:
    """This process among all processes of a training.

    Args:
        rank: number of this process, from 0.
        count: number of processes.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """True for the only rank that writes files, validates and calibrates."""
        return self.rank == 0

    def rows(self, batch_size: int) -> slice:
        """Return the rows of this rank in a batch of `batch_size` slices."""
        size = batch_size // self.count
        return slice(self.rank * size, (self.rank + 1) * size)


ALONE = Ranks()
"""A training without other processes."""


def find_launcher(devices: int, nodes: int, environment: Mapping[str, str] = os.environ) -> str:
    """Return what starts the ranks: "none", "torchrun", "slurm" or "maediff".

    Args:
        devices: devices of each node.
        nodes: number of nodes.
        environment: environment variables.

    Raises:
        InputError: a launcher has started another number of processes, or several nodes have no
            launcher.
    """
    count = devices * nodes
    if "TORCHELASTIC_RUN_ID" in environment:
        started = int(environment.get("WORLD_SIZE", "1"))
        if started != count:
            raise InputError(
                f"torchrun started {started} processes, but `devices={devices}` and "
                f"`nodes={nodes}` make {count}; use `devices` for the processes of each node "
                "(--nproc-per-node of torchrun), and `nodes` for --nnodes"
            )
        return "torchrun" if count > 1 else "none"
    if count == 1:
        return "none"
    tasks = int(environment.get("SLURM_NTASKS", "1"))
    if tasks == count and "SLURM_PROCID" in environment:
        return "slurm"
    if tasks > 1 or nodes > 1:
        started_by = f"SLURM started {tasks} tasks" if tasks > 1 else "no launcher was found"
        raise InputError(
            f"`devices={devices}` and `nodes={nodes}` make {count} processes, but {started_by}; "
            f"start the command with torchrun --nnodes {nodes} --nproc-per-node {devices} "
            f"-m maediff, or with srun --nodes {nodes} --ntasks-per-node {devices} maediff"
        )
    return "maediff"


def rank_of(launcher: str, environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return the rank of this process.

    Args:
        launcher: from `find_launcher`; for "maediff" the process that starts the ranks is no rank.
        environment: environment variables.
    """
    if launcher == "torchrun":
        return Ranks(int(environment["RANK"]), int(environment["WORLD_SIZE"]))
    if launcher == "slurm":
        return Ranks(int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"]))
    return ALONE


def check_batch_size(batch_size: int, devices: int, nodes: int) -> None:
    """Refuse a global batch that does not divide among the devices.

    Raises:
        InputError: names the batch sizes that do.
    """
    count = devices * nodes
    if batch_size % count:
        below = batch_size // count * count
        sizes = " or ".join(str(size) for size in (below, below + count) if size)
        raise InputError(
            f"train.batch_size={batch_size} slices do not divide among {count} devices; "
            f"use train.batch_size={sizes}"
        )


def check_devices(device: str, devices: int) -> None:
    """Refuse more CUDA devices than this machine has.

    Raises:
        InputError: names both numbers.
    """
    if device == "cuda" and devices > torch.cuda.device_count():
        raise InputError(
            f"`devices={devices}`: this machine has {torch.cuda.device_count()} CUDA devices; "
            "use fewer"
        )


class RowDraws(TorchFunctionMode):
    """Make a loss on some rows of a batch draw the random numbers of these rows.

    A draw with `generator` whose first size is that of the rows is made for the whole batch, and
    cut to the rows. The generator therefore moves on as in a process with the whole batch.

    Args:
        generator: generator of the loss; draws with other generators are unchanged.
        batch_size: slices of the whole batch.
        rows: rows of this rank.
    """

    def __init__(self, generator: torch.Generator, batch_size: int, rows: slice) -> None:
        super().__init__()
        self.generator, self.batch_size, self.rows = generator, batch_size, rows

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        draw: Callable[..., Any] = func
        if draw not in DRAWS or kwargs.get("generator") is not self.generator:
            return draw(*args, **kwargs)
        bounds, sizes = _split_sizes(args, has_bounds=func is torch.randint)
        size = self.rows.stop - self.rows.start
        if not sizes or sizes[0] != size:
            raise AssertionError(f"a loss draws {sizes} numbers for {size} slices")
        drawn = draw(*bounds, (self.batch_size, *sizes[1:]), **kwargs)
        return drawn[self.rows]


def _split_sizes(
    args: Sequence[Any], *, has_bounds: bool
) -> tuple[Sequence[Any], tuple[int, ...]]:
    """Return the arguments before the size, and the size, of a call of one of DRAWS."""
    if has_bounds:
        return args[:-1], tuple(args[-1])
    sizes = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
    return (), tuple(sizes)


def name_lost_ranks(ranks: Ranks) -> str:
    """Return the ranks that do not answer, as text for an error message.

    Every rank that notices the loss calls this function, and thereby answers the others.
    """
    store = distributed.distributed_c10d._get_default_store()
    lost = []
    try:
        store.set(f"maediff/answer/{ranks.rank}", "1")
    except RuntimeError:  # rank 0 holds the store, unless a launcher does
        return "rank 0 does not answer"
    for other in range(ranks.count):
        try:
            store.wait([f"maediff/answer/{other}"], timedelta(seconds=ANSWER_S))
        except RuntimeError:
            lost.append(str(other))
    if not lost:
        return "the network failed, although all ranks answer"
    return f"rank{'s' if len(lost) > 1 else ''} {', '.join(lost)} did not answer"


def any_rank(values: Sequence[bool], ranks: Ranks, device: torch.device) -> list[bool]:
    """Return, for each value, True if it is true on any rank; a collective operation.

    Args:
        values: values of this rank.
        ranks: this process.
        device: device of the training.
    """
    if ranks.count == 1:
        return list(values)
    flags = torch.tensor(values, dtype=torch.float32, device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return [bool(flag) for flag in flags]


def check_same_step(step: int, ranks: Ranks, device: torch.device) -> None:
    """Refuse ranks that have restored different checkpoints; a collective operation.

    Raises:
        InputError: a rank does not see the files of rank 0.
    """
    if ranks.count == 1:
        return
    steps = [torch.zeros(1, device=device) for _ in range(ranks.count)]
    distributed.all_gather(steps, torch.tensor([float(step)], device=device))
    all_steps = [int(each) for each in steps]
    if len({*all_steps}) > 1:
        listed = ", ".join(f"rank {rank}: {each}" for rank, each in enumerate(all_steps))
        raise InputError(
            f"the ranks have restored different steps ({listed}); put the run folder on a file "
            "system that all nodes share"
        )
