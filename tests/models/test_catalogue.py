"""Models by name: exported, listed, picked by contrast, used by every command; and those that are in the package."""

import json
import logging
import os
import runpy
import shlex
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from helpers.brains import made_brain, made_cohort, save
from helpers.detection import detect_in
from helpers.runs import ABOUT, made_run
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.config import parse_settings
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.methods.registry import build
from maediff.models import catalogue as shipped
from maediff.models.calibrate import calibrate_folder
from maediff.models.card import Card, Scores, read_card, show_terms
from maediff.models.card_text import preprocessing_of, read_scores
from maediff.models.catalogue import CHECKOUT, MAX_BYTES, PACKAGED, describe, model_folders, pick
from maediff.models.catalogue import models as shipped_models
from maediff.models.export import export_model
from maediff.models.folder import config_of, read_config, trained_on
from maediff.models.hub import load_from_hub, save_to_hub_folder
from maediff.models.model import read_model
from maediff.models.reference import split_reference
from maediff.training.command import training_command
from maediff.training.train import adopt, train

TRAIN = {"steps": 2, "batch_size": 2, "checkpoint_every": 2, "validation_slices": 2}
SHIPPED = [
    path.parent
    for parent in (PACKAGED, CHECKOUT / "models")
    for path in sorted(parent.glob("*/card.json"))
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of models: t1 and flair to be picked, flair-lgg only by name."""
    folder = tmp_path_factory.mktemp("models")
    for name, modality, more in (
        ("t1", "T1w", {}),
        ("flair", "FLAIR", {}),
        ("flair-lgg", "FLAIR", {"opt_in": True, "terms": "CC BY-NC-SA 4.0, research only."}),
    ):
        export_model(
            made_run(folder / "runs" / name, modality), folder / "models" / name, ABOUT | more
        )
    return folder / "models"


@pytest.fixture
def models(exported, monkeypatch, tmp_path):
    """The same, as the only models there are."""
    monkeypatch.setattr(shipped, "PACKAGED", tmp_path / "none")
    monkeypatch.setattr(shipped, "CHECKOUT", tmp_path / "none")
    monkeypatch.setenv("MAEDIFF_MODELS", str(exported))
    show_terms.cache_clear()
    return exported


@pytest.fixture
def no_models(models, monkeypatch):
    monkeypatch.setenv("MAEDIFF_MODELS", "")


def test_an_exported_model_is_the_runs_average_and_nothing_else(models):
    run = models.parent / "runs" / "t1"
    model = read_model("t1")
    method = model.method
    for key, value in read_model(run).method.state_dict().items():
        assert torch.equal(value, method.state_dict()[key]), key
    assert (model.name, model.step, model.settings.seed) == ("t1", 2, 3)
    assert {p.name for p in (models / "t1").iterdir()} == {
        "model.safetensors",
        "config.json",
        "calibration.json",
        "card.json",
        "MODEL_CARD.md",
    }
    with safe_open(models / "t1" / "model.safetensors", framework="pt") as file:
        assert all(key.startswith("ema.") for key in file.keys())  # noqa: SIM118
    half = export_model(run, models.parent / "half" / "t1", ABOUT, half=True)
    assert half.name == "t1"
    for key, value in read_model(models.parent / "half" / "t1").method.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, method.state_dict()[key], atol=1e-3, rtol=1e-3)


def test_a_models_own_rate_goes_with_it(models, tmp_path):
    run, out = models.parent / "runs" / "t1", tmp_path / "t1"
    card = export_model(run, out, ABOUT | {"default_fpr": 0.001})
    assert read_model(
        out
    ).default_fpr == 0.001 and "--fpr 0.001 unless another is given" in describe(out, card)
    assert read_model(models / "t1").default_fpr == 0.01 and "unless another" not in describe(
        models / "t1", card
    )
    for wrong in (0.9, "1e-4"):  # PyYAML takes 1e-4 for a word
        with pytest.raises(InputError, match="card of t2: default_fpr"):
            export_model(run, tmp_path / "t2", ABOUT | {"default_fpr": wrong})


def test_a_models_own_threshold_goes_with_it(models, tmp_path):
    run, out = models.parent / "runs" / "t1", tmp_path / "t1"
    own = {"value": 0.07, "chosen_on": "9 patients"}
    card = export_model(run, out, ABOUT | {"default_threshold": own})
    assert json.loads((out / "calibration.json").read_text())["default_threshold"] == own
    assert "--threshold 0.07 unless another or a rate is given, chosen on 9 patients" in describe(
        out, card
    )
    text = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert (
        "`detect` takes 0.07, chosen on 9 patients" in text
        and "1 % of their voxels exceed 0.1000" in text
    )
    for wrong in (0.07, {"value": 0.07}, own | {"value": 1}):
        with pytest.raises(InputError, match="card of t2: default_threshold"):
            export_model(run, tmp_path / "t2", ABOUT | {"default_threshold": wrong})


def test_the_card_says_what_there_is_to_say(models):
    text = (models / "flair-lgg" / "MODEL_CARD.md").read_text(encoding="utf-8")
    for said in (
        "# flair-lgg",
        "| made | CC0 | ellipsoids |",
        "CC BY-NC-SA 4.0",
        "Seed: 3.",
        "- Finds nothing.",
        "12,345",
        "Not a medical device",
        "--set 'unet.channels=[8,16]'",
        "only by name",
        "None measured",
        "postprocess.median_size=5",
        "from healthy scans (1 people, 9 voxels)",
        "1 % of the voxels exceed, 0.1000",
    ):
        assert said in text, said
    assert "\n\n\n" not in text
    assert "maediff train maediff --cohort COHORT -o RUN --preset tiny --seed 3" in text


def test_a_shipped_model_read_otherwise_keeps_the_story_of_its_training(models, tmp_path):
    before = read_card(models / "t1")
    with pytest.raises(InputError, match="of other settings than are exported; give --cohort"):
        export_model("t1@headroom=true", tmp_path / "t1", ABOUT)
    stored = json.loads((models / "t1" / "calibration.json").read_text())
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


def test_the_cards_command_is_the_trainings_whatever_stride_is_exported(models, tmp_path):
    run = models.parent / "runs" / "t1"
    other = export_model(
        f"{run}@s=24", tmp_path / "t1", ABOUT, cohort=made_cohort(tmp_path / "cohort")
    )
    assert read_model(tmp_path / "t1").method.config.s == 24 != read_model(run).method.config.s
    assert other.command == read_card(models / "t1").command


def test_the_training_command_asks_for_what_the_run_holds(models):
    run = models.parent / "runs" / "t1"
    info = read_model(run).record() | {"init": "/somewhere/t0"}
    words = shlex.split(training_command(info))
    settings = [
        words[i + 1]
        for i, word in enumerate(words)
        if word == "--set" and not words[i + 1].startswith("train.")
    ]
    assert config_of(build("maediff", "tiny", parse_settings(settings))) == info["config"]
    assert words[words.index("--init") + 1] == "t0"
    assert "--max-time" not in words


def test_the_training_command_of_a_run_that_ended_by_time_has_its_time(models):
    info = read_model(models.parent / "runs" / "t1").record()
    steps = info["train"]["steps"]
    words = shlex.split(training_command(info, {"step": steps - 1, "wall_seconds": 359.8}))
    assert words[words.index("--max-time") + 1] == "360s"
    assert "--max-time" not in training_command(info, {"step": steps, "wall_seconds": 359.8})


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
    card = export_model(made_run(tmp_path / "run"), tmp_path / "t9", ABOUT, evaluations=[])
    (tmp_path / "t9" / "config.json").write_text("{")  # damaged: the model is listed all the same
    shown = describe(tmp_path / "t9", card)
    assert "marks:" not in shown
    assert "AUPRC" not in shown
    assert "0.1 MB" in shown or "0.2 MB" in shown
    text = describe(tmp_path / "t9", Card(**{**vars(card), "scores": (Scores(**scores),)}))
    assert (
        "lgg, test split, T1w: AUPRC 0.50 [0.40, 0.60], 3 subjects with a lesion; best baseline (bright) 0.20"
        in text
    )


def test_what_cannot_be_shipped_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    run = made_run(tmp_path / "run")
    for reference, about, said in [
        (
            run,
            ABOUT | {"summary": "made in /home/me/brains"},
            "names a path of this machine, /home/me/brains",
        ),
        (run, {k: v for k, v in ABOUT.items() if k != "licence"}, "licence"),
        (run, ABOUT | {"failure_cases": []}, "failure_cases"),
        (run, ABOUT | {"colour": "red"}, "unknown colour"),
        (f"{run}@t_test=77", ABOUT, "--cohort to calibrate anew"),
    ]:
        with pytest.raises(InputError, match=said):
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
    with pytest.raises(InputError, match=r"docs: is no model \(it has no card\.json\)"):
        export_model(run, tmp_path / "docs", ABOUT, overwrite=True)
    assert (tmp_path / "docs" / "page.md").read_text() == "kept"


def test_whom_a_model_was_trained_on_goes_with_it(tmp_path):
    run = made_run(tmp_path / "run")
    (run / "train_subjects.json").write_text('["00ff", "abcd"]')
    export_model(run, tmp_path / "t1", ABOUT)
    assert trained_on(tmp_path / "t1") == ["00ff", "abcd"]
    assert trained_on(tmp_path) == []


@pytest.mark.parametrize(
    ("cohort", "said", "unsaid"),
    [
        (
            {"registration": {"enabled": True}},
            "affine registration to MNI152; 2 mm, 96 x 96 pixels a slice",
            "thicker",
        ),
        ({}, "slices thicker than 3 mm left as they are", "MNI152"),
        ({"bias": {"enabled": True}, "normalise": {"landmarks": [0.1] * 9}}, "(N4)", "MNI152"),
    ],
)
def test_the_card_tells_the_preprocessing_that_was_done(cohort, said, unsaid):
    grid = {"size": 96, "spacing_mm": 2.0, "thick_slice_mm": 3.0, "max_brain_mm": 190.0}
    normalise = {"low_percentile": 1.0, "high_percentile": 99.0} | cohort.get("normalise", {})
    told = preprocessing_of({"grid": grid} | cohort | {"normalise": normalise})
    assert said in told
    assert unsaid not in told
    assert ("landmarks" in told) == ("landmarks" in normalise)


def test_models_are_found_by_name_and_a_run_of_that_name_wins(models, monkeypatch, tmp_path):
    assert list(model_folders()) == ["flair", "flair-lgg", "t1"]
    assert split_reference("t1@t_test=125") == (models / "t1", "t_test=125")
    model = read_model("t1@t_test=125")
    assert model.method.config.t_test == (125,)
    assert model.name == "t1@t_test=125"
    assert split_reference("absent") == (Path("absent"), "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t1").mkdir()
    assert split_reference("t1")[0] == models / "t1"  # no run in there
    shutil.copy(models / "t1" / "config.json", tmp_path / "t1")
    assert split_reference("t1")[0] == Path("t1")


def test_the_model_is_picked_by_contrast_but_never_one_that_has_to_be_asked_for(
    models, monkeypatch, tmp_path
):
    assert [pick(contrast)[0] for contrast in ("T1w", "FLAIR")] == ["t1", "flair"]
    with pytest.raises(InputError, match="no model for T2w comes with maediff; give `model=RUN`"):
        pick("T2w")
    shutil.copytree(models / "flair-lgg", tmp_path / "models" / "flair-lgg")
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "models"))
    with pytest.raises(InputError, match=r"give `model=NAME` \(flair-lgg only when asked for\)"):
        pick("FLAIR")


def test_a_damaged_model_is_named_and_the_others_are_listed(models, monkeypatch, tmp_path, caplog):
    for name in ("t1", "flair"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    (tmp_path / "models" / "t1" / "card.json").write_text('{"name": "t1"}')
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "models"))
    assert [card.name for _, card in shipped_models()] == ["flair"]
    assert "damaged" in caplog.text


def test_terms_are_shown_once_when_a_model_with_terms_is_used(models, caplog):
    read_model("t1")
    assert "research only" not in caplog.text
    read_model("flair-lgg")
    read_model("flair-lgg")
    assert caplog.text.count("flair-lgg: CC BY-NC-SA 4.0, research only.") == 1


def test_a_model_of_before_a_setting_existed_keeps_its_calibration(models, tmp_path):
    folder = shutil.copytree(models / "t1", tmp_path / "old")
    for name in ("config.json", "calibration.json"):
        stored = json.loads((folder / name).read_text(encoding="utf-8"))
        assert stored["config"].pop("merge") == "mean"
        write_json(folder / name, stored)
    assert read_model(folder).thresholds.at_fpr(0.01).value == 0.1
    with pytest.raises(InputError, match="other settings of merge"):
        read_model(f"{folder}@merge=tapered").thresholds.at_fpr(0.01)


def test_a_setting_younger_than_a_model_stands_at_its_own_default_not_at_the_presets(
    models, tmp_path
):
    folder = shutil.copytree(models / "t1", tmp_path / "old")
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stored["preset"] = "tiny"
    del stored["config"]["noise_test"]
    write_json(folder / "config.json", stored)
    model = read_model(folder)
    info = model.record()
    assert build("maediff", "tiny").config.noise_test == 0
    assert model.method.config.noise_test == 1
    assert adopt(info, "maediff", None, {})[1]["noise_test"] == 1
    assert "noise_test=1.0" in training_command(info)


@pytest.fixture
def scan(tmp_path):
    data, _, affine = made_brain(shape=(60, 72, 6), spacing=(2.0, 2.0, 12.0))
    return save(tmp_path / "in" / "sub-1_T1w.nii.gz", data, affine)


def test_detect_picks_a_model_and_says_why(models, scan, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maediff")
    assert not detect_in([scan], tmp_path / "out").failures
    assert "model: t1, chosen because the names of the files say T1w" in caplog.text
    assert "t1 detects what differs from its healthy reference, brighter or darker" in caplog.text
    summary = json.loads((tmp_path / "out" / "sub-1" / "summary.json").read_text())
    assert (summary["model"], summary["threshold"]) == ("t1", 0.1)  # the shipped threshold for 1 %
    assert summary["model_from"].startswith("chosen because the names")
    plain = scan.rename(scan.with_name("patient.nii.gz"))
    with pytest.raises(
        InputError, match=r"patient\.nii\.gz: the file name states no contrast; .* `model`"
    ):
        detect_in([plain], tmp_path / "out2")
    flair = shutil.copy(plain, plain.with_name("sub-2_FLAIR.nii.gz"))
    other = shutil.copy(plain, plain.with_name("sub-2_T1w.nii.gz"))
    with pytest.raises(InputError, match="the scans are FLAIR and T1w; give `modality`"):
        detect_in([flair, other.rename(plain.with_name("sub-3_T1w.nii.gz"))], tmp_path / "out2")
    assert not (tmp_path / "out2").exists()
    assert not detect_in([plain], tmp_path / "out2", modality="FLAIR").failures
    assert json.loads((tmp_path / "out2" / "detect.json").read_text())["model"] == "flair"
    assert "--modality says" in caplog.text


def test_without_models_every_command_says_so(no_models, scan, tmp_path):
    with pytest.raises(InputError, match=r"no model for T1w comes with maediff; give `model=RUN`"):
        detect_in([scan], tmp_path / "out")
    with pytest.raises(InputError, match="t1: is not a run folder"):
        read_model("t1")
    assert list(shipped_models()) == []


def test_the_settings_of_the_model_stand_where_none_are_given(models):
    shown = {"augment": {"contrast": 0.7}, "fabricate": {"share": 0.9}}
    info = read_model("t1").record() | {"train": {"steps": 5000, **shown}}
    given = {"t_test": 60, "mae": {"heads": 4}, "train": {"steps": 3, "augment": "off"}}
    preset, settings = adopt(info, "maediff", None, given)
    assert (preset, settings["t_test"], settings["mae"]) == (
        "tiny",
        60,
        info["config"]["mae"] | {"heads": 4},
    )
    assert settings["train"] == {"steps": 3, "augment": "off", "fabricate": {"share": 0.9}}
    assert adopt(info, "maediff", "tiny", {}) == ("tiny", info["config"] | {"train": shown})
    assert adopt(info, "maediff", "small", {"s": 48}) == ("small", {"s": 48})


@pytest.mark.slow
def test_a_shipped_model_is_trained_again_by_the_settings_that_it_carries(
    models, tmp_path, monkeypatch, capsys
):
    cohort = made_cohort(tmp_path)
    script = Path(__file__).parents[2] / "tools" / "remake_model.py"
    monkeypatch.setattr(
        sys, "argv", [str(script), "t1", str(cohort), str(tmp_path / "out"), "--device", "cpu"]
    )
    runpy.run_path(str(script), run_name="__main__")
    new, old = (read_config(folder / "t1") for folder in (tmp_path / "out", models))
    assert {key: new[key] for key in ("method", "preset", "config", "seed")} == {
        key: old[key] for key in ("method", "preset", "config", "seed")
    }
    assert new["train"]["steps"] == old["train"]["steps"] == 2
    assert read_model(tmp_path / "out" / "t1").postprocess == read_model(models / "t1").postprocess
    unseen = {
        row.subject for row in Cohort.open(cohort).rows if row.healthy and row.split != "train"
    }
    assert json.loads((tmp_path / "out" / "t1" / "calibration.json").read_text())[
        "n_scans"
    ] == len(unseen)
    assert "t1" in capsys.readouterr().out


@pytest.mark.slow
def test_training_starts_from_a_model_by_name_with_its_settings(models, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maediff")
    cohort = made_cohort(tmp_path)
    frozen = TRAIN | {"learning_rate": 0}
    train(
        "maediff",
        cohort,
        tmp_path / "run",
        init="t1",
        settings={"train": frozen},
        quiet=True,
        device="cpu",
    )
    assert "--init t1: its preset (tiny) and settings stand where none are given" in caplog.text
    config = read_config(tmp_path / "run")
    assert (config["preset"], config["init"]) == ("tiny", "t1")
    assert config["config"] == read_config(models / "t1")["config"]
    assert config["train"]["learning_rate"] == 0
    tuned, source = (
        read_model(tmp_path / "run").method.state_dict(),
        read_model("t1").method.state_dict(),
    )
    for key, value in source.items():
        torch.testing.assert_close(tuned[key], value, msg=key)
    people = {person_code(row.dataset, row.subject) for row in Cohort.open(cohort).split("train")}
    (tmp_path / "run" / "train_subjects.json").write_text(json.dumps(["00ff"]))
    train(
        "maediff",
        cohort,
        tmp_path / "on",
        init=str(tmp_path / "run"),
        settings={"train": frozen},
        quiet=True,
        device="cpu",
    )
    assert set(trained_on(tmp_path / "on")) == people | {"00ff"}  # those of --init, too
    with pytest.raises(InputError, match="weights do not fit"):
        train("maediff", cohort, tmp_path / "run2", preset="small", init="t1", device="cpu")
    with pytest.raises(InputError, match="cannot start one of 'pddpm'"):
        train("pddpm", cohort, tmp_path / "run2", init="t1", device="cpu")
    train(
        "maediff",
        cohort,
        tmp_path / "run3",
        init="flair",
        settings={"train": TRAIN, "t_test": 60},
        quiet=True,
        device="cpu",
    )
    assert read_config(tmp_path / "run3")["config"]["t_test"] == [60]
    assert "flair is a model for FLAIR, and" in caplog.text
    exported = export_model(
        f"{tmp_path / 'run3'}@t_test=125", tmp_path / "new", ABOUT, cohort=cohort
    )
    assert "--init flair" in exported.command
    stored = json.loads((tmp_path / "new" / "calibration.json").read_text())
    assert stored["config"]["t_test"] == [125]
    again = calibrate_folder(tmp_path / "new", Cohort.open(cohort))
    assert again is not None
    np.testing.assert_allclose(again["thresholds"], stored["thresholds"], atol=1e-6)


def test_a_hub_folder_has_a_card_with_front_matter_and_loads(models, tmp_path):
    folder = save_to_hub_folder("flair-lgg", tmp_path / "repo")
    assert {"model.safetensors", "config.json", "README.md"} <= {p.name for p in folder.iterdir()}
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: maediff\n")
    assert "# flair-lgg" in text
    method, info = load_from_hub(folder)
    assert info["name"] == "repo"
    for key, value in read_model("flair-lgg").method.state_dict().items():
        assert torch.equal(value, method.state_dict()[key])
    run = models.parent / "runs" / "t1"
    with pytest.raises(InputError, match="has no card"):
        save_to_hub_folder(run, tmp_path / "other")
    load_from_hub(save_to_hub_folder(run, tmp_path / "other", ABOUT | {"licence": "Our own"}))
    assert "license_name: Our own" in (tmp_path / "other" / "README.md").read_text(
        encoding="utf-8"
    )
    with pytest.raises(InputError, match="exists"):
        save_to_hub_folder("t1", tmp_path / "other")


def test_models_are_written_with_the_mode_of_the_umask(models, tmp_path):
    source = shutil.copytree(models / "t1", tmp_path / "t1")
    (source / "model.safetensors").chmod(0o600)
    before = os.umask(0o027)
    try:
        export_model(models.parent / "runs" / "t1", tmp_path / "exported", ABOUT)
        save_to_hub_folder(source, tmp_path / "repo")
    finally:
        os.umask(before)
    for folder in ("exported", "repo"):
        assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / folder).iterdir()} == {
            "0o640"
        }


def test_a_repository_of_the_hub_is_a_model(models, tmp_path, monkeypatch):
    folder = save_to_hub_folder("t1", tmp_path / "0123abc")
    asked = []

    def snapshot_download(repository, allow_patterns):
        asked.append((repository, allow_patterns))
        if repository != "lab/brains":
            raise OSError("404 not found\nmore")
        return str(folder)

    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    model = read_model("hf:lab/brains@t_test=125")
    assert model.method.config.t_test == (125,)
    assert model.name == "brains@t_test=125"
    assert load_from_hub("lab/brains")[1]["name"] == "brains"
    assert len(asked) == 1  # once in a process, so that weights and settings are of one revision
    assert not any(
        "pt" in pattern or "bin" in pattern for pattern in asked[0][1]
    )  # no pickle is fetched
    with pytest.raises(InputError, match=r"hf:lab/none: could not be had .*\(404 not found\)"):
        read_model("hf:lab/none")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install huggingface_hub"):
        read_model("hf:lab/other")


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_every_model_that_is_shipped_loads_and_is_small(folder):
    card = read_card(folder)
    assert card.name == folder.name
    assert card.opt_in == (folder.parent != PACKAGED), (
        "weights under other terms stay out of the wheel"
    )
    assert bool(card.terms) == card.opt_in
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES
    assert (folder / "MODEL_CARD.md").is_file()
    model = read_model(folder)
    settings = model.settings
    assert (settings.cohort["modality"], settings.method, settings.preset) == (
        card.modality,
        card.method,
        card.preset,
    )
    assert 0 < model.thresholds.at_fpr(0.01).value < 1
    assert 0 < model.thresholds.default().value < 1
    assert not model.method.training
