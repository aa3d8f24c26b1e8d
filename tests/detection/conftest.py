"""A calibrated run and a scan with a bright ball, for the tests of this folder."""

import numpy as np
import pytest

from helpers.brains import ball, made_brain, made_cohort, save
from helpers.runs import made_run
from maediff.cohort.cohort import Cohort
from maediff.models.calibrate import calibrate_folder


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """A small cohort with one healthy scan in its val split."""
    return Cohort.open(made_cohort(tmp_path_factory.mktemp("cohort")))


@pytest.fixture(scope="session")
def run(cohort, tmp_path_factory):
    """A run `run` with random weights, calibrated on `cohort`; tests must not change it."""
    run = made_run(tmp_path_factory.mktemp("runs") / "run")
    calibrate_folder(run, cohort)
    return run


@pytest.fixture
def scan(tmp_path):
    """(path, data, brain mask, affine) of a stripped T1w with thick slices."""
    data, brain, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    with_ball = np.where(ball(data.shape, affine, (15, -10, 0), 15) & brain, 230, data)
    data = with_ball.astype(np.float32)
    return save(tmp_path / "in" / "sub-1_T1w.nii.gz", data, affine), data, brain, affine
