"""The list of methods and presets; `build` makes a method from a name."""

from collections.abc import Mapping
from typing import Any

import torch

from maediff.core.config import build_config, merge
from maediff.core.errors import InputError
from maediff.methods.autoencoders import (
    DAE,
    AEConfig,
    Autoencoder,
    DAEConfig,
    SVAEConfig,
    VAEConfig,
)
from maediff.methods.base import Method
from maediff.methods.baselines import (
    Bright,
    Dark,
    IntensityConfig,
    Median,
    Mirror,
    MirrorDark,
    SliceMedian,
    Template,
)
from maediff.methods.ddpm import DDPM, AnoDDPMConfig, DDPMConfig
from maediff.methods.diffusion_config import DiffusionConfig
from maediff.methods.fanogan import FAnoGAN, FAnoGANConfig
from maediff.methods.maediff import MAEDiff, MAEDiffConfig
from maediff.methods.patchwise import PatchwiseConfig
from maediff.methods.pddpm import PDDPM, PDDPMConfig

METHODS: dict[str, tuple[Any, Any]] = {
    "maediff": (MAEDiff, MAEDiffConfig),
    "pddpm": (PDDPM, PDDPMConfig),
    "ddpm": (DDPM, DDPMConfig),
    "anoddpm": (DDPM, AnoDDPMConfig),
    "ae": (Autoencoder, AEConfig),
    "vae": (Autoencoder, VAEConfig),
    "svae": (Autoencoder, SVAEConfig),
    "dae": (DAE, DAEConfig),
    "fanogan": (FAnoGAN, FAnoGANConfig),
    "bright": (Bright, IntensityConfig),
    "dark": (Dark, IntensityConfig),
    "median": (Median, IntensityConfig),
    "slice": (SliceMedian, IntensityConfig),
    "template": (Template, IntensityConfig),
    "mirror": (Mirror, IntensityConfig),
    "mirror-dark": (MirrorDark, IntensityConfig),
}


BASELINES = ("bright", "dark", "median", "slice", "template", "mirror", "mirror-dark")


TRAINED = tuple(name for name in METHODS if name not in BASELINES)


GROUPS = {
    "diffusion": DiffusionConfig,
    "patchwise": PatchwiseConfig,
}  # settings of a preset for some methods only


RECIPE: dict[
    str, Any
] = {  # what found most lesions on val; `paper` keeps the paper's and pDDPM's (docs/results.md)
    "diffusion": {"loss": "l2", "t_train": (80, 111), "t_test": (95,), "noise_test": 0.0},
    "patchwise": {"noise": "coarse", "visible_weight": 1.0},
    "recentre": True,
}


PRESETS: dict[str, dict[str, Any]] = {  # a method takes what it has a setting for
    "paper": {"unet": {}, "mae": {}, "net": {}},
    "small": {
        **RECIPE,
        "unet": {"channels": (32, 64, 128), "blocks": 2, "attention": False, "resample": "conv"},
        "mae": {"dim": 192, "encoder_blocks": 3, "decoder_blocks": 2, "heads": 6},
        "net": {"channels": (32, 64, 128, 192), "blocks": 2},
    },
    "tiny": {
        **RECIPE,
        "r": 8,
        "unet": {
            "channels": (64, 96),
            "blocks": 1,
            "attention": False,
            "stem": 4,
            "resample": "conv",
        },
        "mae": {"dim": 128, "encoder_blocks": 2, "decoder_blocks": 1, "heads": 4},
        "net": {"channels": (48, 96, 128), "blocks": 1, "stem": 2},
    },
}


def resolve(name: str, preset: str = "paper", settings: Mapping[str, Any] | None = None) -> Any:
    """The frozen config of a method: its defaults, then the preset's, then `settings` (nested mappings).

    Raises:
        InputError: an unknown method, preset or key, or values that do not fit each other.
    """
    if name not in METHODS:
        raise InputError(
            f"method {name!r} is not known: one of {', '.join(TRAINED)}; or, with nothing to train, "
            f"{', '.join(BASELINES)}"
        )
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known: one of {', '.join(PRESETS)}")
    config_type = METHODS[name][1]
    base = {
        key: value
        for key, value in PRESETS[preset].items()
        if key in config_type.__pydantic_fields__
    }
    for group, of in GROUPS.items():
        base |= PRESETS[preset].get(group, {}) if issubclass(config_type, of) else {}
    return build_config(config_type, merge(base, settings or {}), name)


def build(
    name: str, preset: str = "paper", settings: Mapping[str, Any] | None = None, seed: int = 0
) -> Method:
    """A method with fresh weights, which `seed` decides alone; see `resolve` for the other arguments and errors."""
    config = resolve(name, preset, settings)
    with torch.random.fork_rng(
        devices=[]
    ):  # layers draw their weights from torch's own state: it is put back
        torch.manual_seed(seed)
        method: Method = METHODS[name][0](config)
    return method
