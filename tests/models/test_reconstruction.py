"""Reconstruction of healthy scans as a whole, in calibration.json and beside a new scan."""

import json

import pytest

from maediff.core.errors import InputError
from maediff.models.calibration import read_calibration
from maediff.models.model import read_model
from maediff.models.reconstruction import HealthyReconstructions, read_reconstructions

TRAINED = HealthyReconstructions((0.02, 0.03, 0.04), (0.1, 0.1, 0.2))


def test_untrained_model():
    assert TRAINED.share == pytest.approx(0.3) and TRAINED.check_model() == []
    (flag,) = HealthyReconstructions((0.13,), (0.1,)).check_model()
    assert flag.code == "model-untrained" and "1.30 times the error of a blur" in flag


def test_unusual_scan():
    assert TRAINED.check_scan(0.099) == [] and TRAINED.check_scan(float("nan")) == []
    (flag,) = TRAINED.check_scan(0.12)
    assert flag.code == "residual" and "3.0 times the largest of 3 healthy scans" in flag


def test_stored_entry():
    stored = {"reconstruction": json.loads(json.dumps(TRAINED.record()))}
    assert read_reconstructions(stored) == TRAINED
    assert read_reconstructions({}) is None  # of an older version: no check


@pytest.mark.parametrize(
    "entry",
    [[], {"errors": [0.1]}, {"errors": ["a"], "blur_errors": [1]}, {"errors": [float("nan")]}],
)
def test_damaged_entry(tmp_path, entry):
    with pytest.raises(ValueError, match="its reconstruction"):
        read_reconstructions({"reconstruction": entry})
    calibration = {"postprocess": {}, "reconstruction": entry}
    (tmp_path / "calibration.json").write_text(json.dumps(calibration))
    with pytest.raises(InputError, match=r"calibration\.json: damaged \(its reconstruction"):
        read_calibration(tmp_path)


@pytest.mark.parametrize("name", ["t1", "t2", "flair"])
def test_shipped_models_are_checked(name):
    healthy = read_model(name).reconstructions
    assert healthy is not None and len(healthy.errors) >= 10
    assert healthy.check_model() == [] and healthy.share < 0.6
    assert healthy.check_scan(max(healthy.errors)) == []
