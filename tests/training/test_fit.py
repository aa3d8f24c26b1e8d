"""`fit`: healthy scans in, a calibrated model out; resumable; few people are named."""

import json

import pytest

from helpers.brains import UNREGISTERED, made_brain, save
from helpers.options import OVERWRITE, QUIET_CPU, RESUME
from helpers.training import FAST
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.models.model import read_model
from maediff.training.fit import describe_limits, fit


def make_scans(folder, n):
    for number in range(n):
        data, _, affine = made_brain(shape=(60, 72, 6), spacing=(2.0, 2.0, 12.0), seed=number)
        save(folder / f"sub-{number:02}_T1w.nii.gz", data, affine)
    return folder


def fit_small(inputs, out, run=QUIET_CPU, **changes):
    options = {"preset": "tiny", "settings": FAST, "preparation": UNREGISTERED, **changes}
    return fit([inputs], out, run=run, **options)


def test_model_of_few_people(tmp_path, caplog):
    scans, out = make_scans(tmp_path / "scans", 4), tmp_path / "model"
    report = fit_small(scans, out)
    assert (report.n_train, report.n_calibration, report.n_failed) == (1, 3, 0)
    assert (report.step, report.steps) == (6, 6)
    cohort = Cohort.open(tmp_path / "model-cohort")
    trained = {person_code(row.dataset, row.subject) for row in cohort.split("train")}
    model = read_model(out)
    assert model.learned_from == trained and len(trained) == 1
    calibration = json.loads((out / "calibration.json").read_text("utf-8"))
    assert calibration["n_scans"] == len(calibration["scan_scores"]) == 3
    assert model.thresholds.default().value == 1
    assert len(report.limits) == 3
    assert "no rate of flagged healthy scans below 0.25 can be guaranteed" in caplog.text
    # A finished fit changes nothing.
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/model.safetensors")}
    again = fit_small(scans, out, run=RESUME)
    assert (again.n_calibration, again.step) == (3, 6)
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/model.safetensors")} == before
    with pytest.raises(InputError, match="exists and is not empty"):
        fit_small(scans, out)
    assert fit_small(scans, out, run=OVERWRITE).step == 6


def test_stopped_fit_resumes(tmp_path):
    scans, out = make_scans(tmp_path / "scans", 4), tmp_path / "model"
    stopped = fit_small(scans, out, max_time="0s")
    assert stopped.step < 6
    resumed = fit_small(scans, out, run=RESUME)
    assert resumed.step == 6
    calibration = json.loads((out / "calibration.json").read_text("utf-8"))
    assert calibration["step"] == read_model(out).step


def test_one_person_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"no subject is left to train on.* give scans of at least 4 people"
    ):
        fit_small(make_scans(tmp_path / "scans", 1), tmp_path / "model")


def test_scans_in_a_folder_that_would_be_emptied_are_refused(tmp_path):
    scans = make_scans(tmp_path / "model-cohort", 2)
    (scans / ".maediff").touch()
    with pytest.raises(InputError, match="model-cohort: holds the input"):
        fit_small(scans, tmp_path / "model", run=OVERWRITE)
    assert len(list(scans.glob("*.nii.gz"))) == 2 and not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "madiff"}, "method 'madiff' is not known"),
        ({"method": "bright"}, "`method='bright'`: has nothing to train"),
        ({"max_time": "2hours"}, "2hours"),
        ({"preset": "huge"}, "preset 'huge' is not known"),
        ({"settings": {"train": {"stepz": 1}}}, "stepz"),
        ({"settings": {"train": {"precision": "fp16"}}}, "fp16 needs a CUDA device"),
        ({"settings": {"p": 32}, "modality": "T1w"}, "s=48 is not in 1..p=32"),
        ({"settings": {"size": 64}}, "slices of 96 pixels, but the method's size is 64"),
        ({"settings": {"train": 5}}, "5 is not a group of settings; write train.KEY=VALUE"),
    ],
)
def test_settings_are_refused_before_a_folder_is_emptied(tmp_path, changes, message):
    scans = make_scans(tmp_path / "scans", 1)
    for name in ("model", "model-cohort"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".maediff").touch()
        (tmp_path / name / "kept").touch()
    with pytest.raises(InputError, match=message):
        fit_small(scans, tmp_path / "model", run=OVERWRITE, **changes)
    assert (tmp_path / "model" / "kept").exists() and (tmp_path / "model-cohort" / "kept").exists()


def test_scans_without_a_contrast_are_refused_before_a_folder_is_emptied(tmp_path):
    scans = make_scans(tmp_path / "scans", 2)
    for path in scans.glob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace("_T1w", "")))
    (tmp_path / "model").mkdir()
    for name in (".maediff", "kept"):
        (tmp_path / "model" / name).touch()
    with pytest.raises(InputError, match="the file names give no single modality"):
        fit_small(scans, tmp_path / "model", run=OVERWRITE)
    assert (tmp_path / "model" / "kept").exists()


def test_few_people_limit_what_is_guaranteed():
    assert describe_limits(7, 3) == ()
    few = describe_limits(6, 3)
    assert all("only 9 people" in limit for limit in few) and "below 0.25" in few[1]
    assert "no thresholds" in describe_limits(2, 0)[1]
