"""How a method is trained: what can be set, its defaults and its limits.

    learning rate of step n  =  learning_rate * min(1, (n + 1) / warmup_steps) * (1 + cos(pi n / steps)) / 2

where the last factor is for `schedule` cosine only. Presets change some defaults (`maediff.methods.registry.PRESETS`).
"""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass

from maediff.anomaly.thresholds import CALIBRATION_SCANS
from maediff.core.config import SettingsError, build_config, merge
from maediff.core.device import resolve_precision
from maediff.core.errors import InputError
from maediff.methods.registry import PRESETS
from maediff.training.augment import AugmentConfig, preset_or_settings
from maediff.training.lesions import FabricateConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """How to train; the defaults are pDDPM's: Adam, 1e-4, batches of 32, about 18,000 steps for 358 scans."""

    steps: int = 18_000
    batch_size: int = 32
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to zero at the last step: worth much where the budget is short."""
    warmup_steps: int = 0
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    """Of the moving average of the weights, which is what predicts; shorter in the first steps."""
    flip: bool = False
    """Mirror half of the slices left to right."""
    augment: Annotated[AugmentConfig, BeforeValidator(preset_or_settings)] = field(
        default_factory=AugmentConfig
    )
    """Random changes of contrast, bias, resolution, ... in training; `robust` and `robust-bright` are presets."""
    fabricate: FabricateConfig = field(default_factory=FabricateConfig)
    """Made-up lesions in what the network sees, never in what it is to draw."""
    precision: Precision = "auto"
    """`auto`: bf16 where the processor has it, else fp32. fp16 (CUDA only) scales the loss."""
    cuda_graphs: bool = True
    """On CUDA, launch the network's kernels as graphs: the same kernels, without the waits between them."""
    checkpoint_every: int = 250
    """Steps between validations, each of which writes a checkpoint."""
    validation_slices: int = 64
    calibration_scans: int = CALIBRATION_SCANS
    """Healthy val scans, at most, whose maps give `detect` its thresholds when training ends; 0: it has none."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.checkpoint_every, self.validation_slices) < 1:
            raise ValueError(
                f"steps={self.steps}, batch_size={self.batch_size}, checkpoint_every={self.checkpoint_every} and "
                f"validation_slices={self.validation_slices} must be at least 1"
            )
        if self.calibration_scans < 0:
            raise ValueError(f"calibration_scans={self.calibration_scans} must not be negative")
        if (
            self.learning_rate < 0
            or self.warmup_steps < 0
            or self.clip_norm <= 0
            or not 0 <= self.ema_decay < 1
        ):
            raise ValueError(
                f"learning_rate={self.learning_rate} and warmup_steps={self.warmup_steps} must not be negative, "
                f"clip_norm={self.clip_norm} above 0, ema_decay={self.ema_decay} from 0 to below 1"
            )


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fall = 0.5 * (1 + np.cos(np.pi * step / config.steps)) if config.schedule == "cosine" else 1.0
    return float(config.learning_rate * warm * fall)


def parse_duration(text: str | None) -> float | None:
    """Seconds in a text like `90s`, `10m`, `1.5h` or `600`.

    Raises:
        InputError: anything else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match:
        raise InputError(f"--max-time {text!r}: write it like 90s, 10m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def resolve_training(preset: str, settings: dict[str, Any]) -> TrainConfig:
    """Defaults, then the preset's, then `settings`; InputError for unknown keys and wrong values."""
    if not isinstance(settings, Mapping):
        raise SettingsError(
            f"settings of train: {settings!r} is not a group of settings; write train.KEY=VALUE"
        )
    return build_config(TrainConfig, merge(PRESETS[preset].training, settings), "train")


def training_precision(precision: Precision, device: str) -> str:
    """As `resolve_precision`, and fp16, which is for CUDA only.

    Raises:
        InputError: fp16 without CUDA.
    """
    if precision == "fp16" and device != "cuda":
        raise InputError("train.precision=fp16 needs a CUDA device; use bf16 or fp32")
    return precision if precision == "fp16" else resolve_precision(precision, device)
