"""Options that most functions share: where and how to run, not what to compute."""

from dataclasses import dataclass

from maediff.core.errors import InputError


@dataclass(frozen=True)
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

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("batch_size", 1), ("workers", 1)):
            value = getattr(self, name)
            if value < least:
                raise InputError(f"`{name}={value}`: give {least} or more")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"`threads={self.threads}`: give 1 or more")


DEFAULT_RUN = RunOptions()
