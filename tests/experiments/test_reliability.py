"""Short form of the harness in experiments/reliability: mutated inputs, kills, pairs."""

import os
import random
import time

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
    monkeypatch.setattr(inputs, "HANG_SECONDS", 2)
    works = [
        lambda: "accepted",
        lambda: 1 / 0,
        lambda: time.sleep(50),
        lambda: os._exit(7),
        lambda: "refused" if bytearray(200_000_000) else "",
    ]
    good, escaped, hangs, crashed, large = inputs.run_apart(works)
    assert good[0] == "accepted" and good[1] < 50
    assert escaped[0] == "escaped" and "ZeroDivisionError" in escaped[2]
    assert hangs[0] == "hangs"
    assert crashed[::2] == ("escaped", "the process crashed")
    assert large[0] == "refused" and large[1] > 150


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
