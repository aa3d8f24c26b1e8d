"""Files in a folder that may be scans, at any depth."""

import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from maediff.core.files import MARKER
from maediff.scans.content import broken_link_message, looks_like_dicom
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
    """Check whether a file is DICOM, by its name or its first bytes (see `looks_like_dicom`).

    Returns:
        True for a file that may not be read, so that reading it reports this reason. False for a
        missing file, a named pipe and a device.
    """
    try:
        if path.suffix.lower() in (".dcm", ".ima"):
            return not path.exists() or path.is_file()
        if not path.is_file():
            return False
        with path.open("rb") as handle:
            return looks_like_dicom(handle.read(132))
    except PermissionError:
        return True
    except OSError:
        return False


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
