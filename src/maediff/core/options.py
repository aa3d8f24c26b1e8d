"""Options that most functions share: where and how to run, not what to compute."""

from dataclasses import dataclass

from maediff.core.errors import InputError
from maediff.core.shards import Shard

ENGINES = ("local", "ray")
"""Where scans can be processed."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run; only `seed` affects the result.

    Args:
        device: "auto", "cpu", "cuda" or "mps".
        seed: seed of everything random, 0 or more.
        batch_size: slices or patches per forward pass.
        workers: scans or runs processed at once, each in a process of its own.
        resume: keep finished parts of an existing output folder and compute the rest.
        overwrite: empty an existing output folder first.
        quiet: show no progress bar.
        threads: threads of each process; None shares the cores among the workers.
        shard: process the subjects of this shard only; None processes all subjects. `detect`,
            `preprocess` and `evaluate` have shards.
        devices: devices of each node that `train` uses, each in a process of its own.
        engine: "local" processes scans on this machine; "ray" as tasks on a Ray cluster, for
            `detect` and `preprocess`.
        nodes: machines that `train` uses; more than one needs torchrun or SLURM.

    Raises:
        InputError: a value outside its range.
    """

    device: str = "auto"
    seed: int = 0
    batch_size: int = 16
    workers: int = 1
    resume: bool = False
    overwrite: bool = False
    quiet: bool = False
    threads: int | None = None
    shard: Shard | None = None
    devices: int = 1
    nodes: int = 1
    engine: str = "local"

    def __post_init__(self) -> None:
        least_values = {"seed": 0, "batch_size": 1, "workers": 1, "devices": 1, "nodes": 1}
        for name, least in least_values.items():
            value = getattr(self, name)
            if value < least:
                raise InputError(f"`{name}={value}`: give {least} or more")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"`threads={self.threads}`: give 1 or more")
        if self.engine not in ENGINES:
            raise InputError(f"`engine={self.engine!r}`: choose {' or '.join(ENGINES)}")
        if self.engine == "ray" and self.workers > 1:
            raise InputError(
                f"`workers={self.workers}`: the Ray cluster decides how many scans run at once; "
                "leave out `workers`"
            )


DEFAULT_RUN = RunOptions()
