"""Thresholds from one's own scans: `calibrate`, then `detect`; and training from a model."""

import json
import shutil

import pytest

from helpers.brains import made_brain, made_cohort, save
from helpers.detection import detect_in
from helpers.options import QUIET_CPU
from helpers.runs import made_run
from maediff.cohort.cohort import Cohort
from maediff.models.calibrate import calibrate, calibrate_folder
from maediff.models.model import read_model
from maediff.models.thresholds import FPRS
from maediff.report import write_report
from maediff.training.train import train

TRAIN = {"train": {"steps": 2, "batch_size": 2, "checkpoint_every": 2}}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def model(cohort, tmp_path):
    """A run with its own rate and threshold, calibrated on `cohort`."""
    run = made_run(tmp_path / "model")
    stored = calibrate_folder(run, Cohort.open(cohort))
    own = {"value": 0.3, "chosen_on": "9 patients"}
    changed = {**stored, "default_fpr": 1e-4, "default_threshold": own}
    (run / "calibration.json").write_text(json.dumps(changed))
    return run


@pytest.fixture
def scan(tmp_path):
    data, _, affine = made_brain(shape=(60, 72, 6), spacing=(2.0, 2.0, 12.0))
    return save(tmp_path / "in" / "sub-1_T1w.nii.gz", data, affine)


def detect(scan, out, model, **options):
    """Detect in a scan, and return detect.json."""
    assert not detect_in([scan], out, model, **options).failures
    return json.loads((out / "detect.json").read_text("utf-8"))


def test_calibrated_copy(cohort, model, scan, tmp_path):
    before = detect(scan, tmp_path / "before", model)
    assert (before["threshold"], before["scale"]) == (1, 0.3)
    assert before["threshold_from"]["chosen_on"] == "9 patients"
    assert detect(scan, tmp_path / "rate", model, fpr=0.01)["threshold_from"]["fpr"] == 0.01
    calibrate(f"{model}@t_test=60", cohort, tmp_path / "site", run=QUIET_CPU)
    after = detect(scan, tmp_path / "after", tmp_path / "site")
    assert after["model"] == "site" and after["config"]["t_test"] == [60]
    # The copy keeps the model's rate, and drops the threshold chosen on other scans.
    assert after["threshold_from"]["fpr"] == 1e-4
    assert after["threshold_from"]["n_scans"] > 2
    page = write_report(tmp_path / "after").read_text("utf-8")
    assert "9 patients" not in page
    assert detect(scan, tmp_path / "scans", tmp_path / "site", scan_fpr=0.5)["threshold"] > 0


def test_model_trained_from_another(cohort, model, tmp_path, caplog):
    options = {"settings": TRAIN, "init": model, "run": QUIET_CPU}
    train("maediff", cohort, tmp_path / "tuned", **options)
    tuned = read_model(tmp_path / "tuned")
    assert tuned.default_fpr == 1e-4 and 1e-4 in FPRS
    assert tuned.thresholds.default().origin["fpr"] == 1e-4
    symmetric = shutil.copytree(model, tmp_path / "symmetric")
    stored = json.loads((symmetric / "calibration.json").read_text("utf-8"))
    stored["postprocess"] |= {"symmetry": 0.5}
    (symmetric / "calibration.json").write_text(json.dumps(stored))
    train("maediff", cohort, tmp_path / "unregistered", **options | {"init": symmetric})
    assert "are not registered to MNI152; the run is calibrated without symmetry" in caplog.text
    assert read_model(tmp_path / "unregistered").postprocess.symmetry == 0
