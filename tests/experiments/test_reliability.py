"""Short form of the harness in experiments/reliability: mutated inputs, kills, pairs."""

import random

import pytest

from helpers.scripts import load_script

inputs = load_script("experiments/reliability/mutate_inputs.py")
stop = load_script("experiments/reliability/stop_commands.py")


def test_mutated_inputs_are_accepted_or_refused(capsys, tmp_path):
    arguments = ["--count", "40", "--csv", str(tmp_path / "fuzz.csv")]
    inputs.main(arguments)
    assert "'count': 40" in capsys.readouterr().out
    inputs.main(arguments)  # nothing is left to do
    assert "'count': 40" in capsys.readouterr().out


def test_harness_notices_an_escaped_exception_a_hang_and_memory(monkeypatch):
    monkeypatch.setattr(inputs, "HANG_SECONDS", 0.2)
    assert inputs.run_apart(lambda: "accepted")[0] == "accepted"
    outcome, _, reason = inputs.run_apart(lambda: 1 / 0)
    assert outcome == "escaped" and "ZeroDivisionError" in reason
    assert inputs.run_apart(lambda: __import__("time").sleep(5))[0] == "hangs"
    monkeypatch.setattr(inputs, "HANG_SECONDS", 20)
    assert inputs.run_apart(lambda: str(len(bytearray(200_000_000)) // 200_000_000))[1] > 150
    assert inputs.run_apart(lambda: __import__("os")._exit(7))[0] == "escaped"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return stop.Bench(tmp_path_factory.mktemp("bench"), random.Random(0))


@pytest.mark.parametrize("name", ["preprocess", "detect", "train", "calibrate"])
def test_killed_command_resumes(bench, name):
    counts = bench.kill_one_run(name, 2)
    assert not bench.reports, bench.reports
    assert counts["runs"] == 1 and not counts["damaged_files"]


@pytest.mark.parametrize("second", [False, True])
def test_second_command_on_one_folder(bench, second):
    _, is_wrong = bench.start_pair("preprocess", second, second)
    assert not bench.reports, bench.reports
    assert not is_wrong


def test_harness_notices_a_damaged_and_a_different_file(bench, tmp_path):
    contents, _ = bench.undisturbed("preprocess")
    (tmp_path / "qc.csv").write_text("a,b\n1\n")
    (tmp_path / ".x.tmp-1").write_text("ignored")
    found, damaged = stop.read_folder(tmp_path)
    assert found == {} and damaged == ["qc.csv: AssertionError: cut off"]
    assert stop.differences(contents, contents | {"qc.csv": "other"}) == ["qc.csv"]
