"""Cost of a cohort, by hand."""

import dataclasses

import pytest

from helpers.scripts import load_script

tool = load_script("tools/estimate_cost.py")
STAGES = tool.Stages(
    cpu_s=36.0,
    start_s=0.0,
    listing_s=0.0,
    report_s=0.36,
    read_mb=10.0,
    written_mb=8.0,
    files=10.0,
    memory_gb=1.0,
    source="by hand",
)


def test_one_core():
    cost = tool.estimate(1000, 1, STAGES)
    assert cost.core_hours == pytest.approx(10 + 0.1)
    assert cost.hours == pytest.approx(10 + 0.1)
    assert cost.merge_hours == pytest.approx(0.1)
    assert (cost.disk_gb, cost.files, cost.limit) == (8.0, 10_000, "the cores")
    assert cost.storage_mb_s == pytest.approx(0.5)


def test_more_cores_than_scans():
    cost = tool.estimate(10, 1000, STAGES)
    assert cost.hours == pytest.approx((36 + 3.6) / 3600)


@pytest.mark.parametrize(
    ("changes", "scans", "limit"),
    [
        ({}, 200_000, "the merge"),
        ({"report_s": 0.0, "listing_s": 1.0}, 1000, "the list"),
        ({"report_s": 0.0, "read_mb": 500.0}, 1000, "the shared storage"),
        ({"report_s": 0.0}, 150_000, "the number of files"),
    ],
)
def test_limit_on_1000_cores(changes, scans, limit):
    cost = tool.estimate(scans, 1000, dataclasses.replace(STAGES, **changes))
    assert cost.limit.startswith(limit)


def test_table_has_a_row_for_each_combination():
    lines = tool.markdown_table([10, 20], [1, 2, 3], STAGES).splitlines()
    assert len(lines) == 2 + 6
    assert len({line.count("|") for line in lines}) == 1
