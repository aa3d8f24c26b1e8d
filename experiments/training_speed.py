"""Steps a second, peak memory and FLOP utilisation of real training steps, beside the machine's best matrix product.

python experiments/training_speed.py PRESET METHOD BATCH [--device cuda] [--precision bf16] [--seconds 10]
                                 [--memory-gb 24] [--no-graphs] [--kernels]

The slices are random numbers in a disc: what a step costs does not hang on what they show. `--memory-gb` caps what the
process may take of the GPU, so that a smaller card's verdict can be had on a larger one. `--kernels` adds how long the
GPU computes in a step, and in how many kernels (torch.profiler); what a step takes beyond that is launching them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from maediff.cohort.slices import SliceSet
from maediff.core.device import no_tf32, resolve_device
from maediff.detection.benchmark import matmul_rate
from maediff.methods.registry import build
from maediff.training.config import resolve_training, training_precision
from maediff.training.loop import TrainingRun

SUBJECTS, SLICES, SIZE = 64, 8, 96


def disc_slices() -> SliceSet:
    """Random numbers in a disc, of SUBJECTS with SLICES each."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    brain = np.broadcast_to(y**2 + x**2 < 40**2, (SUBJECTS * SLICES, SIZE, SIZE))
    images = np.random.default_rng(0).integers(1, 256, brain.shape, dtype=np.uint8) * brain
    return SliceSet(
        images, brain, np.repeat(np.arange(SUBJECTS), SLICES), [str(n) for n in range(SUBJECTS)]
    )


def profiled(run: TrainingRun, steps: int = 5) -> str:
    """Milliseconds that the GPU computes in a step, and how many kernels that takes."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            run.train_step()
        torch.cuda.synchronize()
    events = [
        event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    busy = sum(event.device_time for event in events) / 1e3 / steps
    return f", GPU busy {busy:.2f} ms in {len(events) / steps:.0f} kernels and copies"


@no_tf32()
def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("preset")
    parser.add_argument("method")
    parser.add_argument("batch", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--memory-gb", type=float)
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--kernels", action="store_true")
    given = parser.parse_args()
    device = resolve_device(given.device)
    cuda = device == "cuda"
    precision = training_precision(given.precision, device)
    if cuda and given.memory_gb:
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(given.memory_gb * 1e9 / whole)
    graphs = {"cuda_graphs": False} if given.no_graphs else {}  # else as the preset has it
    config = resolve_training(given.preset, {"batch_size": given.batch, **graphs})
    method = build(given.method, given.preset)
    with FlopCounterMode(display=False) as counter:
        method.objectives()[0].loss(
            torch.rand(1, 1, SIZE, SIZE), torch.Generator().manual_seed(0), None
        ).backward()  # type: ignore[no-untyped-call]
    method.zero_grad()
    flop = counter.get_total_flops() * given.batch
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(
            method, disc_slices(), None, config, Path(folder), {"seed": 0}, device, precision
        )
        for _ in range(3):
            run.train_step()
        steps, began = 0, time.perf_counter()
        while time.perf_counter() - began < given.seconds:
            run.train_step()  # ends with the loss on the CPU, so nothing is left running
            steps += 1
        took = (time.perf_counter() - began) / steps
        kernels = profiled(run) if cuda and given.kernels else ""
    memory = ""
    if cuda:
        used, kept = (
            torch.cuda.max_memory_allocated() / 1e9,
            torch.cuda.max_memory_reserved() / 1e9,
        )
        memory = f", peak {used:.2f} GB ({kept:.2f} GB taken)"
    peak = matmul_rate(device, precision)
    print(
        f"{given.method} {given.preset}, batches of {given.batch}, {precision}: {1e3 * took:.1f} ms a step, "
        f"{given.batch / took:.0f} slices/s, {flop / took / 1e12:.1f} TFLOP/s = {flop / took / peak:.3f} of the best "
        f"matrix product's {peak / 1e12:.1f}{memory}{kernels}"
    )


if __name__ == "__main__":
    main()
