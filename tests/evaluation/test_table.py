"""Tables of a summary as text."""

import pytest

from maediff.evaluation.table import format_cell, literature_table, make_tables, markdown_table


def test_markdown_has_methods_and_notes(outcome):
    text = markdown_table({**outcome.summary, "notes": ["A note."]})
    assert "bright (best baseline)" in text
    assert "oracle (not achievable)" in text
    assert "| net-0 - poor-0 |" in text
    assert "- A note." in text
    assert "nan" not in text


def test_tables_in_order(outcome):
    titles = [table.title for table in make_tables(outcome.summary)]
    assert [title.split(",")[0].split(" (")[0] for title in titles] == [
        "Dice at the labelled threshold and AUPRC",
        "Methods",
        "Methods",
        "Paired differences over subjects",
        "Runs",
        "Runs",
        "Paired differences over subjects",
        "AUPRC by kind of lesion",
    ]


def test_literature_table(outcome):
    table = literature_table(outcome.summary)
    assert [row[0] for row in table.rows] == ["bright (best baseline)", "dark", "net", "poor"]
    assert table.marked == 0
    assert table.rows[2][-1] == "0, 1"
    group = outcome.summary["groups"]["net"]["dice"]
    assert table.rows[2][1] == f"{100 * group['mean']:.2f} ± {100 * group['sd']:.2f}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n/a"),
        ({"mean": None, "low": None, "high": None}, "n/a"),
        (0.25, "0.250"),
        ({"mean": 0.5, "low": None, "high": None}, "0.500"),
        ({"mean": 0.5, "low": 0.25, "high": 1.0, "sd": 0.125}, "0.500 ± 0.125 [0.250, 1.000]"),
    ],
)
def test_a_cell_has_mean_spread_and_interval(value, text):
    assert format_cell(value) == text


def test_cell_with_sign():
    value = {"mean": 0.5, "low": -0.25, "high": 1.0}
    assert format_cell(value, sign="+") == "+0.500 [-0.250, +1.000]"
