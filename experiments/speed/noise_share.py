"""Measure which share of a training step is spent on drawing noise.

    python experiments/speed/noise_share.py --preset tiny

The script prints the median time of drawing noise divided by the median time of a training step,
on one CPU thread and for 8 slices.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from maediff.methods.registry import PRESETS, build

METHODS = ("maediff", "pddpm", "anoddpm")
SLICES = 8
SIZE = 96
REPEATS = 7


def median_seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median time of `repeats` calls, after one call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def noise_share(name: str, preset: str, repeats: int = REPEATS) -> tuple[float, str]:
    """Return the share of a training step that drawing noise takes, and the kind of noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SLICES, 1, SIZE, SIZE, generator=generator)
    method = build(name, preset)
    config, (objective,) = method.config, method.objectives()
    optimiser = torch.optim.Adam(objective.parameters)

    def train_step() -> None:
        optimiser.zero_grad()
        objective.loss(x, generator, None).backward()
        optimiser.step()

    pixels = getattr(config, "p", config.size)
    shape = (SLICES, pixels, pixels)
    noise = median_seconds(lambda: config.sample_noise(shape, generator, "cpu"), repeats)
    return noise / median_seconds(train_step, repeats), config.noise


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--preset", choices=sorted(PRESETS), default="tiny", help="default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each method."""
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    for name in METHODS:
        share, noise = noise_share(name, args.preset)
        print(f"{name} {args.preset}, {noise}: {share:.4f} of a training step")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
