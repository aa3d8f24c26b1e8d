"""Calibration of a model: what calibration.json is valid for, and damaged files."""

import json
from dataclasses import replace
from functools import partial

import pytest

from helpers.runs import change_calibration, run_with_thresholds
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.core.errors import InputError
from maediff.models.calibration import read_calibration
from maediff.models.model import read_model
from maediff.models.thresholds import DEFAULT_FPR

HIGH = {"threshold": 5.0, "rule": "more"}
SCAN_ML = [[0.0, 0.0, 0.0], [3.0, 0.0, 1.0], [9.0, 2.0, 4.0]]


@pytest.fixture
def run(tmp_path):
    return run_with_thresholds(tmp_path / "run")


def test_a_calibration_of_other_settings_is_not_valid(run):
    for request in ("default", "at_fpr", "at_scan_fpr"):
        thresholds = read_model(f"{run}@t_test=60,s=24").thresholds
        arguments = () if request == "default" else (0.5,)
        with pytest.raises(
            InputError, match=r"calibration\.json: was made with other settings of t_test, s; use "
        ):
            getattr(thresholds, request)(*arguments)
    changed = read_model(run).with_postprocess({"median_size": 3})
    with pytest.raises(InputError, match="other settings of postprocess"):
        changed.thresholds.default()
    change_calibration(run, step=9)
    with pytest.raises(InputError, match="earlier training step than the weights; finish"):
        read_model(run).thresholds.default()


def test_a_model_without_calibration_has_no_thresholds(run):
    (run / "calibration.json").unlink()
    assert read_calibration(run) is None
    model = read_model(run)
    assert model.postprocess == PostprocessConfig()
    assert model.default_fpr == DEFAULT_FPR
    with pytest.raises(
        InputError, match=r"calibration\.json: absent.*`train\.calibration_scans=0`; use `thresh"
    ):
        model.thresholds.default()


def test_the_post_processing_is_that_of_the_calibration(run):
    own = PostprocessConfig(median_size=1, smooth_mm=(4.0,))
    change_calibration(run, postprocess={"median_size": 1, "smooth_mm": [4.0]})
    model = read_model(run)
    assert model.postprocess == own
    assert model.with_postprocess({"median_size": 3}).postprocess == replace(own, median_size=3)
    assert model.thresholds.at_fpr(0.01).residual == 0.1
    for damaged in ["{", '{"postprocess": {"median_size": "wide"}}', "{}", "[]", '"text"']:
        (run / "calibration.json").write_text(damaged)
        with pytest.raises(InputError, match=r"calibration\.json: .*delete it"):
            read_model(run)


@pytest.mark.parametrize(
    "change",
    [
        {"config": [1]},
        {"config": "x"},
        {"fprs": "x"},
        {"thresholds": [None] * 3},
        {"thresholds": []},
        {"fprs": [], "thresholds": []},
        {"step": None, "config": None},
    ],
)
def test_damaged_entries_are_named_when_a_threshold_is_asked_for(run, change):
    change_calibration(run, **change)
    thresholds = read_model(run).thresholds
    for request in (thresholds.default, partial(thresholds.at_fpr, 0.01)):
        with pytest.raises(
            InputError,
            match=r"calibration\.json: damaged .*; use `threshold`, or calibrate the model again",
        ):
            request()


@pytest.mark.parametrize("scores", [["x", 0.1], [None], "text"])
def test_scores_that_are_no_numbers_are_refused(run, scores):
    change_calibration(run, scan_scores=scores)
    with pytest.raises(
        InputError,
        match=r"calibration\.json: damaged \(its scan_scores or scan_ml are no numbers\)",
    ):
        read_model(run).thresholds.at_scan_fpr(0.5)


def test_a_missing_entry_is_named(run):
    stored = json.loads((run / "calibration.json").read_text("utf-8"))
    del stored["n_voxels"]
    (run / "calibration.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match=r"calibration\.json: damaged \('n_voxels'\)"):
        read_model(run).thresholds.default()


@pytest.mark.parametrize(
    "change",
    [
        {"scan_ml": [[0.0], [0.0], [0.0]]},
        {"scan_ml": SCAN_ML[:2]},
        {"sensitivity": {"low": {"threshold": "x", "rule": ""}}},
        {"sensitivity": {"low": {}}},
        {"sensitivity": {"high": HIGH}},
        {"scan_ml": [[0.0, 0.0, 0.0], [3.0, 0.0, -1.0], [9.0, 2.0, 4.0]]},
        {"scan_ml": [[0.0, 0.0, 0.0], [3.0, 0.0, 1.0], [9.0, 2.0, float("inf")]]},
        {"sensitivity": [1]},
    ],
)
def test_damaged_levels_are_refused(run, change):
    change_calibration(run, **change)
    with pytest.raises(
        InputError, match=r"calibration\.json: damaged .*calibrate the model again"
    ):
        read_model(run).thresholds.default()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"thresholds": [5.0, 0.1, 0.05]}, r"threshold 5 for the rate 0\.0001, expected 0 to 1"),
        ({"thresholds": [0.9, -0.1, -0.2]}, r"threshold -0\.1 for the rate 0\.01, expected"),
        ({"thresholds": [0.9, float("nan"), 0.05]}, r"threshold nan for the rate 0\.01"),
        ({"thresholds": [0.05, 0.1, 0.9]}, r"threshold 0\.1 for the rate 0\.01, but only 0\.05"),
        ({"thresholds": [0.9, 0.05, 0.1]}, r"threshold 0\.1 for the rate 0\.5, but only 0\.05"),
        ({"thresholds": [0.9, 0.1]}, "2 thresholds for 3 different rates in 3"),
        ({"n_scans": -1}, "n_scans -1, expected a whole number"),
        ({"n_voxels": "x"}, "n_voxels 'x', expected a whole number"),
        ({"source": 5}, "source 5, expected a text"),
        ({"fprs": [1e-4, 0.01, 0.01]}, "3 thresholds for 2 different rates in 3"),
        ({"thresholds": ["0.9", 0.1, 0.05]}, "its fprs and thresholds are no lists of numbers"),
        ({"thresholds": [True, 0.1, 0.05]}, "its fprs and thresholds are no lists of numbers"),
        ({"fprs": [1e-4, 0.01, 1.5]}, r"rates 0\.0001 to 1\.5, expected between 0 and 1"),
        ({"fprs": [0, 0.01, 0.5]}, "rates 0 to"),
        ({"fprs": [], "thresholds": []}, "it holds no rate"),
        ({"scan_scores": [0.1, 7.0]}, "scan score or volume 7, expected 0 to 1"),
        ({"scan_scores": [float("inf")]}, "scan score or volume inf, expected"),
    ],
)
def test_impossible_values_are_named(run, changes, reason):
    change_calibration(run, **changes)
    thresholds = read_model(run).thresholds
    for request in (thresholds.default, partial(thresholds.at_scan_fpr, 0.5)):
        with pytest.raises(InputError, match=rf"calibration\.json: damaged \(.*{reason}"):
            request()
