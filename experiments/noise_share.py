"""How much of a training step goes into drawing noise: median times of both in one process, and their ratio.

python experiments/noise_share.py [PRESET]
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch

from maediff.methods.registry import build

SLICES, REPEATS = 8, 7


def seconds(run: Callable[[], object]) -> float:
    """Median time of REPEATS runs after one that warms up."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print a line a method."""
    preset = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SLICES, 1, 96, 96, generator=generator)
    for name in ("maediff", "pddpm", "anoddpm"):
        method = build(name, preset)
        config, (objective,) = method.config, method.objectives()
        optimiser = torch.optim.Adam(objective.parameters)
        pixels = getattr(config, "p", config.size)

        def step(objective=objective, optimiser=optimiser) -> None:  # type: ignore[no-untyped-def]
            optimiser.zero_grad()
            objective.loss(x, generator, None).backward()
            optimiser.step()

        shape = (SLICES, pixels, pixels)
        noise = seconds(
            lambda config=config, shape=shape: config.noise_of(shape, generator, "cpu")
        )  # type: ignore[misc]
        print(f"{name} {preset}, {config.noise}: {noise / seconds(step):.4f} of a training step")


if __name__ == "__main__":
    main()
