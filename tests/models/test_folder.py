"""config.json of runs: complete, from older versions, damaged; and the people of a run."""

import json

import pytest

from helpers.runs import COHORT, made_run
from maediff.core.errors import InputError
from maediff.methods.registry import build
from maediff.models.folder import (
    complete,
    first_steps,
    prepared_for,
    provenance,
    read_config,
    read_record,
    trained_on,
    write_config,
)


def change(run, **changes):
    stored = json.loads((run / "config.json").read_text("utf-8"))
    (run / "config.json").write_text(json.dumps(stored | changes))


def test_missing_fields_get_the_default_of_the_class(tmp_path):
    run = made_run(tmp_path / "run")
    stored = read_record(run)
    del stored["config"]["noise_test"], stored["config"]["merge"]
    change(run, config=stored["config"])
    assert build("maediff", "tiny").config.noise_test == 0  # the preset's
    config = read_config(run)["config"]
    assert (config["noise_test"], config["merge"]) == (1, "mean")
    assert complete(stored, stored["config"]) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "maediff-0"}, r"config\.json: not of format 'maediff-1'; train the model"),
        ({"seed": "x", "train": None}, r"config\.json: seed, train missing or damaged"),
        ({"cohort": {"modality": "T1w"}}, r"config\.json: cohort\.grid, cohort\.normalise"),
        ({"cohort": 3}, r"config\.json: cohort, cohort\.modality"),
        ({"method": "new"}, r"config\.json: method 'new' is not known: one of maediff, "),
        ({"config": {"new": 1}}, r"config\.json: .*new: unknown setting.*; train the model again"),
    ],
)
def test_unusable_config(tmp_path, changes, message):
    run = made_run(tmp_path / "run")
    change(run, **changes)
    with pytest.raises(InputError, match=message):
        read_config(run)


def test_no_run(tmp_path):
    with pytest.raises(
        InputError, match=r"is not a run folder .* make a run with `maediff train`"
    ):
        read_config(tmp_path)
    with pytest.raises(InputError, match=r"weights\.pt: looks like a pickle"):
        read_config(tmp_path / "weights.pt")


def test_moved_settings():
    """Older versions blurred and weighted the residual in the method."""
    run = {"cohort": {"grid": {"spacing_mm": 3.0}}}
    assert (
        first_steps(run, {}) == first_steps(run, {"smooth_sigma": 0, "times_intensity": 0}) == {}
    )
    assert first_steps(run, {"smooth_sigma": 0.5}) == {"first_smooth_mm": 1.5}
    old = {"times_intensity": 2, "headroom": True}
    assert first_steps(run, old) == {"first_power": 2.0, "first_ceiling": 2.0}
    assert first_steps(run, {"times_intensity": 1})["first_ceiling"] == 1.0


def test_the_people_trained_on_are_read(tmp_path):
    assert trained_on(tmp_path) == []
    (tmp_path / "train_subjects.json").write_text('["00ff", "abcd"]')
    assert trained_on(tmp_path) == ["00ff", "abcd"]
    (tmp_path / "train_subjects.json").write_text("{}")
    with pytest.raises(InputError, match=r"train_subjects\.json: .*; train again, because"):
        trained_on(tmp_path)


def test_a_step_that_a_model_does_not_record_is_disabled(tmp_path):
    run = made_run(tmp_path / "run", cohort={**COHORT, "registration": {"enabled": True}})
    settings = prepared_for(f"{run}@t_test=60")
    assert settings == {
        "grid": COHORT["grid"],
        "normalise": COHORT["normalise"],
        "bias": {"enabled": False},
        "registration": {"enabled": True},
    }
    with pytest.raises(InputError, match="a mean of models; name one of them"):
        prepared_for(f"{run}+{run}")


def test_provenance_and_config(tmp_path):
    assert provenance(seed=3)["seed"] == 3
    assert {"maediff", "commit", "python", "versions"} <= provenance().keys()
    write_config(tmp_path, {"method": "maediff"})
    assert json.loads((tmp_path / "config.json").read_text("utf-8")) == {
        "format": "maediff-1",
        "method": "maediff",
    }
