"""Models by name: found, listed, chosen by contrast; and the shipped models."""

import re
import shutil

import pytest

from maediff.core.errors import InputError
from maediff.core.files import hash_file
from maediff.models.card import read_card
from maediff.models.card_text import render_card
from maediff.models.catalogue import (
    CHECKOUT,
    MAX_BYTES,
    PACKAGED,
    describe_sign,
    list_models,
    model_folders,
    pick,
)
from maediff.models.model import read_model

SHIPPED = [
    path.parent
    for parent in (PACKAGED, CHECKOUT / "models")
    for path in sorted(parent.glob("*/card.json"))
]


def test_models_are_found_by_their_cards(models):
    assert list(model_folders()) == ["flair", "flair-lgg", "t1"]
    assert [card.name for card in list_models()] == ["flair", "flair-lgg", "t1"]


def test_first_folder_wins(models, monkeypatch, tmp_path):
    shutil.copytree(models / "t1", tmp_path / "own" / "t1")
    monkeypatch.setenv("MAEDIFF_MODELS", f"{tmp_path / 'own'}:{models}")
    assert model_folders()["t1"] == tmp_path / "own" / "t1"
    assert model_folders()["flair"] == models / "flair"


def test_choice_by_contrast(models, monkeypatch, tmp_path):
    assert [pick(contrast)[0] for contrast in ("T1w", "FLAIR")] == ["t1", "flair"]
    with pytest.raises(InputError, match="no model for T2w comes with maediff; give `model=RUN`"):
        pick("T2w")
    shutil.copytree(models / "flair-lgg", tmp_path / "models" / "flair-lgg")
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "models"))
    with pytest.raises(InputError, match=r"give `model=NAME` \(flair-lgg only when asked for\)"):
        pick("FLAIR")


def test_damaged_card(models, monkeypatch, tmp_path, caplog):
    for name in ("t1", "flair"):
        shutil.copytree(models / name, tmp_path / "models" / name)
    (tmp_path / "models" / "t1" / "card.json").write_text('{"name": "t1"}')
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "models"))
    assert [card.name for card in list_models()] == ["flair"]
    assert "damaged" in caplog.text


def test_no_models(no_models):
    assert list_models() == []
    with pytest.raises(InputError, match="t1: is not a run folder"):
        read_model("t1")


@pytest.mark.parametrize(
    ("residual", "words"),
    [("bright", "only .* brighter"), ("dark", "only .* darker"), ("abs", "or")],
)
def test_the_sign_is_described_in_words(residual, words):
    assert re.search(words, describe_sign({"residual": residual}))
    assert describe_sign({}) == describe_sign({"residual": "abs"})


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_shipped_models(folder):
    card = read_card(folder)
    assert card.name == folder.name
    assert card.weights_sha256 == hash_file(folder / "model.safetensors")
    assert card.opt_in == (folder.parent != PACKAGED), "other terms stay out of the wheel"
    assert bool(card.terms) == card.opt_in
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES
    assert (folder / "MODEL_CARD.md").read_text(encoding="utf-8") == render_card(card, folder)
    model = read_model(folder)
    assert card.provenance["step"] == model.step
    settings = model.settings
    assert settings.cohort["modality"] == card.modality
    assert (settings.method, settings.preset) == (card.method, card.preset)
    assert 0 < model.thresholds.at_fpr(0.01).residual < 1
    assert 0 < model.scale < 1
    assert model.thresholds.default().value == 1
    assert not model.method.training


def test_a_model_is_named_by_its_folder(models, monkeypatch, tmp_path):
    """A copied folder keeps the name in its card, and would load another model."""
    first = next(iter(model_folders().values()))
    shutil.copytree(first, tmp_path / "own" / "hospital")
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "own"))
    name, card = pick(read_card(first).modality)
    assert name == card.name == "hospital"
    assert "hospital" in [card.name for card in list_models()]
