"""Baselines of a cohort, and predictions of a trained run."""

import numpy as np

from helpers.scores import made_small_run
from maediff.cohort.cohort import Cohort
from maediff.core.options import RunOptions
from maediff.evaluation.contenders import Predictor, load_method, make_baselines
from maediff.methods.registry import BASELINES

RUN = RunOptions(device="cpu", batch_size=4)


def test_baselines_of_scans_that_are_not_registered(flair_cohort):
    contenders, notes = make_baselines(Cohort.open(flair_cohort), RUN)
    names = [contender.name for contender in contenders]
    assert names == [name for name in BASELINES if name not in ("mirror", "mirror-dark")]
    assert [note.partition(":")[0] for note in notes] == [
        "No mirror baseline",
        "No mirror-dark baseline",
    ]
    assert not any(contender.trained for contender in contenders)


def test_template_needs_a_train_split(flair_cohort):
    cohort = Cohort.open(flair_cohort)
    cohort.rows = [row for row in cohort.rows if row.split != "train"]
    contenders, notes = make_baselines(cohort, RUN)
    assert "template" not in [contender.name for contender in contenders]
    assert any(note.startswith("No template baseline") for note in notes)


def test_only_template_has_a_reference(flair_cohort):
    cohort = Cohort.open(flair_cohort)
    scan = cohort.load(cohort.rows[0])
    for contender in make_baselines(cohort, RUN)[0]:
        residual, reference = contender.predict(scan)
        assert residual.shape == scan.brain.shape
        assert (reference is not None) == (contender.name == "template")


def test_method_is_loaded_once_and_late(flair_cohort, tmp_path):
    cohort = Cohort.open(flair_cohort)
    scan = cohort.load(cohort.rows[0])
    run = made_small_run(tmp_path / "run")
    loaded = []

    def load():
        loaded.append(run)
        return load_method(run, "cpu")

    predict = Predictor(load, RUN)
    assert not loaded
    first, reference = predict(scan)
    again, _ = predict(scan)
    assert loaded == [run]
    np.testing.assert_array_equal(first, again)
    assert reference.shape == scan.images.shape
