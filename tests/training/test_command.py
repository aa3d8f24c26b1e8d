"""The command line that trains a run again."""

import itertools
import json
import shlex
from dataclasses import asdict

from helpers.runs import made_run
from maediff.core.config import flatten, merge, parse_settings
from maediff.core.files import read_json
from maediff.methods.registry import build, resolve
from maediff.models.folder import config_of, read_config
from maediff.training.command import reconstruct_command, training_command
from maediff.training.recommended import recommend_settings


def settings_in(command):
    """The method's settings in a command line, as nested settings."""
    words = shlex.split(command)
    pairs = [following for word, following in itertools.pairwise(words) if word == "--set"]
    return parse_settings([pair for pair in pairs if not pair.startswith("train.")])


def test_the_command_leads_to_the_same_settings(tmp_path):
    config = read_config(made_run(tmp_path / "run")) | {"init": "/somewhere/t0"}
    command = training_command(config)
    assert config_of(build("maediff", "tiny", settings_in(command))) == config["config"]
    words = shlex.split(command)
    assert words[words.index("--init") + 1] == "t0"
    assert words[words.index("--seed") + 1] == "3"
    assert "--max-time" not in words
    assert "/" not in command.replace("/somewhere", "")


def test_a_run_that_ended_by_time_has_its_time(tmp_path):
    config = read_config(made_run(tmp_path / "run"))
    steps = config["train"]["steps"]
    words = shlex.split(training_command(config, {"step": steps - 1, "wall_seconds": 359.8}))
    assert words[words.index("--max-time") + 1] == "360s"
    assert "--max-time" not in training_command(config, {"step": steps, "wall_seconds": 359.8})


def test_reconstruction_equals_the_recorded_command(tmp_path):
    run = made_run(tmp_path / "run")
    assert reconstruct_command(run) == read_json(run / "provenance.json")["command"]
    (run / "provenance.json").unlink()
    assert reconstruct_command(run) == training_command(read_config(run))


def test_a_choice_that_equals_the_preset_is_named(tmp_path):
    """A recommended setting would replace it otherwise."""
    config = read_config(made_run(tmp_path / "run"))
    usual = recommend_settings("maediff", config["cohort"]["modality"])
    preset = flatten(asdict(resolve("maediff", "tiny")))
    key = next(k for k, v in flatten(usual).items() if k in preset and preset[k] != v)
    own = merge(config["config"], parse_settings([f"{key}={json.dumps(preset[key])}"]))
    train = config["train"] | {"recommended": True}
    command = training_command(config | {"config": own, "train": train})
    assert f"{key}=" in command
