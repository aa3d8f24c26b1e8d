"""experiments/another_scanner/make_manifest.py on empty files with the right names."""

import csv

import pytest

from helpers.scripts import load_script
from maediff.cohort.splits import split_of

make_manifest = load_script("experiments/another_scanner/make_manifest.py")


def test_calibration_people_are_those_outside_the_train_split(tmp_path, capsys):
    subjects = [f"sub-{number:02d}" for number in range(1, 11)]
    for subject in subjects:
        path = tmp_path / "ds002748" / subject / "anat" / f"{subject}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        path.touch()
    (tmp_path / "ixi10").mkdir()
    (tmp_path / "ixi10" / "IXI012-HH-1211-T1.nii.gz").touch()
    out = tmp_path / "out.csv"
    arguments = [str(tmp_path / "ds002748"), str(tmp_path / "ixi10"), str(out)]
    assert make_manifest.main(arguments) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    unseen = [subject for subject in subjects if split_of("ds002748", subject) != "train"]
    assert 0 < len(unseen) < 10
    assert [row["subject"] for row in rows] == [*unseen, "IXI012-HH-1211"]
    assert [row["split"] for row in rows] == ["val"] * len(unseen) + ["test"]
    assert {row["healthy"] for row in rows} == {"1"}

    with pytest.raises(SystemExit, match="2"):
        make_manifest.main([str(tmp_path / "absent"), *arguments[1:]])
    (line,) = capsys.readouterr().err.splitlines()
    assert "absent: no T1w scan" in line
