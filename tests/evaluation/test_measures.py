"""Columns of one scan, against the metrics and by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from helpers.scores import SPACING
from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask, residual_map
from maediff.anomaly.score import scan_score
from maediff.evaluation.measures import SCORE_COLUMNS, measure, pooled_curve
from maediff.evaluation.metrics import auprc, dice, false_positive_rate
from maediff.evaluation.summary import BY_SUBJECT, SCAN_RATES
from maediff.evaluation.thresholds import Case, MethodThresholds

DEFAULT = PostprocessConfig()
NO_THRESHOLDS = MethodThresholds(math.nan, math.nan, math.nan, math.nan)
THRESHOLDS = MethodThresholds(label=0.55, healthy=0.48, conformal=0.5, oracle=0.56)


def made_case(scan):
    return Case(scan=scan, anomaly=residual_map(scan.images, scan.brain, SPACING))


def test_scan_with_lesion(scored):
    case = made_case(scored[0])
    scan = case.scan
    row, lesions = measure(case, THRESHOLDS, DEFAULT)
    masks = {
        name: anomaly_mask(case.anomaly, scan.brain, value, SPACING)
        for name, value in vars(THRESHOLDS).items()
    }
    assert tuple(row) == SCORE_COLUMNS
    assert row["auprc"] == auprc(case.anomaly, scan.lesion, scan.brain)
    assert row["dice"] == dice(masks["label"], scan.lesion) > 0.5
    assert row["dice_healthy_calibrated"] == dice(masks["healthy"], scan.lesion)
    assert row["dice_conformal"] == dice(masks["conformal"], scan.lesion)
    assert row["dice_oracle"] == dice(masks["oracle"], scan.lesion)
    assert (row["lesions_found"], row["lesion_recall"]) == (1, 1)
    assert row["flagged_ill_conformal"] == 1
    assert row["scan_score"] == scan_score(case.anomaly, scan.brain, SPACING)
    for column in ("fpr_healthy", "flagged_healthy", "flagged_healthy_conformal"):
        assert math.isnan(row[column])
    assert lesions.found == (True,)
    assert lesions.volume_ml == pytest.approx((2 * 8 * 7 * 9 / 1000,))


def test_healthy_scan(scored):
    case = made_case(scored[2])
    row, lesions = measure(case, THRESHOLDS, DEFAULT)
    mask = anomaly_mask(case.anomaly, case.scan.brain, THRESHOLDS.healthy, SPACING)
    assert row["fpr_healthy"] == false_positive_rate(mask, case.scan.brain)
    assert row["flagged_healthy"] == float(mask.any())
    assert row["flagged_healthy_conformal"] == float(row["scan_score"] > THRESHOLDS.conformal)
    assert row["false_positives_healthy"] == 0
    for column in ("auprc", "dice", "lesion_recall", "flagged_ill_conformal"):
        assert math.isnan(row[column])
    assert lesions.found == ()


def test_missing_threshold_gives_no_mask(scored):
    row, lesions = measure(made_case(scored[0]), NO_THRESHOLDS, DEFAULT)
    finite = {column for column, value in row.items() if math.isfinite(value)}
    assert finite == {"auprc", "auprc_all_voxels", "scan_score"}
    assert lesions.found == ()


def test_pooled_curve(scored):
    cases = [made_case(scan) for scan in scored]
    average, curve = pooled_curve(cases)
    ill = cases[:2]
    truth = np.concatenate([c.scan.lesion[c.scan.brain] for c in ill])[None, None]
    score = np.concatenate([c.anomaly[c.scan.brain] for c in ill])[None, None]
    assert average == pytest.approx(auprc(score, truth, np.ones_like(truth)))
    assert len(curve["recall"]) == len(curve["precision"]) == 100
    assert pooled_curve(cases[2:]) == (None, {"recall": [], "precision": []})


def test_docs_name_every_column_that_the_summary_renames():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "scores.md").read_text(
        encoding="utf-8"
    )
    table = text.partition("| column of `scores.csv` | key of `summary.json` |")[2]
    lines = table.partition("\n\n")[0].splitlines()
    renamed = {
        key: column
        for key, column in {**BY_SUBJECT, **SCAN_RATES}.items()
        if key != column and not key.endswith("_unfiltered")
    }
    assert renamed
    for key, column in renamed.items():
        assert any(f"`{column}`" in line and f"`{key}`" in line for line in lines), key
