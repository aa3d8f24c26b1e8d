"""Checkpoints: a run survives a kill and a full disk, and refuses foreign or damaged files."""

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.runs import made_run
from helpers.training import FAST, assert_same, load_network, run, weights
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.models.folder import FORMAT
from maediff.models.model import read_model
from maediff.models.weights import load_optimizer
from maediff.training.train import train


@pytest.mark.parametrize("killed_at", range(1, 11))
def test_a_run_killed_between_any_two_writes_resumes(
    cohort, whole, tmp_path, monkeypatch, killed_at
):
    """Each file is moved into place by os.replace. Stop after the n-th move, as a kill would."""
    count = itertools.count(1)
    replace = os.replace

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
    assert_same(weights(whole), weights(tmp_path / "run"))
    people = [
        (folder / "train_subjects.json").read_text("utf-8") for folder in (whole, tmp_path / "run")
    ]
    assert people[0] == people[1]


def test_permissions_follow_the_umask_and_leftovers_of_a_kill_are_deleted(cohort, tmp_path):
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
def test_a_run_killed_by_the_system_resumes(cohort, tmp_path):
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
    result = train(
        "maediff",
        cohort,
        tmp_path / "run",
        preset="tiny",
        settings=slow,
        max_time="1s",
        run=RunOptions(resume=True, quiet=True),
    )
    assert result["step"] > 2
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


def test_a_pickle_is_refused_without_reading_it(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")

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
    assert "weights_only" not in str(caught.value)  # torch's message explains how to unpickle it
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="looks like a pickle"):
        read_model(tmp_path / "weights.pt")
    assert not (tmp_path / "boom").exists()


def test_checkpoints_of_another_method_version_or_size_are_refused(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "best" / "model.safetensors"
    tensors = load_file(path)
    metadata = {"format": FORMAT, "method": "maediff", "step": "6"}
    for change, message in [
        ({"method": "pddpm"}, "weights of 'pddpm'"),
        ({"format": "maediff-0"}, "format 'maediff-0'"),
    ]:
        save_file(tensors, path, metadata | change)
        with pytest.raises(
            InputError, match=rf"{message}.*; restore the run's files, or train the model again"
        ):
            load_network(tmp_path / "run")
    tensors.pop("ema.unet.head.bias")
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match="do not fit the network's settings"):
        load_network(tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    for change, message in [
        ({"format": "x"}, "not of format"),
        ({"method": "gan"}, "'gan' is not known"),
    ]:
        (tmp_path / "run" / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=message):
            read_model(tmp_path / "run")
    with pytest.raises(InputError, match="is not a run folder"):
        read_model(tmp_path)


def test_foreign_weights_and_configs_are_refused_by_name(tmp_path):
    folder = made_run(tmp_path / "run")
    path, weights_path = folder / "config.json", folder / "best" / "model.safetensors"
    config = json.loads(path.read_text("utf-8"))
    for change, message in [
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
            InputError, match=rf"run.config\.json: {message}.*; train the model again"
        ):
            read_model(folder)
    path.write_text(json.dumps(config))
    tensors = load_file(weights_path)
    metadata = {"format": FORMAT, "method": "maediff", "step": "6"}
    for key, changed, message in [
        ("method", {}, "weights of None"),
        ("step", {}, "no step"),
        ("step", {"step": "x"}, "no step"),
    ]:
        others = {name: value for name, value in metadata.items() if name != key}
        save_file(tensors, weights_path, others | changed)
        with pytest.raises(InputError, match=rf"model\.safetensors: .*{message}"):
            load_network(folder)


def test_a_foreign_optimizer_is_refused_by_name(cohort, tmp_path):
    run(cohort, tmp_path / "run", max_time="0s")
    path = tmp_path / "run" / "last" / "optimizer-1.pt"
    saved = torch.load(path, weights_only=True)
    for state in (
        {"state": {}},
        [1],
        saved | {"optimizers": []},
        saved | {"optimizers": [{"state": {}, "param_groups": []}]},
    ):
        torch.save(state, path)
        with pytest.raises(
            InputError,
            match=r"run.last.* the optimizer's state .*; train again with .*overwrite",
        ):
            run(cohort, tmp_path / "run", resume=True)
