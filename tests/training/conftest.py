"""A cohort and a trained run that the training tests share; no test changes them."""

import pytest

from helpers.brains import made_cohort
from helpers.training import run


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    return made_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="session")
def whole(cohort, tmp_path_factory):
    """A run of seed 0 that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(cohort, folder)
    return folder
