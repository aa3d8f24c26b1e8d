"""Experiment on reproducibility: differences worked out by hand, resuming, and the table."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from helpers.scripts import ROOT, load_script

repeat = load_script("experiments/reproducibility/repeat_detection.py")


def write_results(folder, anomaly_map, mask, volume=1.0):
    folder.mkdir(parents=True)
    images = {"anomaly_map": anomaly_map, "anomaly_mask": mask, "brain_mask": np.ones((2, 2, 1))}
    for name, data in images.items():
        image = nib.Nifti1Image(np.asarray(data, dtype=np.float32).reshape(2, 2, 1), np.eye(4))
        nib.save(image, folder / f"{name}.nii.gz")
    (folder / "summary.json").write_text(json.dumps({"volume_ml": volume, "score": 0.5}))


def test_differences_of_four_voxels(tmp_path):
    write_results(tmp_path / "base" / "T1w" / "sub-1", [0, 0.5, 1, 2], [0, 0, 1, 1])
    write_results(tmp_path / "bf16" / "T1w" / "sub-1", [0, 0.5, 0.75, 2.5], [0, 0, 0, 1], 0.5)
    (row,) = repeat.compare_all(tmp_path, repeat.VARIANTS)
    assert (row["variant"], row["scan"], row["identical"]) == ("bf16", "sub-1_T1w", 0)
    assert float(row["dice"]) == pytest.approx(2 / 3, abs=1e-6)  # 2 * 1 / (2 + 1)
    assert (row["mean_difference"], row["largest_difference"]) == ("1.9e-01", "5.0e-01")
    assert (row["volume_ml"], row["base_volume_ml"]) == ("0.500", "1.000")


def test_equal_and_empty_results_are_identical(tmp_path):
    for name in ("base", "again"):
        write_results(tmp_path / name / "T1w" / "sub-1", [0, 0, 0.5, 0], [0, 0, 0, 0])
    (row,) = repeat.compare_all(tmp_path, repeat.VARIANTS)
    assert (row["identical"], float(row["dice"]), row["largest_difference"]) == (1, 1, "0.0e+00")


def test_a_contrast_in_the_name_is_not_repeated(tmp_path):
    for name in ("base", "again"):
        write_results(tmp_path / name / "FLAIR" / "Subj10_FLAIR", [0, 0, 0, 0], [0, 0, 0, 0])
    (row,) = repeat.compare_all(tmp_path, repeat.VARIANTS)
    assert row["scan"] == "Subj10_FLAIR"


def test_finished_commands_are_skipped_and_the_time_is_limited(tmp_path, monkeypatch, capsys):
    commands = []

    def detect(variant, scans, out):
        commands.append(out.relative_to(tmp_path).as_posix())
        for scan in scans:
            write_results(out / scan.name.split("_")[0], [0, 0, 0, 0], [0, 0, 0, 0])

    monkeypatch.setattr(repeat, "run_variant", detect)
    arguments = ["measure", "--work", str(tmp_path), "--csv", str(tmp_path / "out" / "d.csv")]
    assert repeat.main([*arguments, "--minutes", "1e-9"]) == 1
    assert not commands and "run again to resume" in capsys.readouterr().out
    assert repeat.main(arguments) == 0
    assert commands == [f"{name}/{c}" for name in repeat.VARIANTS for c in ("FLAIR", "T1w")]
    assert repeat.main(arguments) == 0
    assert len(commands) == 2 * len(repeat.VARIANTS)
    rows = list(csv.DictReader((tmp_path / "out" / "d.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 2 * (len(repeat.VARIANTS) - 1)
    capsys.readouterr()
    assert repeat.main(["table", str(tmp_path / "out" / "d.csv")]) == 0
    header, _, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("| change |") and len(lines) == len(repeat.VARIANTS) - 1
    assert lines[0] == "| the same command again | 2 of 2 | 1.0000 | 0 | 0 | 0.00 |"


def test_a_folder_that_exists_is_resumed(tmp_path):
    command = repeat.detect_command(repeat.VARIANTS["threads"], [], tmp_path)
    assert command[-3:] == ["--threads", "2", "--resume"]
    assert "--resume" not in repeat.detect_command(repeat.VARIANTS["again"], [], tmp_path / "new")


@pytest.mark.parametrize("text", ["sub-1=a.nii", "sub-1_T1w", "sub-1_PDw=a.nii"])
def test_a_scan_needs_name_contrast_and_path(text, tmp_path, capsys):
    arguments = ["measure", "--work", str(tmp_path), "--csv", str(tmp_path / "d.csv")]
    with pytest.raises(SystemExit, match="2"):
        repeat.main([*arguments, text])
    assert "give NAME_CONTRAST=PATH" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="no such file"):
        repeat.main([*arguments, "sub-1_T1w=absent.nii"])


def test_the_page_has_the_table_of_the_stored_differences():
    page = (ROOT / "docs" / "explanation" / "reproducibility.md").read_text(encoding="utf-8")
    table = repeat.read_table(ROOT / "experiments" / "reproducibility" / "differences.csv")
    assert table in page
