"""Prediction of a whole scan: one call of `Method.predict` for the slices that contain brain."""

from typing import Literal

import numpy as np
import torch
from einops import rearrange
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
    """Return the residual (before post-processing) and the healthy reference of a scan.

    Args:
        method: put into evaluation mode.
        images: slices, with 1 at the 99th percentile of the brain.
        brain: brain mask of each slice.
        slice_ids: index of each slice on the model's grid.
        seed: seed of the noise at test.
        batch_size: slices or patches per forward pass. The result does not depend on it.
        device: device of `method`.
        precision: type of the network's computations.

    Returns:
        Residual and reference, both in [0, 1]. Slices without brain are skipped: their residual is
        0, and their reference is the slice itself.
    """
    residual, reference = np.zeros_like(images), images.copy()
    has_brain = brain.any(axis=(1, 2))
    if has_brain.any():
        x = rearrange(torch.from_numpy(images[has_brain]), "n h w -> n 1 h w")
        mask = rearrange(torch.from_numpy(brain[has_brain]), "n h w -> n 1 h w")
        with no_tf32(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            prediction = method.eval().predict(
                x.to(device),
                slice_ids=torch.from_numpy(slice_ids[has_brain]),
                seed=seed,
                brain=mask.to(device),
                batch_size=batch_size,
            )
        residual[has_brain] = prediction.anomaly_map[:, 0].float().cpu().numpy()
        reference[has_brain] = prediction.reconstruction[:, 0].float().cpu().numpy()
    return residual, reference
