"""`maediff train`."""

import re

from helpers.cli import call_maediff, read_help
from maediff.methods.registry import BASELINES, METHODS


def test_help_names_every_trained_method():
    text = read_help("train")
    for name in METHODS:
        assert bool(re.search(rf"\b{name}\b", text)) == (name not in BASELINES), name


def test_unknown_setting_is_named_with_its_file(tmp_path):
    (tmp_path / "my.yaml").write_text("nonsense: 3\n")
    result = call_maediff(
        "train",
        "pddpm",
        "--cohort",
        tmp_path,
        "-o",
        tmp_path / "out",
        "--config",
        tmp_path / "my.yaml",
    )
    assert result.returncode == 2
    assert "nonsense" in result.stderr
    assert f"given in {tmp_path / 'my.yaml'}" in result.stderr
