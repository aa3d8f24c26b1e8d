"""Training settings: their defaults and limits. Presets change some of the defaults.

learning rate of step n  =  learning_rate * min(1, (n + 1) / warmup_steps) * f(n)

f(n) = 1                              for the schedule `constant`
f(n) = (1 + cos(pi n / steps)) / 2    for the schedule `cosine`
"""

import math
import re
from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass

from maediff.anomaly.thresholds import CALIBRATION_SCANS
from maediff.core.config import build_config, check_group, merge
from maediff.core.device import resolve_precision
from maediff.core.errors import InputError
from maediff.methods.registry import PRESETS
from maediff.training.slices.augment import AugmentConfig, preset_or_settings
from maediff.training.slices.lesions import FabricateConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """Training settings. The defaults are pDDPM's: Adam, 1e-4, batches of 32, 18,000 steps.

    pDDPM trains for 1600 epochs of one slice per scan, on 358 scans: about 18,000 steps.
    Source: Behrendt et al. 2023, https://arxiv.org/abs/2303.03758
    """

    steps: int = 18_000
    """Training steps, at least 1."""
    batch_size: int = 32
    """Slices per step, at least 1."""
    learning_rate: float = 1e-4
    """Highest learning rate of Adam, at least 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to zero at the last step, which helps most in a short training."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly; 0: no warm-up."""
    clip_norm: float = 1.0
    """Gradients with a larger L2 norm are scaled down to this norm; above 0."""
    ema_decay: float = 0.999
    """Decay of the moving average of the weights, from 0 to below 1. The averaged weights predict.
    The decay is smaller in the first steps (`update_ema`)."""
    flip: bool = False
    """Mirror half of the slices left to right."""
    augment: Annotated[AugmentConfig, BeforeValidator(preset_or_settings)] = field(
        default_factory=AugmentConfig
    )
    """Random changes of the training slices. `robust` and `robust-bright` are presets."""
    fabricate: FabricateConfig = field(default_factory=FabricateConfig)
    """Synthetic lesions in the network's input. The target stays the healthy slice."""
    precision: Precision = "auto"
    """`auto`: bf16 if the device has native bf16 arithmetic, else fp32. fp16 is for CUDA only, and
    scales the loss."""
    cuda_graphs: bool = True
    """On CUDA, launch the network's kernels as graphs: the same kernels, without waiting for
    Python between them."""
    checkpoint_every: int = 250
    """Steps between two checkpoints, at least 1. Each checkpoint is validated."""
    validation_slices: int = 64
    """Slices of the val split that the validation loss is computed on, at most; at least 1."""
    recommended: bool = True
    """Use the settings and the post-processing that are recommended for the contrast
    (`training.recommended`), unless others are given. The preset `paper` ignores this."""
    calibration_scans: int = CALIBRATION_SCANS
    """Scans of the val split, at most, that give `detect` its thresholds when training ends. With
    0 the run has no thresholds."""

    sample_slices: int = 4
    """Slices whose reconstructions the report shows over time, at least 0."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.checkpoint_every, self.validation_slices) < 1:
            raise ValueError(
                f"steps={self.steps}, batch_size={self.batch_size}, "
                f"checkpoint_every={self.checkpoint_every} and "
                f"validation_slices={self.validation_slices} must be at least 1"
            )
        if min(self.calibration_scans, self.sample_slices) < 0:
            raise ValueError(
                f"calibration_scans={self.calibration_scans} and "
                f"sample_slices={self.sample_slices} must not be negative"
            )
        if (
            self.learning_rate < 0
            or self.warmup_steps < 0
            or self.clip_norm <= 0
            or not 0 <= self.ema_decay < 1
        ):
            raise ValueError(
                f"learning_rate={self.learning_rate} and warmup_steps={self.warmup_steps} must "
                f"not be negative, clip_norm={self.clip_norm} must be above 0, and "
                f"ema_decay={self.ema_decay} from 0 to below 1"
            )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay = 0.5 * (1 + np.cos(np.pi * step / config.steps)) if config.schedule == "cosine" else 1.0
    return float(config.learning_rate * warmup * decay)


def parse_duration(duration: str | int | float | None) -> float | None:
    """Return a duration in seconds; None stays None.

    Args:
        duration: seconds, or text such as `90s`, `10m` or `1.5h`.

    Raises:
        InputError: the text has another form, for example no unit, or the number is negative or
            not finite.
    """
    if duration is None:
        return None
    if isinstance(duration, int | float) and math.isfinite(duration) and duration >= 0:
        return float(duration)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", str(duration).strip())
    if match:
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    raise InputError(f"`max_time={duration!r}`: write a duration like 90s, 10m or 1.5h")


def resolve_training(preset: str, settings: Any) -> TrainConfig:
    """Return the training settings: the defaults, overridden by the preset, then by `settings`.

    Args:
        preset: a key of `maediff.methods.registry.PRESETS`.
        settings: nested mapping of `TrainConfig` fields.

    Raises:
        InputError: an unknown preset.
        SettingsError: an unknown key, or a value that does not fit.
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known: one of {', '.join(PRESETS)}")
    values = merge(PRESETS[preset].training, check_group(settings, "train"))
    return build_config(TrainConfig, values, "train")


def training_precision(precision: Precision, device: str) -> str:
    """Return `fp32`, `bf16` or `fp16`; `auto` is resolved as in `resolve_precision`.

    Args:
        precision: value of `train.precision`.
        device: `cpu`, `cuda` or `mps`.

    Raises:
        InputError: fp16 without CUDA.
    """
    if precision == "fp16" and device != "cuda":
        raise InputError("train.precision=fp16 needs a CUDA device; use bf16 or fp32")
    return precision if precision == "fp16" else resolve_precision(precision, device)
