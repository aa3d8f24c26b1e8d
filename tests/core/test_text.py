"""External text cannot act: no terminal command, no forged log line, no formula."""

import csv

import pytest

from maediff.core.files import write_table
from maediff.core.text import (
    escape_cell,
    escape_controls,
    escape_message,
    hide_folders,
    plain_cell,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scan Ümläut 脳\u3000x.nii", "scan Ümläut 脳\u3000x.nii"),
        ("a\x1b]0;owned\x07b", "a\\x1b]0;owned\\x07b"),
        ("a\nmaediff: done", "a\\nmaediff: done"),
        ("a\r\tb\x7f\x9b", "a\\r\\tb\\x7f\\x9b"),
        ("evil\u202egz.iin", "evil\\u202egz.iin"),
        ("a\u2028b\u2066c\u200bd\ufeff", "a\\u2028b\\u2066c\\u200bd\\ufeff"),
        ("undecodable \udcff", "undecodable \\udcff"),
        ("tag \U000e0041", "tag \\U000e0041"),
    ],
)
def test_control_and_format_characters_are_escaped(text, expected):
    assert escape_controls(text) == expected
    assert escape_message(text) == expected
    expected.encode()


def test_only_indented_lines_continue_a_message():
    message = "choose one of\n  series 1: x\n  series 2: y\x1b\nmaediff: forged"
    expected = "choose one of\n  series 1: x\n  series 2: y\\x1b\\nmaediff: forged"
    assert escape_message(message) == expected


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+cmd|' /C calc'!A0", "-2+3+cmd", "@SUM(A1)", '=HYPERLINK("x")', "＝1+1", "--help"],
)
def test_formula_becomes_text_and_is_read_back(text):
    assert escape_cell(text) == f"'{text}"
    assert plain_cell(escape_cell(text)) == text


@pytest.mark.parametrize("text", ["-1.5", "+3e-7", "-inf", "-", "a=1", "'quoted'", "", "-12%"])
def test_number_and_plain_text_stay_as_they_are(text):
    assert escape_cell(text) == text
    assert plain_cell(text) == text


def test_table_holds_neither_formulas_nor_control_characters(tmp_path):
    rows = [["=1+1", -1.5, "a\nb", None], ["\t=1", "\x1b[31m", "x,y", True]]
    write_table(tmp_path / "a.csv", ["@name", "b", "c", "d"], rows)
    with (tmp_path / "a.csv").open(newline="") as file:
        cells = list(csv.reader(file))
    assert cells == [
        ["'@name", "b", "c", "d"],
        ["'=1+1", "-1.5", "a\\nb", ""],
        ["\\t=1", "\\x1b[31m", "x,y", "True"],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ann/MR scans/a.nii.gz: 2 dimensions", "a.nii.gz: 2 dimensions"),
        ("--cohort /lab/c/x -o /lab/r", "--cohort x -o r"),
        ("C:\\Users\\a b\\x.nii: bad", "x.nii: bad"),
        ("see '/x/y/z.nii' and \"/q/w\"", "see 'z.nii' and \"w\""),
        ("~/x/y.nii, /tmp/z/w", "y.nii, w"),
        ("path=/a/b/c.json", "path=c.json"),
        ("T1w/T2w/FLAIR 10 / 20 / 30 mm", "T1w/T2w/FLAIR 10 / 20 / 30 mm"),
        ("/data/Smith, John/MR/a.nii: bad", "a.nii: bad"),
        ("C:\\Users\\Ann O'Neil\\x.nii: bad", "x.nii: bad"),
        ("/lab/O'Brien Pat/a.nii and /lab/b.nii", "a.nii and b.nii"),
        ("'/a/b.nii', '/a/c.nii'; /a/d.nii", "'b.nii', 'c.nii'; d.nii"),
        ("/data/x/a.nii, 10 mm/voxel", "a.nii, 10 mm/voxel"),
        ("/data/x/a.nii.gz; see docs/how/to.md", "a.nii.gz; see docs/how/to.md"),
        ("https://doi.org/10.1/x/y", "https://doi.org/10.1/x/y"),
        ("data/sub-01/a.nii", "data/sub-01/a.nii"),
    ],
)
def test_folders_of_absolute_paths_are_hidden(text, expected):
    assert hide_folders(text) == expected
