"""Training that starts from another model: its settings, post-processing and warnings."""

import json
import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from helpers.brains import made_cohort
from helpers.runs import ABOUT, made_run
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.core.options import RunOptions
from maediff.models.calibrate import calibrate_folder
from maediff.models.export import NewCalibration, export_model
from maediff.models.folder import read_config
from maediff.models.model import read_model
from maediff.training.command import training_command
from maediff.training.initial_model import adopt_settings
from maediff.training.train import train

TRAIN = {"steps": 2, "batch_size": 2, "checkpoint_every": 2, "validation_slices": 2}
CPU = RunOptions(device="cpu", quiet=True)


def with_train(model, train):
    return replace(model, settings=replace(model.settings, train=train))


def test_the_run_keeps_the_settings_of_the_model_unless_others_are_given(tmp_path, caplog):
    caplog.set_level(logging.INFO, "maediff")
    kept = {"augment": {"contrast": 0.7}, "fabricate": {"share": 0.9}}
    model = with_train(read_model(made_run(tmp_path / "t1")), {"steps": 5000, **kept})
    given = {"t_test": 60, "mae": {"heads": 4}, "train": {"steps": 3, "augment": "off"}}
    preset, settings = adopt_settings(model, "maediff", None, given)
    assert (preset, settings["t_test"], settings["mae"]) == (
        "tiny",
        60,
        model.config["mae"] | {"heads": 4},
    )
    assert settings["train"] == {"steps": 3, "augment": "off", "fabricate": {"share": 0.9}}
    same = adopt_settings(model, "maediff", "tiny", {})
    assert same == ("tiny", model.config | {"train": kept})
    assert "`init=t1`: the run keeps this model's preset (tiny)" in caplog.text
    assert adopt_settings(model, "maediff", "small", {"s": 48}) == ("small", {"s": 48})
    with pytest.raises(InputError, match="a model of 'maediff' cannot start a run of 'pddpm'"):
        adopt_settings(model, "pddpm", None, {})


def test_a_setting_that_the_model_does_not_store_has_its_own_default(tmp_path):
    run = made_run(tmp_path / "t1")
    config = json.loads((run / "config.json").read_text("utf-8"))
    del config["config"]["noise_test"]
    (run / "config.json").write_text(json.dumps(config))
    _, settings = adopt_settings(read_model(run), "maediff", None, {})
    assert settings["noise_test"] == 1  # not 0, as in the preset
    assert "noise_test=1.0" in training_command(read_config(run))


def test_a_run_without_thresholds_keeps_the_post_processing_of_its_model(tmp_path):
    first = made_run(tmp_path / "t1")
    stored = read_json(first / "calibration.json")
    stored["postprocess"] |= {"smooth_mm": [2, 20, 20], "median_size": 1}
    (first / "calibration.json").write_text(json.dumps(stored))
    settings = {"train": TRAIN | {"calibration_scans": 0}}
    start = partial(train, "maediff", made_cohort(tmp_path), tmp_path / "run", init=first)
    start(settings=settings, run=CPU)
    assert not (tmp_path / "run" / "calibration.json").exists()
    post = read_model(tmp_path / "run").postprocess
    assert (post.smooth_mm, post.median_size) == ((2, 20, 20), 1)
    start(settings=settings, run=replace(CPU, resume=True))
    # A run that an older version started lacks these settings, and resumes.
    config = read_json(tmp_path / "run" / "config.json")
    del config["postprocess"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    start(settings=settings, run=replace(CPU, resume=True))


@pytest.mark.slow
def test_training_starts_from_a_model_with_its_settings(tmp_path, caplog):
    caplog.set_level(logging.INFO, "maediff")
    first, cohort = made_run(tmp_path / "t1"), made_cohort(tmp_path)

    def start(name, init, settings, method="maediff", preset=None):
        train(
            method, cohort, tmp_path / name, init=init, settings=settings, preset=preset, run=CPU
        )
        return read_model(tmp_path / name)

    frozen = {"train": TRAIN | {"learning_rate": 0}}
    tuned = start("run", first, frozen)
    assert (tuned.settings.preset, tuned.settings.init) == ("tiny", str(first))
    assert tuned.config == read_model(first).config
    assert tuned.settings.train["learning_rate"] == 0
    weights = tuned.method.state_dict()
    for key, value in read_model(first).method.state_dict().items():
        torch.testing.assert_close(weights[key], value, msg=key)
    people = {person_code(row.dataset, row.subject) for row in Cohort.open(cohort).split("train")}
    (tmp_path / "run" / "train_subjects.json").write_text(json.dumps(["00ff"]))
    assert start("on", tmp_path / "run", frozen).learned_from == people | {"00ff"}
    with pytest.raises(InputError, match=r"weights do not fit .*; leave out `preset`"):
        start("run2", first, {}, preset="small")
    with pytest.raises(InputError, match="cannot start a run of 'pddpm'"):
        start("run2", first, {}, method="pddpm")
    flair = made_run(tmp_path / "flair", "FLAIR")
    assert start("run3", flair, {"train": TRAIN, "t_test": 60}).config["t_test"] == [60]
    assert "flair is a model for FLAIR, but" in caplog.text
    calibration = NewCalibration(cohort)
    reference = f"{tmp_path / 'run3'}@t_test=125"
    card = export_model(reference, tmp_path / "new", ABOUT, calibration=calibration)
    assert "--init flair" in card.command
    assert str(tmp_path) not in card.command
    stored = read_json(tmp_path / "new" / "calibration.json")
    assert stored["config"]["t_test"] == [125]
    again = calibrate_folder(tmp_path / "new", Cohort.open(cohort))
    np.testing.assert_allclose(again["thresholds"], stored["thresholds"], atol=1e-6)


@pytest.mark.parametrize("augment", ["off", {"preset": "off"}, {"preset": "robust", "noise": 0.1}])
def test_an_augmentation_preset_replaces_that_of_the_model(tmp_path, augment):
    kept = {"augment": {"contrast": 0.7}, "fabricate": {"share": 0.9}}
    model = with_train(read_model(made_run(tmp_path / "t1")), {"steps": 5000, **kept})
    _, settings = adopt_settings(model, "maediff", None, {"train": {"augment": augment}})
    assert settings["train"]["augment"] == augment
