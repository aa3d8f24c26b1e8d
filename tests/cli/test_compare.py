"""`maediff compare`: options become a plan and arguments of the library."""

import importlib

import pytest

from maediff.core.errors import InputError
from maediff.evaluation.compare import Budget

command = importlib.import_module("maediff.cli.compare")
library = importlib.import_module("maediff.evaluation.compare")


@pytest.fixture
def calls(monkeypatch):
    """Calls of the replaced library function."""
    calls = []

    def compare(plan, cohort, out, **arguments):
        calls.append((plan, arguments))
        (out / "eval").mkdir(parents=True)
        (out / "eval" / "table.md").write_text("the table")

    monkeypatch.setattr(library, "compare", compare)
    monkeypatch.setattr(command, "print_report", lambda _: None)
    return calls


def test_options_become_a_plan(tmp_path, calls, capsys):
    command.compare(
        ["ddpm", "pddpm@s=48"],
        tmp_path / "cohort",
        tmp_path / "out",
        steps=4,
        max_time="1m",
        seeds="0,1",
        method_seeds=["ddpm:3"],
        set_=[
            "postprocess.median_size=1",
            "evaluate.postprocess.symmetry=0.5",
            "evaluate.fpr=0.02",
            "t_test=60",
        ],
        resume=True,
        quiet=True,
    )
    ((plan, arguments),) = calls
    assert plan.budget == Budget(preset="tiny", steps=4, max_time="1m")
    assert [run.name for run in plan.runs] == ["pddpm-0", "pddpm-1", "ddpm-3"]
    assert plan.runs[0].settings == {"t_test": 60, "train": {"steps": 4}}
    assert arguments["postprocess"] == {"median_size": 1, "symmetry": 0.5}
    assert arguments["scoring"].fpr == 0.02
    assert arguments["run"].resume and arguments["run"].quiet
    assert arguments["command"][0] == "maediff"
    assert "the table" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": "a"}, "--seeds a: give whole numbers"),
        ({"method_seeds": ["ddpm"]}, "--method-seeds ddpm: give whole numbers"),
        ({"set_": ["evaluate.nonsense=1"]}, "nonsense"),
        ({"set_": ["nonsense=1"]}, "nonsense"),
    ],
)
def test_invalid_options_are_refused(tmp_path, calls, options, message):
    with pytest.raises(InputError, match=message):
        command.compare(["ddpm"], tmp_path, tmp_path / "out", **options)
    assert not calls
