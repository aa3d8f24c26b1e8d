"""tools/make_phantoms.py: arguments, and a small data set."""

import csv

import pytest

from helpers.scripts import load_script
from maediff.synthetic.dataset import MIX

make_phantoms = load_script("tools/make_phantoms.py")
NONE = [f"--{name}=0" for name in ("train", "val", "test", "healthy-val", "healthy-test")]


@pytest.mark.slow
def test_writes_the_subjects_asked_for(tmp_path, capsys):
    out = tmp_path / "out"
    assert make_phantoms.main([str(out), "--contrast", "FLAIR", *NONE, "--val=1"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "manifest.csv")
    with (out / "manifest.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["split"], row["healthy"], row["lesion_kind"]) == ("val", "0", MIX.lesions[0][0])


def test_defaults_are_the_whole_mix():
    args = vars(make_phantoms.build_parser().parse_args(["out"]))
    counts = ("n_train", "n_val", "n_test", "n_healthy_val", "n_healthy_test", "seed")
    assert {name: args[name] for name in counts} == {name: getattr(MIX, name) for name in counts}
    assert args["contrast"] == "T1w"


@pytest.mark.parametrize("arguments", [["--val=-1"], ["--val=x"], ["--contrast=PD"]])
def test_bad_arguments_are_refused(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        make_phantoms.main([str(tmp_path / "out"), *arguments])
    assert arguments[0].partition("=")[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        make_phantoms.main([str(tmp_path), *NONE])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path}")
