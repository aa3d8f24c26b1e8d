"""Scoring with made predictions, then `evaluate` on a small cohort with untrained runs."""

import copy
import csv
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.brains import ball, made_brain, save
from helpers.options import QUIET
from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask, eroded_brain, residual_map
from maediff.anomaly.score import scan_score
from maediff.anomaly.snapshots import load_slices
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.cohort.preprocess import preprocess
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.evaluation.admission import calibrated_on_seen, check_unseen, prepared_otherwise
from maediff.evaluation.evaluate import evaluate, group_names
from maediff.evaluation.intervals import clopper_pearson
from maediff.evaluation.metrics import auprc as exact_auprc
from maediff.evaluation.metrics import dice, dice_by_threshold
from maediff.evaluation.scoring import Contender, ScoringConfig, score
from maediff.evaluation.summary import (
    BY_SUBJECT,
    SCAN_RATES,
    differences,
    summarise_group,
    summarise_run,
)
from maediff.evaluation.table import markdown_table
from maediff.methods.registry import BASELINES, build
from maediff.models.folder import config_of, write_config
from maediff.models.weights import save_model

KEYS = {
    "auprc",
    "auprc_pooled",
    "dice",
    "dice_healthy_calibrated",
    "dice_oracle",
    "fpr_healthy",
    "scan_fpr_healthy",
    "l1_healthy",
}
SPACING = (2.0, 2.0, 4.0)


def subject(name, *, healthy, seed, kind="", at=(3, 20, 20)):
    """Six slices of noise; a bright box for the ill."""
    rng = np.random.default_rng(seed)
    brain = np.zeros((6, 40, 40), dtype=bool)
    brain[:, 4:36, 6:34] = True
    lesion = np.zeros_like(brain)
    if not healthy:
        z, y, x = at
        lesion[z : z + 2, y : y + 8, x : x + 7] = True
    images = np.where(brain, 0.3 + 0.2 * rng.random(brain.shape) + 0.3 * lesion, 0).astype(
        np.float32
    )
    free = ~lesion.any(axis=(1, 2))
    extra = {"lesion_kind": kind} if kind else {}
    return SubjectSlices(
        name=name,
        images=images,
        brain=brain,
        lesion=lesion,
        lesion_free=free,
        slice_ids=np.arange(6, dtype=np.int64),
        affine=np.eye(4),
        affine_to_scan=np.eye(4),
        spacing_mm=SPACING,
        healthy=healthy,
        extra=extra,
    )


@pytest.fixture(scope="module")
def calibrate():
    return [subject("c0", healthy=True, seed=10), subject("c1", healthy=False, seed=11)]


@pytest.fixture(scope="module")
def scored():
    return [
        subject("a", healthy=False, seed=0, kind="bright"),
        subject("b", healthy=False, seed=1, kind="dark", at=(1, 12, 9)),
        subject("h", healthy=True, seed=2),
    ]


def image_itself(s):
    return s.images, None


def noisy(level, seed):
    def predict(s):
        rng = np.random.default_rng([seed, len(s.name), ord(s.name[0])])
        residual = s.images + level * rng.standard_normal(s.images.shape)
        return np.abs(residual).astype(np.float32), np.clip(s.images + 0.1, 0, 1)

    return predict


CONTENDERS = [
    Contender("bright", "bright", image_itself, trained=False),
    Contender("dark", "dark", lambda s: (1 - s.images, None), trained=False),
    Contender("net-0", "net", noisy(0.2, 0), seed=0),
    Contender("net-1", "net", noisy(0.2, 1), seed=1),
    Contender("poor-0", "poor", noisy(2.0, 0), seed=0),
]


@pytest.fixture(scope="module")
def outcome(calibrate, scored):
    return score(CONTENDERS, calibrate, scored)


def test_docs_name_every_column_that_the_summary_calls_otherwise():
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text.partition("| column of `scores.csv` | key of `summary.json` |")[2].partition(
        "\n\n"
    )[0]
    pairs = {**BY_SUBJECT, **SCAN_RATES}
    unlike = {
        key: column
        for key, column in pairs.items()
        if key != column and not key.endswith("_unfiltered")
    }
    assert unlike
    for key, column in unlike.items():
        assert any(f"`{column}`" in line and f"`{key}`" in line for line in table.splitlines()), (
            key
        )


def test_a_row_is_what_the_metrics_say(outcome, calibrate, scored):
    rows, summary, _ = outcome
    row = next(row for row in rows if row["method"] == "bright" and row["subject"] == "a")
    s, post = scored[0], PostprocessConfig()
    anomaly = residual_map(s.images, s.brain, SPACING)
    assert row["auprc"] == exact_auprc(anomaly, s.lesion, s.brain)
    assert row["auprc_unfiltered"] == exact_auprc(s.images, s.lesion, s.brain)
    thresholds = summary["methods"]["bright"]["thresholds"]
    mask = anomaly_mask(anomaly, s.brain, thresholds["label"], SPACING)
    assert row["dice"] == dice(mask, s.lesion) > 0.5
    assert row["lesion_recall"] == 1
    assert row["lesion_ml"] == pytest.approx(2 * 8 * 7 * 16 / 1000)
    assert math.isnan(row["l1"])
    assert math.isnan(row["fpr_healthy"])
    healthy_map = residual_map(calibrate[0].images, calibrate[0].brain, SPACING)
    above = healthy_map[eroded_brain(calibrate[0].brain, post)] > thresholds["healthy"]
    assert above.mean() == pytest.approx(0.01, abs=0.001)


def test_label_threshold_comes_from_calibration_and_oracle_from_scored(outcome, calibrate, scored):
    thresholds = outcome[1]["methods"]["bright"]["thresholds"]
    ill = calibrate[1]
    maps = [residual_map(ill.images, ill.brain, SPACING)]
    tried, curve = dice_by_threshold(maps, [ill.lesion], [ill.brain], [SPACING])
    assert thresholds["label"] == tried[curve.argmax()]
    for method in outcome[1]["methods"].values():
        assert method["dice_oracle"]["mean"] >= max(
            method["dice"]["mean"], method["dice_healthy_calibrated"]["mean"]
        )


def test_healthy_rows_have_rates_and_reconstruction_but_no_overlap(outcome):
    row = next(row for row in outcome[0] if row["method"] == "net-0" and row["subject"] == "h")
    assert math.isnan(row["auprc"])
    assert math.isnan(row["dice"])
    assert row["l1"] == pytest.approx(0.1, abs=1e-6)
    assert row["psnr"] == pytest.approx(20, abs=1e-4)
    assert 0 <= row["fpr_healthy"] < 0.1
    assert row["flagged_healthy"] in (0, 1)


def test_summary_has_the_keys_others_read(outcome):
    summary = outcome[1]
    assert summary["n_subjects"] == 3
    assert (summary["n_lesion"], summary["n_healthy"]) == (2, 1)
    assert set(summary["methods"]) == {c.name for c in CONTENDERS}
    assert set(summary["groups"]) == {"net", "poor"}
    for method in summary["methods"].values():
        assert method.keys() >= KEYS
        assert method["auprc"].keys() == {"mean", "low", "high"}
        assert method["auprc_by_kind"].keys() == {"bright", "dark"}
    assert summary["methods"]["bright"]["l1_healthy"] is None
    assert summary["best_baseline"] == "bright"


def test_groups_pool_seeds(outcome):
    summary = outcome[1]
    means = [summary["methods"][name]["auprc"]["mean"] for name in ("net-0", "net-1")]
    group = summary["groups"]["net"]
    assert group["auprc"]["mean"] == pytest.approx(np.mean(means))
    assert group["auprc"]["sd"] == pytest.approx(np.std(means, ddof=1))
    assert (group["runs"], group["seeds"]) == (["net-0", "net-1"], [0, 1])
    assert summary["groups"]["poor"]["auprc"]["sd"] is None


def test_differences_are_paired_by_subject(outcome):
    rows, summary, _ = outcome
    by_pair = {(d["a"], d["b"]): d for d in summary["differences"]}
    assert by_pair.keys() == {
        ("net-0", "net-1"),
        ("net-0", "poor-0"),
        ("net-1", "poor-0"),
        ("net-0", "bright"),
        ("net-1", "bright"),
        ("poor-0", "bright"),
    }
    value = {(r["method"], r["subject"]): r["auprc"] for r in rows}
    expected = np.mean([value["net-0", s] - value["poor-0", s] for s in "ab"])
    assert by_pair["net-0", "poor-0"]["mean"] == pytest.approx(expected)
    assert by_pair["net-0", "poor-0"]["n_subjects"] == 2
    shuffled = differences({"x": rows[6:9][::-1], "y": rows[12:15]}, [("x", "y")])[0]
    assert shuffled["mean"] == pytest.approx(expected)
    grouped = {(d["a"], d["b"]) for d in summary["group_differences"]}
    assert grouped == {("net", "poor"), ("net", "bright"), ("poor", "bright")}


def test_a_person_with_many_scans_counts_once():
    """Two people: five sessions of 0.2, one of 0.8; a third with a session that the other run has no value of."""
    scans = [("a", f"a_{i}", 0.2) for i in range(5)] + [
        ("b", "b_0", 0.8),
        ("c", "c_0", 0.5),
        ("c", "c_1", 0.7),
    ]
    rows = [
        {**_blank(), "person": who, "subject": scan, "auprc": value, "lesion_kind": "ms"}
        for who, scan, value in scans
    ]
    other = [{**row, "auprc": row["auprc"] - 0.1 * (row["person"] == "b")} for row in rows[:-1]]
    summary = summarise_run(rows)
    assert summary["auprc"]["mean"] == pytest.approx((0.2 + 0.8 + 0.6) / 3)
    assert summary["auprc_by_kind"]["ms"] == summary["auprc"]
    once = [{**rows[i], "auprc": value} for i, value in ((0, 0.2), (5, 0.8), (6, 0.6))]
    assert (
        summary["auprc"] == summarise_run(once)["auprc"]
    )  # the interval, too, is of three people
    (found,) = differences({"x": rows, "y": other}, [("x", "y")])
    assert found["n_subjects"] == 3
    assert found["mean"] == pytest.approx(0.1 / 3)
    group = summarise_group([rows, [{**row, "auprc": row["auprc"] - 0.1} for row in rows]])[
        "auprc"
    ]
    assert group["mean"] == pytest.approx((0.2 + 0.8 + 0.6) / 3 - 0.05)
    assert group["sd"] == pytest.approx(np.std([0.1, 0.0], ddof=1))


def test_no_healthy_subject_falls_back_to_lesion_free_slices(calibrate, scored):
    ill = [s for s in scored if not s.healthy]
    summary = score(CONTENDERS[:1], calibrate[1:], ill)[1]["methods"]["bright"]
    assert summary["healthy_source"] == "lesion-free slices of patients"
    s = calibrate[1]
    inside = eroded_brain(s.brain) & s.lesion_free[:, None, None]
    above = residual_map(s.images, s.brain, SPACING)[inside] > summary["thresholds"]["healthy"]
    assert above.mean() == pytest.approx(0.01, abs=0.002)
    for key in ("fpr_healthy", "scan_fpr_healthy", "l1_healthy"):
        assert summary[key] is None


def test_conformal_threshold_is_from_healthy_scans_one_a_person(calibrate, scored):
    healthy = [subject(f"k{i}", healthy=True, seed=20 + i) for i in range(5)]
    both = ScoringConfig(scan_fpr=0.25)
    found = score(CONTENDERS[:1], [*healthy, calibrate[1]], scored, both)
    method, post = found.summary["methods"]["bright"], PostprocessConfig()
    assert method["conformal"] == {"alpha": 0.25, "n_scans": 5, "smallest_alpha": 0.1667}
    scores = [
        scan_score(residual_map(s.images, s.brain, SPACING), s.brain, SPACING, post)
        for s in healthy
    ]
    assert method["thresholds"]["conformal"] == max(scores)  # floor(6 / 4) of 6 may lie above
    rows = {row["subject"]: row for row in found.rows}
    assert rows["h"]["flagged_healthy_conformal"] == float(rows["h"]["scan_score"] > max(scores))
    assert rows["a"]["flagged_ill_conformal"] == 1
    assert rows["a"]["dice_conformal"] > 0
    assert math.isnan(rows["h"]["flagged_ill_conformal"])
    assert method["scan_recall_conformal"]["mean"] >= 0.5
    twice = score(
        CONTENDERS[:1],
        healthy,
        scored,
        both,
        people={"k0": "one", "k1": "one", "k2": "two", "k3": "two"},
    )
    assert twice.summary["methods"]["bright"]["conformal"]["n_scans"] == 3
    few = score(CONTENDERS[:1], healthy, scored).summary["methods"]["bright"]  # 0.1 needs nine
    assert (
        few["thresholds"]["conformal"]
        is few["scan_fpr_healthy_conformal"]
        is few["dice_conformal"]
        is None
    )


def test_without_the_filter_everything_is_measured_again(outcome, calibrate, scored):
    rows, summary, _ = outcome
    plain = ScoringConfig(postprocess=PostprocessConfig(median_size=1))
    again = score(CONTENDERS[2:3], calibrate, scored, plain)
    ours = [row for row in rows if row["method"] == "net-0"]
    for row, other in zip(ours, again.rows, strict=True):
        for column in (
            "auprc",
            "dice",
            "dice_oracle",
            "false_positives",
            "fpr_healthy",
            "scan_score",
        ):
            assert row[f"{column}_unfiltered"] == pytest.approx(other[column], nan_ok=True), column
    assert (
        summary["methods"]["net-0"]["thresholds_unfiltered"]
        == again.summary["methods"]["net-0"]["thresholds"]
    )
    assert any(row["dice"] != row["dice_unfiltered"] for row in ours[:2])
    filtered = score([replace(CONTENDERS[2], filtered=True)], calibrate, scored).summary[
        "methods"
    ]["net-0"]
    assert filtered["auprc"]["mean"] == pytest.approx(
        summary["methods"]["net-0"]["auprc_unfiltered"]["mean"]
    )
    assert filtered["auprc_unfiltered"] is filtered["auprc_pooled_unfiltered"] is None


def test_no_label_and_no_calibration_gives_null(scored):
    healthy = [scored[2]]
    summary = score(CONTENDERS[2:3], healthy, healthy)[1]["methods"]["net-0"]
    assert (
        summary["auprc"]
        is summary["dice"]
        is summary["dice_oracle"]
        is summary["auprc_pooled"]
        is None
    )
    assert summary["fpr_healthy"]["mean"] <= 0.01
    assert summary["scan_fpr_healthy"]["high"] > 0.9  # one scan says little
    alone = score(CONTENDERS[:1], [], scored)[1]["methods"]["bright"]
    assert alone["dice"] is alone["dice_healthy_calibrated"] is None
    assert alone["dice_oracle"]["mean"] > 0.5


def test_post_processing_is_configured_in_one_place(calibrate, scored):
    plain = ScoringConfig(postprocess=PostprocessConfig(median_size=1))
    rows, _, _ = score(CONTENDERS[:1], calibrate, scored, plain)
    assert rows[0]["auprc"] == pytest.approx(rows[0]["auprc_unfiltered"])


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (np.zeros((5, 40, 40), np.float32), "cohort has"),
        (np.full((6, 40, 40), np.nan, np.float32), "NaN"),
    ],
)
def test_a_map_that_cannot_be_scored_is_refused_by_name(scored, residual, message):
    with pytest.raises(InputError, match=rf"mine, a: .*{message}"):
        score([Contender("mine", "mine", lambda s: (residual, None))], [], scored)


def test_clopper_pearson_is_used_for_flagged_scans():
    rows = [
        {**_blank(), "subject": str(i), "person": str(i), "flagged_healthy": float(i < 3)}
        for i in range(10)
    ]
    rate = summarise_run(rows)["scan_fpr_healthy"]
    assert (rate["mean"], rate["low"]) == pytest.approx((0.3, 0.06674), abs=1e-5)
    pooled = summarise_group([rows, [{**row, "flagged_healthy": 0.0} for row in rows]])[
        "scan_fpr_healthy"
    ]
    assert pooled["mean"] == pytest.approx(0.15)


def _blank():
    columns = [*BY_SUBJECT.values(), *SCAN_RATES.values()]
    return {
        "subject": "s",
        "person": "s",
        "lesion_kind": "",
        "brain_voxels": 1000.0,
        **dict.fromkeys(columns, math.nan),
    }


def test_voxel_rate_on_healthy_scans_counts_voxels():
    rows = [
        {**_blank(), "person": "a", "fpr_healthy": 0.01, "brain_voxels": 300.0},
        {**_blank(), "person": "b", "fpr_healthy": 0.0},
        {**_blank(), "person": "c"},
    ]
    summary = summarise_run(rows)
    assert summary["fpr_healthy"]["mean"] == pytest.approx(0.005)
    rate = summary["fpr_healthy_voxels"]
    expected = clopper_pearson(3, 1300)
    assert (rate["mean"], rate["low"], rate["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )


def test_table_holds_every_method_and_says_what_is_not_achievable(outcome):
    text = markdown_table({**outcome[1], "notes": ["A note."]})
    assert "bright (best baseline)" in text
    assert "oracle (not achievable)" in text
    assert "| net-0 - poor-0 |" in text
    assert "- A note." in text
    assert "nan" not in text


# ---- groups


def test_runs_that_differ_in_more_than_the_seed_are_other_groups():
    def info(method="pddpm", s=48, seed=0, rate=1e-3):
        return {
            "method": method,
            "config": {"s": s, "unet": {"blocks": 1}},
            "seed": seed,
            "train": {"rate": rate},
        }

    runs = {"a": info(), "b": info(seed=1), "c": info(s=16), "d": info("maediff")}
    assert group_names(runs) == {
        "a": "pddpm s=48",
        "b": "pddpm s=48",
        "c": "pddpm s=16",
        "d": "maediff",
    }
    rates = group_names({"a": info(), "b": info(rate=1e-4)})
    assert rates == {"a": "pddpm train.rate=0.001", "b": "pddpm train.rate=0.0001"}
    assert group_names({"a": info(), "b": info(seed=1)}) == {"a": "pddpm", "b": "pddpm"}
    uncalibrated = info(seed=1) | {"train": {"rate": 1e-3, "calibration_scans": 0}}
    assert group_names({"a": info(), "b": uncalibrated}) == {"a": "pddpm", "b": "pddpm"}


# ---- the whole way


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Six thick-slice scans: one healthy and one ill in each split."""
    folder = tmp_path_factory.mktemp("evaluate")
    lines = ["subject,image,lesion_mask,split,healthy"]
    for number, split in enumerate(("train", "val", "test")):
        for healthy in (1, 0):
            name = f"{split}-{'healthy' if healthy else 'ill'}"
            data, brain, affine = made_brain(
                (60, 72, 12), (2.0, 2.0, 8.0), seed=number + 10 * healthy
            )
            lesion = ball(data.shape, affine, (15, 10, 0), 15) & brain & (healthy == 0)
            save(folder / f"{name}.nii.gz", data + 60 * lesion, affine)
            save(folder / f"{name}_lesion_mask.nii.gz", lesion, affine)
            lines.append(f"{name},{name}.nii.gz,{name}_lesion_mask.nii.gz,{split},{healthy}")
    (folder / "scans.csv").write_text("\n".join(lines))
    assert preprocess([folder / "scans.csv"], folder / "cohort", modality="FLAIR", run=QUIET) == 0
    return folder / "cohort"


def make_run(path, method="ddpm", seed=0, modality="FLAIR"):
    settings = {"unet": {"channels": (8, 16), "blocks": 1, "attention": False, "stem": 2}}
    model = build(method, "tiny", settings)
    config = {
        "method": method,
        "preset": "tiny",
        "config": config_of(model),
        "train": {"steps": 1},
        "seed": seed,
        "init": None,
        "cohort": {"hash": "0", "modality": modality, "grid": {}, "normalise": {}},
    }
    write_config(path, config)
    save_model(
        path / "best" / "model.safetensors", model, copy.deepcopy(model), name=method, step=1
    )
    return path


def test_whole_way(tmp_path, cohort, capsys):
    runs = [make_run(tmp_path / f"ddpm-{seed}", seed=seed) for seed in (0, 1)]
    evaluate(runs, cohort, tmp_path / "eval")
    assert capsys.readouterr().out == ""  # the bar goes to the error stream
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    baselines = {*BASELINES} - {"mirror", "mirror-dark"}  # the scans are not registered
    assert set(summary["methods"]) == {*baselines, "ddpm-0", "ddpm-1"}
    assert (
        sum(
            note.startswith(("No mirror baseline", "No mirror-dark baseline"))
            for note in summary["notes"]
        )
        == 2
    )
    assert summary["groups"]["ddpm"]["seeds"] == [0, 1]
    assert summary["methods"]["slice"]["auprc"]["mean"] > 0.5
    assert summary["methods"]["ddpm-0"]["l1_healthy"]["mean"] > 0
    assert (summary["score_split"], summary["calibrate_split"]) == ("test", "val")
    assert len(summary["config_hash"]) == len(summary["cohort_hash"]) == 64
    with (tmp_path / "eval" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (len(baselines) + 2) * 2
    assert {row["subject"] for row in rows} == {"test-ill", "test-healthy"}
    assert [row["auprc"] == "" for row in rows] == [row["healthy"] == "true" for row in rows]
    assert "ddpm-1" in (tmp_path / "eval" / "table.md").read_text()
    shown = load_slices(tmp_path / "eval" / "slices" / "ddpm-0" / "test-ill.npz")
    assert shown.lesion.any()
    assert shown.reference is not None
    with pytest.raises(InputError, match="exists"):
        evaluate(runs, cohort, tmp_path / "eval", quiet=True)


def test_same_numbers_again_and_in_another_order(tmp_path, cohort):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    first = evaluate(runs, cohort, tmp_path / "a", quiet=True, batch_size=3)
    again = evaluate(runs[::-1], cohort, tmp_path / "b", quiet=True, batch_size=16)
    for name in ("one", "two", "template"):
        auprc = [summary["methods"][name]["auprc"]["mean"] for summary in (first, again)]
        assert auprc[0] == pytest.approx(auprc[1], rel=1e-4)


def test_refusals_name_what_is_wrong(tmp_path, cohort):
    good = make_run(tmp_path / "good")
    with pytest.raises(InputError, match=r"t1.*T1w.*FLAIR"):
        evaluate(
            [good, make_run(tmp_path / "t1", modality="T1w")], cohort, tmp_path / "out", quiet=True
        )
    with pytest.raises(InputError, match="baseline 'bright'"):
        evaluate([make_run(tmp_path / "bright")], cohort, tmp_path / "out", quiet=True)
    with pytest.raises(InputError, match="second run named 'good'"):
        evaluate(
            [good, make_run(tmp_path / "other" / "good")], cohort, tmp_path / "out", quiet=True
        )
    with pytest.raises(InputError, match="nowhere"):
        evaluate([tmp_path / "nowhere"], cohort, tmp_path / "out", quiet=True)
    for site in ("a", "b"):
        save(tmp_path / site / "maps" / "test-ill.nii.gz", np.zeros((4, 4, 4)), np.eye(4))
    with pytest.raises(
        InputError, match=r"b/maps: a second folder of maps named 'maps', beside .*a/maps"
    ):
        evaluate(
            [tmp_path / "a" / "maps", tmp_path / "b" / "maps"],
            cohort,
            tmp_path / "out",
            quiet=True,
        )
    assert not (tmp_path / "out").exists()


def test_splits_that_share_a_subject_are_refused(tmp_path, cohort):
    import shutil

    other = shutil.copytree(cohort, tmp_path / "cohort")
    manifest = (other / "manifest.csv").read_text().replace("val-ill,,", "test-ill,one,")
    (other / "manifest.csv").write_text(manifest)
    with pytest.raises(InputError, match="test-ill"):
        evaluate([], other, tmp_path / "out", quiet=True)


def test_a_subject_of_the_train_split_is_not_scored(tmp_path, cohort):
    import shutil

    other = shutil.copytree(cohort, tmp_path / "cohort")
    manifest = (other / "manifest.csv").read_text().replace("train-ill,,", "test-ill,one,")
    (other / "manifest.csv").write_text(manifest)
    with pytest.raises(InputError, match="test-ill in both 'test' and 'train'"):
        evaluate([], other, tmp_path / "out", quiet=True)


def test_a_run_that_was_trained_on_a_scored_subject_is_refused(tmp_path, cohort):
    run, rows = make_run(tmp_path / "run"), Cohort.open(cohort).rows
    codes = {row.subject: person_code(row.dataset, row.subject) for row in rows}
    (run / "train_subjects.json").write_text(json.dumps([codes["train-ill"], codes["test-ill"]]))
    with pytest.raises(InputError, match=r"run: was trained on test-ill of split 'test'"):
        evaluate([run], cohort, tmp_path / "out", quiet=True)
    (run / "train_subjects.json").write_text(json.dumps([codes["train-ill"]]))
    check_unseen([run], Cohort.open(cohort), "test")
    (run / "train_subjects.json").write_text(json.dumps([codes["val-ill"]]))
    (remark,) = calibrated_on_seen([run], Cohort.open(cohort), "val")
    assert remark.startswith(
        "run was trained on val-ill of split 'val', from which thresholds were taken"
    )
    for content in ("", "[1, ", '"text"', "{}"):
        (run / "train_subjects.json").write_text(content)
        with pytest.raises(
            InputError, match=r"train_subjects\.json: .*damaged .*; whom the run saw is not known"
        ):
            check_unseen([run], Cohort.open(cohort), "test")
    (run / "train_subjects.json").write_text("[1, {}]")
    check_unseen([run], Cohort.open(cohort), "test")


def test_a_run_whose_scans_were_prepared_otherwise_is_named(cohort):
    meta = Cohort.open(cohort).meta
    alike = {
        key: meta[key] for key in ("grid", "normalise", "bias")
    }  # no word of registration, which is off here
    registered = alike | {"registration": {"enabled": True}}
    infos = {"alike": {"cohort": alike}, "other": {"cohort": registered}}
    (remark,) = prepared_otherwise(infos, Cohort.open(cohort))
    assert (
        remark == "other learned from scans with other settings of registration than the cohort's."
    )


def test_left_and_right_are_compared_where_scans_are_registered(tmp_path, cohort):
    with pytest.raises(
        InputError, match=r"postprocess\.symmetry 0\.5 .* the scans are not registered"
    ):
        evaluate([], cohort, tmp_path / "none", post={"symmetry": 0.5}, quiet=True)
    assert not (tmp_path / "none").exists()
    shutil.copytree(cohort, tmp_path / "turned")
    meta = json.loads((cohort / "cohort.json").read_text())
    meta["registration"]["enabled"] = True  # these brains lie straight anyway
    (tmp_path / "turned" / "cohort.json").write_text(json.dumps(meta))
    found = evaluate(
        [], tmp_path / "turned", tmp_path / "eval", post={"symmetry": 0.5}, quiet=True
    )
    plain = evaluate([], tmp_path / "turned", tmp_path / "plain", quiet=True)
    score = {name: method["auprc"]["mean"] for name, method in plain["methods"].items()}
    assert (
        score["mirror"] > score["bright"] and score["mirror"] > score["mirror-dark"]
    )  # a bright ball on one side
    assert found["methods"]["bright"]["auprc"]["mean"] > score["bright"]
    assert any("less 50% of what both sides of the brain share" in note for note in found["notes"])


def test_scoring_the_calibration_split_says_that_it_is_optimistic(tmp_path, cohort):
    summary = evaluate([], cohort, tmp_path / "out", score_split="val", quiet=True)
    assert "optimistic" in summary["notes"][0]
    assert summary["methods"]["bright"]["dice"] == summary["methods"]["bright"]["dice_oracle"]


def test_the_post_processing_is_the_runs_own_if_they_agree_on_one_and_what_is_asked_for_otherwise(
    tmp_path, cohort
):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other")
    own = {"median_size": 1, "smooth_mm": 4.0}

    def used(name, runs, post=None, **asked):
        summary = evaluate(
            runs, cohort, tmp_path / name, config=ScoringConfig(**asked), post=post, quiet=True
        )
        post = summary["config"]["postprocess"]
        said = (
            f"median filter {post['median_size']} "
            if post["median_size"] > 1
            else "no median filter;"
        )
        assert said in " ".join(summary["notes"])
        assert ("a Gaussian of 4 mm" in " ".join(summary["notes"])) == (
            post["smooth_mm"] == (4.0,)
        )
        noted = any("one brings its own post-processing" in note for note in summary["notes"])
        assert noted == (name == "disagree")
        return post["median_size"], post["smooth_mm"], summary["methods"]["slice"]["auprc"]["mean"]

    default = used("default", [one])
    assert default[:2] == (5, ())
    (one / "calibration.json").write_text(json.dumps({"postprocess": own}))
    blurred = used("own", [one])
    assert blurred[:2] == (1, (4.0,)) and blurred[2] != default[2]  # the baselines, too
    assert used("disagree", [one, other]) == default
    assert used("asked", [one], postprocess=PostprocessConfig()) == default
    assert used("changed", [one], post={"median_size": 3})[:2] == (
        3,
        (4.0,),
    )  # the rest stays the run's own
