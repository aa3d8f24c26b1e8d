"""tools/make_models.py: the commands, and which of them a stopped run repeats."""

import subprocess

import pytest

from helpers.scripts import load_script, parse_command

make_models = load_script("tools/make_models.py")

BEFORE = """\
maediff preprocess DATA/ds002748 DATA/ds000011 -o cohorts/t1 --modality T1w --like t1 --resume
python scripts/render_contrast.py DATA/ds002748 cohorts/flair-scans FLAIR --n 2 --overwrite
python scripts/make_phantoms.py cohorts/flair-phantoms FLAIR 24 0 0 4 0
maediff preprocess cohorts/flair-scans/manifest.csv cohorts/flair-phantoms/manifest.csv \
-o cohorts/flair --modality FLAIR --like flair --resume
python scripts/render_contrast.py DATA/ds002748 cohorts/t2-scans T2w --n 2 --overwrite
python scripts/make_phantoms.py cohorts/t2-phantoms T2w 24 0 0 4 0
maediff preprocess cohorts/t2-scans/manifest.csv cohorts/t2-phantoms/manifest.csv DATA/ds000011 \
-o cohorts/t2 --modality T2w --like t2 --resume
maediff preprocess DATA/lgg/flair.csv -o cohorts/lgg-flair --modality FLAIR --like flair --resume
python scripts/remake_model.py t1 cohorts/t1 runs/models --max-time 30s
python scripts/remake_model.py flair cohorts/flair runs/models --max-time 30s
python scripts/remake_model.py t2 cohorts/t2 runs/models --max-time 30s
python scripts/remake_model.py flair-lgg cohorts/lgg-flair runs/models --max-time 30s
"""
"""Commands of `make models DATA=DATA TIME=30s` at commit 2191e71, which made the shipped models.

They were recorded by running its Makefile with programs that only print their arguments.
"""
COUNTS = "--train 24 --val 0 --test 0 --healthy-val 4 --healthy-test 0 --overwrite"
RENAMED = {
    "scripts/": "tools/",
    "FLAIR 24 0 0 4 0": f"--contrast FLAIR {COUNTS}",
    "T2w 24 0 0 4 0": f"--contrast T2w {COUNTS}",
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Make the folders of the data sets in an empty current folder, and return their path."""
    monkeypatch.chdir(tmp_path)
    for name in ("ds002748", "ds000011", "lgg"):
        (tmp_path / "DATA" / name).mkdir(parents=True)
    return "DATA"


@pytest.fixture
def commands(monkeypatch):
    """Return the steps that are run; each one writes the file that shows that it is done."""
    ran = []

    def record(step):
        ran.append(str(step))
        if step.done:
            step.done.parent.mkdir(parents=True)
            step.done.touch()

    monkeypatch.setattr(make_models, "run", record)
    return ran


def test_dry_run_prints_the_commands_that_made_the_shipped_models(capsys):
    assert make_models.main(["--data", "DATA", "--max-time", "30s", "--dry-run"]) == 0
    expected = BEFORE
    for old, new in RENAMED.items():
        expected = expected.replace(old, new)
    assert capsys.readouterr().out == expected


def test_every_command_has_options_that_exist(capsys):
    make_models.main(["--data", "DA TA", "--dry-run"])
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 12
    for command in commands:
        if "remake_model" not in command:
            parse_command(command)
    assert "'DA TA/ds002748'" in commands[0]


def test_a_second_run_skips_what_is_done(data, commands):
    assert make_models.main(["--data", data]) == 0
    assert len(commands) == 12
    commands.clear()
    assert make_models.main(["--data", data]) == 0
    assert len(commands) == 8  # without two renderings and two sets of phantoms
    assert not any("render_contrast" in command for command in commands)


def test_a_failed_command_stops_the_run(data, monkeypatch, capsys):
    def fail(command, check):
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(subprocess, "run", fail)
    assert make_models.main(["--data", data]) == 3
    output = capsys.readouterr()
    assert output.err == f"error: stopped at: {output.out}"


def test_commands_run_with_this_python(data, monkeypatch):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    make_models.main(["--data", data])
    assert ran[0][1:4] == ["-m", "maediff", "preprocess"]
    assert ran[1][1] == str(make_models.ROOT / "tools" / "render_contrast.py")
    assert make_models.Path(ran[1][1]).is_file()


@pytest.mark.parametrize(
    ("options", "message"), [([], "ds002748, ds000011, lgg"), (["--max-time", "soon"], "soon")]
)
def test_bad_input_is_refused_in_one_line(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        make_models.main(["--data", str(tmp_path), *options])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
