"""Training: resumes exactly, stops on time, survives a kill, refuses what it cannot train."""

import csv
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from helpers.brains import made_cohort
from helpers.runs import made_run
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.device import no_tf32
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.methods.base import Method, Objective
from maediff.methods.registry import build
from maediff.models.folder import FORMAT
from maediff.models.model import read_model
from maediff.models.weights import load_optimizer, read_weights
from maediff.training import loop as training
from maediff.training.batches import batch_indices, slices_by_subject
from maediff.training.config import TrainConfig, learning_rate, parse_duration
from maediff.training.lesions import FabricateConfig
from maediff.training.loop import TrainingRun, validation_loss
from maediff.training.loop import update_ema as ema_update
from maediff.training.train import train

FAST = {
    "unet": {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2},
    "mae": {"dim": 16, "encoder_blocks": 1, "decoder_blocks": 1, "heads": 2},
    "train": {
        "steps": 6,
        "batch_size": 2,
        "checkpoint_every": 2,
        "precision": "fp32",
        "validation_slices": 4,
    },
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("cohort"))


def run(cohort, out, *, seed=0, resume=False, **kwargs):
    return train(
        "maediff",
        cohort,
        out,
        **{"preset": "tiny", "settings": FAST, **kwargs},
        run=RunOptions(device="cpu", quiet=True, seed=seed, resume=resume),
    )


def load_network(path):
    return read_model(path).method


def weights(out, which="last"):
    return load_file(out / which / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_a_run_folder_is_complete(cohort, tmp_path):
    result = run(cohort, tmp_path / "run", seed=3)
    assert result["step"] == 6
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["method"], config["preset"], config["seed"]) == ("maediff", "tiny", 3)
    assert config["train"]["learning_rate"] == 1e-3  # the preset's, resolved
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert all(float(row["val_loss"]) > 0 for row in rows)
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
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
    known = json.loads((tmp_path / "run" / "train_subjects.json").read_text())
    assert known == sorted(
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


def test_without_calibration_scans_a_run_has_no_thresholds(cohort, tmp_path):
    run(cohort, tmp_path / "with")
    run(
        cohort,
        tmp_path / "without",
        settings={**FAST, "train": {**FAST["train"], "calibration_scans": 0}},
    )
    assert json.loads((tmp_path / "with" / "calibration.json").read_text())["n_scans"] == 1
    assert not (tmp_path / "without" / "calibration.json").exists()
    with pytest.raises(InputError, match="calibration_scans=-1"):
        run(
            cohort,
            tmp_path / "wrong",
            settings={**FAST, "train": {**FAST["train"], "calibration_scans": -1}},
        )


def test_stopped_and_resumed_ends_with_the_same_weights(cohort, tmp_path, monkeypatch):
    run(cohort, tmp_path / "whole")
    clock = itertools.count(step=1.0)
    monkeypatch.setattr(
        "maediff.training.loop.time.monotonic", lambda: next(clock)
    )  # a second a step
    assert run(cohort, tmp_path / "parts", max_time="3s")["step"] == 3
    assert run(cohort, tmp_path / "parts", max_time="1s", resume=True)["step"] == 4
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6  # done: nothing to do


def test_the_loop_yields_a_record_after_each_step_and_writes_nothing(cohort, tmp_path):
    method = build("maediff", "tiny", {key: FAST[key] for key in ("unet", "mae")})
    slices = Cohort.open(cohort).training_slices("train")
    config = TrainConfig(**FAST["train"], learning_rate=1e-3)
    before = sorted(tmp_path.rglob("*"))
    loop = TrainingRun(method, slices, config).records()
    records = [next(loop), *loop]
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.checkpoint_due for record in records] == [False, True] * 3
    assert all(record.loss == record.losses["l2"] > 0 for record in records)
    assert {record.learning_rate for record in records} == {1e-3}
    assert records[0].elapsed_seconds < records[-1].elapsed_seconds
    assert sorted(tmp_path.rglob("*")) == before


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


@pytest.fixture
def press(monkeypatch):
    """List of steps; Ctrl-C is pressed in the middle of each, once per entry."""
    steps, update_ema = [], ema_update

    def pressed(ema, method, decay, step):
        for _ in range(steps.count(step)):
            signal.raise_signal(signal.SIGINT)
        update_ema(ema, method, decay, step)

    monkeypatch.setattr(training, "update_ema", pressed)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it
    yield steps
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("step", [0, 2])
def test_first_ctrl_c_finishes_the_step_and_resume_continues_there(
    cohort, tmp_path, press, caplog, step
):
    run(cohort, tmp_path / "whole")
    press.append(step)
    assert run(cohort, tmp_path / "parts")["step"] == step + 1  # checkpoints are due at 2, 4 and 6
    assert f"saving step {step + 1}" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    press.clear()
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (0, "before the first checkpoint; the run restarts at step 0"),
        (3, "the run resumes from the checkpoint at step 2"),
    ],
)
def test_second_ctrl_c_stops_at_once_and_names_the_last_checkpoint(
    cohort, tmp_path, press, caplog, step, message
):
    run(cohort, tmp_path / "whole")
    press.extend([step, step])
    with pytest.raises(KeyboardInterrupt):
        run(cohort, tmp_path / "parts")
    assert message in caplog.text
    assert (tmp_path / "parts" / "last").exists() == (step > 2)
    press.clear()
    assert run(cohort, tmp_path / "parts", resume=True)["step"] == 6
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_interruption_does_not_change_the_best_checkpoint(cohort, tmp_path, press, monkeypatch):
    """Checkpoints are due at 2, 4 and 6. The run is stopped at 3, where its loss is lowest."""
    measured = iter([0.3, 0.1, 0.2, 0.25])  # at 2, 3, 4 and 6
    monkeypatch.setattr(training, "validation_loss", lambda *_: next(measured))
    press.append(2)
    assert run(cohort, tmp_path / "run")["best_val_loss"] == 0.1
    assert read_model(tmp_path / "run").step == 3  # until the run is resumed
    press.clear()
    assert run(cohort, tmp_path / "run", resume=True)["best_val_loss"] == 0.2
    assert read_model(tmp_path / "run").step == 4


def test_ctrl_c_in_the_last_step_is_not_lost(cohort, tmp_path, press):
    """`maediff compare` would start the next training otherwise."""
    press.append(5)
    with pytest.raises(KeyboardInterrupt):
        run(cohort, tmp_path / "run")
    assert read_weights(tmp_path / "run" / "last" / "model.safetensors", "ema.", "maediff")[1] == 6


def test_objectives_are_stepped_in_their_phases():
    def loss(x, generator, seen=None):
        raise AssertionError("not called")

    generator = Objective("generator", loss, [], (0.0, 0.5), 5)
    encoder = Objective("encoder", loss, [], (0.5, 1.0))
    assert [step for step in range(21) if generator.is_due(step, 21)] == [4, 9]
    assert [step for step in range(21) if encoder.is_due(step, 21)] == list(range(11, 21))
    assert not encoder.has_begun(10, 21)


def test_a_gan_is_trained_in_phases_and_resumes_in_either(cohort, tmp_path, monkeypatch):
    settings = {
        "net": {"channels": [8, 8], "blocks": 1, "stem": 4},
        "critic_steps": 2,
        "gan_share": 0.6,
    }
    kwargs = {
        "settings": settings | {"train": FAST["train"] | {"checkpoint_every": 1}},
        "preset": "tiny",
    }
    options = RunOptions(quiet=True, device="cpu")
    clock = itertools.count(step=1.0)
    monkeypatch.setattr(
        "maediff.training.loop.time.monotonic", lambda: next(clock)
    )  # a second a step
    train("fanogan", cohort, tmp_path / "whole", run=options, **kwargs)
    saved = []
    for seconds in (
        2,
        2,
        1,
        1,
    ):  # 6 steps: critic, critic and generator, critic, critic and generator, encoder, encoder
        resumed = replace(options, resume=True)
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
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").read_text().splitlines()))
    assert [row["val_loss"] == "nan" for row in rows] == [True] * 4 + [
        False
    ] * 2  # no encoder, nothing to validate
    assert (tmp_path / "whole" / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["maediff", "dae", "vae", "fanogan"])
def test_in_bf16_a_loss_gets_slices_that_are_not_rounded_to_it(cohort, name):
    train_config = TrainConfig(
        steps=4, batch_size=2, validation_slices=4, fabricate=FabricateConfig(share=1.0)
    )
    slices, method = Cohort.open(cohort).training_slices("train"), build(name, "tiny")
    run = TrainingRun(method, slices, train_config, validation=slices, precision="bf16")
    given = []

    def spied(loss):
        def spy(x, generator, seen):
            given.extend((x, seen))
            return loss(x, generator, seen)

        return spy

    run.objectives = [
        replace(objective, loss=spied(objective.loss)) for objective in run.objectives
    ]
    for _ in range(4):
        assert all(map(np.isfinite, run.train_step().values()))
    assert given
    assert {one.dtype for one in given} == {torch.float32}
    assert any(not torch.equal(one, one.bfloat16().float()) for one in given)


def test_seeds_decide_the_weights(cohort, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(cohort, tmp_path / name, seed=seed)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.parametrize("killed_at", range(1, 11))
def test_killed_between_any_two_writes_the_run_resumes(cohort, tmp_path, monkeypatch, killed_at):
    """Each file is moved into place by os.replace. Stop after the n-th move, as a kill would."""
    run(cohort, tmp_path / "whole")
    count = itertools.count(1)
    replace = __import__("os").replace

    class Killed(BaseException):
        pass

    def die(source, target):
        replace(source, target)
        if next(count) == killed_at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("maediff.core.files.os.replace", die)
        with pytest.raises(Killed):
            run(cohort, tmp_path / "run")
    assert run(cohort, tmp_path / "run", resume=True)["step"] == 6
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "run"))
    known = [(tmp_path / name / "train_subjects.json").read_text() for name in ("whole", "run")]
    assert known[0] == known[1]


def test_files_have_the_mode_of_the_umask_and_leftovers_of_a_kill_are_swept(cohort, tmp_path):
    before = os.umask(0o027)
    try:
        run(cohort, tmp_path / "run", max_time="0s")
        (tmp_path / "run" / "best").mkdir()  # as a kill in its first checkpoint leaves it
        leftovers = [
            tmp_path / "run" / part / ".model.safetensors.tmp-1.safetensors"
            for part in ("best", "last")
        ]
        for path in leftovers:
            path.write_bytes(b"half")
        run(cohort, tmp_path / "run", resume=True)
    finally:
        os.umask(before)
    assert not any(path.exists() for path in leftovers)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o640"}
    assert sorted(path.name for path in files if path.parent.name == "best") == [
        "model.safetensors"
    ]


@pytest.mark.slow
def test_killed_by_the_system_the_run_resumes(cohort, tmp_path):
    run(cohort, tmp_path / "whole")
    code = (
        "import sys, json; from pathlib import Path; from maediff.training.train import train;"
        "train('maediff', Path(sys.argv[1]), Path(sys.argv[2]), preset='tiny',"
        "settings=json.loads(sys.argv[3]))"
    )
    slow = FAST | {"train": FAST["train"] | {"steps": 100_000}}
    process = subprocess.Popen(
        [sys.executable, "-c", code, cohort, tmp_path / "run", json.dumps(slow)]
    )
    while not (tmp_path / "run" / "last" / "model.safetensors").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    step = train(
        "maediff",
        cohort,
        tmp_path / "run",
        preset="tiny",
        settings=slow,
        max_time="1s",
        run=RunOptions(resume=True, quiet=True),
    )
    assert step["step"] > 2
    load_network(tmp_path / "run")


def test_a_full_disk_while_saving_leaves_the_last_checkpoint(cohort, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise RuntimeError(
            "[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0\nC++ stack"
        )

    torch_save, calls = torch.save, itertools.count()
    monkeypatch.setattr(
        torch, "save", lambda *a, **k: torch_save(*a, **k) if next(calls) < 1 else full()
    )
    with pytest.raises(InputError, match=r"optimizer-4\.pt: could not be written \(no space left"):
        run(cohort, tmp_path / "run")
    monkeypatch.setattr(torch, "save", torch_save)
    assert sorted(p.name for p in (tmp_path / "run" / "last").iterdir()) == [
        "model.safetensors",
        "optimizer-2.pt",
    ]
    assert run(cohort, tmp_path / "run", resume=True)["step"] == 6


def test_resume_refuses_other_settings(cohort, tmp_path):
    run(cohort, tmp_path / "run")
    with pytest.raises(InputError, match="was started with seed 0, and seed is now 1; resume it"):
        run(cohort, tmp_path / "run", resume=True, seed=1)
    with pytest.raises(InputError, match="exists and is not empty"):
        run(cohort, tmp_path / "run")


def test_init_starts_from_the_averaged_weights_of_another_run(cohort, tmp_path):
    run(cohort, tmp_path / "first")
    run(
        cohort,
        tmp_path / "second",
        init=str(tmp_path / "first"),
        settings=FAST | {"train": FAST["train"] | {"learning_rate": 0}},
    )
    first, second = weights(tmp_path / "first", "best"), weights(tmp_path / "second")
    for key in second:
        torch.testing.assert_close(second[key], first["ema." + key.partition(".")[2]], msg=key)


def test_loss_falls(cohort, tmp_path):
    settings = FAST | {
        "train": FAST["train"] | {"steps": 60, "checkpoint_every": 20, "learning_rate": 3e-3}
    }
    run(cohort, tmp_path / "run", settings=settings)
    losses = [
        float(row["val_loss"])
        for row in csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    ]
    assert losses[-1] < 0.7 * losses[0]


def test_untrained_methods_unknown_keys_and_empty_cohorts_are_refused_before_anything_is_written(
    cohort, tmp_path
):
    for name, settings, said in [
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
        with pytest.raises(InputError, match=said):
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
    options = RunOptions(device="cpu", quiet=True)
    result = train(
        "maediff", str(cohort), str(tmp_path / "run"), preset="tiny", settings=FAST, run=options
    )
    assert result["step"] == result["steps"] == 6
    assert capsys.readouterr() == ("", "")


def test_a_pickle_is_refused_unread(cohort, tmp_path):
    run(cohort, tmp_path / "run")

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "boom",))

    for name in ("best/model.safetensors", "last/model.safetensors"):
        (tmp_path / "run" / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(
        InputError, match=r"is not a safetensors .* not read any further; restore the run's files"
    ):
        load_network(tmp_path / "run")
    (tmp_path / "run" / "last" / "optimizer-6.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(
        InputError, match=r"optimizer-6\.pt: damaged, or more than tensors .* not read any"
    ) as caught:
        load_optimizer(tmp_path / "run" / "last", 6)
    assert "weights_only" not in str(caught.value)  # torch tells there how to run it
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="looks like a pickle"):
        read_model(tmp_path / "weights.pt")
    assert not (tmp_path / "boom").exists()


def test_checkpoints_of_another_method_version_or_size_are_refused(cohort, tmp_path):
    run(cohort, tmp_path / "run")
    path = tmp_path / "run" / "best" / "model.safetensors"
    tensors = load_file(path)
    good = {"format": FORMAT, "method": "maediff", "step": "6"}
    for change, said in [
        ({"method": "pddpm"}, "weights of 'pddpm'"),
        ({"format": "maediff-0"}, "format 'maediff-0'"),
    ]:
        save_file(tensors, path, good | change)
        with pytest.raises(
            InputError, match=rf"{said}.*; restore the run's files, or train the model again"
        ):
            load_network(tmp_path / "run")
    tensors.pop("ema.unet.head.bias")
    save_file(tensors, path, good)
    with pytest.raises(InputError, match="do not fit the network's settings"):
        load_network(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    for change, said in [
        ({"format": "x"}, "not of format"),
        ({"method": "gan"}, "'gan' is not known"),
    ]:
        (tmp_path / "run" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=said):
            read_model(tmp_path / "run")
    with pytest.raises(InputError, match="is not a run folder"):
        read_model(tmp_path)


def test_foreign_weights_and_configs_are_refused_by_name(tmp_path):
    folder = made_run(tmp_path / "run")
    path, weights_path = folder / "config.json", folder / "best" / "model.safetensors"
    config = json.loads(path.read_text())
    for change, said in [
        ({"config": [1]}, "config missing or damaged"),
        (
            {"config": config["config"] | {"nonsense": 1}},
            "settings of maediff: nonsense: unknown setting",
        ),
        ({"preset": ["tiny"]}, "preset missing or damaged"),
        ({"method": ["maediff"]}, "method missing or damaged"),
        ({"cohort": {}}, r"cohort\.modality, cohort\.grid, cohort\.normalise missing or damaged"),
        ({"cohort": None}, "cohort, cohort.modality"),
    ]:
        path.write_text(json.dumps(config | change))
        with pytest.raises(
            InputError, match=rf"run.config\.json: {said}.*; train the model again"
        ):
            read_model(folder)
    path.write_text(json.dumps(config))
    tensors, good = load_file(weights_path), {"format": FORMAT, "method": "maediff", "step": "6"}
    for key, changed, said in [
        ("method", {}, "weights of None"),
        ("step", {}, "no step"),
        ("step", {"step": "x"}, "no step"),
    ]:
        save_file(tensors, weights_path, {k: v for k, v in good.items() if k != key} | changed)
        with pytest.raises(InputError, match=rf"model\.safetensors: .*{said}"):
            load_network(folder)


def test_a_foreign_optimizer_is_refused_by_name(cohort, tmp_path):
    run(cohort, tmp_path / "run", max_time="0s")
    path = tmp_path / "run" / "last" / "optimizer-1.pt"
    good = torch.load(path, weights_only=True)
    for state in (
        {"state": {}},
        [1],
        good | {"optimizers": []},
        good | {"optimizers": [{"state": {}, "param_groups": []}]},
    ):
        torch.save(state, path)
        with pytest.raises(
            InputError,
            match=r"run.last.* the optimizer's state .*; train again with .*overwrite",
        ):
            run(cohort, tmp_path / "run", resume=True)


def test_settings_at_test_follow_an_at_sign(cohort, tmp_path):
    run(cohort, tmp_path / "run")
    for change in ("s=99", "s", "colour=3"):
        with pytest.raises(InputError, match=rf"run@{change}: .*{change.partition('=')[0]}"):
            read_model(f"{tmp_path / 'run'}@{change}")
    model = read_model(f"{tmp_path / 'run'}@t_test=[125,250],s=48,merge=tapered")
    assert model.method.config.t_test == (125, 250)
    assert (model.method.config.s, model.method.config.merge) == (48, "tapered")
    assert model.name == "run@t_test=[125,250],s=48,merge=tapered"
    with pytest.raises(InputError, match="t_tset"):
        read_model(f"{tmp_path / 'run'}@t_tset=3")


def test_every_subject_once_an_epoch_and_a_random_slice_of_it():
    subject_index = np.array([0] * 10 + [1] * 2 + [2] * 5 + [3])
    chosen = np.concatenate(
        [
            batch_indices(slices_by_subject(subject_index), 2, seed=0, step=step)
            for step in range(200)
        ]
    )
    assert (np.sort(subject_index[chosen].reshape(-1, 4), axis=1) == [0, 1, 2, 3]).all()
    counts = np.bincount(chosen, minlength=18)
    assert counts[17] == 100
    assert (counts[:10] > 0).all()
    assert (
        not np.array_equal(subject_index[chosen][:4], subject_index[chosen][4:8])
        or len(set(map(tuple, subject_index[chosen].reshape(-1, 4)))) > 1
    )


def test_the_average_follows_the_weights_by_hand():
    """d = min(0.999, (1 + step) / (10 + step)): 0.1 at step 0, 0.999 in the end."""

    class Norm(nn.BatchNorm1d, Method):
        pass

    method, ema = Norm(1), Norm(1)
    for step, expected in [(0, 0.1 * 1 + 0.9 * 3), (100_000, 0.999 * 1 + 0.001 * 3)]:
        nn.init.constant_(ema.weight, 1)
        nn.init.constant_(method.weight, 3)
        method.running_mean.fill_(5)  # a buffer is copied as it is
        ema_update(ema, method, 0.999, step)
        assert ema.weight.item() == pytest.approx(expected, rel=1e-6)
        assert ema.running_mean.item() == 5
        assert method.weight.item() == 3


def test_validation_draws_the_same_whatever_was_drawn_before(cohort):
    method = build("maediff", "tiny", {key: FAST[key] for key in ("unet", "mae")})
    slices, config = Cohort.open(cohort).training_slices("train"), TrainConfig(**FAST["train"])
    run = TrainingRun(method, slices, config, validation=slices)
    ema = deepcopy(run.ema)

    def validate(model):
        return validation_loss(model, slices, config, run.fabric)

    first, again = validate(ema), validate(ema)
    run.train_step()
    torch.rand(7)
    assert first == again == validate(ema)
    assert validate(run.ema) != first  # the weights do count


def test_learning_rate_warms_up_and_falls_to_zero():
    config = TrainConfig(steps=100, learning_rate=1.0, schedule="cosine", warmup_steps=10)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 50) == pytest.approx(0.5)
    assert learning_rate(config, 99) < 0.001
    assert learning_rate(TrainConfig(learning_rate=2.0), 12345) == 2.0


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1.5h", 5400),
        ("600", 600),
        (600, 600),
        (0.5, 0.5),
        (1e-5, 1e-5),
        (None, None),
    ],
)
def test_durations(duration, seconds):
    assert parse_duration(duration) == seconds


@pytest.mark.parametrize("wrong", ["ten minutes", "", -1, -0.5, float("nan")])
def test_a_duration_of_another_form_is_refused(wrong):
    with pytest.raises(InputError, match=r"`max_time=.*`: write a duration like"):
        parse_duration(wrong)


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
