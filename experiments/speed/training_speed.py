"""Measure speed, memory and FLOP utilisation of real training steps.

    python experiments/speed/training_speed.py tiny maediff 16 --device cuda --precision bf16

The script prints one line: time per step, slices per second, TFLOP/s in absolute numbers and
relative to the largest matrix product of this machine, and on a GPU the peak memory. The slices
are random numbers in a disc, because the time of a step does not depend on their content.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from maediff.cohort.slices import SliceSet
from maediff.core.device import no_tf32, resolve_device
from maediff.core.errors import InputError
from maediff.detection.benchmark import matmul_rate
from maediff.methods.base import Method
from maediff.methods.registry import BASELINES, METHODS, PRESETS, build
from maediff.training.config import resolve_training, training_precision
from maediff.training.loop import TrainingRun

SUBJECTS, SLICES, SIZE = 64, 8, 96
DISC_RADIUS = 40
WARM_UP_STEPS, PROFILED_STEPS = 3, 5


def disc_slices() -> SliceSet:
    """Return slices of random numbers in a disc: SUBJECTS subjects with SLICES slices each."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    disc = y**2 + x**2 < DISC_RADIUS**2
    brain = np.broadcast_to(disc, (SUBJECTS * SLICES, SIZE, SIZE))
    images = np.random.default_rng(0).integers(1, 256, brain.shape, dtype=np.uint8) * brain
    subject = np.repeat(np.arange(SUBJECTS), SLICES)
    return SliceSet(images, brain, subject, [str(number) for number in range(SUBJECTS)])


def flop_per_slice(method: Method) -> int:
    """Count forward and backward of one slice, for the first objective."""
    x = torch.rand(1, 1, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter:
        method.objectives()[0].loss(x, torch.Generator().manual_seed(0), None).backward()
    method.zero_grad()
    return counter.get_total_flops()


def seconds_per_step(run: TrainingRun, seconds: float) -> float:
    """Return the mean time of a step, measured for `seconds` after a few steps of warm-up."""
    for _ in range(WARM_UP_STEPS):
        run.train_step()
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        run.train_step()  # returns the loss on the CPU, so the GPU has finished
        steps += 1
    return (time.perf_counter() - began) / steps


def profile_kernels(run: TrainingRun) -> str:
    """Return the time per step in which the GPU computes, and the number of its kernels."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(PROFILED_STEPS):
            run.train_step()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA
    events = [event for event in profile.events() if event.device_type == cuda]
    busy_ms = sum(event.device_time for event in events) / 1e3 / PROFILED_STEPS
    count = len(events) / PROFILED_STEPS
    return f", GPU busy {busy_ms:.2f} ms in {count:.0f} kernels and copies"


@no_tf32()
def measure(args: argparse.Namespace) -> str:
    """Return the line to print.

    Raises:
        InputError: the device or the precision is not available.
    """
    device = resolve_device(args.device)
    precision = training_precision(args.precision, device)
    cuda = device == "cuda"
    if cuda and args.memory_gb:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(args.memory_gb * 1e9 / total)
    graphs = {"cuda_graphs": False} if args.no_graphs else {}
    config = resolve_training(args.preset, {"batch_size": args.batch, **graphs})
    method = build(args.method, args.preset)
    flop = flop_per_slice(method) * args.batch
    run = TrainingRun(method, disc_slices(), config, device=device, precision=precision)
    seconds = seconds_per_step(run, args.seconds)
    kernels = profile_kernels(run) if cuda and args.kernels else ""
    memory = ""
    if cuda:
        used_gb = torch.cuda.max_memory_allocated() / 1e9
        reserved_gb = torch.cuda.max_memory_reserved() / 1e9
        memory = f", peak {used_gb:.2f} GB ({reserved_gb:.2f} GB reserved)"
    peak = matmul_rate(device, precision)
    return (
        f"{args.method} {args.preset}, batches of {args.batch}, {precision}: "
        f"{1e3 * seconds:.1f} ms a step, {args.batch / seconds:.0f} slices/s, "
        f"{flop / seconds / 1e12:.1f} TFLOP/s = {flop / seconds / peak:.3f} of the best matrix "
        f"product's {peak / 1e12:.1f}{memory}{kernels}"
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset", choices=sorted(PRESETS))
    parser.add_argument("method", choices=[name for name in METHODS if name not in BASELINES])
    parser.add_argument("batch", type=int, help="slices per step")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: %(default)s")
    parser.add_argument(
        "--precision", default="auto", help="auto, fp32, bf16 or fp16; default: %(default)s"
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of the test; default: %(default)s"
    )
    parser.add_argument(
        "--memory-gb",
        type=float,
        help="limit of the GPU memory of this process, to test for a smaller card",
    )
    parser.add_argument("--no-graphs", action="store_true", help="train without CUDA graphs")
    parser.add_argument(
        "--kernels",
        action="store_true",
        help="also print the computing time and the number of kernels of a step (GPU only); "
        "the rest of a step is the time to launch them",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the line."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.batch < 1:
        parser.exit(2, f"error: batch {args.batch}: at least 1 slice\n")
    try:
        print(measure(args))
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
