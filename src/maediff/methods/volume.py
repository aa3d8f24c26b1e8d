"""Prediction of a whole scan, slice by slice."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from maediff.core.device import no_tf32
from maediff.methods.base import Method


@torch.inference_mode()
def predict_volume(
    method: Method,
    images: Float[np.ndarray, "n h w"],
    brain: Bool[np.ndarray, "n h w"],
    slice_ids: Int[np.ndarray, " n"],
    *,
    seed: int,
    batch_size: int = 16,
    device: str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
) -> tuple[Float[np.ndarray, "n h w"], Float[np.ndarray, "n h w"]]:
    """Residual (before post-processing) and healthy reference of a scan, both in [0, 1].

    Slices without brain are skipped: their residual is zero and their reference is the scan itself.
    """
    residual, reference = np.zeros_like(images), images.copy()
    holds_brain = brain.any(axis=(1, 2))
    if holds_brain.any():
        with no_tf32(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            prediction = method.eval().predict(
                torch.from_numpy(images[holds_brain])[:, None].to(device),
                slice_ids=torch.from_numpy(slice_ids[holds_brain]),
                seed=seed,
                brain=torch.from_numpy(brain[holds_brain])[:, None].to(device),
                batch_size=batch_size,
            )
        residual[holds_brain] = prediction.anomaly_map[:, 0].float().cpu().numpy()
        reference[holds_brain] = prediction.reconstruction[:, 0].float().cpu().numpy()
    return residual, reference
