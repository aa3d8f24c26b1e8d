"""Models of two contrasts, and a session of one synthetic brain in both."""

import pytest

from helpers.runs import made_run
from helpers.sessions import made_session
from maediff.scans.inputs.sessions import find_sessions


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A run with random weights for each contrast; tests must not change it."""
    folder = tmp_path_factory.mktemp("models")
    return {name: str(made_run(folder / name, name)) for name in ("T1w", "FLAIR")}


@pytest.fixture
def folder(tmp_path):
    """A folder with the T1w and the FLAIR of one person, on the same grid."""
    made_session(tmp_path / "in" / "p1")
    return tmp_path / "in"


@pytest.fixture
def session(folder):
    """The session in `folder`."""
    (only,) = find_sessions([folder])
    return only
