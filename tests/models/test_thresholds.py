"""Thresholds of a model: rates, its own default, levels of sensitivity and guarantees."""

from dataclasses import replace

import pytest

from helpers.runs import change_calibration, run_with_thresholds
from maediff.core.errors import InputError
from maediff.models.calibration import is_chosen_threshold
from maediff.models.model import read_model
from maediff.models.thresholds import DEFAULT_FPR, FPRS, Threshold, describe_healthy, is_rate


@pytest.fixture
def run(tmp_path):
    return run_with_thresholds(tmp_path / "run")


def test_the_threshold_of_a_rate_is_that_of_the_next_lower_stored_rate(run):
    thresholds = read_model(run).thresholds
    counts = {"n_marked": 2, "n_scores": 3, "share_flagged": 2 / 3}
    scans = {"source": "healthy scans", "n_scans": 1, "n_voxels": 9}
    assert thresholds.at_fpr(0.01) == Threshold(1.0, {"fpr": 0.01, **scans, **counts}, 0.1)
    assert thresholds.scale == 0.1  # the default rate is 1 %
    assert thresholds.at_fpr(0.02) == thresholds.at_fpr(0.01) == thresholds.default()
    assert (thresholds.at_fpr(0.009).value, thresholds.at_fpr(0.009).residual) == (9, 0.9)
    assert (thresholds.at_fpr(0.5).value, thresholds.at_fpr(0.5).residual) == (0.5, 0.05)
    for fpr in (1e-5, 0.9):
        with pytest.raises(
            InputError,
            match=rf"`fpr={fpr}`: calibrated rates are 0\.0001 to 0\.5; choose one of them, or "
            "use `threshold`",
        ):
            thresholds.at_fpr(fpr)


def test_stored_rates():
    assert (FPRS[0], FPRS[-1]) == (1e-5, 0.5)
    assert DEFAULT_FPR in FPRS
    assert all(is_rate(rate) for rate in FPRS)
    assert not any(is_rate(value) for value in (0.9, 1e-6, "0.01", None, 1))


def test_default_rate(run):
    assert read_model(run).default_fpr == 0.01
    change_calibration(run, default_fpr=1e-4)
    model = read_model(run)
    assert model.default_fpr == 1e-4
    assert model.thresholds.default().origin["fpr"] == 1e-4
    for wrong in (0.9, "much", None):
        change_calibration(run, default_fpr=wrong)
        with pytest.raises(
            InputError, match=rf"calibration\.json: damaged \(default_fpr {wrong}\)"
        ):
            read_model(run)


def test_default_threshold_overrides_rate(run):
    change_calibration(run, default_threshold={"value": 0.3, "chosen_on": "9 patients"})
    thresholds = read_model(run).thresholds
    origin = {"chosen_on": "9 patients", "n_marked": 1, "n_scores": 3, "share_flagged": 1 / 3}
    assert thresholds.default() == Threshold(1.0, origin, 0.3)
    assert thresholds.at_fpr(0.01) == replace(thresholds.at_fpr(0.01), value=0.1 / 0.3)
    for wrong in (0.3, {"value": 0, "chosen_on": ""}, {"value": 0.3}):
        change_calibration(run, default_threshold=wrong)
        assert not is_chosen_threshold(wrong)
        with pytest.raises(InputError, match=r"calibration\.json: damaged \(default_threshold"):
            read_model(run).thresholds.default()


def test_guarantee_for_scans(run):
    thresholds = read_model(run).thresholds
    origin = {"scan_fpr": 0.75, "source": "healthy scans", "n_scans": 3}
    counts = {"n_marked": 2, "n_scores": 3, "share_flagged": 2 / 3}
    assert thresholds.at_scan_fpr(0.75) == Threshold(1.0, {**origin, **counts}, 0.1)
    assert thresholds.at_scan_fpr(0.25).residual == 0.5
    with pytest.raises(
        InputError, match=r"`scan_fpr=0\.1`: 3 healthy scans .* use 0\.25 or .* 9 people"
    ):
        thresholds.at_scan_fpr(0.1)
    change_calibration(run, scan_scores=[])
    thresholds = read_model(run).thresholds
    with pytest.raises(InputError, match=r"no scores of healthy scans, so `scan_fpr=0\.5` has no"):
        thresholds.at_scan_fpr(0.5)
    assert "n_scores" not in thresholds.at_fpr(0.01).origin


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_impossible_threshold(value):
    with pytest.raises(InputError, match=f"`threshold={value}`: give a number of 0 or more; 1 is"):
        Threshold.given(value)


def test_given_threshold():
    assert Threshold.given(0.2) == Threshold(0.2, {"given": True}, 0.2)
    assert Threshold.given(2.0, scale=0.25) == Threshold(2.0, {"given": True}, 0.5)
    assert Threshold.given(0.0).residual == 0


def test_no_unit(run):
    """A model without valid thresholds has no unit."""
    assert read_model(run).scale == 0.1
    assert read_model(f"{run}@t_test=60").scale is None
    change_calibration(run, thresholds=[0.9, 0.0, 0.0])
    assert read_model(run).scale is None  # no value can be divided by 0
    assert read_model(run).thresholds.at_fpr(1e-4).value == 0.9
    (run / "calibration.json").unlink()
    assert read_model(run).scale is None


LEVELS = {
    "default": {"threshold": 0.1, "fpr": 0.01, "rule": "little"},
    "low": {"threshold": 0.4, "rule": "less"},
    "high": {"threshold": 0.05, "fpr": 0.5, "rule": "more"},
}
SCAN_ML = [[0.0, 0.0, 0.0], [3.0, 0.0, 1.0], [9.0, 2.0, 4.0]]


def test_levels_of_sensitivity(run):
    change_calibration(run, sensitivity=LEVELS, scan_ml=SCAN_ML)
    thresholds = read_model(run).thresholds
    assert thresholds.at_sensitivity("default") == thresholds.default() == thresholds.at_fpr(0.01)
    default = thresholds.default().origin
    assert (default["healthy_ml_median"], default["healthy_ml_p90"]) == (1, 3)
    assert default["healthy_ml_exact"]
    high = thresholds.at_sensitivity("high")
    assert (high.residual, high.origin["rule"], high.origin["healthy_ml_median"]) == (
        0.05,
        "more",
        4,
    )
    low = thresholds.at_sensitivity("low")
    # The highest stored threshold below 0.4 is 0.1; only the first scan's score is above 0.4.
    assert (low.residual, low.origin["sensitivity"], low.origin["n_marked"]) == (0.4, "low", 1)
    assert (low.origin["healthy_ml_median"], low.origin["healthy_ml_p90"]) == (0, 3)
    assert not low.origin["healthy_ml_exact"]
    with pytest.raises(InputError, match="`sensitivity='extreme'`: choose one of low, default"):
        thresholds.at_sensitivity("extreme")


def test_levels_are_ordered(run):
    """A default that a person chose limits the other levels."""
    change_calibration(run, sensitivity=LEVELS, scan_ml=SCAN_ML)
    change_calibration(run, default_threshold={"value": 0.5, "chosen_on": "9 patients"})
    thresholds = read_model(run).thresholds
    assert thresholds.at_sensitivity("low").residual == thresholds.default().residual == 0.5
    change_calibration(run, default_threshold={"value": 0.01, "chosen_on": "9 patients"})
    assert read_model(run).thresholds.at_sensitivity("high").residual == 0.01


def test_default_rate_of_levels(run):
    change_calibration(
        run, sensitivity={**LEVELS, "default": {"threshold": 0.9, "fpr": 1e-4, "rule": ""}}
    )
    model = read_model(run)
    assert (model.default_fpr, model.chosen_fpr) == (1e-4, None)
    change_calibration(run, default_fpr=0.01)
    model = read_model(run)
    assert (model.default_fpr, model.chosen_fpr) == (0.01, 0.01)


def test_no_levels(run):
    """A calibration of an older version has its default threshold only."""
    thresholds = read_model(run).thresholds
    assert thresholds.at_sensitivity("default").residual == 0.1
    for level in ("low", "high"):
        with pytest.raises(
            InputError,
            match=rf"older version, so it holds no threshold for `sensitivity='{level}'`; take "
            "thresholds from healthy scans with `maediff calibrate",
        ):
            thresholds.at_sensitivity(level)
    change_calibration(run, scan_scores=[])
    with pytest.raises(InputError, match="has no healthy scan, so it holds no threshold"):
        read_model(run).thresholds.at_sensitivity("low")


def test_detected_in_healthy_scans_in_words():
    counts = {"n_marked": 3, "n_scores": 18}
    volumes = {"healthy_ml_median": 0.0, "healthy_ml_p90": 1.496}
    assert describe_healthy({"given": True}) == ""
    assert describe_healthy(counts) == "regions in 3 of 18"
    words = "0 ml in the median, at most 1.5 ml in nine of ten, regions in 3 of 18"
    assert describe_healthy(counts | volumes) == words
    limits = counts | volumes | {"healthy_ml_exact": False}
    assert describe_healthy(limits) == f"at most {words}"


def test_threshold_of_zero(run):
    """Residuals of one sign are 0 in half of the voxels, so the highest rate may have a 0."""
    change_calibration(run, thresholds=[0.9, 0.1, 0.0])
    thresholds = read_model(run).thresholds
    assert thresholds.at_fpr(0.01).residual == 0.1
    with pytest.raises(InputError, match=r"`fpr=0\.5`: the threshold of the rate 0\.5 is 0"):
        thresholds.at_fpr(0.5)
