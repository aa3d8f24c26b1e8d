"""Scores of made predictions."""

import math
from dataclasses import replace

import numpy as np
import pytest

from helpers.scores import BRIGHT, CONTENDERS, SPACING, made_scan
from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask, eroded_brain, residual_map
from maediff.anomaly.snapshots import load_slices
from maediff.core.errors import InputError
from maediff.core.progress import Progress
from maediff.evaluation.metrics import auprc, dice
from maediff.evaluation.scoring import Contender, ScoringConfig, score

NET = CONTENDERS[2]


def test_row_equals_metrics(outcome, calibrate, scored):
    rows, summary, _ = outcome
    row = next(row for row in rows if row["method"] == "bright" and row["subject"] == "a")
    scan = scored[0]
    anomaly = residual_map(scan.images, scan.brain, SPACING)
    assert row["auprc"] == auprc(anomaly, scan.lesion, scan.brain)
    assert row["auprc_unfiltered"] == auprc(scan.images, scan.lesion, scan.brain)
    thresholds = summary["methods"]["bright"]["thresholds"]
    mask = anomaly_mask(anomaly, scan.brain, thresholds["label"], SPACING)
    assert row["dice"] == dice(mask, scan.lesion) > 0.5
    assert row["lesion_recall"] == 1
    assert row["lesion_ml"] == pytest.approx(2 * 8 * 7 * 9 / 1000)
    assert math.isnan(row["l1"])
    assert math.isnan(row["fpr_healthy"])
    healthy_map = residual_map(calibrate[0].images, calibrate[0].brain, SPACING)
    above = healthy_map[eroded_brain(calibrate[0].brain)] > thresholds["healthy"]
    assert above.mean() == pytest.approx(0.01, abs=0.001)


def test_healthy_row_has_rates_and_reconstruction(outcome):
    row = next(row for row in outcome.rows if row["method"] == "net-0" and row["subject"] == "h")
    assert math.isnan(row["auprc"])
    assert math.isnan(row["dice"])
    assert row["l1"] == pytest.approx(0.1, abs=1e-6)
    assert row["psnr"] == pytest.approx(20, abs=1e-4)
    assert 0 <= row["fpr_healthy"] < 0.1
    assert row["flagged_healthy"] in (0, 1)


def test_oracle_is_the_upper_limit(outcome):
    for method in outcome.summary["methods"].values():
        assert method["dice_oracle"]["mean"] >= max(
            method["dice"]["mean"], method["dice_healthy_calibrated"]["mean"]
        )


def test_no_healthy_scan(calibrate, scored):
    ill = [scan for scan in scored if not scan.healthy]
    method = score([BRIGHT], calibrate[1:], ill).summary["methods"]["bright"]
    assert method["healthy_source"] == "lesion-free slices of patients"
    for key in ("fpr_healthy", "scan_fpr_healthy", "l1_healthy"):
        assert method[key] is None


def test_conformal_threshold(calibrate, scored):
    healthy = [made_scan(f"k{i}", healthy=True, seed=20 + i) for i in range(5)]
    scores = score([BRIGHT], [*healthy, calibrate[1]], scored, ScoringConfig(scan_fpr=0.25))
    method = scores.summary["methods"]["bright"]
    assert method["conformal"] == {"alpha": 0.25, "n_scans": 5, "smallest_alpha": 0.1667}
    threshold = method["thresholds"]["conformal"]
    rows = {row["subject"]: row for row in scores.rows}
    assert rows["h"]["flagged_healthy_conformal"] == float(rows["h"]["scan_score"] > threshold)
    assert rows["a"]["flagged_ill_conformal"] == 1
    assert rows["a"]["dice_conformal"] > 0
    assert math.isnan(rows["h"]["flagged_ill_conformal"])
    assert method["scan_recall_conformal"]["mean"] >= 0.5
    too_few = score([BRIGHT], healthy, scored).summary["methods"]["bright"]  # 0.1 needs nine
    assert too_few["thresholds"]["conformal"] is None
    assert too_few["scan_fpr_healthy_conformal"] is too_few["dice_conformal"] is None


def test_raw_residual_is_scored_with_own_thresholds(outcome, calibrate, scored):
    plain = ScoringConfig(postprocess=PostprocessConfig(median_size=1))
    again = score([NET], calibrate, scored, plain)
    rows = [row for row in outcome.rows if row["method"] == "net-0"]
    for row, other in zip(rows, again.rows, strict=True):
        for column in (
            "auprc",
            "dice",
            "dice_oracle",
            "false_positives",
            "fpr_healthy",
            "scan_score",
        ):
            assert row[f"{column}_unfiltered"] == pytest.approx(other[column], nan_ok=True), column
    method, other = (found.summary["methods"]["net-0"] for found in (outcome, again))
    assert method["thresholds_unfiltered"] == other["thresholds"]
    assert any(row["dice"] != row["dice_unfiltered"] for row in rows[:2])


def test_first_steps_are_in_the_raw_residual_of_one_contender(calibrate, scored):
    own = replace(NET, own_steps={"first_power": 2.0})
    values = score([own], calibrate, scored).summary["methods"]["net-0"]
    common = ScoringConfig(postprocess=PostprocessConfig(first_power=2.0))
    expected = score([NET], calibrate, scored, common).summary["methods"]["net-0"]
    assert values["auprc"] == expected["auprc"]
    assert values["auprc_unfiltered"] == expected["auprc_unfiltered"]
    plain = score([NET], calibrate, scored).summary["methods"]["net-0"]
    assert values["auprc_unfiltered"]["mean"] != plain["auprc_unfiltered"]["mean"]
    filtered = score([replace(own, filtered=True)], calibrate, scored).summary["methods"]["net-0"]
    assert filtered["auprc"] == plain["auprc_unfiltered"]


def test_growth_belongs_to_one_contender(calibrate, scored):
    both = score([replace(NET, own_steps={"extent": 0.5}), BRIGHT], calibrate, scored).summary
    common = ScoringConfig(postprocess=PostprocessConfig(extent=0.5))
    grown = score([NET, BRIGHT], calibrate, scored, common).summary["methods"]
    plain = score([NET, BRIGHT], calibrate, scored).summary["methods"]
    values = both["methods"]["net-0"]
    assert values["thresholds"] == grown["net-0"]["thresholds"] != plain["net-0"]["thresholds"]
    assert values["dice"] == grown["net-0"]["dice"]
    assert values["dice_unfiltered"] == plain["net-0"]["dice_unfiltered"]
    assert both["methods"]["bright"]["thresholds"] == plain["bright"]["thresholds"]


def test_filtered_maps_have_no_raw_residual(outcome, calibrate, scored):
    filtered = score([replace(NET, filtered=True)], calibrate, scored).summary["methods"]["net-0"]
    raw = outcome.summary["methods"]["net-0"]["auprc_unfiltered"]["mean"]
    assert filtered["auprc"]["mean"] == pytest.approx(raw)
    assert filtered["auprc_unfiltered"] is filtered["auprc_pooled_unfiltered"] is None


def test_no_lesion_or_no_calibration_scan_gives_none(scored):
    healthy = [scored[2]]
    method = score([NET], healthy, healthy).summary["methods"]["net-0"]
    for key in ("auprc", "dice", "dice_oracle", "auprc_pooled"):
        assert method[key] is None
    assert method["fpr_healthy"]["mean"] <= 0.01
    assert method["scan_fpr_healthy"]["high"] > 0.9  # a single scan
    alone = score([BRIGHT], [], scored).summary["methods"]["bright"]
    assert alone["dice"] is alone["dice_healthy_calibrated"] is None
    assert alone["dice_oracle"]["mean"] > 0.5


def test_postprocess_of_the_config_is_used(calibrate, scored):
    plain = ScoringConfig(postprocess=PostprocessConfig(median_size=1))
    rows = score([BRIGHT], calibrate, scored, plain).rows
    assert rows[0]["auprc"] == pytest.approx(rows[0]["auprc_unfiltered"])


def test_curves_and_slices(tmp_path, calibrate, scored, caplog):
    caplog.set_level("INFO")
    progress = Progress("evaluate", 5)
    scores = score(
        [BRIGHT],
        calibrate,
        scored,
        ScoringConfig(n_snapshots=2),
        slices=tmp_path,
        progress=progress,
    )
    assert progress.done == 5
    assert "5/5 bright: AUPRC 0.966, mean of 2 scans" in caplog.text
    curves = scores.curves["bright"]
    assert curves["lesions"]["subject"] == ["a", "b"]
    assert curves["lesions"]["found"] == [True, True]
    assert curves["lesions"]["volume_ml"] == pytest.approx([2 * 8 * 7 * 9 / 1000] * 2)
    paths = sorted(path.name for path in (tmp_path / "bright").iterdir())
    assert paths == ["a.npz", "h.npz"]  # the first with and the first without a lesion
    assert load_slices(tmp_path / "bright" / "a.npz").lesion.any()


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        (np.zeros((5, 40, 40), np.float32), r"shape \(5, 40, 40\).* cohort has \(6, 40, 40\)"),
        (np.full((6, 40, 40), np.nan, np.float32), "NaN"),
    ],
)
def test_invalid_map_is_refused(scored, residual, message):
    contender = Contender(name="mine", group="mine", predict=lambda _: (residual, None))
    with pytest.raises(InputError, match=rf"mine, a: .*{message}"):
        score([contender], [], scored)


@pytest.mark.parametrize("values", [{"fpr": 1}, {"scan_fpr": 0}, {"n_snapshots": -1}])
def test_invalid_config_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ScoringConfig(**values)
