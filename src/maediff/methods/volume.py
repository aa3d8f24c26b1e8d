"""Prediction of a whole scan: one call of `Method.predict` for the slices that contain brain."""

from typing import Literal

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int

from maediff.core.device import no_tf32
from maediff.core.errors import InputError
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
    name: str = "the model",
) -> tuple[Float[np.ndarray, "n h w"], Float[np.ndarray, "n h w"]]:
    """Return the residual (before post-processing) and the healthy reference of a scan.

    Args:
        method: put into evaluation mode.
        images: slices, with 1 at the 99th percentile of the brain.
        brain: brain mask of each slice.
        slice_ids: index of each slice on the model's grid.
        seed: seed of the noise at test.
        batch_size: slices or patches per forward pass; changes results by rounding only.
        device: device of `method`.
        precision: type of the network's computations.
        name: name of the model, for the error message.

    Returns:
        Residual and reference, both in [0, 1]. Slices without brain are skipped: their residual is
        0, and their reference is the slice itself.

    Raises:
        InputError: residual or reference hold NaN or infinity, because the weights are damaged.
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
    check_finite(name, residual, reference)
    return residual, reference


def check_finite(name: str, *arrays: np.ndarray) -> None:
    """Refuse results of a model that hold NaN or infinity, because they look like no anomaly.

    Args:
        name: name of the model, for the error message.
        arrays: residual, anomaly map or healthy reference.

    Raises:
        InputError: names the model and counts the voxels.
    """
    for array in arrays:
        if n_bad := array.size - int(np.count_nonzero(np.isfinite(array))):
            raise InputError(
                f"{name}: computes NaN or infinity in {n_bad} of {array.size} voxels, so its "
                "weights are damaged or its training diverged; restore the model's files, or "
                "train it again"
            )
