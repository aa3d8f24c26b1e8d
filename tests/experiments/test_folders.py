"""Every folder of experiments/: its files, its links, and the commands of its run.sh."""

import csv
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from helpers.scripts import ROOT, load_script, parse_command
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.core.config import build_config, parse_settings
from maediff.methods.registry import METHODS, resolve
from maediff.models.reference import split_settings
from maediff.training.config import resolve_training

FOLDER = ROOT / "experiments"
QUESTIONS = sorted(
    path.parent.name for path in FOLDER.glob("*/README.md") if path.parent.name != "log"
)


def commands_of(name):
    """Return what the run.sh of a question would run, a command in each line."""
    environment = {"DATA": "DA TA", "DRY_RUN": "1", "PATH": "/usr/bin:/bin", "PARTS": ""}
    if name == "method_comparison":
        environment["PARTS"] = "t1w flair phantoms-T2w phantoms-FLAIR"
    script = FOLDER / name / "run.sh"
    output = subprocess.run(
        ["bash", str(script)], env=environment, check=True, capture_output=True, text=True
    )
    assert output.stderr == ""
    return output.stdout.splitlines()


def check_settings(words):
    """Build the settings of a `maediff train` or `compare` command, as the command does."""
    values = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    settings = parse_settings(values)
    train = settings.pop("train", {})
    build_config(PostprocessConfig, settings.pop("postprocess", {}), "postprocess")
    resolve_training("tiny", train)
    for word in words[2:]:
        method, _, at_test = word.partition("@")
        if method in METHODS:
            resolve(method, "tiny", {**settings, **parse_settings(split_settings(at_test))})


def test_every_folder_is_a_question_of_the_index():
    folders = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
    folders = [name for name in folders if name not in ("__pycache__", "log")]
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    index = re.findall(r"^\| \[(\w+)\]\(\1/README.md\): .*\?", text, re.M)
    assert folders == QUESTIONS == sorted(index)


def test_a_folder_of_cohorts_has_one_content():
    """All experiments and `make models` share the folder of the cohorts."""
    commands: dict[str, set[tuple[str, ...]]] = {}
    models = load_script("tools/make_models.py")
    steps = models.steps(Path("DA TA"), Path("cohorts"), Path("out"), "12m")
    lines = [line for name in QUESTIONS for line in commands_of(name)]
    for line in (*lines, *map(str, steps)):
        words = shlex.split(line)
        outputs = [word for word in words if re.fullmatch(r"cohorts/[^/.]+", word)]
        if words[:2] == ["maediff", "preprocess"]:
            outputs = [words[words.index("-o") + 1]]
        elif words[0] != "python" or not words[1].endswith(("render_contrast.py", "phantoms.py")):
            continue
        options = tuple(word for word in words if word not in ("--resume", "--overwrite"))
        commands.setdefault(outputs[0], set()).add(tuple(sorted(options)))
    assert len(commands) > 30
    assert {name: found for name, found in commands.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_has_a_short_answer_with_its_source(name):
    text = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert text.splitlines()[0].startswith("# ")
    assert text.splitlines()[0].endswith("?")
    for heading in ("## Run", "## Answer", "## Source"):
        assert heading in text
    from_the_log = "../log/README.md" in text and "2191e71" in text
    assert from_the_log or "was measured on 20" in text
    assert len(text.splitlines()) <= 40
    for table in (FOLDER / name).glob("*.csv"):
        assert table.stem in text or f"{table.stem.rpartition('_')[0]}_*" in text, table


@pytest.mark.parametrize("page", ["README.md", *(f"{name}/README.md" for name in QUESTIONS)])
def test_links_lead_somewhere(page):
    path = FOLDER / page
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*/*.csv")), ids=lambda path: path.stem)
def test_tables_are_complete(path):
    header, *rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    assert rows
    assert {len(row) for row in rows} == {len(header)}


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_command_has_options_and_settings_that_exist(name):
    commands = commands_of(name)
    assert commands
    for command in commands:
        words = shlex.split(command)
        if words[0] not in ("maediff", "python"):
            assert words[0] in ("patients", "patient07")  # functions of common.sh
            continue
        parse_command(command)
        if words[1] in ("train", "compare"):
            check_settings(words)
        elif words[1].endswith("sweep_test_settings.py"):
            sweep = load_script(words[1])
            for text in sweep.build_parser().parse_args(words[2:]).residuals:
                sweep.parse_residual(text)


def test_a_step_that_is_done_is_skipped(tmp_path):
    (tmp_path / "cohorts" / "a").mkdir(parents=True)
    (tmp_path / "cohorts" / "a" / "cohort.json").touch()
    (tmp_path / "python").write_text('#!/bin/sh\necho "ran $@"\n')
    (tmp_path / "python").chmod(0o755)
    script = tmp_path / "question" / "run.sh"
    script.parent.mkdir()
    script.write_text(f". {FOLDER}/common.sh\nprepare a IN\nprepare b IN\ntrain c maediff\n")
    environment = {"DATA": "d", "PATH": "/usr/bin:/bin", "PYTHON": str(tmp_path / "python")}
    output = subprocess.run(
        ["bash", str(script)],
        env=environment,
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert output.stdout.splitlines() == [
        "skipped, cohorts/a/cohort.json exists: maediff preprocess IN -o cohorts/a --resume",
        "maediff preprocess IN -o cohorts/b --resume",
        "ran -m maediff preprocess IN -o cohorts/b --resume",
        "maediff train maediff -o runs/question/c --resume",
        "ran -m maediff train maediff -o runs/question/c --resume",
    ]


def test_without_data_run_sh_names_the_variable():
    script = FOLDER / "leak" / "run.sh"
    output = subprocess.run(
        ["bash", str(script)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert output.returncode != 0
    assert "set DATA to the folder" in output.stderr
