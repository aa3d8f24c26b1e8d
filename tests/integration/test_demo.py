"""The demo with few brains: its folders, its report and the commands for own scans."""

import json
import shutil

import pytest

from helpers.runs import ABOUT, SMALL_MAEDIFF, made_run
from maediff import demo as module
from maediff.models import catalogue as shipped
from maediff.models.export import export_model
from maediff.models.model import read_model

COUNTS = {"n_train": 2, "n_val": 1, "n_test": 1, "n_healthy_val": 1, "n_healthy_test": 1}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Return the folder of shipped models, which is empty."""
    for name in ("PACKAGED", "CHECKOUT"):
        monkeypatch.setattr(shipped, name, tmp_path / "none")
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(module, "COUNTS", COUNTS)
    monkeypatch.setattr(module, "TRAIN_COUNTS", COUNTS)
    monkeypatch.setattr(module, "TRAIN_STEPS", 2)
    train = module.train_model

    def train_small(*arguments, settings, **options):
        return train(*arguments, settings={**SMALL_MAEDIFF, **settings}, **options)

    monkeypatch.setattr(module, "train_model", train_small)
    return tmp_path / "models"


def check(demo, page):
    """Check the files of a demo and return EVAL/summary.json."""
    assert page == demo / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "<html" in text
    assert "http-equiv" not in text
    # the report is one file and loads nothing
    assert not any(f'{attribute}="http' in text for attribute in ("src", "href"))
    for folder, name in (
        ("cohort", "manifest.csv"),
        ("run", "calibration.json"),
        ("detect", "detect.json"),
    ):
        assert (demo / folder / name).is_file()
    summary = json.loads((demo / "eval" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["n_subjects"], summary["n_lesion"]) == (2, 1)
    assert {"run", "bright", "template"} <= summary["methods"].keys()
    detected = sorted(path.parent.name for path in (demo / "detect").glob("*/summary.json"))
    assert detected == ["sub-lesion", "sub-nolesion"]
    return summary


@pytest.mark.slow
def test_demo_with_shipped_model(tmp_path, models, capsys):
    export_model(made_run(tmp_path / "runs" / "t1"), models / "t1", ABOUT)
    before = (models / "t1" / "calibration.json").read_bytes()
    summary = check(tmp_path / "demo", module.demo(tmp_path / "demo", device="cpu"))
    assert summary["modality"] == "T1w"
    assert not (tmp_path / "demo" / "run" / "metrics.csv").exists()
    assert (tmp_path / "demo" / "run" / "model.safetensors").read_bytes() == (
        models / "t1" / "model.safetensors"
    ).read_bytes()
    # the demo calibrates only its copy
    assert (models / "t1" / "calibration.json").read_bytes() == before
    stored = json.loads(
        (tmp_path / "demo" / "run" / "calibration.json").read_text(encoding="utf-8")
    )
    assert (stored["n_scans"], stored["source"]) == (1, "healthy scans")
    assert stored["n_voxels"] > 1000
    printed = capsys.readouterr().out
    assert printed.startswith("model: t1, detects ")
    shared = json.loads((tmp_path / "demo" / "detect" / "detect.json").read_text("utf-8"))
    assert shared["model"] == "t1"  # itself, not the calibrated copy
    *_, times, report, following = printed.strip().splitlines()
    for stage in ("brains", "preparation", "calibration", "scores", "detection", "report"):
        assert f"{stage} " in times
    assert report == f"report: {tmp_path / 'demo' / 'report.html'}"
    assert following == "next:   maediff detect PATIENT.nii.gz -o results --modality T1w"
    assert "--init t1" in printed
    head, *_ = [line for line in printed.splitlines() if line.startswith("Method ")]
    first = next(line for line in printed.splitlines() if line.startswith("bright "))
    column = head.index("AUPRC [%]")
    assert "|" not in head and first[column - 2 : column] == "  " and first[column] != " "
    assert "100 is perfect" in printed and "Lesion recall" not in printed
    assert "A model for tests." in (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_demo_trains_without_shipped_model(tmp_path, models, capsys):
    summary = check(tmp_path / "demo", module.demo(tmp_path / "demo", device="cpu"))
    assert summary["modality"] == "FLAIR"
    assert (tmp_path / "demo" / "run" / "metrics.csv").is_file()
    printed = capsys.readouterr().out
    assert "no model is shipped" in printed
    assert "maediff train maediff --cohort" in printed
    assert printed.strip().endswith(f"-o results --model {tmp_path / 'demo' / 'run'}")
    assert "report.html" in printed
    assert read_model(tmp_path / "demo" / "run").step == 2


def test_find_shipped_model(tmp_path, models):
    assert module.find_shipped_model() == (None, "FLAIR")
    export_model(made_run(tmp_path / "runs" / "t1"), models / "t1", ABOUT)
    assert module.find_shipped_model() == ("t1", "T1w")
    shutil.copytree(models / "t1", models / "lgg")
    card = json.loads((models / "lgg" / "card.json").read_text(encoding="utf-8"))
    (models / "lgg" / "card.json").write_text(
        json.dumps(
            card | {"name": "lgg", "modality": "FLAIR", "opt_in": True, "terms": "research only"}
        )
    )
    assert module.find_shipped_model() == ("t1", "T1w")  # never an opt-in model
    export_model(made_run(tmp_path / "runs" / "flair", "FLAIR"), models / "flair", ABOUT)
    assert module.find_shipped_model() == ("flair", "FLAIR")
