"""Training from request to run folder: files, seeds, exact resume, refusals."""

import csv
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from helpers.options import QUIET_CPU
from helpers.training import FAST, assert_same, run, weights
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.device import no_tf32
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.models.model import read_model
from maediff.training.loop import TrainingRun
from maediff.training.train import train


def test_a_run_folder_is_complete(cohort, tmp_path):
    result = run(cohort, tmp_path / "run", seed=3)
    assert result["step"] == 6
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert (config["method"], config["preset"], config["seed"]) == ("maediff", "tiny", 3)
    assert config["train"]["learning_rate"] == 1e-3  # the preset's, resolved
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text("utf-8").splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert all(float(row["val_loss"]) > 0 for row in rows)
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text("utf-8"))
    assert {
        "maediff",
        "commit",
        "seed",
        "device",
        "cohort_hash",
        "wall_seconds",
    } <= provenance.keys()
    command = provenance["command"]
    assert command.startswith(
        "maediff train maediff --cohort COHORT -o RUN --preset tiny --seed 3"
    )
    assert "--set 'unet.channels=[8,16]'" in command
    assert "--max-time" not in command
    assert [p.name for p in (tmp_path / "run" / "last").glob("optimizer-*")] == ["optimizer-6.pt"]
    people = json.loads((tmp_path / "run" / "train_subjects.json").read_text("utf-8"))
    assert people == sorted(
        {person_code(row.dataset, row.subject) for row in Cohort.open(cohort).split("train")}
    )
    model = read_model(tmp_path / "run")
    assert not model.method.training
    assert model.name == "run"
    ema = {
        k.removeprefix("ema."): v
        for k, v in weights(tmp_path / "run", "best").items()
        if k.startswith("ema.")
    }
    assert_same(dict(model.method.state_dict()), ema)


def test_without_calibration_scans_a_run_has_no_thresholds(cohort, whole, tmp_path):
    run(
        cohort,
        tmp_path / "without",
        settings={**FAST, "train": {**FAST["train"], "calibration_scans": 0}},
    )
    assert json.loads((whole / "calibration.json").read_text("utf-8"))["n_scans"] == 1
    assert not (tmp_path / "without" / "calibration.json").exists()
    with pytest.raises(InputError, match="calibration_scans=-1"):
        run(
            cohort,
            tmp_path / "wrong",
            settings={**FAST, "train": {**FAST["train"], "calibration_scans": -1}},
        )


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by a second per training step."""
    seconds = itertools.count(step=1.0)
    # The name in `loop`, not the module: other threads use the clock of the module.
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("maediff.training.loop.time", clock)


@pytest.mark.usefixtures("clock")
def test_a_stopped_and_resumed_run_has_the_same_weights(cohort, whole, tmp_path):
    assert run(cohort, tmp_path / "parts", max_time="3s")["step"] == 3
    assert run(cohort, tmp_path / "parts", max_time="1s", resume=True)["step"] == 4
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6
    assert_same(weights(whole), weights(tmp_path / "parts"))
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6  # nothing is left to do


def test_training_disables_tf32_and_restores_it(cohort, tmp_path, monkeypatch):
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    seen, train_step = [], TrainingRun.train_step

    def record(run):
        seen.append([backend.allow_tf32 for backend in backends])
        return train_step(run)

    monkeypatch.setattr(TrainingRun, "train_step", record)
    with no_tf32():  # restores the values that this test changes
        for backend in backends:
            backend.allow_tf32 = True
        run(cohort, tmp_path / "run")
        assert seen == [[False, False]] * 6
        assert all(backend.allow_tf32 for backend in backends)


def test_a_loss_that_is_not_finite_ends_the_training(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingRun, "train_step", lambda _: {"l2": float("nan")})
    with pytest.raises(InputError, match=r"run: the loss is not finite .*train\.learning_rate"):
        run(cohort, tmp_path / "run")


@pytest.mark.usefixtures("clock")
def test_a_gan_is_trained_in_phases_and_resumes_in_either(cohort, tmp_path):
    settings = {
        "net": {"channels": [8, 8], "blocks": 1, "stem": 4},
        "critic_steps": 2,
        "gan_share": 0.6,
    }
    kwargs = {
        "settings": settings | {"train": FAST["train"] | {"checkpoint_every": 1}},
        "preset": "tiny",
    }
    train("fanogan", cohort, tmp_path / "whole", run=QUIET_CPU, **kwargs)
    saved = []
    # Steps 1 and 3: critic. Steps 2 and 4: critic and generator. Steps 5 and 6: encoder.
    for seconds in (2, 2, 1, 1):
        resumed = replace(QUIET_CPU, resume=True)
        train("fanogan", cohort, tmp_path / "parts", max_time=seconds, run=resumed, **kwargs)
        saved.append(weights(tmp_path / "parts"))
    assert_same(weights(tmp_path / "whole"), saved[-1])
    for part, moves in (
        ("critic", [True, False, False]),
        ("generator", [True, False, False]),
        ("encoder", [False, True, True]),
    ):
        keys = [key for key in saved[0] if key.startswith(f"weights.{part}.")]
        for earlier, later, moved in zip(saved, saved[1:], moves, strict=False):
            assert any(not torch.equal(earlier[key], later[key]) for key in keys) == moved, part
    rows = list(
        csv.DictReader((tmp_path / "whole" / "metrics.csv").read_text("utf-8").splitlines())
    )
    # There is nothing to validate before the encoder's phase.
    assert [row["val_loss"] == "nan" for row in rows] == [True] * 4 + [False] * 2
    assert (tmp_path / "whole" / "best" / "model.safetensors").is_file()


def test_seeds_decide_the_weights(cohort, whole, tmp_path):
    for seed in (0, 1):
        run(cohort, tmp_path / str(seed), seed=seed)
    assert_same(weights(whole), weights(tmp_path / "0"))
    first, other = weights(whole), weights(tmp_path / "1")
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_resume_refuses_other_settings(cohort, whole):
    with pytest.raises(InputError, match="was started with seed 0, and seed is now 1; resume it"):
        run(cohort, whole, resume=True, seed=1)
    with pytest.raises(InputError, match="exists and is not empty"):
        run(cohort, whole)


def test_init_starts_from_the_averaged_weights_of_another_run(cohort, whole, tmp_path):
    run(
        cohort,
        tmp_path / "second",
        init=whole,
        settings=FAST | {"train": FAST["train"] | {"learning_rate": 0}},
    )
    first, second = weights(whole, "best"), weights(tmp_path / "second")
    for key in second:
        torch.testing.assert_close(second[key], first["ema." + key.partition(".")[2]], msg=key)


def test_loss_falls(cohort, tmp_path):
    settings = FAST | {
        "train": FAST["train"] | {"steps": 60, "checkpoint_every": 20, "learning_rate": 3e-3}
    }
    run(cohort, tmp_path / "run", settings=settings)
    losses = [
        float(row["val_loss"])
        for row in csv.DictReader(
            (tmp_path / "run" / "metrics.csv").read_text("utf-8").splitlines()
        )
    ]
    assert losses[-1] < 0.7 * losses[0]


def test_wrong_arguments_are_refused_before_anything_is_written(cohort, tmp_path):
    for name, settings, message in [
        ("bright", {}, "nothing to train"),
        ("maediff", {"train": {"stepz": 3}}, "stepz"),
        ("maediff", {"nonsense": 3}, "nonsense"),
        ("maediff", {"train": {"steps": 0}}, "at least 1"),
        (
            "maediff",
            {"size": 48, "p": 24, "s": 8, "r": 8},
            r"slices of 96 pixels, .* leave size out, or .* `grid\.size=48`",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            train(name, cohort, tmp_path / "run", preset="tiny", settings=settings)
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path / "absent", tmp_path / "run")
    for wrong, message in [
        ({"preset": "huge"}, "preset 'huge' is not known: one of paper, small, tiny"),
        ({"max_time": "soon"}, "`max_time='soon'`"),
        ({"settings": {"train": 3}}, "settings of train: 3 is not a group of settings"),
    ]:
        with pytest.raises(InputError, match=message):
            run(cohort, tmp_path / "run", **wrong)
    with pytest.raises(InputError, match="`device='gpu'`"):
        train("maediff", cohort, tmp_path / "run", run=RunOptions(device="gpu"))
    assert not (tmp_path / "run").exists()


def test_paths_may_be_text_and_quiet_prints_nothing(cohort, tmp_path, capsys):
    paths = str(cohort), str(tmp_path / "run")
    result = train("maediff", *paths, preset="tiny", settings=FAST, run=QUIET_CPU)
    assert result["step"] == result["steps"] == 6
    assert capsys.readouterr() == ("", "")


def test_test_settings_follow_an_at_sign(whole):
    for change in ("s=99", "s", "colour=3"):
        with pytest.raises(InputError, match=rf"run@{change}: .*{change.partition('=')[0]}"):
            read_model(f"{whole}@{change}")
    model = read_model(f"{whole}@t_test=[125,250],s=48,merge=tapered")
    assert model.method.config.t_test == (125, 250)
    assert (model.method.config.s, model.method.config.merge) == (48, "tapered")
    assert model.name == "run@t_test=[125,250],s=48,merge=tapered"
    with pytest.raises(InputError, match="t_tset"):
        read_model(f"{whole}@t_tset=3")


def test_training_imports_nothing_heavy(cohort, tmp_path):
    """Training and scoring run on a bare GPU machine, without the packages that read scans."""
    code = (
        "import sys, json; from pathlib import Path; from maediff.training.train import train;"
        "train('pddpm', Path(sys.argv[1]), Path(sys.argv[2]), preset='tiny',"
        "settings=json.loads(sys.argv[3]));"
        "import maediff.evaluation.evaluate, maediff.evaluation.compare;"
        "import maediff.detection.benchmark;"
        "heavy = {'SimpleITK', 'nilearn', 'deepbet', 'matplotlib', 'skimage'};"
        "heavy &= sys.modules.keys();"
        "assert not heavy, heavy"
    )
    settings = json.dumps({"unet": FAST["unet"], "train": FAST["train"] | {"steps": 1}})
    result = subprocess.run(
        [sys.executable, "-c", code, cohort, tmp_path / "run", settings],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
