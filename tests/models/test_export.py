"""Export of a run: the files of the model, its calibration, its card, and refusals."""

import hashlib
import json
import os
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from helpers.brains import made_cohort
from helpers.runs import ABOUT, made_run
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.core.files import read_json, write_json
from maediff.models.card import Card, Scores, read_card
from maediff.models.card_text import describe_preprocessing, read_origin, read_scores
from maediff.models.catalogue import describe
from maediff.models.export import NewCalibration, export_model
from maediff.models.folder import read_config, trained_on
from maediff.models.model import read_model

TOOLS = Path(__file__).parents[2] / "tools"


def run_tool(name, *arguments, monkeypatch):
    script = TOOLS / name
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name="__main__")


def test_a_model_has_the_averaged_weights_of_the_run_and_no_others(models):
    run = models.parent / "runs" / "t1"
    model = read_model("t1")
    weights = model.method.state_dict()
    for key, value in read_model(run).method.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert (model.name, model.step, model.settings.seed) == ("t1", 2, 3)
    assert {p.name for p in (models / "t1").iterdir()} == {
        "model.safetensors",
        "config.json",
        "calibration.json",
        "card.json",
        "MODEL_CARD.md",
    }
    with safe_open(models / "t1" / "model.safetensors", framework="pt") as file:
        names = file.keys()
        assert all(name.startswith("ema.") for name in names)
    half = export_model(run, models.parent / "half" / "t1", ABOUT, half=True)
    assert half.name == "t1"
    for key, value in read_model(models.parent / "half" / "t1").method.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, weights[key], atol=1e-3, rtol=1e-3)


def test_default_rate(models, tmp_path):
    run, out = models.parent / "runs" / "t1", tmp_path / "t1"
    card = export_model(run, out, ABOUT | {"default_fpr": 0.001})
    assert read_model(out).default_fpr == 0.001
    assert "`fpr=0.001` unless another is given" in describe(out, card)
    assert read_model(models / "t1").default_fpr == 0.01
    assert "unless another" not in describe(models / "t1", card)
    for wrong in (0.9, "1e-4"):  # in YAML 1.1, 1e-4 is a string
        with pytest.raises(InputError, match="card of t2: default_fpr"):
            export_model(run, tmp_path / "t2", ABOUT | {"default_fpr": wrong})


def test_default_threshold(models, tmp_path):
    run, out = models.parent / "runs" / "t1", tmp_path / "t1"
    chosen = {"value": 0.07, "chosen_on": "9 patients"}
    card = export_model(run, out, ABOUT | {"default_threshold": chosen})
    assert read_json(out / "calibration.json")["default_threshold"] == chosen
    assert "default threshold: residual 0.07, chosen on 9 patients" in describe(out, card)
    text = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "is a residual of 0.07, chosen on 9 patients" in text
    assert (
        "In the calibration scans, 1 % of the voxels can be in masks at a residual of 0.1000"
        in text
    )
    for wrong in (0.07, {"value": 0.07}, chosen | {"value": 1}):
        with pytest.raises(InputError, match="card of t2: default_threshold"):
            export_model(run, tmp_path / "t2", ABOUT | {"default_threshold": wrong})


def test_text_of_the_card(models):
    text = (models / "flair-lgg" / "MODEL_CARD.md").read_text(encoding="utf-8")
    for part in (
        "# flair-lgg",
        "| made | CC0 | ellipsoids |",
        "CC BY-NC-SA 4.0",
        "Seed: 3.",
        "- Finds nothing.",
        "12,345",
        "Not a medical device",
        "--set 'unet.channels=[8,16]'",
        "by name only: `--model flair-lgg`",
        "None measured",
        "postprocess.median_size=5",
        "from healthy scans (1 people, 9 voxels)",
        "is a residual of 0.1000. Masks at this threshold hold at most 1 % of these voxels",
    ):
        assert part in text, part
    assert "\n\n\n" not in text
    assert "maediff train maediff --cohort COHORT -o RUN --preset tiny --seed 3" in text
    assert "| command |" not in text  # the command is shown once, not among the provenance


def test_a_shipped_model_with_other_test_settings_keeps_the_origin_of_its_weights(
    models, tmp_path
):
    before = read_card(models / "t1")
    with pytest.raises(InputError, match="other settings than the exported ones; give `cohort`"):
        export_model("t1@headroom=true", tmp_path / "t1", ABOUT)
    stored = read_json(models / "t1" / "calibration.json")
    changed = {
        **stored,
        "config": {**stored["config"], "headroom": True},
        "postprocess": {"smooth_mm": [3, 20]},
    }
    copied = tmp_path / "from" / "t1"
    shutil.copytree(models / "t1", copied)
    (copied / "calibration.json").write_text(json.dumps(changed))
    card = export_model(f"{copied}@headroom=true", tmp_path / "t1", ABOUT)
    assert (card.command, card.provenance) == (before.command, before.provenance)
    assert read_model(tmp_path / "t1").method.config.headroom
    assert read_model(tmp_path / "t1").postprocess.smooth_mm == (3.0, 20.0)


def test_the_command_does_not_depend_on_test_settings(models, tmp_path):
    run = models.parent / "runs" / "t1"
    calibration = NewCalibration(made_cohort(tmp_path / "cohort"))
    card = export_model(f"{run}@s=24", tmp_path / "t1", ABOUT, calibration=calibration)
    assert read_model(tmp_path / "t1").config["s"] == 24 != read_model(run).config["s"]
    assert card.command == read_card(models / "t1").command


def test_a_run_without_a_recorded_command_needs_one(tmp_path, monkeypatch, capsys):
    """A run of a version that did not record the command; the tool reconstructs it."""
    run = made_run(tmp_path / "run")
    recorded = read_json(run / "provenance.json")
    command = recorded.pop("command")
    assert command.startswith("maediff train maediff --cohort COHORT -o RUN --preset tiny")
    write_json(run / "provenance.json", recorded)
    assert read_origin(run) == (None, recorded)
    with pytest.raises(
        InputError,
        match=r"provenance\.json: does not record .*; give `command` .*export_model\.py",
    ):
        export_model(run, tmp_path / "t1", ABOUT)
    assert not (tmp_path / "t1").exists()
    given = export_model(run, tmp_path / "given", ABOUT | {"command": "maediff train ..."})
    assert given.command == "maediff train ..."
    (tmp_path / "card.yaml").write_text(json.dumps(ABOUT))  # JSON is YAML
    arguments = [run, "t1", "--card", tmp_path / "card.yaml", "--folder", tmp_path]
    run_tool("export_model.py", *arguments, monkeypatch=monkeypatch)
    assert read_card(tmp_path / "t1").command == command
    assert "t1: A model for tests." in capsys.readouterr().out


def test_scores_come_from_an_evaluation(tmp_path):
    def interval(mean):
        return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}

    summary = {
        "methods": {
            "run@t_test=125": {"auprc": interval(0.5), "dice": None},
            "bright": {"auprc": interval(0.2)},
        },
        "baselines": ["bright"],
        "best_baseline": "bright",
        "n_subjects": 4,
        "n_lesion": 3,
        "n_healthy": 1,
        "cohort": str(tmp_path / "lgg"),
        "score_split": "test",
        "modality": "T1w",
    }
    write_json(tmp_path / "eval" / "summary.json", summary)
    scores = read_scores(tmp_path / "eval", "run@t_test=125")
    assert scores["values"] == {"auprc": interval(0.5)}
    assert (scores["on"], scores["best_baseline_auprc"]) == ("lgg, test split, T1w", 0.2)
    summary["methods"]["other"] = {}
    write_json(tmp_path / "eval" / "summary.json", summary)
    with pytest.raises(InputError, match="does not score 'third'"):
        read_scores(tmp_path / "eval", "third")
    write_json(tmp_path / "eval" / "summary.json", {"methods": {}})
    with pytest.raises(InputError, match="is not a summary of `maediff evaluate`"):
        read_scores(tmp_path / "eval", "third")
    card = export_model(made_run(tmp_path / "run"), tmp_path / "t9", ABOUT, evaluations=[])
    (tmp_path / "t9" / "config.json").write_text("{")  # a damaged model is listed all the same
    shown = describe(tmp_path / "t9", card)
    assert "detects:" not in shown
    assert "AUPRC" not in shown
    size = (tmp_path / "t9" / "model.safetensors").stat().st_size
    assert f"{size / 1e6:.1f} MB" in shown
    text = describe(tmp_path / "t9", Card(**{**vars(card), "scores": (Scores(**scores),)}))
    assert (
        "lgg, test split, T1w: AUPRC 0.50 [0.40, 0.60], 3 subjects with a lesion; "
        "best baseline (bright) 0.20" in text
    )


def test_refusals_leave_nothing_behind(tmp_path, monkeypatch):
    run = made_run(tmp_path / "run")
    for reference, about, message in [
        (
            run,
            ABOUT | {"summary": "made in /home/me/brains"},
            "names a path of this machine, /home/me/brains",
        ),
        (run, {k: v for k, v in ABOUT.items() if k != "licence"}, "licence"),
        (run, ABOUT | {"failure_cases": []}, "failure_cases"),
        (run, ABOUT | {"colour": "red"}, "unknown colour"),
        (f"{run}@t_test=77", ABOUT, "give `cohort` to calibrate again"),
        (f"{run}+{run}", ABOUT, "the mean of models cannot be exported"),
    ]:
        with pytest.raises(InputError, match=message):
            export_model(reference, tmp_path / "t1", about)
    with pytest.raises(InputError, match="small letters"):
        export_model(run, tmp_path / "T 1", ABOUT)
    with monkeypatch.context() as patch:
        patch.setattr("maediff.models.export.MAX_BYTES", 1000)
        with pytest.raises(InputError, match="a shipped model has at most"):
            export_model(run, tmp_path / "t1", ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    export_model(run, tmp_path / "t1", ABOUT)
    with pytest.raises(InputError, match="exists"):
        export_model(run, tmp_path / "t1", ABOUT)
    export_model(run, tmp_path / "t1", ABOUT, overwrite=True)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("kept")
    with pytest.raises(InputError, match=r"docs: is not a model \(it has no card\.json\)"):
        export_model(run, tmp_path / "docs", ABOUT, overwrite=True)
    assert (tmp_path / "docs" / "page.md").read_text("utf-8") == "kept"


def test_the_people_that_the_run_learned_from_are_exported(tmp_path):
    run = made_run(tmp_path / "run")
    (run / "train_subjects.json").write_text('["00ff", "abcd"]')
    export_model(run, tmp_path / "t1", ABOUT)
    assert trained_on(tmp_path / "t1") == ["00ff", "abcd"]
    assert trained_on(tmp_path) == []


@pytest.mark.parametrize(
    ("cohort", "included", "excluded"),
    [
        (
            {"registration": {"enabled": True}},
            "affine registration to MNI152; 2 mm, 96 x 96 pixels per slice",
            "thicker",
        ),
        ({}, "slices thicker than 3 mm keep their thickness", "MNI152"),
        ({"bias": {"enabled": True}, "normalise": {"landmarks": [0.1] * 9}}, "(N4)", "MNI152"),
    ],
)
def test_preprocessing_in_words(cohort, included, excluded):
    grid = {"size": 96, "spacing_mm": 2.0, "thick_slice_mm": 3.0, "max_brain_mm": 190.0}
    normalise = {"low_percentile": 1.0, "high_percentile": 99.0} | cohort.get("normalise", {})
    text = describe_preprocessing({"grid": grid} | cohort | {"normalise": normalise})
    assert included in text
    assert excluded not in text
    assert ("landmarks" in text) == ("landmarks" in normalise)


def test_files_have_the_permissions_of_the_umask(models, tmp_path):
    before = os.umask(0o027)
    try:
        export_model(models.parent / "runs" / "t1", tmp_path / "exported", ABOUT)
    finally:
        os.umask(before)
    modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "exported").iterdir()}
    assert modes == {"0o640"}


@pytest.mark.slow
def test_remake_model_retrains_a_shipped_model_with_its_settings(
    models, tmp_path, monkeypatch, capsys
):
    cohort = made_cohort(tmp_path)
    arguments = ["t1", cohort, tmp_path / "out", "--device", "cpu"]
    run_tool("remake_model.py", *arguments, monkeypatch=monkeypatch)
    new, old = (read_config(folder / "t1") for folder in (tmp_path / "out", models))
    keys = ("method", "preset", "config", "seed")
    assert {key: new[key] for key in keys} == {key: old[key] for key in keys}
    assert new["train"]["steps"] == old["train"]["steps"] == 2
    remade = read_model(tmp_path / "out" / "t1")
    assert remade.postprocess == read_model(models / "t1").postprocess
    recorded = read_json(tmp_path / "out" / "t1-run" / "provenance.json")["command"]
    assert remade.card.command == recorded
    words = shlex.split(recorded)
    assert words[words.index("--seed") + 1] == "3"
    unseen = {
        row.subject for row in Cohort.open(cohort).rows if row.healthy and row.split != "train"
    }
    stored = read_json(tmp_path / "out" / "t1" / "calibration.json")
    assert stored["n_scans"] == len(unseen)
    assert "t1" in capsys.readouterr().out


def test_weights_that_are_not_those_of_the_card_are_refused(models, tmp_path):
    """A shipped model whose weights are not those of its card is refused by name."""
    folder = shutil.copytree(models / "t1", tmp_path / "t1")
    card = read_json(folder / "card.json")
    path = folder / "model.safetensors"
    assert card["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_model(folder).step == 2
    export_model(models.parent / "runs" / "t1", tmp_path / "half" / "t1", ABOUT, half=True)
    for other in (tmp_path / "half" / "t1" / "model.safetensors", models / "t1" / "card.json"):
        shutil.copyfile(other, path)
        with pytest.raises(InputError, match=r"model\.safetensors: damaged or replaced \(its SHA"):
            read_model(folder).method  # noqa: B018
    content = bytearray((models / "t1" / "model.safetensors").read_bytes())
    content[20] ^= 1  # in the header, which the hashes of the tensors do not cover
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: damaged or replaced"):
        read_model(folder).method  # noqa: B018


def test_card_without_checksum(models, tmp_path):
    folder = shutil.copytree(models / "t1", tmp_path / "t1")
    card = read_json(folder / "card.json")
    del card["weights_sha256"]
    write_json(folder / "card.json", card)
    assert read_model(folder).step == 2
