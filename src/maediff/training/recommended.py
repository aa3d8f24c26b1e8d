"""Settings that a trained run uses for its contrast, unless others are given.

    training cohort -> contrast -> settings of the method and post-processing -> config.json

They are those of the shipped model of the contrast, without its range of noise levels
(docs/explanation/choices_training.md). The preset `paper` and `train.recommended=false` do
without them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maediff.methods.registry import METHODS

STRIDE = 48
"""Stride of the patches at test: 4 patches per slice without overlap; s = 16 needs 16."""


@dataclass(frozen=True)
class Recommendation:
    """Settings for a contrast.

    Args:
        method: settings of the method; settings that a method does not have are ignored.
        postprocess: post-processing, by field of `PostprocessConfig`.
    """

    method: Mapping[str, Any] = field(default_factory=dict)
    postprocess: Mapping[str, Any] = field(default_factory=dict)


_TWO_SCALES: Mapping[str, Any] = {
    "smooth_mm": [2.0, 20.0, 20.0],
    "smooth_mean": "geometric",
    "median_size": 1,
}
RECOMMENDED: Mapping[str, Recommendation] = {
    "T1w": Recommendation(
        method={"residual": "dark", "ssim_weight": 0.25, "s": STRIDE},
        postprocess={**_TWO_SCALES, "symmetry": 0.5},
    ),
    "T2w": Recommendation(
        method={"residual": "bright", "s": STRIDE},
        postprocess={"first_smooth_mm": 2.0, "symmetry": 0.5, "extent": 0.4},
    ),
    "FLAIR": Recommendation(
        method={"residual": "bright", "headroom": True, "s": STRIDE},
        postprocess={
            **_TWO_SCALES,
            "extent": 0.5,
            "times_intensity": 2.0,
            "first_power": 2.0,
            "first_ceiling": 2.0,
        },
    ),
}


def recommend_settings(method: str, modality: str) -> dict[str, Any]:
    """Return the recommended settings of a method for a contrast.

    Args:
        method: name of a method in the registry.
        modality: contrast of the training scans.
    """
    known = METHODS[method].settings
    settings = RECOMMENDED[modality].method if modality in RECOMMENDED else {}
    return {key: value for key, value in settings.items() if key in known}


def recommend_postprocess(modality: str, *, registered: bool) -> dict[str, Any]:
    """Return the recommended post-processing for a contrast, by field of `PostprocessConfig`.

    Args:
        modality: contrast of the training scans.
        registered: True if the scans are registered to MNI152; others get no symmetry.
    """
    changes = dict(RECOMMENDED[modality].postprocess) if modality in RECOMMENDED else {}
    if not registered:
        changes.pop("symmetry", None)
    return changes
