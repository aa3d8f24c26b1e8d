"""The demo, made small: every folder it promises, one report, and the commands for one's own scans."""

import json
import shutil

import pytest

from helpers.runs import ABOUT, made_run
from maediff import demo as module
from maediff.models import catalogue as shipped
from maediff.models.export import export_model
from maediff.models.model import load_model

COUNTS = {"n_train": 2, "n_val": 1, "n_test": 1, "n_healthy_val": 1, "n_healthy_test": 1}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder for the only models there are: none yet."""
    for name in ("PACKAGED", "CHECKOUT"):
        monkeypatch.setattr(shipped, name, tmp_path / "none")
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(module, "COUNTS", COUNTS)
    monkeypatch.setattr(module, "TRAIN_COUNTS", COUNTS)
    monkeypatch.setattr(module, "STEPS", 2)
    monkeypatch.setattr(module, "SHOWN", slice(0, 2))
    return tmp_path / "models"


def check(demo, page):
    """What every demo leaves behind; returns EVAL/summary.json."""
    assert page == demo / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "<html" in text
    assert "http-equiv" not in text
    assert not any(
        f'{kind}="http' in text for kind in ("src", "href")
    )  # one file, nothing fetched
    for folder, name in (
        ("cohort", "manifest.csv"),
        ("run", "calibration.json"),
        ("detect", "detect.json"),
    ):
        assert (demo / folder / name).is_file()
    summary = json.loads((demo / "eval" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["n_subjects"], summary["n_lesion"]) == (2, 1)
    assert {"run", "bright", "template"} <= summary["methods"].keys()
    assert len(list((demo / "detect").glob("*/summary.json"))) == 2
    return summary


@pytest.mark.slow
def test_demo_goes_the_whole_way_with_a_shipped_model(tmp_path, models, capsys):
    export_model(made_run(tmp_path / "runs" / "t1"), models / "t1", ABOUT)
    before = (models / "t1" / "calibration.json").read_bytes()
    summary = check(tmp_path / "demo", module.demo(tmp_path / "demo", device="cpu"))
    assert summary["modality"] == "T1w"  # the model's
    assert not (tmp_path / "demo" / "run" / "metrics.csv").exists()
    assert (tmp_path / "demo" / "run" / "model.safetensors").read_bytes() == (
        models / "t1" / "model.safetensors"
    ).read_bytes()
    assert (
        models / "t1" / "calibration.json"
    ).read_bytes() == before  # the demo's threshold is the copy's only
    stored = json.loads(
        (tmp_path / "demo" / "run" / "calibration.json").read_text(encoding="utf-8")
    )
    assert (stored["n_scans"], stored["source"]) == (1, "healthy scans")
    assert stored["n_voxels"] > 1000
    said = capsys.readouterr().out
    assert "the shipped model t1" in said
    assert "maediff detect PATIENT.nii.gz -o results --modality T1w" in said
    assert "--init t1" in said
    assert "A model for tests." in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_a_shipped_model_the_demo_trains_one(tmp_path, models, capsys):
    summary = check(tmp_path / "demo", module.demo(tmp_path / "demo", device="cpu"))
    assert summary["modality"] == "FLAIR"
    assert (tmp_path / "demo" / "run" / "metrics.csv").is_file()
    said = capsys.readouterr().out
    assert "no model is shipped" in said
    assert "maediff train maediff --cohort" in said
    assert "report.html" in said
    assert load_model(tmp_path / "demo" / "run")[1]["step"] == 2


def test_the_demo_shows_the_first_model_of_a_contrast_it_can_make(tmp_path, models):
    assert module.shipped_model() == (None, "FLAIR")
    export_model(made_run(tmp_path / "runs" / "t1"), models / "t1", ABOUT)
    assert module.shipped_model() == ("t1", "T1w")
    shutil.copytree(models / "t1", models / "lgg")
    card = json.loads((models / "lgg" / "card.json").read_text(encoding="utf-8"))
    (models / "lgg" / "card.json").write_text(
        json.dumps(
            card | {"name": "lgg", "modality": "FLAIR", "opt_in": True, "terms": "research only"}
        )
    )
    assert module.shipped_model() == ("t1", "T1w")  # never one that has to be asked for
    export_model(made_run(tmp_path / "runs" / "flair", "FLAIR"), models / "flair", ABOUT)
    assert module.shipped_model() == ("flair", "FLAIR")
