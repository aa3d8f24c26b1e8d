"""Names of models: folders, settings, means, the Hub."""

import shutil
from pathlib import Path

import pytest

from maediff.models.reference import (
    locate,
    make_label,
    model_and_settings,
    split_mean,
    split_reference,
    split_settings,
    without_path,
)


def test_names_and_runs(models, monkeypatch, tmp_path):
    assert split_reference("t1@t_test=125") == (models / "t1", "t_test=125")
    assert split_reference("absent") == (Path("absent"), "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t1").mkdir()
    assert locate("t1") == models / "t1"  # the folder holds no run
    shutil.copy(models / "t1" / "config.json", tmp_path / "t1")
    assert locate("t1") == Path("t1")


def test_folders_with_signs_in_their_names(models, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("a@home", "a+b"):
        shutil.copytree(models / "t1", tmp_path / name)
    assert split_reference("a@home") == (Path("a@home"), "")
    assert split_reference("a@home@s=24") == (Path("a@home"), "s=24")
    assert split_mean("a+b") == ["a+b"]
    assert split_mean("a+b+t1@s=24+a@home") == ["a+b", "t1@s=24", "a@home"]
    assert split_mean("t1+absent") == ["t1+absent"]


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("a", ("a", "")),
        ("runs/a@s=24", ("runs/a", "s=24")),
        ("hf:lab/a@s=24,t_test=[1,2]", ("hf:lab/a", "s=24,t_test=[1,2]")),
    ],
)
def test_model_and_settings(reference, parts):
    assert model_and_settings(reference) == parts


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", []),
        ("s=48", ["s=48"]),
        ("s=48,t_test=[125,250],eta=1", ["s=48", "t_test=[125,250]", "eta=1"]),
        ("s=48,", ["s=48"]),
    ],
)
def test_settings_are_split_at_commas_outside_brackets(text, settings):
    assert split_settings(text) == settings


def test_labels_hold_no_folder(tmp_path):
    assert make_label("runs/x", tmp_path / "y") == "y"
    assert make_label("hf:lab/brains", tmp_path / "0123abc") == "brains"
    assert without_path("/somewhere/t0") == "t0"
    assert without_path("hf:lab/t0") == "hf:lab/t0"
    assert without_path(None) is None
