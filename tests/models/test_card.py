"""Model cards: reading, and terms."""

import json
import shutil

import pytest

from maediff.core.errors import InputError
from maediff.models.card import Card, Scores, Source, read_card, show_terms
from maediff.models.model import read_model


def test_content(models):
    card = read_card(models / "flair-lgg")
    assert isinstance(card, Card)
    assert (card.name, card.modality, card.opt_in) == ("flair-lgg", "FLAIR", True)
    assert card.data == (Source("made", "CC0", "ellipsoids"),)
    assert card.scores == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"failure_cases": []}, r"damaged or of another version \(failure_cases: "),
        ({"colour": "red"}, r"damaged or of another version \(colour: "),
        ({"scores": [{"on": "x"}]}, r"damaged or of another version \(scores\.0"),
    ],
)
def test_a_damaged_card_is_named(models, tmp_path, change, message):
    folder = shutil.copytree(models / "t1", tmp_path / "t1")
    stored = json.loads((folder / "card.json").read_text("utf-8"))
    (folder / "card.json").write_text(json.dumps(stored | change))
    with pytest.raises(InputError, match=rf"t1/card\.json: {message}"):
        read_card(folder)
    (folder / "card.json").write_text("{")
    with pytest.raises(
        InputError, match=r"t1/card\.json: damaged or of another version \(the file"
    ):
        read_card(folder)
    (folder / "card.json").unlink()
    with pytest.raises(InputError, match=r"t1/card\.json: cannot be read"):
        read_card(folder)


def test_scores_are_read(models, tmp_path):
    folder = shutil.copytree(models / "t1", tmp_path / "t1")
    stored = json.loads((folder / "card.json").read_text("utf-8"))
    auprc = {"mean": 0.5, "low": 0.4, "high": 0.6}
    scores = {"on": "lgg", "n_subjects": 4, "n_lesion": 3, "n_healthy": 1}
    stored["scores"] = [scores | {"values": {"auprc": auprc}}]
    (folder / "card.json").write_text(json.dumps(stored))
    assert read_card(folder).scores == (Scores(**scores, values={"auprc": auprc}),)


def test_terms_are_logged_once(models, caplog):
    read_model("t1")
    assert "research only" not in caplog.text
    for _ in range(2):
        assert read_model("flair-lgg").terms == "CC BY-NC-SA 4.0, research only."
    assert caplog.text.count("flair-lgg: CC BY-NC-SA 4.0, research only.") == 1
    assert show_terms("t1", "") == ""
