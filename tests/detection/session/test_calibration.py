"""The threshold of the combined map, and the models that it is valid for."""

from dataclasses import replace

import pytest

from maediff.anomaly.combine import DEFAULT_RULE, CombineConfig
from maediff.detection.detector import load
from maediff.detection.session import calibration
from maediff.detection.session.calibration import MODELS, VALUES, choose_threshold
from maediff.models.model import read_model

BOTH = frozenset({"T1w", "FLAIR"})


@pytest.fixture
def detectors(models, monkeypatch):
    """Detectors of two contrasts that the stored values are valid for."""
    loaded = {contrast: load(models[contrast], device="cpu") for contrast in ("T1w", "FLAIR")}
    known = {contrast: (each.name, each.model.step) for contrast, each in loaded.items()}
    monkeypatch.setattr(calibration, "MODELS", known)
    return loaded


def defaults(detectors):
    return {contrast: each.threshold_for().value for contrast, each in detectors.items()}


def test_known_models_have_the_threshold_of_their_contrasts(detectors):
    chosen = choose_threshold(detectors, defaults(detectors), DEFAULT_RULE)
    value, n_marked = VALUES[BOTH]
    assert chosen.value == value < 1
    assert chosen.origin["n_scans"] == 14 and chosen.origin["n_marked"] == n_marked


def test_other_thresholds_of_a_contrast_are_not_calibrated(detectors):
    thresholds = {**defaults(detectors), "FLAIR": 0.3}
    chosen = choose_threshold(detectors, thresholds, DEFAULT_RULE)
    assert chosen.value == 1.0 and "another threshold" in chosen.origin["reason"]


def test_other_settings_are_not_calibrated(detectors):
    changed = detectors["FLAIR"].with_postprocess({"median_size": 3})
    thresholds = defaults(detectors)
    chosen = choose_threshold({**detectors, "FLAIR": changed}, thresholds, DEFAULT_RULE)
    assert chosen.value == 1.0 and "other settings" in chosen.origin["reason"]


def test_other_models_are_not_calibrated(detectors, monkeypatch):
    monkeypatch.setattr(calibration, "MODELS", MODELS)
    chosen = choose_threshold(detectors, defaults(detectors), DEFAULT_RULE)
    assert chosen.value == 1.0 and "is another model" in chosen.origin["reason"]


def test_other_rules_and_given_thresholds(detectors):
    thresholds = defaults(detectors)
    other = choose_threshold(detectors, thresholds, CombineConfig(power=1.0))
    assert other.value == 1.0 and "another rule" in other.origin["reason"]
    given = choose_threshold(detectors, thresholds, replace(DEFAULT_RULE, threshold=0.8))
    assert given.value == 0.8
    alone = {"FLAIR": detectors["FLAIR"]}
    only = choose_threshold(alone, {"FLAIR": thresholds["FLAIR"]}, DEFAULT_RULE)
    assert only.value == 1.0 and "only contrast" in only.origin["reason"]


def test_the_values_belong_to_the_shipped_models():
    """If this fails, run experiments/session/run.sh for the new models, and update VALUES."""
    for name, step in MODELS.values():
        assert read_model(name).step == step
