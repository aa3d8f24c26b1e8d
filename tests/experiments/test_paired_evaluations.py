"""experiments/paired_comparison/paired_evaluations.py on two small tables of scores."""

import csv

import pytest

from helpers.scripts import load_script
from maediff.evaluation.summary import DIFFERENCES

paired = load_script("experiments/paired_comparison/paired_evaluations.py")


def write_scores(folder, run, auprcs):
    """Write a scores.csv with an AUPRC for each subject; the other scores stay empty."""
    folder.mkdir()
    with (folder / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "subject", "person", *DIFFERENCES])
        empty = [""] * (len(DIFFERENCES) - 1)
        for subject, auprc in auprcs.items():
            writer.writerow([run, subject, subject, auprc, *empty])
    return str(folder)


def test_mean_difference_over_the_subjects_of_both(tmp_path, capsys):
    assert DIFFERENCES[0] == "auprc"
    new = write_scores(tmp_path / "new", "a@s=48", {"p": 0.5, "q": 0.4, "only-new": 0.9})
    old = write_scores(tmp_path / "old", "a", {"p": 0.3, "q": 0.5})
    assert paired.main([new, old, "a@s=48//a"]) == 0
    run, better, difference = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (run, better) == ("a@s=48//a", "better in 1 of 2")
    assert difference == "auprc +0.050 [-0.100, +0.200]"


def test_a_run_that_was_not_scored_is_refused_in_one_line(tmp_path, capsys):
    new = write_scores(tmp_path / "new", "a", {"p": 0.5})
    old = write_scores(tmp_path / "old", "b", {"p": 0.5})
    for arguments, message in (
        ([new, old, "a"], "has no run 'a'; it has b"),
        ([new, str(tmp_path / "absent"), "a"], "absent"),
    ):
        with pytest.raises(SystemExit, match="2"):
            paired.main(arguments)
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
