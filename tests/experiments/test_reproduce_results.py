"""experiments/reproduce_results: commands, resuming, and the comparison with recorded scores."""

import csv
import json
import subprocess

import pytest

from helpers.scripts import load_script, parse_command

reproduce = load_script("experiments/reproduce_results/reproduce_results.py")

BEFORE = """\
maediff preprocess DATA/lgg/t1.csv -o cohorts/lgg-t1 --modality T1w --like t1 --resume
maediff evaluate t1 --cohort cohorts/lgg-t1 -o runs/results-lgg-t1 --overwrite
maediff preprocess DATA/lgg/flair.csv -o cohorts/lgg-flair --modality FLAIR --like flair --resume
maediff evaluate flair-lgg --cohort cohorts/lgg-flair -o runs/results-lgg-flair-lgg --overwrite
maediff evaluate flair --cohort cohorts/lgg-flair --score-split val --calibrate-split val \
-o runs/results-lgg-flair-val --overwrite
python scripts/make_pseudo_t2.py DATA/mslub/patient07 DATA/lgg/flair.csv DATA/lgg/t1.csv \
cohorts/t2-like-scans
maediff preprocess cohorts/t2-like-scans/manifest.csv -o cohorts/t2-like --modality T2w --like t2 \
--resume
maediff evaluate t2 --cohort cohorts/t2-like --score-split val --calibrate-split val \
-o runs/results-t2-like --overwrite
python scripts/make_phantoms.py cohorts/phantom-scans T2w 0 16 16 4 4
maediff preprocess cohorts/phantom-scans/manifest.csv -o cohorts/phantoms --modality T2w \
--like t2 --resume
maediff evaluate t2 --cohort cohorts/phantoms -o runs/results-phantoms --overwrite
maediff preprocess cohorts/ms-t1.csv -o cohorts/ms-t1 --modality T1w --like t1 --resume
maediff evaluate t1 --cohort cohorts/ms-t1 --score-split val --calibrate-split val \
-o runs/results-ms-t1 --overwrite
maediff preprocess cohorts/ms-flair.csv -o cohorts/ms-flair --modality FLAIR --like flair --resume
maediff evaluate flair --cohort cohorts/ms-flair --score-split val --calibrate-split val \
-o runs/results-ms-flair --overwrite
maediff preprocess cohorts/ms-t2.csv -o cohorts/ms-t2 --modality T2w --like t2 --resume
maediff evaluate t2 --cohort cohorts/ms-t2 --score-split val --calibrate-split val \
-o runs/results-ms-t2 --overwrite
"""
"""Commands of `make results DATA=DATA` at commit 2191e71, which gave the recorded scores.

They were recorded by running its Makefile with programs that only print their arguments.
"""
RENAMED = {
    "scripts/make_pseudo_t2.py": "experiments/t2_like_scans/make_pseudo_t2.py",
    "scripts/make_phantoms.py cohorts/phantom-scans T2w 0 16 16 4 4": (
        "tools/make_phantoms.py cohorts/phantom-scans --contrast T2w --train 0 --val 16 --test 16 "
        "--healthy-val 4 --healthy-test 4 --overwrite"
    ),
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Make the folders of the data sets in an empty current folder, and return their path."""
    monkeypatch.chdir(tmp_path)
    for name in ("lgg", "mslub/patient07"):
        (tmp_path / "DATA" / name).mkdir(parents=True)
    return "DATA"


@pytest.fixture
def commands(monkeypatch):
    """Return the steps that are run; each one writes the file that shows that it is done."""
    ran = []

    def record(step):
        ran.append(str(step))
        if step.done:
            step.done.parent.mkdir(parents=True, exist_ok=True)
            scores = {"auprc": {"mean": 0.5}}
            names = dict.fromkeys(("t1", "t2", "flair", "flair-lgg"), scores)
            step.done.write_text(json.dumps({"methods": names}))

    monkeypatch.setattr(reproduce, "run", record)
    return ran


def test_dry_run_prints_the_commands_of_the_recorded_scores(capsys):
    assert reproduce.main(["--data", "DATA", "--dry-run"]) == 0
    expected = BEFORE
    for old, new in RENAMED.items():
        expected = expected.replace(old, new)
    assert capsys.readouterr().out == expected


def test_every_command_has_options_that_exist():
    for line in [str(step) for step in reproduce.steps(*map(reproduce.Path, ("D D", "c", "r")))]:
        parse_command(line)


def test_a_manifest_for_each_scan_of_the_patient(data, tmp_path):
    reproduce.write_patient_manifests(reproduce.Path(data), tmp_path)
    with (tmp_path / "ms-flair.csv").open() as file:
        (row,) = csv.DictReader(file)
    folder = tmp_path / "DATA" / "mslub" / "patient07"
    assert row["image"] == str(folder / "FLAIR.nii.gz")
    assert row["lesion_mask"] == str(folder / "lesion_mask.nii.gz")
    assert (row["split"], row["healthy"]) == ("val", "0")
    assert (tmp_path / "ms-t1.csv").is_file()
    assert (tmp_path / "ms-t2.csv").is_file()


def test_a_second_run_only_repeats_what_resumes_by_itself(data, commands, capsys):
    assert reproduce.main(["--data", data]) == 0
    assert len(commands) == 17
    commands.clear()
    assert reproduce.main(["--data", data]) == 0
    assert [line.split()[1] for line in commands] == ["preprocess"] * 7
    commands.clear()
    assert reproduce.main(["--data", data, "--overwrite"]) == 0
    assert sum("evaluate" in line for line in commands) == 8
    last = capsys.readouterr().out.splitlines()[-8:]
    expected = "results-lgg-t1 t1 AUPRC 0.500, recorded 0.667, difference -0.167"
    assert " ".join(last[0].split()) == expected


def test_a_failed_command_stops_the_run(data, monkeypatch, capsys):
    def fail(command, check):
        raise subprocess.CalledProcessError(2, command)

    monkeypatch.setattr(subprocess, "run", fail)
    assert reproduce.main(["--data", data]) == 2
    output = capsys.readouterr()
    assert output.err == f"error: stopped at: {output.out}"


def test_missing_data_is_refused_in_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        reproduce.main(["--data", str(tmp_path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert "lgg, mslub/patient07" in line
