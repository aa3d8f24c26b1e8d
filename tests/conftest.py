"""Fixtures, and the switch that lets beartype check every jaxtyping annotation of the package."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Function after which folders may not be read; root may read any, whatever its mode."""
    locked: set[str] = set()
    scandir = os.scandir

    def deny(path: Any) -> Any:
        if os.path.normpath(path) in locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    return lambda *paths: locked.update(map(os.path.normpath, paths))


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """Restore the log after a test that called a command or a harness in this process."""
    yield
    logging.disable(logging.NOTSET)
    logging.getLogger("maediff").setLevel(logging.NOTSET)
