"""How a model's scans are prepared, and whether two preparations are the same."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as config

from maediff.core.config import build_config
from maediff.preparation.bias_correction import BiasConfig
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import RegistrationConfig

RECORDED = (
    "bias",
    "registration",
)  # what a model's scans must share; extraction and checks are free


@config(frozen=True, config=ConfigDict(extra="forbid"))
class StepsConfig:
    """What happens to a scan before it goes to the grid."""

    brain: BrainConfig = BrainConfig()
    bias: BiasConfig = BiasConfig()
    registration: RegistrationConfig = RegistrationConfig()
    qc: QualityConfig = QualityConfig()


def steps_config(settings: Mapping[str, Any]) -> StepsConfig:
    """The config of nested settings (`brain`, `bias`, `registration`, `qc`); other keys are left alone.

    Raises:
        InputError: unknown or wrong values.
    """
    kinds = {
        "brain": BrainConfig,
        "bias": BiasConfig,
        "registration": RegistrationConfig,
        "qc": QualityConfig,
    }
    built: dict[str, Any] = {
        key: build_config(kind, settings.get(key, {}), key) for key, kind in kinds.items()
    }
    return StepsConfig(**built)


def steps_of(meta: Mapping[str, Any]) -> StepsConfig:
    """The steps that the scans of a model's cohort went through; one that it has no word of is off."""
    return steps_config({key: meta.get(key) or {"enabled": False} for key in RECORDED})


def with_defaults(config: StepsConfig, modality: str) -> StepsConfig:
    """`config` with what it leaves to the contrast filled in."""
    if config.registration.enabled is not None:
        return config
    return replace(config, registration=RegistrationConfig(enabled=modality in REGISTERED))


def settings_of(config: StepsConfig) -> dict[str, Any]:
    """The config as nested settings, for cohort.json."""
    return {key: asdict(getattr(config, key)) for key in ("brain", "bias", "registration", "qc")}


PREPARED = (
    "grid",
    "normalise",
    "bias",
    "registration",
)  # of cohort.json: what scans need to share to look alike


def prepared_unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Which of PREPARED differ between two cohort.json, or what runs hold of them; off is the same as no word of it."""

    def plain(meta: Mapping[str, Any], key: str) -> Any:
        value = meta.get(key) or {}
        return value if key in ("grid", "normalise") or value.get("enabled") else {}

    return [key for key in PREPARED if plain(one, key) != plain(other, key)]


def scans_unlike(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """`prepared_unlike`, and first `modality` where the contrasts differ."""
    return [key for key in ("modality",) if one[key] != other[key]] + prepared_unlike(one, other)


def is_registered(meta: Mapping[str, Any]) -> bool:
    """Whether scans lie in MNI152, by cohort.json or what a model's config says of its cohort."""
    return bool((meta.get("registration") or {}).get("enabled"))


# Contrasts whose scans go to MNI152 unless told otherwise: T1w and FLAIR by docs/results.md, T2w like them
REGISTERED = frozenset({"T1w", "T2w", "FLAIR"})
