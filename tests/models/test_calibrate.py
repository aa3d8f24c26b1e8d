"""Calibration of models on healthy scans."""

import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest

from helpers.brains import made_cohort
from helpers.options import QUIET_CPU
from helpers.runs import ABOUT, made_run
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.models.calibrate import (
    _choose_levels,
    calibrate,
    calibrate_folder,
    unseen_healthy,
)
from maediff.models.card import read_card
from maediff.models.export import export_model
from maediff.models.model import read_model
from maediff.models.thresholds import FPRS


def codes(rows):
    return [person_code(row.dataset, row.subject) for row in rows]


def test_folder(cohort, run):
    (run / "calibration.json").unlink()
    stored = calibrate_folder(run, cohort)
    assert json.loads(json.dumps(stored)) == json.loads(
        (run / "calibration.json").read_text("utf-8")
    )
    assert (stored["source"], stored["n_scans"]) == ("healthy scans", 1)
    assert stored["fprs"] == list(FPRS) and "default_fpr" not in stored
    assert (np.diff(stored["thresholds"]) <= 0).all()
    assert len(stored["scan_scores"]) == 1
    assert [len(values) for values in stored["reconstruction"].values()] == [1, 1]
    (flag,) = read_model(run).reconstructions.check_model()  # its weights are random
    assert flag.code == "model-untrained"
    assert read_model(f"{run}@t_test=125").reconstructions is None
    chosen = read_model(run).thresholds.at_fpr(0.01)
    assert chosen.origin["fpr"] == 0.01
    n_flagged = sum(score > chosen.residual for score in stored["scan_scores"])
    assert (chosen.origin["n_marked"], chosen.origin["n_scores"]) == (n_flagged, 1)
    assert stored["thresholds"][-1] < chosen.residual <= stored["thresholds"][0]


def test_postprocessing_becomes_the_models_own(cohort, run):
    own = PostprocessConfig(median_size=1, smooth_mm=(4.0,))
    calibrate_folder(run, cohort, postprocess=own)
    assert read_model(run).postprocess == own
    calibrate_folder(run, cohort, default_fpr=1e-5)  # uses the model's own
    model = read_model(run)
    assert model.postprocess == own and model.default_fpr == 1e-5
    with pytest.raises(InputError, match=r"postprocess\.symmetry"):
        calibrate_folder(run, cohort, postprocess=PostprocessConfig(symmetry=0.5))


def test_levels_follow_their_rules(cohort, run):
    """The levels follow their rules, counted again from the stored volumes."""
    rows = [row for row in cohort.rows if row.healthy]
    stored = calibrate_folder(run, cohort, rows=rows)
    assert np.shape(stored["scan_ml"]) == (len(FPRS), len(stored["scan_scores"]))
    flagged = np.array(stored["thresholds"])[:, None] < stored["scan_scores"]
    assert ((np.array(stored["scan_ml"]) > 0) == flagged).all()
    thresholds = read_model(run).thresholds
    default, high = (thresholds.at_sensitivity(level) for level in ("default", "high"))
    assert default.origin["healthy_ml_median"] == 0 and default.origin["healthy_ml_p90"] <= 2
    assert 0 < high.origin["healthy_ml_median"] <= 2
    at = FPRS.index(default.origin["fpr"])
    more = stored["scan_ml"][at + 1]
    assert np.median(more) > 0 or np.sort(more)[-1] > 2  # fewer than ten scans: all of them
    low = thresholds.at_sensitivity("low")
    assert low.residual == max(stored["scan_scores"]) and low.origin["n_marked"] == 0
    assert low.value >= default.value >= high.value


def test_calibration_of_another_preparation_is_refused(cohort, run):
    calibrate_folder(run, cohort)
    path = run / "calibration.json"
    stored = json.loads(path.read_text("utf-8"))
    assert read_model(run).scale is not None
    for change, name in (
        ({"modality": "T2w"}, "modality"),
        ({"registration": {"enabled": True}}, "registration"),
    ):
        changed = {**stored, "preparation": {**stored["preparation"], **change}}
        path.write_text(json.dumps(changed))
        model = read_model(run)
        assert model.scale is None
        with pytest.raises(InputError, match=f"was made with other settings of {name}; use"):
            model.thresholds.default()
    path.write_text(json.dumps({**stored, "preparation": {"modality": "T1w"}}))
    with pytest.raises(InputError, match="damaged"):
        read_model(run).thresholds.default()
    del stored["preparation"]  # an older version
    path.write_text(json.dumps(stored))
    assert read_model(run).thresholds.default().value == 1


def test_chosen_rate_must_keep_healthy_scans_empty(cohort, run):
    """A rate that detects too much in the healthy scans is lowered to that of the rule."""
    rule = calibrate_folder(run, cohort)["sensitivity"]["default"]
    assert calibrate_folder(run, cohort, default_fpr=0.5)["default_fpr"] == rule["fpr"]
    assert read_model(run).thresholds.default().residual == rule["threshold"]


def test_erosion_leaves_no_brain(cohort, run):
    before = (run / "calibration.json").read_text("utf-8")
    everything = PostprocessConfig(erosion_iterations=60)
    assert calibrate_folder(run, cohort, postprocess=everything) is None
    assert (run / "calibration.json").read_text("utf-8") == before


def test_patients_only(cohort, run):
    """Without a healthy scan, lesion-free slices give rates, but no guarantee for scans."""
    patients = [row for row in cohort.split("val") if not row.healthy]
    stored = calibrate_folder(run, cohort, rows=patients)
    assert stored["source"] == "lesion-free slices of patients"
    assert stored["scan_scores"] == []


def test_copy(cohort, run, tmp_path):
    healthy = [row for row in cohort.rows if row.healthy]
    (run / "last" / "optimizer-2.pt").touch()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    changes = {"median_size": 3}
    stored = calibrate(f"{run}@t_test=60", cohort.path, out, postprocess=changes, run=QUIET_CPU)
    assert stored["n_scans"] == len(stored["scan_scores"]) == len(healthy) > 2
    model = read_model(out)
    assert model.method.config.t_test == (60,)
    assert model.postprocess.median_size == 3
    assert 0 < model.thresholds.at_fpr(0.01).residual < 1
    assert not list(out.rglob("optimizer*"))
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    some = calibrate(run, cohort.path, tmp_path / "some", max_scans=2, run=QUIET_CPU)
    assert some["n_scans"] == 2


def test_new_calibration_replaces_own_threshold_and_keeps_rate(cohort, run, tmp_path):
    stored = json.loads((run / "calibration.json").read_text("utf-8"))
    stored |= {
        "default_fpr": 1e-4,
        "default_threshold": {"value": 0.3, "chosen_on": "9 patients"},
    }
    (run / "calibration.json").write_text(json.dumps(stored))
    assert read_model(run).thresholds.default().residual == 0.3
    calibrate(run, cohort.path, tmp_path / "out", run=QUIET_CPU)
    model = read_model(tmp_path / "out")
    assert model.default_fpr == 1e-4
    assert model.thresholds.default().origin["fpr"] == 1e-4


def test_people_that_the_model_learned_from(cohort, run, tmp_path, caplog):
    healthy = [row for row in cohort.rows if row.healthy]
    (run / "train_subjects.json").write_text(json.dumps(codes(healthy[:2])))
    assert codes(unseen_healthy(cohort, read_model(run))) == codes(healthy[2:])
    calibrate(run, cohort.path, tmp_path / "some", run=QUIET_CPU)
    assert "2 person(s) left out, because" in caplog.text and healthy[0].subject in caplog.text
    (run / "train_subjects.json").write_text(json.dumps(codes(cohort.rows)))
    with pytest.raises(
        InputError, match=r"no healthy scan of a person that .*run was not trained on; add scans"
    ):
        calibrate(run, cohort.path, tmp_path / "none", run=QUIET_CPU)
    assert not (tmp_path / "none").exists()


def test_cohort_of_other_preparation(run, tmp_path):
    cohort = made_cohort(tmp_path / "site")
    meta = json.loads((cohort / "cohort.json").read_text("utf-8"))
    for change, name in (({"bias": {"enabled": True}}, "bias"), ({"modality": "T2w"}, "modality")):
        (cohort / "cohort.json").write_text(json.dumps(meta | change))
        with pytest.raises(
            InputError,
            match=rf"has another {name} than the scans of .*run'`",
        ):
            calibrate(run, cohort, tmp_path / "none", run=QUIET_CPU)
    assert not (tmp_path / "none").exists()


def test_failure_leaves_no_model(cohort, run, tmp_path):
    everything = {"erosion_iterations": 60}
    with pytest.raises(InputError, match=r"lower `postprocess\.erosion_iterations`"):
        calibrate(run, cohort.path, tmp_path / "out", postprocess=everything, run=QUIET_CPU)
    assert not (tmp_path / "out").exists()


def test_refused(cohort, run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    with pytest.raises(InputError, match="the mean of models cannot be calibrated; give one"):
        calibrate(f"{run}+{other}", cohort.path, tmp_path / "out", run=QUIET_CPU)
    overwrite = RunOptions(device="cpu", quiet=True, overwrite=True)
    with pytest.raises(InputError, match="run: holds the input"):
        calibrate(run, cohort.path, run, run=overwrite)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(InputError, match="exists and is not empty"):
        calibrate(run, cohort.path, tmp_path / "full", run=QUIET_CPU)


def test_same_thresholds_each_time(cohort, tmp_path):
    runs = [made_run(tmp_path / name) for name in "ab"]
    shutil.copytree(runs[0] / "best", runs[1] / "best", dirs_exist_ok=True)
    stored = [calibrate_folder(run, Cohort.open(cohort.path)) for run in runs]
    assert stored[0] == stored[1]


def test_a_copy_has_a_card_of_its_own(cohort, run, tmp_path):
    shipped = tmp_path / "shipped" / "ours"
    export_model(run, shipped, ABOUT)
    card = read_card(shipped)
    scored = asdict(card) | {
        "scores": [{"on": "x", "n_subjects": 1, "n_lesion": 1, "n_healthy": 0, "values": {}}]
    }
    (shipped / "card.json").write_text(json.dumps(scored))
    calibrate(shipped, cohort.path, tmp_path / "here", run=QUIET_CPU)
    copy = read_card(tmp_path / "here")
    assert (copy.name, len(copy.scores)) == ("here", 1)
    text = (tmp_path / "here" / "MODEL_CARD.md").read_text("utf-8")
    assert text.startswith("# here") and "--model ours" not in text
    changes = {"median_size": 3}
    calibrate(shipped, cohort.path, tmp_path / "other", postprocess=changes, run=QUIET_CPU)
    assert read_card(tmp_path / "other").scores == ()


def test_no_level_has_a_threshold_of_zero():
    calibration = {
        "fprs": [1e-4, 1e-3, 1e-2],
        "thresholds": [0.2, 0.1, 0.0],
        "scan_scores": [0.05, 0.05, 0.05],
        "scan_ml": [[0.0] * 3] * 3,
    }
    levels = _choose_levels(calibration)["sensitivity"]
    assert levels["default"]["threshold"] == levels["high"]["threshold"] == 0.1


def test_people_of_an_initial_model_do_not_calibrate(cohort, run, caplog):
    val = cohort.split("val")
    people = codes(row for row in val if row.healthy)
    (run / "train_subjects.json").write_text(json.dumps(people))
    stored = calibrate_folder(run, cohort)
    assert "people that the initial model learned from" in caplog.text
    assert stored is None or stored["source"] != "healthy scans"
