"""The demo, made small: every folder it promises, one report, and the commands for one's own scans."""

import json

import pytest

from maediff import demo as module


@pytest.mark.slow
def test_demo_goes_the_whole_way(tmp_path, monkeypatch, capsys):
    counts = {"n_train": 2, "n_val": 1, "n_test": 1, "n_healthy_val": 1, "n_healthy_test": 1}
    monkeypatch.setattr(module, "COUNTS", counts)
    monkeypatch.setattr(module, "STEPS", 2)
    page = module.demo(tmp_path / "demo", device="cpu")
    assert page == tmp_path / "demo" / "report.html"
    text = page.read_text(encoding="utf-8")
    assert "<html" in text
    assert "http-equiv" not in text
    assert not any(f'{kind}="http' in text for kind in ("src", "href"))  # one file, nothing fetched
    for folder, name in (("cohort", "manifest.csv"), ("run", "calibration.json"), ("detect", "detect.json")):
        assert (tmp_path / "demo" / folder / name).is_file()
    summary = json.loads((tmp_path / "demo" / "eval" / "summary.json").read_text(encoding="utf-8"))
    assert (summary["n_subjects"], summary["n_lesion"]) == (2, 1)
    assert {"run", "bright", "template"} <= summary["methods"].keys()
    assert len(list((tmp_path / "demo" / "detect").glob("*/summary.json"))) == 2
    said = capsys.readouterr().out
    assert "maediff train maediff --cohort" in said
    assert "report.html" in said
