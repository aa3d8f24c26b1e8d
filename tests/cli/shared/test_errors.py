"""Library messages with flags instead of arguments."""

import io
import logging
import sys
from pathlib import Path

import pytest
import typer

from maediff import cli
from maediff.cli import app, main
from maediff.cli.shared.errors import (
    FlagFormatter,
    TerminalHandler,
    collect_flags,
    echo,
    echo_page,
    name_flags,
)
from maediff.demo import Stages

FLAGS = collect_flags(typer.main.get_command(app))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("or set `overwrite=True`", "or set --overwrite"),
        ("`device='cuda'`: no CUDA device", "--device cuda: no CUDA device"),
        ("give `threshold` or `scan_fpr`", "give --threshold or --scan-fpr"),
        ("`fpr=2.0`: not a rate", "--fpr 2.0: not a rate"),
        ("give `model=RUN`", "give --model RUN"),
        ("give `model='my run'`", "give --model 'my run'"),
        ("`seeds=[0, 1]`: twice", "--seeds 0,1: twice"),
        ("`brain_mask=/a b/mask.nii`: no such file", "--brain-mask /a b/mask.nii: no such file"),
        ("`like='t1'`, `seed=3`, `quiet=True`", "--like t1, --seed 3, --quiet"),
        ("set `postprocess.symmetry=0`", "set --set postprocess.symmetry=0"),
        ("`unet.channels=[8, 16]`", "--set 'unet.channels=[8, 16]'"),
        ("in `settings`", "in --set"),
    ],
)
def test_arguments_become_flags(message, expected):
    assert name_flags(message, FLAGS) == expected


@pytest.mark.parametrize(
    "message",
    [
        "run `maediff train --resume`",
        "/data/seed=3/overwrite=True/scan.nii",
        "the column `subject`",
        "`maediff.core`",
        "2 `apart",
    ],
)
def test_other_text_is_unchanged(message):
    assert name_flags(message, FLAGS) == message


def test_a_command_line_without_set_keeps_the_name_of_a_setting():
    message = "train with another `train.calibration_scans=0`, or set `overwrite=True`"
    shown = "train with another `train.calibration_scans=0`, or set --overwrite"
    assert name_flags(message, {"overwrite": "--overwrite"}) == shown


def test_every_option_has_a_flag():
    assert FLAGS["set_"] == FLAGS["settings"] == "--set"
    assert FLAGS["out"] == "--out" and FLAGS["max_time"] == "--max-time"
    assert "inputs" not in FLAGS


def test_log_records_name_flags():
    record = logging.LogRecord("maediff", 20, "", 0, "%s: set `%s=True`", ("a", "resume"), None)
    assert FlagFormatter(FLAGS).format(record) == "a: set --resume"


def test_log_line_shows_control_characters_escaped():
    record = logging.LogRecord(
        "maediff", logging.WARNING, "", 0, "%s: `seed=1`", ("a\x1b[31m\nforged.nii",), None
    )
    assert FlagFormatter(FLAGS).format(record) == "a\\x1b[31m\\nforged.nii: --seed 1"
    record.exc_info = (ValueError, ValueError("x"), None)
    assert FlagFormatter(FLAGS).format(record).endswith("\nValueError: x")  # a traceback has lines


def test_error_and_result_show_control_characters_escaped(tmp_path, capsys, monkeypatch):
    path = tmp_path / "evil\x1b]0;owned\x07\nmaediff: done_T1w.nii.gz"
    path.write_bytes(b"not a scan")
    monkeypatch.setattr("sys.argv", ["maediff", "detect", str(path), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        main()
    err = capsys.readouterr().err
    assert "evil\\x1b]0;owned\\x07\\nmaediff: done" in err
    assert "\x1b" not in err
    assert len(err.strip().splitlines()) == 1
    echo("report: a\u202eb")
    assert capsys.readouterr().out == "report: a\\u202eb\n"


def test_every_command_prints_escaped_text():
    """`typer.echo` prints as it is: only the functions that escape may call it."""
    allowed = {"errors.py", "__init__.py", "commands.py"}
    for path in Path(cli.__file__).parent.rglob("*.py"):
        if path.name not in allowed:
            assert "typer.echo(" not in path.read_text(encoding="utf-8"), path


def test_page_shows_control_characters_escaped(capsys):
    echo_page("| run | AUPRC |\n| evil\x1b[31m\u202e | 0.5 |\n")
    assert capsys.readouterr().out == "| run | AUPRC |\n| evil\\x1b[31m\\u202e | 0.5 |\n\n"


def test_demo_shows_control_characters_escaped(capsys):
    Stages(quiet=False).write("report: a\x1b]0;owned\x07/report.html\nnext [red]line")
    assert capsys.readouterr().out == ("report: a\\x1b]0;owned\\x07/report.html\nnext [red]line\n")


def test_log_goes_to_the_error_stream_of_the_moment(monkeypatch):
    """A progress bar replaces the stream while it is shown."""
    handler = TerminalHandler()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handler.emit(logging.makeLogRecord({"msg": "sub-01: no region"}))
    assert stream.getvalue() == "sub-01: no region\n"


def test_a_warning_is_shown_once_and_an_error_each_time(capsys):
    handler = TerminalHandler()
    for level in (logging.WARNING, logging.ERROR):
        for text in ("a.nii skipped", "a.nii skipped", "b.nii skipped"):
            handler.emit(logging.LogRecord("maediff", level, "", 0, text, None, None))
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["a.nii skipped", "b.nii skipped", *["a.nii skipped"] * 2, "b.nii skipped"]
