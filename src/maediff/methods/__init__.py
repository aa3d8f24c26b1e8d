"""Methods that reconstruct a slice as if healthy. `registry` lists them; `build` makes one."""

from maediff.methods.base import Method, Objective, Prediction
from maediff.methods.registry import (
    BASELINES,
    METHODS,
    PRESETS,
    TRAINED,
    MethodSpec,
    Preset,
    build,
    resolve,
)
from maediff.methods.volume import check_finite, predict_volume

__all__ = [
    "BASELINES",
    "METHODS",
    "PRESETS",
    "TRAINED",
    "Method",
    "MethodSpec",
    "Objective",
    "Prediction",
    "Preset",
    "build",
    "check_finite",
    "predict_volume",
    "resolve",
]
