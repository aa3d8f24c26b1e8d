"""Flags take no value, and show no type."""

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from maediff.cli import app as maediff_app
from maediff.cli.shared.commands import BOOLEAN_WORDS, Command, Group, fill_names
from maediff.methods.registry import PRESETS, TRAINED

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


@pytest.mark.parametrize("command", ["train", "fit", "compare", "benchmark"])
def test_help_lists_registered_names(command):
    output = CliRunner(env={"COLUMNS": "400"}).invoke(maediff_app, [command, "--help"]).output
    assert all(name in output for name in PRESETS)
    assert command == "benchmark" or all(name in output for name in TRAINED)
    assert "{methods}" not in output
    assert "{presets}" not in output


def test_names_are_joined_in_words():
    group = typer.main.get_command(maediff_app)
    train = group.commands["train"]  # type: ignore[attr-defined]
    fill_names(train)
    texts = {parameter.name: parameter.help for parameter in train.params}
    assert texts["preset"].startswith("Sizes of the networks and length of the training: paper, ")
    assert "small or tiny; auto is" in texts["preset"]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (
            ("resume", "overwrite"),
            "finished parts are kept: the same command with --resume continues",
        ),
        (("overwrite",), "the same command with --overwrite starts again"),
        ((), None),
    ],
)
def test_stopped_command(options, hint, capsys):
    assert _stop("detect", options, [], capsys) == (f"; {hint}" if hint else "")


def test_a_stopped_evaluation_resumes_only_as_a_shard(capsys):
    options = ("shard", "resume", "overwrite")
    assert "--overwrite starts again" in _stop("evaluate", options, [], capsys)
    assert "--resume continues" in _stop("evaluate", options, ["--shard", "1/2"], capsys)
    assert "--resume continues" in _stop("detect", options, [], capsys)


def _stop(name, options, arguments, capsys):
    """Return the end of the message of a stopped command with these options."""

    def work(shard: str = "", resume: bool = False, overwrite: bool = False):
        raise KeyboardInterrupt

    app = typer.Typer()
    app.command(name, cls=Command)(work)
    command = typer.main.get_command(app)
    command.params = [param for param in command.params if param.name in options]
    command.callback = lambda **_: work()
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 130
    return capsys.readouterr().err.removeprefix("maediff: stopped").removesuffix("\n")
