"""PreparationConfig: settings, records, and differences between preparations."""

import json
from dataclasses import asdict, fields, replace

import pytest

from helpers.options import REGISTERED as REGISTERED_CONFIG
from helpers.options import UNREGISTERED
from helpers.runs import COHORT
from maediff.core.config import SettingsError
from maediff.preparation.bias_correction import BiasConfig
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.config import OPTIONAL, PARTS, REGISTERED, SHARED, PreparationConfig
from maediff.preparation.grid import GridConfig
from maediff.preparation.intensities import NormaliseConfig
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import RegistrationConfig


def test_parts_are_all_fields():
    assert {field.name for field in fields(PreparationConfig)} == {"modality", *PARTS}
    assert {*OPTIONAL} < {*SHARED} < {*PARTS}
    assert all("enabled" in PARTS[part].__pydantic_fields__ for part in OPTIONAL)


def test_settings_survive_a_round_trip():
    config = PreparationConfig.from_settings(
        {"grid": {"size": 64, "max_brain_mm": 120}, "bias": {"enabled": True}}, "FLAIR"
    )
    assert config.grid == GridConfig(size=64, max_brain_mm=120)
    assert config.bias.enabled and config.modality == "FLAIR"
    assert PreparationConfig.from_settings(config.settings(), "FLAIR") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"brain": {"tool": "unheard"}}, "brain: tool: Input should be"),
        ({"brain": {"threshold": 1.5}}, r"1\.5: a probability"),
        ({"grid": {"sise": 3}}, "grid: sise: unknown setting"),
        ({"qc": 3}, "qc: 3 is not a group of settings"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(SettingsError, match=message):
        PreparationConfig.from_settings(settings)


def test_a_record_survives_a_round_trip():
    config = PreparationConfig(
        modality="T2w",
        grid=GridConfig(size=64, max_brain_mm=120),
        normalise=NormaliseConfig(2, 98),
        bias=BiasConfig(enabled=True),
        registration=RegistrationConfig(enabled=True),
    )
    record = json.loads(json.dumps({"modality": "T2w", **config.settings(), "hash": "0"}))
    assert PreparationConfig.from_record(record) == config


def test_record_leaves_out_brain_extraction_and_quality_control():
    record = {**COHORT, "brain": {"tool": "none"}, "qc": {"align": "never"}}
    config = PreparationConfig.from_record(record)
    assert (config.brain, config.qc) == (BrainConfig(), QualityConfig())


def test_record_without_steps():
    """A model from before the steps existed was trained without them."""
    config = PreparationConfig.from_record({**COHORT, "bias": None})
    assert not config.registered
    assert config.registration.enabled is False
    assert not config.bias.enabled


@pytest.mark.parametrize("modality", ["T1w", "T2w", "FLAIR"])
def test_registered_by_default(modality):
    assert modality in REGISTERED
    assert not PreparationConfig().registered  # undecided
    assert PreparationConfig().for_modality(modality).registered
    assert PreparationConfig().for_modality(modality).modality == modality
    assert not UNREGISTERED.for_modality(modality).registered


def test_differences_names_the_parts_that_a_model_sees():
    config = REGISTERED_CONFIG.for_modality("T1w")
    assert config.differences(replace(config)) == []
    assert config.differences(replace(config, brain=BrainConfig(tool="none"))) == []
    assert config.differences(replace(config, qc=QualityConfig(align="never"))) == []
    changes = {
        "modality": "T2w",
        "grid": GridConfig(size=64, max_brain_mm=120),
        "normalise": NormaliseConfig(2, 98),
        "bias": BiasConfig(enabled=True),
        "registration": RegistrationConfig(enabled=False),
    }
    for name, value in changes.items():
        other = replace(config, **{name: value})
        assert config.differences(other) == other.differences(config) == [name]
    assert config.differences(replace(config, **changes)) == list(changes)


def test_disabled_steps_do_not_differ():
    config = UNREGISTERED.for_modality("T1w")
    other = replace(
        config, bias=BiasConfig(target_mm=9.0), registration=RegistrationConfig(enabled=None)
    )
    assert asdict(other) != asdict(config)
    assert config.differences(other) == []


def test_unknown_contrast_of_a_record_is_refused():
    record = PreparationConfig(modality="T1w").settings() | {"modality": "PD"}
    with pytest.raises(SettingsError, match="modality 'PD': choose one of T1w, T2w, FLAIR"):
        PreparationConfig.from_record(record)
