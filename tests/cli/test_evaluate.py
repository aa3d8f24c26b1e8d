"""`maediff evaluate`: options become arguments of the library."""

import importlib

import pytest

from maediff.core.errors import InputError
from maediff.core.options import RunOptions

command = importlib.import_module("maediff.cli.evaluate")
library = importlib.import_module("maediff.evaluation.evaluate")


@pytest.fixture
def calls(monkeypatch):
    """Calls of the replaced library function."""
    calls = []

    def evaluate(runs, cohort, out, **arguments):
        calls.append((runs, cohort, out, arguments))
        out.mkdir()
        (out / "table.md").write_text("the table")

    monkeypatch.setattr(library, "evaluate", evaluate)
    monkeypatch.setattr(command, "print_report", lambda _: None)
    return calls


def test_options_become_arguments(tmp_path, calls, capsys):
    command.evaluate(
        ["a", "b@s=48"],
        tmp_path / "cohort",
        tmp_path / "out",
        score_split="val",
        precision="bf16",
        workers=2,
        set_=["postprocess.median_size=3", "fpr=0.02"],
        batch_size=4,
        overwrite=True,
        device="cpu",
        seed=7,
        quiet=True,
    )
    ((runs, cohort, out, arguments),) = calls
    assert (runs, cohort, out) == (["a", "b@s=48"], tmp_path / "cohort", tmp_path / "out")
    assert (arguments["calibrate_split"], arguments["score_split"]) == ("val", "val")
    assert arguments["scoring"].fpr == 0.02
    assert arguments["postprocess"] == {"median_size": 3}
    assert arguments["precision"] == "bf16"
    assert arguments["run"] == RunOptions(
        device="cpu", seed=7, batch_size=4, workers=2, overwrite=True, quiet=True
    )
    assert "the table" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["nonsense=1", "fpr=2", "n_snapshots=-1"])
def test_invalid_setting_is_refused(tmp_path, calls, setting):
    with pytest.raises(InputError, match=setting.partition("=")[0]):
        command.evaluate(["a"], tmp_path, tmp_path / "out", set_=[setting])
    assert not calls
