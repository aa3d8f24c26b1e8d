"""Files in a folder that may be scans, at any depth."""

import logging
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from maediff.core.files import MARKER
from maediff.scans.content import looks_like_dicom, path_problem, read_error
from maediff.scans.names import is_image, is_nifti, is_pair

logger = logging.getLogger(__name__)


def nifti_files(folder: Path) -> Iterator[Path]:
    """Return the NIfTI files in `folder` at any depth, sorted.

    Hidden files and scans that maediff wrote below `folder` are skipped. Broken links, pipes and
    devices are included, so that each is reported by name (see `path_problem`). Folders that may
    not be read are skipped; `unreadable_folders` lists them.
    """
    for path in _list_entries(folder, skip_unreadable=True):
        if not is_nifti(path) or _is_in_cohort(path):
            continue
        if path_problem(path) or path.is_file():
            yield path


def other_images(folder: Path) -> Iterator[Path]:
    """Return the images of other formats than .nii and .nii.gz in `folder` at any depth, sorted.

    A NIfTI pair is listed by its header file. Folders that may not be read are skipped.
    """
    for path in _list_entries(folder, skip_unreadable=True):
        is_half = is_pair(path) and not (is_header(path) and find_partner(path))
        if is_image(path) and not is_nifti(path) and not is_half and path.is_file():
            yield path


def is_header(half: Path) -> bool:
    """True for the header file of a pair, in any case."""
    return half.name.lower().endswith((".hdr", ".hdr.gz"))


def find_partner(half: Path) -> Path | None:
    """Return the other file of a NIfTI pair, in the same case; None if it is not beside it.

    Args:
        half: the .hdr or the .img, with or without .gz.
    """
    match = re.fullmatch(r"(.+)\.(hdr|img)((?:\.gz)?)", half.name, re.IGNORECASE)
    assert match, half
    stem, own, zipped = match.groups()
    other = "img" if own.lower() == "hdr" else "hdr"
    if own.isupper():
        other = other.upper()
    partners = (half.with_name(f"{stem}.{other}{end}") for end in (zipped, "", ".gz"))
    return next((partner for partner in partners if partner.exists()), None)


def visible_files(folder: Path) -> Iterator[Path]:
    """Return the files in `folder` at any depth, sorted.

    Hidden files and output folders of maediff below `folder` are skipped.

    Raises:
        InputError: a folder may not be read: a DICOM series would lose slices unnoticed.
    """
    return (path for path in _list_entries(folder) if path.is_file())


def unreadable_folders(folder: Path) -> dict[Path, str]:
    """Return the folders in `folder`, at any depth, that may not be read, with the reason.

    The same folders are searched as for scans: not hidden ones, and no output of maediff.
    """
    errors: list[OSError] = []
    _walk(folder, errors.append)
    places = {Path(error.filename): error for error in errors}
    return {place: str(read_error(place, error)) for place, error in places.items()}


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
    """Log a warning that names skipped image files; no warning if there are none.

    Args:
        place: the folder of the files.
        paths: the skipped files.
        reason: text after "skipped, ", such as "masks by their names".
    """
    names = sorted(str(path.relative_to(place)) for path in paths)
    if names:
        logger.warning(
            "%s: %d image file(s) skipped, %s: %s%s; to include them, list them in a manifest CSV",
            place,
            len(names),
            reason,
            ", ".join(names[:5]),
            " ..." if len(names) > 5 else "",
        )


def _is_in_cohort(path: Path) -> bool:
    return (path.parent / "image.json").exists() and (path.parent.parent / MARKER).exists()


def _refuse_folder(error: OSError) -> None:
    """Report a folder that cannot be listed: the scans in it would be missing unnoticed."""
    raise read_error(Path(error.filename), error) from None


def _list_entries(folder: Path, *, skip_unreadable: bool = False) -> list[Path]:
    """Return files and links in `folder`, sorted, without hidden ones and output folders.

    Raises:
        InputError: a folder may not be read, unless such folders are skipped.
    """
    return sorted(_walk(folder, None if skip_unreadable else _refuse_folder))


def _walk(folder: Path, onerror: Callable[[OSError], object] | None) -> list[Path]:
    """Return files and links in `folder`, without hidden ones and output folders.

    Linked folders are entered after all others, and no folder twice: a scan in a plain folder of
    `folder` is thus named by this folder, not by a link to it.

    Args:
        folder: the folder.
        onerror: called with the error of each folder that may not be read.
    """
    entries: list[Path] = []
    visited: set[str] = set()
    pending = deque([folder])
    while pending:
        for root, folders, files in os.walk(pending.popleft(), onerror=onerror):
            here = Path(root)
            is_output = MARKER in files and here != folder
            place = os.path.realpath(here)
            if is_output or place in visited:
                folders.clear()
                continue
            visited.add(place)
            folders[:] = [name for name in folders if not name.startswith(".")]
            pending += sorted(here / name for name in folders if (here / name).is_symlink())
            entries += [here / name for name in files if not name.startswith(".")]
    return entries
