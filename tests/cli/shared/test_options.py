"""Functions that all commands share."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from maediff.cli import app
from maediff.cli.shared.options import (
    collect_inputs,
    exit_if_failed,
    parse_seeds,
    print_failures,
    read_cli_settings,
    refuse_settings,
)
from maediff.core.config import SettingsError
from maediff.core.errors import InputError


def test_inputs_are_joined():
    assert collect_inputs([Path("a")], [Path("b")]) == [Path("a"), Path("b")]
    assert collect_inputs(None, [Path("b")]) == [Path("b")]
    with pytest.raises(InputError, match="no INPUT"):
        collect_inputs(None, None)


def test_no_help_text_has_words_in_brackets():
    """rich takes them for markup and drops them: maediff[ray] was shown as maediff."""
    commands = typer.main.get_command(app).commands.values()
    texts = [command.help or "" for command in commands]
    texts += [getattr(item, "help", "") or "" for command in commands for item in command.params]
    assert len(texts) > 100
    assert not [text for text in texts if re.search(r"\[[a-z/]", text)]


def test_set_overrides_file(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("s: 24\nunet: {blocks: 1}\n")
    with read_cli_settings(file, ["s=48", "unet.stem=2"]) as settings:
        assert settings == {"s": 48, "unet": {"blocks": 1, "stem": 2}}
    with read_cli_settings(None, None) as settings:
        assert settings == {}


def test_settings_error_names_the_file(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("nonsense: 3\n")
    with (
        pytest.raises(InputError, match=rf"nonsense.*; given in {file} or on the command line"),
        read_cli_settings(file, None) as settings,
    ):
        refuse_settings(settings, "postprocess.*")


def test_settings_error_without_a_file():
    with (
        pytest.raises(InputError, match=r"unknown settings: r; this command has postprocess\.\*$"),
        read_cli_settings(None, ["r=3"]) as settings,
    ):
        refuse_settings(settings, "postprocess.*")


def test_other_errors_pass(tmp_path):
    with pytest.raises(InputError, match=r"^a$"), read_cli_settings(None, None):
        raise InputError("a")


def test_refuse_settings():
    refuse_settings({}, "postprocess.*")
    with pytest.raises(SettingsError, match="a, b"):
        refuse_settings({"a": 1, "b": 2}, "postprocess.*")


def test_seeds_are_whole_numbers_with_commas():
    assert parse_seeds("0,1,2", "--seeds 0,1,2") == [0, 1, 2]
    for text in ("", "0;1", "0,x"):
        with pytest.raises(InputError, match=rf"--seeds {text}: give whole numbers"):
            parse_seeds(text, f"--seeds {text}")


def test_failures_are_printed(capsys):
    print_failures(["b"], ["a", "c"], Path("qc.csv"))
    assert capsys.readouterr().err == "1 failed: b; 2 flagged: a, c; see qc.csv\n"
    print_failures([], ["a"], Path("qc.csv"))
    assert capsys.readouterr().err == "1 flagged: a; see qc.csv\n"
    print_failures([], [], Path("qc.csv"))
    assert capsys.readouterr() == ("", "")


def test_exit_code_of_failures():
    exit_if_failed(0)
    with pytest.raises(typer.Exit) as error:
        exit_if_failed(2)
    assert error.value.exit_code == 1


def test_report_without_matplotlib(tmp_path):
    """In a process of its own, because modules of the report are imported again."""
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "scores.csv").touch()
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pathlib import Path\n"
        "from maediff.cli.shared.options import print_report\n"
        f"print_report(Path({str(tmp_path / 'eval')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        "no report, because matplotlib is not installed; "
        f"where it is installed: maediff report {tmp_path / 'eval'}"
    ) in done.stderr
