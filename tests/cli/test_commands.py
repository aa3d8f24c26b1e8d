"""Flags take no value, and show no type."""

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from maediff.cli.commands import BOOLEAN_WORDS, Command, Group

app = typer.Typer(cls=Group)


@app.command(cls=Command)
def show(
    inputs: Annotated[list[str] | None, typer.Argument()] = None,
    viewer: Annotated[bool, typer.Option("--viewer", "-v")] = False,
    name: Annotated[str, typer.Option()] = "x",
) -> None:
    """Print the options."""
    typer.echo(f"{inputs} {viewer} {name}")


@app.command(cls=Command)
def other() -> None:
    """Do nothing."""


def run(*arguments):
    return CliRunner().invoke(app, ["show", *arguments])


@pytest.mark.parametrize("word", [*sorted(BOOLEAN_WORDS), "True", "FALSE"])
@pytest.mark.parametrize("flag", ["--viewer", "-v"])
def test_boolean_word_after_a_flag_is_refused(flag, word):
    result = run("a", flag, word)
    assert result.exit_code == 2
    assert f"{flag} is a flag and takes no value: leave out '{word}'" in result.output


def test_value_with_equals_sign_is_refused():
    assert run("--viewer=true").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--viewer", "a.nii"], "['a.nii'] True x"),
        (["true", "--viewer"], "['true'] True x"),
        (["--viewer", "--", "true"], "['true'] True x"),
        (["--name", "true"], "None False true"),
        (["--viewer", "--name", "1"], "None True 1"),
    ],
)
def test_other_words_are_arguments(arguments, output):
    assert run(*arguments).output.strip() == output


def test_existing_file_after_a_flag_is_an_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "true").touch()
    assert run("--viewer", "true").output.strip() == "['true'] True x"


@pytest.mark.parametrize("arguments", [["--help"], ["show", "--help"]])
def test_help_shows_no_type_of_flags(arguments):
    output = CliRunner().invoke(app, arguments).output
    assert "--help" in output
    assert "<bool>" not in output
