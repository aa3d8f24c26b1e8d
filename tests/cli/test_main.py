"""Help, version, completion and exit codes of the command line."""

import subprocess
import sys

import pytest
import typer

from helpers.brains import made_brain, save
from helpers.cli import call_maediff, maediff, read_help
from maediff import __version__
from maediff.cli import app, main

COMMANDS = typer.main.get_command(app).commands
NAMES = [
    "demo",
    "fit",
    "preprocess",
    "train",
    "calibrate",
    "detect",
    "evaluate",
    "compare",
    "models",
    "report",
    "benchmark",
]


def test_the_commands_are_those_of_the_design():
    assert list(COMMANDS) == NAMES


def test_help_imports_no_heavy_package():
    code = (
        "import sys; sys.argv = ['maediff', '--help']\nimport maediff.cli\n"
        "try: maediff.cli.main()\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'nibabel', 'SimpleITK', 'matplotlib', 'sklearn'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in NAMES:
        assert name in result.stdout


def test_short_help_option():
    assert maediff("-h").stdout == maediff("--help").stdout
    texts = [call_maediff("benchmark", option).stdout for option in ("-h", "--help")]
    assert texts[0] == texts[1] != ""


def test_version_is_printed():
    assert maediff("--version").stdout == f"maediff {__version__}\n"


def test_completion_of_command_names():
    result = maediff(_MAEDIFF_COMPLETE="complete_bash", COMP_WORDS="maediff b", COMP_CWORD="1")
    assert result.stdout.split() == ["benchmark"]


def test_every_option_has_help():
    for command in COMMANDS.values():
        for param in command.params:
            assert param.help, (command.name, param.name)


def test_options_of_every_command():
    """--device, --seed and --quiet exist where they have an effect."""
    without = {
        "device": {"preprocess", "models", "report"},
        "seed": {"preprocess", "models", "report"},
        "quiet": {"models", "report"},
    }
    for option, commands in without.items():
        names = {command.name for command in COMMANDS.values()}
        having = {c.name for c in COMMANDS.values() if option in {p.name for p in c.params}}
        assert having == names - commands, option


def test_flags_have_no_type():
    assert "<bool>" not in read_help()
    for name in NAMES:
        assert "<bool>" not in read_help(name), name


@pytest.mark.parametrize("arguments", [["train", "--cohort"], ["nonsense"], ["report"]])
def test_usage_errors(arguments):
    result = maediff(*arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert "Error" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_user_errors_are_one_line(tmp_path):
    scan = save(tmp_path / "sub-1_T1w.nii.gz", *made_brain()[::2])
    plain = save(tmp_path / "patient.nii.gz", *made_brain()[::2])  # no contrast in its name
    (tmp_path / "run").mkdir()
    out, cohort = ["-o", tmp_path / "o"], ["--cohort", tmp_path]
    cases = [
        (["detect", tmp_path / "absent.nii.gz", *out], "absent.nii.gz"),
        (["detect", plain, *out], "--model"),
        (["detect", scan, *out, "--model", tmp_path / "run"], "not a run folder"),
        (["train", "maediff", *cohort, *out], "cohort.json"),
        (["train", "maediff", *cohort, *out, "--set", "r=10"], "r=10"),
        (["train", "maediff", *cohort, *out, "--set", "colour"], "'colour'"),
        (["evaluate", tmp_path / "run", *cohort, *out], "cohort.json"),
        (["compare", "gan", *cohort, *out], "'gan'"),
        (["compare", "ddpm", *cohort, *out, "--seeds", "0,0"], "--seeds 0,0: give each seed once"),
        (["preprocess", tmp_path / "absent", *out], "absent"),
        (["preprocess", *out], "no INPUT"),
        (["preprocess", tmp_path / ("a" * 300), *out], "aaa: cannot be read (File name too long)"),
        (["report", tmp_path / "run"], str(tmp_path / "run")),
        (["benchmark", "--preset", "huge"], "huge"),
    ]
    for number, (arguments, text) in enumerate(cases):
        run = call_maediff if number else maediff  # a process of its own imports for seconds
        result = run(*arguments)
        assert result.returncode == 2, (arguments, result.stderr)
        assert text in result.stderr
        assert "Traceback" not in result.stderr
        assert result.stderr.splitlines()[-1].startswith("maediff: "), arguments
        assert not (tmp_path / "o").exists(), arguments


@pytest.mark.parametrize("arguments", [["detect", ""], ["detect", ".", "--out", " "], [""]])
def test_empty_argument_is_not_the_current_folder(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["maediff", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    before = ["maediff", *arguments][-2]
    assert capsys.readouterr().err.startswith(
        f"maediff: the argument after '{before}' is empty (a variable without a value?)"
    )
    assert list(tmp_path.iterdir()) == []
