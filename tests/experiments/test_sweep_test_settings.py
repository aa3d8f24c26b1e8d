"""experiments/test_settings/sweep_test_settings.py: its notation, and a sweep of a small run."""

import csv
import re
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from helpers.brains import made_cohort
from helpers.runs import made_run
from helpers.scripts import ROOT, load_script
from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, residual_map
from maediff.cohort.cohort import Cohort
from maediff.evaluation.metrics import auprc
from maediff.methods.residual import ComparisonConfig
from maediff.methods.volume import predict_volume
from maediff.models.model import read_model

sweep = load_script("experiments/test_settings/sweep_test_settings.py")

NEW_NOTATION = {
    "abs": "residual=abs",
    "abs+c": "residual=abs,recentre=true",
    "bright+c+x": (
        "residual=bright,recentre=true,postprocess.first_power=1,postprocess.first_ceiling=1"
    ),
    "bright+c+x2+b2": (
        "residual=bright,recentre=true,postprocess.first_power=2,postprocess.first_ceiling=1,"
        "postprocess.first_smooth_mm=4"
    ),
    "dark+c+m1": "residual=dark,recentre=true,postprocess.median_size=1",
    "dark+c+g6+m1": (
        "residual=dark,recentre=true,postprocess.smooth_mm=6,postprocess.median_size=1"
    ),
    "dark+c+i0.25+g3,20+a0.5+m1": (
        "residual=dark,recentre=true,ssim_weight=0.25,postprocess.smooth_mm=[3,20],"
        "postprocess.symmetry=0.5,postprocess.median_size=1"
    ),
    "bright+c+h+x2+G2,20,20+a0.5+y2+m1": (
        "residual=bright,recentre=true,headroom=true,postprocess.first_power=2,"
        "postprocess.smooth_mm=[2,20,20],postprocess.smooth_mean=geometric,"
        "postprocess.symmetry=0.5,postprocess.times_intensity=2,postprocess.median_size=1"
    ),
}


def parse_old_notation(text):
    """Return the configs of the notation that the script had at commit 2191e71."""
    kind, *more = text.split("+")
    blurs = [float(mm) for key in more if key[0] in "gG" for mm in key[1:].split(",")]
    numbers = {key[0]: float(key[1:] or 1) for key in more if key[0] not in "gG"}
    post = PostprocessConfig(
        median_size=int(numbers.get("m", DEFAULT.median_size)),
        smooth_mm=tuple(blurs),
        smooth_mean="geometric" if any(key[0] == "G" for key in more) else "arithmetic",
        times_intensity=numbers.get("y", 0.0),
        symmetry=numbers.get("a", 0.0),
        first_power=numbers.get("x", 0.0),
        first_smooth_mm=2.0 * numbers.get("b", 0.0),
        first_ceiling=1.0 if "x" in numbers and "h" not in numbers else 2.0,
    )
    config = ComparisonConfig(
        residual=kind,
        recentre="c" in numbers,
        headroom="h" in numbers,
        ssim_weight=numbers.get("i", 0.0),
    )
    return config, post


@pytest.mark.parametrize("old", NEW_NOTATION)
def test_the_names_of_the_settings_replace_the_old_notation(old):
    new = sweep.parse_residual(NEW_NOTATION[old])
    config, post = parse_old_notation(old)
    assert asdict(new.residual) == asdict(config)
    assert asdict(new.postprocess) == asdict(post)


def readme_pairs():
    """Return the pairs of old and new notation in the README of the question."""
    readme = ROOT / "experiments" / "test_settings" / "README.md"
    section = readme.read_text(encoding="utf-8").partition("## Notation of residuals")[2]
    pairs = []
    for line in section.splitlines():
        cells = [re.findall("`(.*?)`", cell) for cell in line.split("|")]
        for old, new in pairwise(cells):
            if old and len(old) == len(new):
                pairs += zip(old, new, strict=True)
    return pairs


def test_the_readme_has_every_letter_of_the_old_notation():
    pairs = readme_pairs()
    assert {old.lstrip("+")[0] for old, _ in pairs} == set("bchixgGyam")
    for old, new in pairs:
        old, new = (f"dark{old}", f"residual=dark,{new}") if old[0] == "+" else (old, new)
        settings = sweep.parse_residual(new)
        assert (settings.residual, settings.postprocess) == parse_old_notation(old), old


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bright+c", "not of the form KEY=VALUE"),
        ("residual=red", "residual"),
        ("loss=l2", "loss is no setting of the residual"),
        ("s=48", "s is no setting of the residual"),
        ("postprocess.blur=3", "blur: unknown setting"),
        ("postprocess=3", "not a group of settings"),
        ("postprocess.median_size=2", "median_size 2"),
    ],
)
def test_a_wrong_residual_is_refused_and_quoted(tmp_path, capsys, text, message):
    with pytest.raises(SystemExit, match="2"):
        sweep.main([str(tmp_path), str(tmp_path), "--residuals", text])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --residuals {text}: ")
    assert message in line


def settings_of(*arguments):
    return list(sweep.model_settings(sweep.build_parser().parse_args(["run", "c", *arguments])))


def test_every_combination_of_model_settings():
    assert settings_of() == [f"t_test=[{t}]" for t in (60, 125, 250, 500)]
    assert settings_of("--t", "own") == [""]
    assert settings_of("--t", "125,250", "--s", "16", "48", "--noise", "0") == [
        "t_test=[125,250],s=16,noise_test=0.0",
        "t_test=[125,250],s=48,noise_test=0.0",
    ]
    assert settings_of("--t", "own", "--refine", "0.02") == ["refine_above=0.02"]


@pytest.mark.slow
def test_a_sweep_stores_the_scores_of_each_subject_and_resumes(tmp_path, capsys, monkeypatch):
    cohort, run = made_cohort(tmp_path), made_run(tmp_path / "run")
    same_as_run = "residual=abs,recentre=true"
    bright = "residual=bright,postprocess.median_size=1"
    arguments = [str(run), str(cohort), "--t", "60", "--csv", str(tmp_path / "scores.csv")]
    assert sweep.main([*arguments, "--residuals", same_as_run, bright]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[4] for line in lines] == [same_as_run, bright]
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["residual"] for row in rows] == [same_as_run, bright]  # one val subject
    assert {row["settings"] for row in rows} == {"t_test=[60]"}
    assert {row["cohort"] for row in rows} == {"cohort:val"}
    assert [row["auprc"] for row in rows] == [line[5] for line in lines]

    opened = Cohort.open(cohort)
    (subject,) = [s for s in map(opened.load, opened.split("val")) if s.lesion.any()]
    method = read_model(f"{run}@t_test=60").method
    residual, _ = predict_volume(method, subject.images, subject.brain, subject.slice_ids, seed=0)
    anomaly_map = residual_map(residual, subject.brain, subject.spacing_mm)
    expected = auprc(anomaly_map, subject.lesion & subject.brain, subject.brain)
    np.testing.assert_allclose(float(rows[0]["auprc"]), expected, atol=5e-5)

    monkeypatch.setattr(sweep, "score_subject", None)  # what is stored is not computed again
    assert sweep.main([*arguments, "--residuals", bright]) == 0
    assert capsys.readouterr().out == ""


def test_a_file_that_is_no_sweep_is_not_overwritten(tmp_path):
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="was not written by this script"):
        sweep.read_scores(tmp_path / "scores.csv")
    assert sweep.read_scores(tmp_path / "absent.csv") == []
