"""Reconstruction errors for a model that was calibrated earlier."""

import json

import pytest

from helpers.brains import made_cohort
from helpers.runs import made_run
from helpers.scripts import load_script
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.models.calibrate import calibrate_folder
from maediff.models.model import read_model

add_reconstruction = load_script("tools/measure_reconstruction.py").add_reconstruction


def test_same_entry_as_calibration(tmp_path):
    cohort = Cohort.open(made_cohort(tmp_path))
    run = made_run(tmp_path / "run")
    calibrate_folder(run, cohort, rows=[row for row in cohort.rows if row.healthy])
    path = run / "calibration.json"
    before = json.loads(path.read_text("utf-8"))
    older = {key: value for key, value in before.items() if key != "reconstruction"}
    path.write_text(json.dumps(older))
    assert read_model(run).reconstructions is None
    add_reconstruction(run, cohort.path)
    after = json.loads(path.read_text("utf-8"))
    for key, values in before["reconstruction"].items():
        assert sorted(after["reconstruction"][key]) == sorted(values)
    assert {key: after[key] for key in older} == older
    assert read_model(run).reconstructions is not None


def test_cohort_without_healthy_scans(tmp_path):
    cohort = made_cohort(tmp_path)
    run = made_run(tmp_path / "run")
    calibrate_folder(run, Cohort.open(cohort))
    manifest = cohort / "manifest.csv"
    lines = manifest.read_text("utf-8").splitlines()
    manifest.write_text("\n".join(line.replace(",1,", ",0,") for line in lines) + "\n")
    with pytest.raises(InputError, match="no healthy scan of a person"):
        add_reconstruction(run, cohort)
