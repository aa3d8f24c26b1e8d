"""The command line: exit codes, one-line errors, the whole way from scans to scores, and help that loads no torch."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from helpers.brains import made_brain, made_dataset, save
from helpers.runs import COHORT, made_run
from maediff.cli.options import print_report
from maediff.cohort.cohort import Cohort
from maediff.methods.registry import BASELINES, METHODS
from maediff.models.folder import prepared_for

COMMANDS = [
    "demo",
    "preprocess",
    "train",
    "detect",
    "evaluate",
    "compare",
    "models",
    "report",
    "benchmark",
]
SMALL_SETTINGS = [
    "unet.channels=[8, 16]",
    "unet.blocks=1",
    "mae.dim=16",
    "mae.encoder_blocks=1",
    "mae.heads=2",
    "s=48",
    "train.steps=4",
    "train.batch_size=2",
    "train.checkpoint_every=4",
]


def maediff(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "maediff", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
    )


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['maediff', '--help']\nimport maediff.cli\n"
        "try: maediff.cli.main()\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'nibabel', 'SimpleITK', 'matplotlib', 'sklearn'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for command in COMMANDS:
        assert command in result.stdout


def test_scores_are_said_to_be_whole_where_matplotlib_is_missing(tmp_path, monkeypatch, capsys):
    for name in [
        name
        for name in sys.modules
        if name == "matplotlib" or name.startswith(("matplotlib.", "maediff.report"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    print_report(tmp_path / "eval")
    assert (
        f"no report, because matplotlib is not installed; where it is installed: maediff report {tmp_path / 'eval'}"
        in capsys.readouterr().err
    )


def test_version_and_models():
    assert maediff("--version").stdout.startswith("maediff 0.")
    listed = maediff("models")
    assert listed.returncode == 0
    assert "train one" in listed.stdout or "where:" in listed.stdout


def test_scans_are_prepared_like_those_of_a_model_and_set_wins(tmp_path):
    landmarks = [0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8]
    cohort = {
        **COHORT,
        "normalise": {"low_percentile": 2.0, "high_percentile": 98.0, "landmarks": landmarks},
    }
    run = made_run(tmp_path / "run", cohort={**cohort, "registration": {"enabled": False}})
    assert prepared_for(run)["bias"] == {"enabled": False}  # it says nothing of it
    scan = save(tmp_path / "sub-1_T1w.nii.gz", *made_brain(spacing=(2.0, 2.0, 7.0))[::2])
    go = (
        "preprocess",
        scan,
        "-o",
        tmp_path / "out",
        "--like",
        run,
        "--set",
        "normalise.high_percentile=97",
    )
    assert maediff(*go).returncode == 0
    meta = Cohort.open(tmp_path / "out").meta
    assert meta["normalise"] == {
        "low_percentile": 2.0,
        "high_percentile": 97.0,
        "landmarks": landmarks,
    }
    assert not meta["registration"]["enabled"]  # on by default
    refused = maediff("preprocess", scan, "-o", tmp_path / "no", "--like", tmp_path)
    assert refused.returncode == 2 and "not a run folder" in refused.stderr


def test_help_of_train_names_every_method_that_can_be_trained():
    said = " ".join(maediff("train", "--help").stdout.replace("│", " ").split())
    for name in METHODS:
        assert bool(re.search(rf"\b{name}\b", said)) == (name not in BASELINES), name


@pytest.mark.slow
def test_user_errors_are_one_line_and_exit_2(tmp_path):
    scan = save(tmp_path / "sub-1_T1w.nii.gz", *made_brain()[::2])
    plain = save(tmp_path / "patient.nii.gz", *made_brain()[::2])  # no contrast in its name
    (tmp_path / "run").mkdir()
    cases = [
        (["detect", tmp_path / "absent.nii.gz", "-o", tmp_path / "o"], "absent.nii.gz"),
        (["detect", plain, "-o", tmp_path / "o"], "--model"),
        (["detect", scan, "-o", tmp_path / "o", "--model", tmp_path / "run"], "not a run folder"),
        (["train", "maediff", "--cohort", tmp_path, "-o", tmp_path / "o"], "cohort.json"),
        (
            ["train", "maediff", "--cohort", tmp_path, "-o", tmp_path / "o", "--set", "r=10"],
            "r=10",
        ),
        (
            ["train", "maediff", "--cohort", tmp_path, "-o", tmp_path / "o", "--set", "colour"],
            "'colour'",
        ),
        (
            ["evaluate", tmp_path / "run", "--cohort", tmp_path, "-o", tmp_path / "o"],
            "cohort.json",
        ),
        (["preprocess", tmp_path / "absent", "-o", tmp_path / "o"], "absent"),
        (["preprocess", "-o", tmp_path / "o"], "no INPUT"),
        (["preprocess", tmp_path / ("a" * 300), "-o", tmp_path / "o"], "aaa: File name too long"),
        (["report", tmp_path / "run"], str(tmp_path / "run")),
        (["benchmark", "--preset", "huge"], "huge"),
    ]
    for arguments, said in cases:
        result = maediff(*arguments)
        assert result.returncode == 2, (arguments, result.stderr)
        assert said in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "o").exists(), arguments


@pytest.mark.parametrize(
    "command",
    [
        "train",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("preprocess", "detect", "evaluate", "compare")
        ),
    ],
)
def test_an_unknown_key_is_said_with_the_file_that_holds_it(command, tmp_path):
    scan = save(tmp_path / "sub-1_T1w.nii.gz", *made_brain(shape=(20, 20, 4))[::2])
    first = {"preprocess": [scan], "detect": [scan], "evaluate": [tmp_path, "--cohort", tmp_path]}
    arguments = [
        command,
        *first.get(command, ["pddpm", "--cohort", tmp_path]),
        "-o",
        tmp_path / "o",
    ]
    (tmp_path / "my.yaml").write_text("nonsense: 3\n")
    result = maediff(*arguments, "--config", tmp_path / "my.yaml")
    assert result.returncode == 2
    assert "nonsense" in result.stderr
    assert f"given in {tmp_path / 'my.yaml'}" in result.stderr


def test_a_failed_scan_is_exit_code_1_and_the_rest_is_done(tmp_path):
    data, _, affine = made_brain()
    save(tmp_path / "in" / "sub-1_T1w.nii.gz", data, affine)
    save(tmp_path / "in" / "sub-2_T1w.nii.gz", np.full_like(data, 3), affine)
    result = maediff(
        "preprocess",
        tmp_path / "in",
        "-o",
        tmp_path / "cohort",
        "-q",
        "--set",
        "registration.enabled=false",
    )
    assert result.returncode == 1
    assert "sub-2" in result.stderr
    assert "constant" in result.stderr
    assert (tmp_path / "cohort" / "sub-1" / "image.nii.gz").exists()
    assert not (tmp_path / "cohort" / "sub-2").exists()
    assert result.stderr.splitlines()[-1].startswith("1 failed: sub-2; 1 flagged: sub-1; see ")


@pytest.mark.slow
def test_the_whole_way_from_scans_to_scores(tmp_path):
    """preprocess -> train -> detect -> evaluate -> report, in folders with spaces and letters beyond ASCII."""
    small = [x for setting in SMALL_SETTINGS for x in ("--set", setting)]
    home = tmp_path / "Müller's scans"
    manifest = made_dataset(home / "in")
    steps = [
        ["preprocess", manifest, "-o", home / "cohort", "--modality", "T1w"],
        [
            "train",
            "maediff",
            "--cohort",
            home / "cohort",
            "-o",
            home / "run",
            "--preset",
            "tiny",
            *small,
        ],
        [
            "detect",
            "-i",
            manifest,
            "-o",
            home / "detect",
            "--model",
            home / "run",
            "--modality",
            "T1w",
        ],
        ["evaluate", home / "run", "--cohort", home / "cohort", "-o", home / "eval"],
        ["report", home / "run"],
    ]
    for arguments in steps:
        result = (
            maediff(*arguments, "--quiet") if arguments[0] != "report" else maediff(*arguments)
        )
        assert result.returncode == 0, (arguments[0], result.stderr)
    for folder in ("detect", "eval", "run"):
        assert "<html" in (home / folder / "report.html").read_text(encoding="utf-8")
    summary = json.loads((home / "eval" / "summary.json").read_text(encoding="utf-8"))
    assert {"run", "bright", "dark", "median", "slice", "template"} <= summary["methods"].keys()
    for method in summary["methods"].values():
        assert 0 <= method["auprc"]["mean"] <= 1
    assert len(list((home / "detect").glob("*/anomaly_map.nii.gz"))) == 7
    result = maediff(*steps[2], "--quiet")
    assert result.returncode == 2
    assert "exists and is not empty" in result.stderr
