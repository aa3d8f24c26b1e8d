"""`evaluate` on a small cohort with random networks."""

import csv
import json
import shutil

import pytest

from helpers.options import OVERWRITE, QUIET
from helpers.scores import made_small_run
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.anomaly.snapshots import load_slices
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.evaluation.evaluate import evaluate, group_names, write_scores
from maediff.evaluation.scoring import ScoringConfig
from maediff.methods.registry import BASELINES


def test_files_and_summary(tmp_path, flair_cohort, capsys):
    runs = [made_small_run(tmp_path / f"ddpm-{seed}", seed=seed) for seed in (0, 1)]
    out = tmp_path / "eval"
    returned = evaluate(runs, str(flair_cohort), str(out), notes=["First."])
    assert capsys.readouterr().out == ""  # the progress bar is on the error stream
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary.keys() == returned.keys()
    baselines = {*BASELINES} - {"mirror", "mirror-dark"}  # the scans are not registered
    assert set(summary["methods"]) == {*baselines, "ddpm-0", "ddpm-1"}
    impossible = ("No mirror baseline", "No mirror-dark baseline")
    assert sum(note.startswith(impossible) for note in summary["notes"]) == 2
    assert summary["notes"][0] == "First."
    assert summary["groups"]["ddpm"]["seeds"] == [0, 1]
    assert summary["methods"]["slice"]["auprc"]["mean"] > 0.5
    assert summary["methods"]["ddpm-0"]["l1_healthy"]["mean"] > 0
    assert (summary["score_split"], summary["calibrate_split"]) == ("test", "val")
    assert len(summary["config_hash"]) == len(summary["cohort_hash"]) == 64
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (len(baselines) + 2) * 2
    assert {row["subject"] for row in rows} == {"test-ill", "test-healthy"}
    assert [row["auprc"] == "" for row in rows] == [row["healthy"] == "true" for row in rows]
    assert "ddpm-1" in (out / "table.md").read_text("utf-8")
    shown = load_slices(out / "slices" / "ddpm-0" / "test-ill.npz")
    assert shown.lesion.any()
    assert shown.reference is not None
    with pytest.raises(InputError, match="exists"):
        evaluate(runs, flair_cohort, out, run=QUIET)
    assert evaluate(runs[0], flair_cohort, out, run=OVERWRITE)["groups"].keys() == {"ddpm"}


def test_scores_depend_on_neither_batch_size_nor_order(tmp_path, flair_cohort):
    runs = [made_small_run(tmp_path / name) for name in ("one", "two")]
    first = evaluate(runs, flair_cohort, tmp_path / "a", run=RunOptions(quiet=True, batch_size=3))
    again = evaluate(runs[::-1], flair_cohort, tmp_path / "b", run=QUIET)
    for name in ("one", "two", "template"):
        auprc = [summary["methods"][name]["auprc"]["mean"] for summary in (first, again)]
        assert auprc[0] == pytest.approx(auprc[1], rel=1e-4)


def test_refused_input_leaves_no_folder(tmp_path, flair_cohort):
    good, other = (
        made_small_run(tmp_path / "good"),
        made_small_run(tmp_path / "t1", modality="T1w"),
    )
    with pytest.raises(InputError, match=r"t1.*T1w.*FLAIR"):
        evaluate([good, other], flair_cohort, tmp_path / "out", run=QUIET)
    with pytest.raises(InputError, match="unknown precision"):
        evaluate(good, flair_cohort, tmp_path / "out", precision="fp16", run=QUIET)
    with pytest.raises(InputError, match="holds the input"):
        evaluate(good, flair_cohort, good, run=OVERWRITE)
    assert not (tmp_path / "out").exists()


def test_run_trained_on_scored_subjects_may_score_the_train_split(tmp_path, flair_cohort):
    summary = evaluate([], flair_cohort, tmp_path / "out", score_split="train", run=QUIET)
    assert "trained on these subjects" in summary["notes"][0]


def test_symmetry_needs_registered_scans(tmp_path, flair_cohort):
    symmetry = {"symmetry": 0.5}
    message = r"postprocess\.symmetry 0\.5 .* the scans are not registered"
    with pytest.raises(InputError, match=message):
        evaluate([], flair_cohort, tmp_path / "none", postprocess=symmetry, run=QUIET)
    assert not (tmp_path / "none").exists()
    turned = shutil.copytree(flair_cohort, tmp_path / "turned")
    meta = json.loads((flair_cohort / "cohort.json").read_text("utf-8"))
    meta["registration"]["enabled"] = True  # the midline of these brains is in the middle
    (turned / "cohort.json").write_text(json.dumps(meta))
    symmetric = evaluate([], turned, tmp_path / "eval", postprocess=symmetry, run=QUIET)
    plain = evaluate([], turned, tmp_path / "plain", run=QUIET)
    auprc = {name: method["auprc"]["mean"] for name, method in plain["methods"].items()}
    assert auprc["mirror"] > auprc["bright"]  # the lesion is bright and on one side
    assert auprc["mirror"] > auprc["mirror-dark"]
    assert symmetric["methods"]["bright"]["auprc"]["mean"] > auprc["bright"]
    assert any("minus 50% of what both sides" in note for note in symmetric["notes"])


def test_calibration_on_the_scored_split(tmp_path, flair_cohort):
    summary = evaluate([], flair_cohort, tmp_path / "out", score_split="val", run=QUIET)
    assert "optimistic" in summary["notes"][0]
    assert summary["methods"]["bright"]["dice"] == summary["methods"]["bright"]["dice_oracle"]


def test_postprocess_of_the_runs(tmp_path, flair_cohort):
    one, other = made_small_run(tmp_path / "one"), made_small_run(tmp_path / "other")

    def used(name, runs, postprocess=None, **scoring):
        summary = evaluate(
            runs,
            flair_cohort,
            tmp_path / name,
            scoring=ScoringConfig(**scoring),
            postprocess=postprocess,
            run=QUIET,
        )
        config, notes = summary["config"]["postprocess"], " ".join(summary["notes"])
        assert (f"median filter {config['median_size']} " in notes) == (config["median_size"] > 1)
        assert ("Gaussian blur of 4 mm" in notes) == (config["smooth_mm"] == (4.0,))
        assert ("one has its own post-processing" in notes) == (name == "disagree")
        auprc = summary["methods"]["slice"]["auprc"]["mean"]
        return config["median_size"], config["smooth_mm"], auprc

    default = used("default", [one])
    assert default[:2] == (5, ())
    content = {"postprocess": {"median_size": 1, "smooth_mm": 4.0}}
    (one / "calibration.json").write_text(json.dumps(content))
    blurred = used("own", [one])
    assert blurred[:2] == (1, (4.0,)) and blurred[2] != default[2]  # the baselines' too
    assert used("disagree", [one, other]) == default
    assert used("changed", [one], {"median_size": 3})[:2] == (3, (4.0,))


def test_postprocess_of_the_config_overrides_that_of_the_runs(tmp_path, flair_cohort):
    run = made_small_run(tmp_path / "run")
    (run / "calibration.json").write_text(json.dumps({"postprocess": {"median_size": 1}}))
    scoring = ScoringConfig(postprocess=PostprocessConfig())
    summary = evaluate(run, flair_cohort, tmp_path / "out", scoring=scoring, run=QUIET)
    assert summary["config"]["postprocess"]["median_size"] == 5


# ---- groups


def made_record(method="pddpm", s=48, seed=0, rate=1e-3):
    config = {"s": s, "unet": {"blocks": 1}}
    return {"method": method, "config": config, "seed": seed, "train": {"rate": rate}}


def test_groups_name_what_differs_between_runs_of_a_method():
    runs = {
        "a": made_record(),
        "b": made_record(seed=1),
        "c": made_record(s=16),
        "d": made_record("maediff"),
    }
    assert group_names(runs) == {
        "a": "pddpm s=48",
        "b": "pddpm s=48",
        "c": "pddpm s=16",
        "d": "maediff",
    }
    rates = group_names({"a": made_record(), "b": made_record(rate=1e-4)})
    assert rates == {"a": "pddpm train.rate=0.001", "b": "pddpm train.rate=0.0001"}


def test_long_settings_that_differ_only_at_their_end_are_two_groups():
    inits = {name: f"/data/runs/pretrained-{name}" for name in ("t1-adults", "flair-adults")}
    runs = {name: made_record() | {"init": init} for name, init in inits.items()}
    groups = group_names(runs)
    assert len({*groups.values()}) == 2
    assert all(group.startswith("pddpm init=/data/ru~") for group in groups.values())


def test_runs_with_other_first_steps_or_growth_are_two_groups():
    grown, usual = made_record() | {"extent": 0.4}, made_record() | {"extent": 1.0}
    assert group_names({"a": grown, "b": usual, "c": usual}) == {
        "a": "pddpm extent=0.4",
        "b": "pddpm extent=1.0",
        "c": "pddpm extent=1.0",
    }


def test_a_run_of_its_own_with_many_differences_has_its_name():
    other = made_record(rate=1e-4, s=16) | {"extent": 0.4, "init": "t1"}
    runs = {"flair": other, "b": made_record() | {"extent": 1.0}, "c": made_record(seed=1)}
    runs["c"] |= {"extent": 1.0}
    groups = group_names(runs)
    assert groups["flair"] == "flair"
    assert groups["b"] == groups["c"] != "b"


def test_a_baseline_is_scored_anyway(flair_cohort, tmp_path):
    with pytest.raises(InputError, match="slice: a simple baseline, and all of them are scored"):
        evaluate("slice", flair_cohort, tmp_path / "out")


def test_seeds_and_calibration_make_no_group():
    assert group_names({"a": made_record(), "b": made_record(seed=1)}) == {
        "a": "pddpm",
        "b": "pddpm",
    }
    uncalibrated = made_record(seed=1) | {"train": {"rate": 1e-3, "calibration_scans": 0}}
    assert group_names({"a": made_record(), "b": uncalibrated}) == {"a": "pddpm", "b": "pddpm"}


def test_scores_file(tmp_path):
    row = {"method": "a", "seed": None, "healthy": True, "auprc": float("nan"), "dice": 1 / 3}
    write_scores(tmp_path / "scores.csv", [row])
    assert (tmp_path / "scores.csv").read_text("utf-8") == (
        "method,seed,healthy,auprc,dice\na,,true,,0.333333\n"
    )
