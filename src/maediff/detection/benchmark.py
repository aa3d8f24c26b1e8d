"""How fast a scan is done, against the plainest loop that gives the same map.

    ratio_to_reference_loop = time of the reference loop / time of `predict_volume`, in turn, on the same scan
    mfu                     = FLOP of the forward passes / time / best matrix-product rate measured in this very run

The reference loop runs every patch of every slice, one at a time, in fp32: no batch, nothing skipped. The prediction
runs in fp32, too, unless another precision is asked for, and `max_difference` tells how far the two lie apart.
"""

import resource
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
from maediff.methods import predict_volume
from maediff.methods.maediff import MAEDiff
from maediff.methods.pddpm import PDDPM
from maediff.methods.registry import build
from maediff.preparation.onto_grid import prepare_scan
from maediff.scans.volume import Volume, volume_to_slices
from maediff.synthetic.dataset import healthy_subject


@torch.inference_mode()
def reference_loop(
    method: MAEDiff | PDDPM,
    images: Float[np.ndarray, "n h w"],
    slice_ids: Int[np.ndarray, " n"],
    seed: int,
) -> Float[np.ndarray, "n h w"]:
    """Healthy reference in [0, 1], one patch at a time over every slice: what the batched prediction has to equal."""
    config, grid, device = method.config, method.grid, next(method.parameters()).device
    references = np.zeros_like(images)
    for n, (image, slice_id) in enumerate(zip(images, slice_ids, strict=True)):
        x0 = 2 * torch.from_numpy(image)[None, None].to(device) - 1
        total, count = torch.zeros_like(x0), torch.zeros_like(x0)
        for patch, (row, column) in enumerate(grid.corners.tolist()):
            inside = (..., slice(row, row + config.p), slice(column, column + config.p))
            for t in config.t_test:
                for draw in range(config.draws):
                    key = torch.tensor([int(slice_id)]), torch.tensor([patch])
                    eps = config.noise_at_test(config.p, seed, *key, draw, device)
                    perturbed = x0.clone()
                    perturbed[inside] = forward_process(
                        x0[inside], eps, method.alpha_bar[t][None].to(device)
                    )
                    corners, step = (
                        torch.tensor([[row, column]], device=device),
                        torch.tensor([t], device=device),
                    )
                    if isinstance(method, MAEDiff):
                        prediction = method.denoise(perturbed, step, corners)
                    else:
                        prediction = method.unet(perturbed, step)
                    total[inside] += prediction[inside].clamp(-1, 1)
                    count[inside] += 1
        references[n] = ((total / count + 1) / 2).clamp(0, 1)[0, 0].cpu().numpy()
    return references


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
    """Scans per minute, the ratio to the reference loop, model FLOP utilisation, peak memory and time by stage.

    The scan is a phantom of the size of a real one; weights are fresh, which changes no timing. Each repetition
    times both in turn; medians are given. `peak_memory_gb` is of the process (CPU) or the device (CUDA).
    `max_difference` is of the two healthy references, which lie in [0, 1], over the brain of the slices that both drew.

    Args:
        precision: of the prediction and of mfu's peak: fp32, bf16, or `auto`, which is bf16 where the processor has it.

    Raises:
        InputError: a method without patches, an unknown precision.
    """
    device = resolve_device(device)
    used = resolve_precision(precision, device)
    method, generator = build(name, preset, seed=seed), torch.Generator().manual_seed(seed)
    if not isinstance(method, MAEDiff | PDDPM):
        raise InputError(
            f"benchmark of {name!r}: the reference loop goes patch by patch; choose maediff or pddpm"
        )
    for (
        parameter
    ) in method.eval().parameters():  # those that start at zero would hide a difference
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02, generator=generator)
    stages: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        if device == "cuda":
            torch.cuda.synchronize()
        stages[stage] = time.perf_counter() - began
        return result

    phantom = timed("phantom", lambda: healthy_subject("val", 0))
    volume = Volume(
        phantom.image, phantom.affine, Path("phantom"), phantom.image.shape, phantom.affine
    )
    prepared = timed("prepare", lambda: prepare_scan(volume, phantom.brain))
    images, brain = volume_to_slices(prepared.image.clip(0, 1)), volume_to_slices(prepared.brain)
    ids = np.arange(len(images))
    loops, runs = [], []
    few = max(
        1, len(images) // 6
    )  # the reference loop's time is the same for every slice: a sixth of them will do
    chosen = np.linspace(0, len(images) - 1, few).round().astype(int)
    on_device = method.to(device)

    def predict() -> Any:
        return predict_volume(
            on_device, images, brain, ids, seed=seed, device=device, precision=used
        )

    predict()  # warm up
    for _ in range(repeats):
        looped = timed(
            "reference_loop", lambda: reference_loop(method, images[chosen], ids[chosen], seed)
        )
        loops.append(stages["reference_loop"] * len(images) / few)
        residual, reference = timed("predict", predict)
        runs.append(stages["predict"])
    x, y, z = (float(size) for size in prepared.grid.spacing_mm)
    anomaly = timed("postprocess", lambda: residual_map(residual, brain, (x, y, z)))
    timed("mask", lambda: anomaly_mask(anomaly, brain, 0.5, (x, y, z)))
    with FlopCounterMode(display=False) as counter:
        predict()
    stages["predict"], stages["reference_loop"] = float(np.median(runs)), float(np.median(loops))
    peak = matmul_rate(device, used)
    whole = sum(stages[stage] for stage in ("prepare", "predict", "postprocess", "mask"))
    return {
        "scans_per_minute": 60 / whole,
        "ratio_to_reference_loop": float(np.median(np.array(loops) / np.array(runs))),
        "mfu": counter.get_total_flops() / stages["predict"] / peak,
        "peak_memory_gb": _peak_memory_gb(device),
        "stages": stages,
        "method": name,
        "preset": preset,
        "precision": used,
        "reference_precision": "fp32",
        "max_difference": float(np.abs(looped - reference[chosen])[brain[chosen]].max()),
        "device": device,
        "slices": len(images),
        "gflop_a_scan": counter.get_total_flops() / 1e9,
        "matmul_gflops": peak / 1e9,
    }


def matmul_rate(device: str, precision: str) -> float:
    """FLOP per second of the best of several square matrix products: the peak that mfu is measured against."""
    size = (
        8192 if device == "cuda" else 2048
    )  # on a GPU, launching and reading back must not count
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        (a @ b).flatten()[0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def _peak_memory_gb(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in KiB on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
