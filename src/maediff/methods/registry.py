"""The registry of methods and presets, and `build`, which makes a method from a name.

settings of a method = defaults of its config,  then the preset's,  then the caller's
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
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
from maediff.methods.residual import ComparisonConfig

MethodConfig = ComparisonConfig | IntensityConfig
"""Settings of a method with a network, or of a baseline."""


@dataclass(frozen=True)
class MethodSpec:
    """A method of the registry."""

    name: str
    make: Callable[[Any], Method]
    """The class of the method; it takes a `config`."""
    config: type[ComparisonConfig] | type[IntensityConfig]
    trained: bool = True
    """False for the baselines, which have nothing to train."""

    @property
    def settings(self) -> frozenset[str]:
        """Names of the settings, without those of nested groups."""
        return frozenset(f.name for f in fields(self.config))


@dataclass(frozen=True)
class Preset:
    """Settings that a preset changes. A method ignores those that it does not have."""

    shared: Mapping[str, Any]
    """Settings for every method."""
    diffusion: Mapping[str, Any] = field(default_factory=dict)
    """Settings for the diffusion methods only."""
    patchwise: Mapping[str, Any] = field(default_factory=dict)
    """Settings for the patch-wise methods only."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `maediff.training.config.TrainConfig`."""

    def settings_for(self, spec: MethodSpec) -> dict[str, Any]:
        """Return the settings that this preset changes for a method."""
        settings = {key: value for key, value in self.shared.items() if key in spec.settings}
        if issubclass(spec.config, DiffusionConfig):
            settings |= self.diffusion
        if issubclass(spec.config, PatchwiseConfig):
            settings |= self.patchwise
        return settings


METHODS: dict[str, MethodSpec] = {
    spec.name: spec
    for spec in (
        MethodSpec("maediff", MAEDiff, MAEDiffConfig),
        MethodSpec("pddpm", PDDPM, PDDPMConfig),
        MethodSpec("ddpm", DDPM, DDPMConfig),
        MethodSpec("anoddpm", DDPM, AnoDDPMConfig),
        MethodSpec("ae", Autoencoder, AEConfig),
        MethodSpec("vae", Autoencoder, VAEConfig),
        MethodSpec("svae", Autoencoder, SVAEConfig),
        MethodSpec("dae", DAE, DAEConfig),
        MethodSpec("fanogan", FAnoGAN, FAnoGANConfig),
        MethodSpec("bright", Bright, IntensityConfig, trained=False),
        MethodSpec("dark", Dark, IntensityConfig, trained=False),
        MethodSpec("median", Median, IntensityConfig, trained=False),
        MethodSpec("slice", SliceMedian, IntensityConfig, trained=False),
        MethodSpec("template", Template, IntensityConfig, trained=False),
        MethodSpec("mirror", Mirror, IntensityConfig, trained=False),
        MethodSpec("mirror-dark", MirrorDark, IntensityConfig, trained=False),
    )
}
TRAINED = tuple(spec.name for spec in METHODS.values() if spec.trained)
BASELINES = tuple(spec.name for spec in METHODS.values() if not spec.trained)

# `small` and `tiny` share the settings that detected most lesions on the validation split
# (experiments/noise_level). `paper` keeps the settings of the paper and of pDDPM.
_SHORT_DIFFUSION = {"loss": "l2", "t_train": (80, 111), "t_test": (95,), "noise_test": 0.0}
_SHORT_PATCHWISE = {"noise": "coarse", "visible_weight": 1.0}
_SHORT_TRAINING = {"schedule": "cosine", "flip": True, "fabricate": {"share": 0.7}}

PRESETS: dict[str, Preset] = {
    "paper": Preset(
        shared={"unet": {}, "mae": {}, "net": {}},
        # Large kernels gain little from graphs. The memory in experiments/log is without them.
        training={"cuda_graphs": False},
    ),
    "small": Preset(
        shared={
            "recentre": True,
            "unet": {
                "channels": (32, 64, 128),
                "blocks": 2,
                "attention": False,
                "resample": "conv",
            },
            "mae": {"dim": 192, "encoder_blocks": 3, "decoder_blocks": 2, "heads": 6},
            "net": {"channels": (32, 64, 128, 192), "blocks": 2},
        },
        diffusion=_SHORT_DIFFUSION,
        patchwise=_SHORT_PATCHWISE,
        training={
            "steps": 10_000,
            "learning_rate": 3e-4,
            "warmup_steps": 200,
            **_SHORT_TRAINING,
        },
    ),
    "tiny": Preset(
        shared={
            "recentre": True,
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
        diffusion=_SHORT_DIFFUSION,
        patchwise=_SHORT_PATCHWISE,
        training={
            "steps": 2_000,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "warmup_steps": 50,
            **_SHORT_TRAINING,
        },
    ),
}


def resolve(
    name: str, preset: str = "paper", settings: Mapping[str, Any] | None = None
) -> MethodConfig:
    """Return the frozen config of a method.

    Args:
        name: a key of `METHODS`.
        preset: a key of `PRESETS`; it changes defaults.
        settings: nested mappings that override the preset.

    Raises:
        InputError: the method, the preset or a setting is unknown, or settings do not fit.
    """
    if name not in METHODS:
        raise InputError(
            f"method {name!r} is not known: one of {', '.join(TRAINED)}; or, with nothing to "
            f"train, {', '.join(BASELINES)}"
        )
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} is not known: one of {', '.join(PRESETS)}")
    spec = METHODS[name]
    values = merge(PRESETS[preset].settings_for(spec), settings or {})
    return build_config(spec.config, values, name)


def build(
    name: str, preset: str = "paper", settings: Mapping[str, Any] | None = None, seed: int = 0
) -> Method:
    """Make a method with fresh weights.

    The global random state of torch does not change.

    Args:
        name: a key of `METHODS`.
        preset: a key of `PRESETS`.
        settings: nested mappings that override the preset.
        seed: determines the weights.

    Raises:
        InputError: see `resolve`.

    Example:
        >>> build("maediff", "tiny", {"s": 24}).config.s
        24
    """
    config = resolve(name, preset, settings)
    with torch.random.fork_rng(devices=[]):  # layers draw their weights from the global state
        torch.default_generator.manual_seed(seed)  # `torch.manual_seed` also seeds every GPU
        return METHODS[name].make(config)
