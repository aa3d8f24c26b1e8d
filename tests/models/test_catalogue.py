"""Models by name: listed, picked by contrast, used by commands; and the shipped models."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from helpers.brains import made_brain, save
from helpers.detection import detect_in
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.methods.registry import build
from maediff.models.card import read_card
from maediff.models.catalogue import CHECKOUT, MAX_BYTES, PACKAGED, model_folders, pick
from maediff.models.catalogue import models as shipped_models
from maediff.models.model import read_model
from maediff.models.reference import split_reference

SHIPPED = [
    path.parent
    for parent in (PACKAGED, CHECKOUT / "models")
    for path in sorted(parent.glob("*/card.json"))
]


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
    assert build("maediff", "tiny").config.noise_test == 0
    assert model.method.config.noise_test == 1


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
