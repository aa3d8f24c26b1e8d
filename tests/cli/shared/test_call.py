"""The command line that a report shows."""

from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from maediff.cli.shared.call import describe_call
from maediff.cli.shared.commands import Command, Group

app = typer.Typer(cls=Group)


@app.command(cls=Command)
def see(
    out: Annotated[Path, typer.Option("--out", "-o")],
    inputs: Annotated[list[Path] | None, typer.Argument()] = None,
    model: Annotated[str | None, typer.Option()] = None,
    set_: Annotated[list[str] | None, typer.Option("--set")] = None,
    threshold: Annotated[float | None, typer.Option()] = None,
    combine: Annotated[bool, typer.Option("--combine/--no-combine")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q")] = False,
    shard: Annotated[str | None, typer.Option()] = None,
    series: Annotated[str | None, typer.Option()] = None,
) -> None:
    typer.echo(describe_call())


@app.command(cls=Command)
def other() -> None:
    """Give the program a second command."""


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("-o r", "maediff see --out r"),
        ("/home/ann/a.nii.gz -o /tmp/secret/out/", "maediff see a.nii.gz --out out"),
        ("a b/c d e f -o r", "maediff see '(5 inputs)' --out r"),
        ("--model runs/mine@t_test=125 -o r", "maediff see --out r --model mine@t_test=125"),
        ("--model {runs}/a+{runs}/b -o r", "maediff see --out r --model a+b"),
        ("--model hf:ORG/NAME -o r", "maediff see --out r --model hf:ORG/NAME"),
        (
            "--set a.b=1 --set c=2 -q --no-combine -o r",
            "maediff see --out r --set a.b=1 --set c=2 --no-combine",
        ),
        ("--threshold 0.7 -o r", "maediff see --out r --threshold 0.7"),
        ("--shard 2/4 --series 3 -o r", "maediff see --out r --series 3"),
        ("--series 1.2.840.113619.2.5 -o r", "maediff see --out r --series UID"),
    ],
)
def test_arguments_that_the_user_gave(arguments, shown, tmp_path):
    for name in ("a", "b"):  # a mean of two models
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    given = arguments.format(runs=tmp_path).split()
    result = CliRunner().invoke(app, ["see", *given])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == shown


def test_name_with_a_space_is_quoted():
    result = CliRunner().invoke(app, ["see", "/data/MR scan.nii", "-o", "r"])
    assert result.output.strip() == "maediff see 'MR scan.nii' --out r"


def test_no_command_runs():
    assert describe_call() == ""
    CliRunner().invoke(app, ["see", "-o", "r"])
    assert describe_call() == ""
