"""Files in a folder that may be scans, at any depth."""

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from maediff.core.files import MARKER
from maediff.scans.names import is_nifti

logger = logging.getLogger(__name__)


def nifti_files(folder: Path) -> Iterator[Path]:
    """Return the NIfTI files in `folder` at any depth, sorted.

    Hidden files and scans that maediff wrote below `folder` are skipped. Broken links are
    included, so that each is reported by name (see `broken_link_message`).
    """
    for path in _list_entries(folder):
        if not is_nifti(path) or _is_in_cohort(path):
            continue
        if path.is_file() or broken_link_message(path):
            yield path


def visible_files(folder: Path) -> Iterator[Path]:
    """Return the files in `folder` at any depth, sorted.

    Hidden files and output folders of maediff below `folder` are skipped.
    """
    return (path for path in _list_entries(folder) if path.is_file())


def is_dicom(path: Path) -> bool:
    """Check whether a file is DICOM, by its name or by `DICM` at byte 128 (DICOM PS3.10, 7.1).

    Returns:
        False for an unreadable file without a DICOM name.
    """
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def broken_link_message(path: Path) -> str | None:
    """Return the error message for a broken symbolic link; None for any other path."""
    if not path.is_symlink() or path.exists():
        return None
    return (
        f"{path}: broken link, its content is not there; run `datalad get` (git-annex, DataLad) "
        "or copy the file"
    )


def log_skipped_files(place: Path, paths: Iterable[Path], reason: str) -> None:
    """Log a warning that names skipped NIfTI files; no warning if there are none.

    Args:
        place: the folder of the files.
        paths: the skipped files.
        reason: text after "skipped, ", such as "masks by their names".
    """
    names = sorted(str(path.relative_to(place)) for path in paths)
    if names:
        logger.warning(
            "%s: %d NIfTI file(s) skipped, %s: %s%s; to include them, list them in a manifest CSV",
            place,
            len(names),
            reason,
            ", ".join(names[:5]),
            " ..." if len(names) > 5 else "",
        )


def _is_in_cohort(path: Path) -> bool:
    return (path.parent / "image.json").exists() and (path.parent.parent / MARKER).exists()


def _list_entries(folder: Path) -> list[Path]:
    """Return files and links in `folder`, sorted, without hidden ones and output folders.

    Linked folders are entered after all others, and no folder twice: a scan in a plain folder of
    `folder` is thus named by this folder, not by a link to it.
    """
    entries: list[Path] = []
    visited: set[Path] = set()
    pending = deque([folder])
    while pending:
        for root, folders, files in os.walk(pending.popleft()):
            here = Path(root)
            is_output = MARKER in files and here != folder
            if is_output or here.resolve() in visited:
                folders.clear()
                continue
            visited.add(here.resolve())
            folders[:] = [name for name in folders if not name.startswith(".")]
            pending += sorted(here / name for name in folders if (here / name).is_symlink())
            entries += [here / name for name in files if not name.startswith(".")]
    return sorted(entries)
