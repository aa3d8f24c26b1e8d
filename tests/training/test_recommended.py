"""Settings that a run uses for its contrast: those of the shipped models, unless given."""

import json
import shutil
from dataclasses import asdict

import pytest

from helpers.training import FAST, run
from maediff.anomaly.postprocess import DEFAULT, apply_changes
from maediff.core.errors import InputError
from maediff.models import catalogue
from maediff.models.catalogue import PACKAGED
from maediff.models.model import read_model
from maediff.training.recommended import (
    RECOMMENDED,
    recommend_postprocess,
    recommend_settings,
)

SHIPPED = {"t1": "T1w", "t2": "T2w", "flair": "FLAIR"}


def with_train(**changes):
    return {**FAST, "train": {**FAST["train"], **changes}}


@pytest.mark.parametrize("name", SHIPPED)
def test_as_the_shipped_model(name):
    """A change of a shipped model must be repeated in the recommendation, and the other way."""
    assert catalogue.PACKAGED == PACKAGED
    model = read_model(PACKAGED / name)
    contrast = model.preparation.modality
    assert contrast == SHIPPED[name]
    settings = recommend_settings("maediff", contrast)
    assert settings == {key: model.config[key] for key in settings} and settings["s"] == 48
    changes = recommend_postprocess(contrast, registered=True)
    assert apply_changes(DEFAULT, changes) == model.postprocess
    for key in ("residual", "headroom", "ssim_weight", "recentre"):  # what the residual shows
        default = {"residual": "abs", "headroom": False, "ssim_weight": 0.0, "recentre": True}
        assert settings.get(key, default[key]) == model.config[key], key


def test_other_methods_ignore_settings_that_they_lack():
    assert "s" not in recommend_settings("dae", "T1w")
    assert recommend_settings("dae", "T1w")["residual"] == "dark"
    assert recommend_settings("dae", "PDw") == recommend_postprocess("PDw", registered=True) == {}


def test_unregistered_scans_have_no_symmetry():
    assert RECOMMENDED["T1w"].postprocess["symmetry"] == 0.5
    assert "symmetry" not in recommend_postprocess("T1w", registered=False)


def test_a_run_uses_the_settings_of_its_contrast(cohort, whole):
    """A run uses the recommended settings of T1w without a flag."""
    model = read_model(whole)
    assert (model.config["residual"], model.config["s"]) == ("dark", 48)
    expected = apply_changes(DEFAULT, recommend_postprocess("T1w", registered=False))
    assert model.postprocess == expected and expected.smooth_mean == "geometric"
    stored = json.loads((whole / "calibration.json").read_text("utf-8"))
    assert stored["postprocess"] == json.loads(json.dumps(asdict(expected)))
    assert model.scale == stored["sensitivity"]["default"]["threshold"]


def test_given_settings_override(cohort, tmp_path):
    changed = {**with_train(calibration_scans=0), "residual": "bright"}
    run(cohort, tmp_path / "own", settings=changed)
    model = read_model(tmp_path / "own")
    assert (model.config["residual"], model.config["s"]) == ("bright", 48)
    assert model.postprocess.smooth_mean == "geometric"  # without a calibration, too
    run(cohort, tmp_path / "plain", settings=with_train(calibration_scans=0, recommended=False))
    plain = read_model(tmp_path / "plain")
    assert (plain.config["residual"], plain.config["s"]) == ("abs", 16)
    assert plain.postprocess == DEFAULT


def test_run_of_an_older_version_resumes_with_its_settings(cohort, tmp_path):
    old = tmp_path / "old"
    run(cohort, old, settings=with_train(recommended=False), max_time="0s")
    config = json.loads((old / "config.json").read_text("utf-8"))
    del config["train"]["recommended"]
    (old / "config.json").write_text(json.dumps(config))
    assert run(cohort, old, resume=True)["step"] == 6
    assert read_model(old).config["residual"] == "abs"
    with pytest.raises(
        InputError, match=r"started with config\.residual abs, and config\.residual is now dark"
    ):
        run(
            cohort,
            shutil.copytree(old, tmp_path / "copy"),
            resume=True,
            settings=with_train(recommended=True),
        )


def test_preset_for_the_device(cohort, tmp_path, caplog):
    caplog.set_level("INFO", "maediff")
    run(cohort, tmp_path / "run", preset="auto", max_time="0s")
    assert json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["preset"] == "tiny"
    assert "preset tiny, chosen for this device (cpu)" in caplog.text
    # A resumed run keeps its preset.
    assert run(cohort, tmp_path / "run", preset=None, resume=True)["step"] == 6
