"""Summaries of rows: means over people, seeds pooled, paired differences."""

import math

import numpy as np
import pytest

from helpers.scores import CONTENDERS
from maediff.evaluation.intervals import clopper_pearson
from maediff.evaluation.summary import (
    BY_SUBJECT,
    SCAN_RATES,
    differences,
    summarise_group,
    summarise_run,
)

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


def blank_row(**values):
    """Return a row without a value, and `values`."""
    columns = dict.fromkeys([*BY_SUBJECT.values(), *SCAN_RATES.values()], math.nan)
    row = {"subject": "s", "person": "s", "lesion_kind": "", "brain_voxels": 1000.0}
    return {**row, **columns, **values}


def test_documented_keys(outcome):
    summary = outcome.summary
    assert summary["n_subjects"] == 3
    assert (summary["n_lesion"], summary["n_healthy"]) == (2, 1)
    assert set(summary["methods"]) == {contender.name for contender in CONTENDERS}
    assert set(summary["groups"]) == {"net", "poor"}
    for method in summary["methods"].values():
        assert method.keys() >= KEYS
        assert method["auprc"].keys() == {"mean", "low", "high"}
        assert method["auprc_by_kind"].keys() == {"bright", "dark"}
    assert summary["methods"]["bright"]["l1_healthy"] is None
    assert summary["best_baseline"] == "bright"


def test_groups_pool_seeds(outcome):
    summary = outcome.summary
    means = [summary["methods"][name]["auprc"]["mean"] for name in ("net-0", "net-1")]
    group = summary["groups"]["net"]
    assert group["auprc"]["mean"] == pytest.approx(np.mean(means))
    assert group["auprc"]["sd"] == pytest.approx(np.std(means, ddof=1))
    assert (group["runs"], group["seeds"]) == (["net-0", "net-1"], [0, 1])
    assert summary["groups"]["poor"]["auprc"]["sd"] is None


def test_differences_are_paired_by_subject(outcome):
    rows, summary, _ = outcome
    by_pair = {(entry["a"], entry["b"]): entry for entry in summary["differences"]}
    assert list(by_pair) == [
        ("net-0", "net-1"),
        ("net-0", "poor-0"),
        ("net-1", "poor-0"),
        ("net-0", "bright"),
        ("net-1", "bright"),
        ("poor-0", "bright"),
    ]
    value = {(row["method"], row["subject"]): row["auprc"] for row in rows}
    expected = np.mean([value["net-0", s] - value["poor-0", s] for s in "ab"])
    assert by_pair["net-0", "poor-0"]["mean"] == pytest.approx(expected)
    assert by_pair["net-0", "poor-0"]["n_subjects"] == 2
    shuffled = differences({"x": rows[6:9][::-1], "y": rows[12:15]}, [("x", "y")])[0]
    assert shuffled["mean"] == pytest.approx(expected)
    grouped = {(entry["a"], entry["b"]) for entry in summary["group_differences"]}
    assert grouped == {("net", "poor"), ("net", "bright"), ("poor", "bright")}


SCANS_OF_PEOPLE = [("a", f"a_{i}", 0.2) for i in range(5)] + [
    ("b", "b_0", 0.8),
    ("c", "c_0", 0.5),
    ("c", "c_1", 0.7),
]
"""Person, scan and AUPRC; person a has five scans, c has two."""


def people_rows():
    return [
        blank_row(person=person, subject=scan, auprc=value, lesion_kind="ms")
        for person, scan, value in SCANS_OF_PEOPLE
    ]


def test_person_counts_once_in_a_run():
    rows = people_rows()
    summary = summarise_run(rows)
    assert summary["auprc"]["mean"] == pytest.approx((0.2 + 0.8 + 0.6) / 3)
    assert summary["auprc_by_kind"]["ms"] == summary["auprc"]
    once = [{**rows[i], "auprc": value} for i, value in ((0, 0.2), (5, 0.8), (6, 0.6))]
    assert summary["auprc"] == summarise_run(once)["auprc"]  # the interval is of three people too


def test_person_counts_once_in_a_difference():
    rows = people_rows()
    # the last scan of c has no value in the other run
    other = [{**row, "auprc": row["auprc"] - 0.1 * (row["person"] == "b")} for row in rows[:-1]]
    (entry,) = differences({"x": rows, "y": other}, [("x", "y")])
    assert entry["n_subjects"] == 3
    assert entry["mean"] == pytest.approx(0.1 / 3)


def test_person_counts_once_in_a_group():
    rows = people_rows()
    group = summarise_group([rows, [{**row, "auprc": row["auprc"] - 0.1} for row in rows]])
    assert group["auprc"]["mean"] == pytest.approx((0.2 + 0.8 + 0.6) / 3 - 0.05)
    assert group["auprc"]["sd"] == pytest.approx(np.std([0.1, 0.0], ddof=1))


def test_flagged_scans_have_clopper_pearson_intervals():
    rows = [
        blank_row(subject=str(i), person=str(i), flagged_healthy=float(i < 3)) for i in range(10)
    ]
    rate = summarise_run(rows)["scan_fpr_healthy"]
    assert (rate["mean"], rate["low"]) == pytest.approx((0.3, 0.06674), abs=1e-5)
    none_flagged = [{**row, "flagged_healthy": 0.0} for row in rows]
    assert summarise_group([rows, none_flagged])["scan_fpr_healthy"]["mean"] == pytest.approx(0.15)


def test_voxel_rate_counts_voxels():
    rows = [
        blank_row(person="a", fpr_healthy=0.01, brain_voxels=300.0),
        blank_row(person="b", fpr_healthy=0.0),
        blank_row(person="c"),
    ]
    summary = summarise_run(rows)
    assert summary["fpr_healthy"]["mean"] == pytest.approx(0.005)
    rate = summary["fpr_healthy_voxels"]
    expected = clopper_pearson(3, 1300)
    assert (rate["mean"], rate["low"], rate["high"]) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
