"""Fixtures, and the switch that lets beartype check every jaxtyping annotation of the package."""

import logging
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


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """Restore the log after a test that called a command or a harness in this process."""
    yield
    logging.disable(logging.NOTSET)
    logging.getLogger("maediff").setLevel(logging.NOTSET)
