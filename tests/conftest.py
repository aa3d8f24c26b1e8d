"""Fixtures, and the switch that lets beartype check every jaxtyping annotation of the package."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("maediff", "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real scans beside the repository; tests that need them skip where they are absent."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("shared/data is not beside this checkout")
    return path


@pytest.fixture(scope="session", autouse=True)
def no_registration_by_default() -> Iterator[None]:
    """Most made-up scans here are no brains: T1w ones go to MNI152 only in the tests that ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maediff.preparation.config.REGISTERED", frozenset())
        yield
