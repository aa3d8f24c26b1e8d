"""Speed of a detection, and its ratio to a plain loop that computes the same reference.

    ratio_to_reference_loop = time of the reference loop / time of `predict_volume`, same scan
    mfu                     = FLOP of the forward passes / time / best rate of a matrix product,
                              measured in the same run

The reference loop reconstructs every patch of every slice, one at a time, in fp32. It uses no
batches and skips nothing. `max_difference` is the largest difference between the two references.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.utils.flop_counter import FlopCounterMode

from maediff.anomaly.postprocess import anomaly_mask, residual_map
from maediff.core.device import no_tf32, resolve_device, resolve_precision
from maediff.core.errors import InputError
from maediff.diffusion.process import forward_process
from maediff.methods.maediff import MAEDiff
from maediff.methods.pddpm import PDDPM
from maediff.methods.registry import build
from maediff.methods.volume import predict_volume
from maediff.preparation.onto_grid import prepare_scan
from maediff.scans.volume import Volume, volume_to_slices
from maediff.synthetic.dataset import healthy_subject

LOOP_SHARE = 6
"""The reference loop runs on one of this many slices, because its time per slice is constant."""
STEPS = ("prepare", "predict", "postprocess", "mask")
"""Stages that count for `scans_per_minute`."""
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
"""Edge of the matrices for the best rate; on a GPU, launch and transfer must not matter."""
PRODUCTS = 8
"""Matrix products, of which the fastest counts."""
WEIGHT_SD = 0.02
"""Standard deviation of random values for weights that start at 0."""
MASK_THRESHOLD = 0.5
"""Threshold of the timed mask; its value does not matter."""


@torch.inference_mode()
def reference_loop(
    method: MAEDiff | PDDPM,
    images: Float[np.ndarray, "n h w"],
    slice_ids: Int[np.ndarray, " n"],
    seed: int,
) -> Float[np.ndarray, "n h w"]:
    """Return the healthy reference in [0, 1], computed one patch at a time.

    `predict_volume` must return the same reference.

    Args:
        method: in evaluation mode.
        images: slices in [0, 1].
        slice_ids: index of each slice on the model's grid.
        seed: seed of the noise at test.
    """
    config, grid, device = method.config, method.grid, next(method.parameters()).device
    references = np.zeros_like(images)
    for n, (image, slice_id) in enumerate(zip(images, slice_ids, strict=True)):
        x0 = 2 * torch.from_numpy(image)[None, None].to(device) - 1
        total, count = torch.zeros_like(x0), torch.zeros_like(x0)
        for patch, (row, column) in enumerate(grid.corners.tolist()):
            inside = (..., slice(row, row + config.p), slice(column, column + config.p))
            key = torch.tensor([int(slice_id)]), torch.tensor([patch])
            corners = torch.tensor([[row, column]], device=device)
            for t in config.t_test:
                alpha_bar, step = method.alpha_bar[t][None], torch.tensor([t], device=device)
                for draw in range(config.draws):
                    eps = config.noise_at_test(config.p, seed, *key, draw, device)
                    perturbed = x0.clone()
                    perturbed[inside] = forward_process(x0[inside], eps, alpha_bar.to(device))
                    if isinstance(method, MAEDiff):
                        prediction = method.denoise(perturbed, step, corners)
                    else:
                        prediction = method.unet(perturbed, step)
                    total[inside] += prediction[inside].clamp(-1, 1)
                    count[inside] += 1
        references[n] = ((total / count + 1) / 2).clamp(0, 1)[0, 0].cpu().numpy()
    return references


class Stopwatch:
    """Time of each stage.

    Args:
        device: "cuda" waits for the GPU at the end of each stage.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Return the result of `work` and store its time as that of the stage."""
        began = time.perf_counter()
        result = work()
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.seconds[stage] = time.perf_counter() - began
        return result


@no_tf32()
def benchmark(
    name: str = "maediff",
    *,
    preset: str = "small",
    precision: str = "fp32",
    repeats: int = 3,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the speed and the memory of a detection on a synthetic scan of a real scan's size.

    The weights are random, which does not change the time.

    Args:
        name: "maediff" or "pddpm".
        preset: size of the network: "paper", "small" or "tiny".
        precision: precision of the prediction and of the matrix product: "fp32", "bf16", or
            "auto": bf16 if the device has it.
        repeats: number of timed runs of the loop and of the prediction, in turn.
        device: "auto", "cpu" or "cuda".
        seed: seed of the weights and of the noise.

    Returns:
        `scans_per_minute`; `ratio_to_reference_loop` and `stages` (seconds), medians over the
        repeats; `mfu` (0 to 1); `peak_memory_gb` of the process (CPU) or of the GPU;
        `max_difference` of the two references in [0, 1], over the brain; and the settings.

    Raises:
        InputError: a method without patches, an unknown preset or precision.
    """
    device = resolve_device(device)
    used = resolve_precision(precision, device)
    method = _build_method(name, preset, seed).to(device)
    watch = Stopwatch(device)
    phantom = watch.time("phantom", lambda: healthy_subject("val", 0))
    volume = Volume(
        data=phantom.image,
        affine=phantom.affine,
        source=Path("phantom"),
        native_shape=phantom.image.shape,
        native_affine=phantom.affine,
    )
    prepared = watch.time("prepare", lambda: prepare_scan(volume, phantom.brain))
    images, brain = volume_to_slices(prepared.image.clip(0, 1)), volume_to_slices(prepared.brain)
    ids = np.arange(len(images))
    n_loop = max(1, len(images) // LOOP_SHARE)
    chosen = np.linspace(0, len(images) - 1, n_loop).round().astype(int)

    def predict() -> Any:
        return predict_volume(method, images, brain, ids, seed=seed, device=device, precision=used)

    def run_loop() -> Any:
        return reference_loop(method, images[chosen], ids[chosen], seed)

    with FlopCounterMode(display=False) as counter:
        predict()  # also warms up
    loop_seconds, predict_seconds = [], []
    for _ in range(repeats):
        looped = watch.time("reference_loop", run_loop)
        loop_seconds.append(watch.seconds["reference_loop"] * len(images) / n_loop)
        residual, reference = watch.time("predict", predict)
        predict_seconds.append(watch.seconds["predict"])
    x, y, z = (float(size) for size in prepared.grid.spacing_mm)
    anomaly = watch.time("postprocess", lambda: residual_map(residual, brain, (x, y, z)))
    watch.time("mask", lambda: anomaly_mask(anomaly, brain, MASK_THRESHOLD, (x, y, z)))
    stages = watch.seconds
    stages["predict"] = float(np.median(predict_seconds))
    stages["reference_loop"] = float(np.median(loop_seconds))
    flop, peak = counter.get_total_flops(), matmul_rate(device, used)
    difference = np.abs(looped - reference[chosen])[brain[chosen]].max()
    return {
        "scans_per_minute": 60 / sum(stages[stage] for stage in STEPS),
        "ratio_to_reference_loop": float(
            np.median(np.array(loop_seconds) / np.array(predict_seconds))
        ),
        "mfu": flop / stages["predict"] / peak,
        "peak_memory_gb": _peak_memory_gb(device),
        "stages": stages,
        "method": name,
        "preset": preset,
        "precision": used,
        "reference_precision": "fp32",
        "max_difference": float(difference),
        "device": device,
        "slices": len(images),
        "gflop_a_scan": flop / 1e9,
        "matmul_gflops": peak / 1e9,
    }


def _build_method(name: str, preset: str, seed: int) -> MAEDiff | PDDPM:
    """Return the method in evaluation mode, with random weights.

    Weights that start at 0 become random, because they would hide a difference.

    Raises:
        InputError: a method without patches, or an unknown preset.
    """
    method = build(name, preset, seed=seed)
    if not isinstance(method, MAEDiff | PDDPM):
        raise InputError(
            f"benchmark of {name!r}: the reference loop goes patch by patch; "
            "choose maediff or pddpm"
        )
    generator = torch.Generator().manual_seed(seed)
    for parameter in method.eval().parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=WEIGHT_SD, generator=generator)
    return method


def matmul_rate(device: str, precision: str) -> float:
    """Return the FLOP per second of the fastest of several products of square matrices.

    Args:
        device: "cpu" or "cuda".
        precision: "fp32" or "bf16".
    """
    size = MATRIX_SIZE.get(device, MATRIX_SIZE["cpu"])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(PRODUCTS):
        began = time.perf_counter()
        (a @ b).flatten()[0].item()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * size**3 / fastest


def _peak_memory_gb(device: str) -> float:
    """Return the peak memory of the process (CPU) or of the GPU in GB; NaN on Windows."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource
    except ModuleNotFoundError:
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
