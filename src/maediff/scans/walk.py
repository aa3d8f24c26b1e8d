"""The files in a folder that may be scans, at any depth."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from maediff.core.files import MARKER
from maediff.scans.names import is_nifti

logger = logging.getLogger(__name__)


def niftis(folder: Path) -> Iterator[Path]:
    """NIfTI files at any depth, sorted, without hidden ones and without what maediff wrote below the folder.

    Links that lead nowhere are among them, so that each fails by name (`absent`).
    """
    for path in _entries(folder):
        ours = (path.parent / "image.json").exists() and (
            path.parent.parent / MARKER
        ).exists()  # a scan of a cohort
        if is_nifti(path) and (path.is_file() or absent(path)) and not ours:
            yield path


def visible(folder: Path) -> Iterator[Path]:
    """Files at any depth, sorted, without hidden ones and without those in a folder below that maediff wrote."""
    return (path for path in _entries(folder) if path.is_file())


def is_dicom(path: Path) -> bool:
    """Whether it is a DICOM file by its name, or by `DICM` at byte 128 (DICOM PS3.10, section 7.1).

    A file that cannot be read and is not named so is none.
    """
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    try:
        with path.open("rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def absent(path: Path) -> str | None:
    """What to say of a link that leads nowhere, None of all else."""
    if not path.is_symlink() or path.exists():
        return None
    return f"{path}: a link whose content is not there; `datalad get` it (git-annex, DataLad), or copy it"


def say_left_out(place: Path, paths: Iterable[Path], why: str) -> None:
    """Log the files in the folder `place` that are not taken for scans."""
    names = sorted(str(path.relative_to(place)) for path in paths)
    if names:
        logger.warning(
            "%s: %d NIfTI file(s) left out, %s: %s%s; a manifest CSV can name them",
            place,
            len(names),
            why,
            ", ".join(names[:5]),
            " ..." if len(names) > 5 else "",
        )


def _entries(folder: Path) -> list[Path]:
    """What `visible` looks among, and links that lead nowhere; folders behind links are entered, none of them twice."""
    found: list[Path] = []
    seen: set[Path] = set()
    places = [folder]
    for place in places:  # grows by the links, which come after all else, so that a scan has the name of its own folder
        for root, folders, files in os.walk(place):
            here = Path(root)
            ours = MARKER in files and here != folder
            if ours or here.resolve() in seen:
                folders.clear()
                continue
            seen.add(here.resolve())
            folders[:] = [name for name in folders if not name.startswith(".")]
            places += sorted(here / name for name in folders if (here / name).is_symlink())
            found += [here / name for name in files if not name.startswith(".")]
    return sorted(found)
