"""Files that are whole or absent, and output folders that are never overwritten by accident.

    write to  .<name>.tmp-<pid>  in the same folder  ->  flush and fsync  ->  os.replace to <name>

If the process is killed, the folder holds the old file or the new one, never a part of one.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from maediff.core.errors import InputError
from maediff.core.processes.lock import LOCK, lock_files, lock_folder, refuse_locked
from maediff.core.processes.process import is_running
from maediff.core.processes.scratch import remove_abandoned_scratch
from maediff.core.reading import is_folder, load_json
from maediff.core.text import escape_cell

MARKER = ".maediff"
"""File in every output folder; `overwrite` deletes only folders that hold it."""
TEMPORARY = re.compile(r"\..+\.tmp-(?P<pid>\d+)(\..*)?", re.DOTALL)
"""Name of a file or folder that process `pid` has not completed."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and move the file to `path` when the block succeeds.

    The temporary file is removed if the block fails.

    Raises:
        InputError: the file cannot be written (full disk, read-only folder); no part of it
            remains.
    """
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: could not be written ({error.strerror or error}); "
            "free disk space or choose another output folder"
        ) from error
    finally:
        with suppress(OSError):  # the reason why the file could not be written
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    r"""Write `text` as UTF-8, atomically; a byte of a name that is not UTF-8 becomes `\udcXX`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically; NaN and infinity, which JSON lacks, become null."""
    text = json.dumps(_replace_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file, atomically; text in it cannot be a formula (see `escape_cell`).

    Args:
        path: the file.
        header: names of the columns.
        rows: cells; None is an empty cell.
    """
    table = io.StringIO()
    lines = [
        [escape_cell(cell) if isinstance(cell, str) else cell for cell in row]
        for row in (header, *rows)
    ]
    csv.writer(table, lineterminator="\n").writerows(lines)
    write_text(path, table.getvalue())


def read_json(
    path: Path,
    expected: type[dict] | type[list] = dict,
    *,
    remedy: str = "run the command that made it again",
) -> Any:
    """Return the content of a file of `write_json`.

    Args:
        path: the JSON file.
        expected: type of the content, dict or list.
        remedy: end of the error message: how the user gets a good file.

    Raises:
        InputError: the file cannot be read, is cut off, or holds another type.
    """
    try:
        value = load_json(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: missing or damaged ({reason}); {remedy}") from None
    if not isinstance(value, expected):
        raise InputError(
            f"{path}: damaged (holds a {type(value).__name__}, expected a {expected.__name__}); "
            f"{remedy}"
        )
    return value


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"{path}: could not be read ({error.strerror}); check the path and the disk"
        ) from None


def _replace_nan(value: Any) -> Any:
    """Return `value` with plain Python scalars, and None for NaN and infinity."""
    if isinstance(value, dict):
        return {str(key): _replace_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def fresh_folder(
    path: Path,
    *,
    overwrite: bool | None = None,
    resume: bool | None = None,
    parts: Collection[str] | None = None,
) -> Path:
    """Create an output folder, put the marker of maediff into it, lock it and return it.

    The lock is released when the command ends (`core.processes.lock.hold_locks`).
    Temporary files that killed runs left in the folder are removed.

    Args:
        path: the folder.
        overwrite: delete the folder's content first.
            None if the caller has no such argument; the error message then does not suggest it.
        resume: keep the folder's content. None as for `overwrite`.
        parts: names of the parts that this process writes, if several processes share the folder
            (see `core.processes.lock`). None: the whole folder.

    Raises:
        InputError: the folder is not empty and neither argument is true, or maediff did not make
            it; another process writes to it; both arguments are true; `path` is a file; the folder
            cannot be written to.
    """
    if overwrite and resume:
        raise InputError(
            f"{path}: `resume=True` keeps the results and `overwrite=True` deletes them; "
            "use only one of them"
        )
    try:
        if path.is_symlink() and not path.exists():
            raise InputError(
                f"{path}: a link that leads nowhere or to itself; delete it or choose another "
                "folder"
            )
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file, but the output is a folder; choose another path")
        _check_may_write(path, overwrite, resume, parts)
        path.mkdir(parents=True, exist_ok=True)
        lock_folder(path, parts)
        # Another command may have ended between the check and the lock.
        _check_may_write(path, overwrite, resume, parts)
        if overwrite:
            _empty(path)
        (path / MARKER).touch()
        # Touching an existing marker can succeed where a new file cannot be created.
        probe = path / f"{MARKER}.tmp-{os.getpid()}"
        probe.touch()
        probe.unlink()
        remove_leftovers(path)
    except OSError as error:
        attempt = "written to" if is_folder(path) else "created"
        raise InputError(
            f"{path}: could not be {attempt} ({error.strerror or error}); choose another folder"
        ) from error
    remove_abandoned_scratch()
    return path


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of processes that no longer run, at any depth.

    Nothing is removed while other processes share the folder: they may be on other machines.
    """
    if len(lock_files(folder)) > 1:
        return
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            match = TEMPORARY.fullmatch(name)
            # A number of this process can only be that of an earlier one: nothing is written yet.
            if match and (int(match["pid"]) == os.getpid() or not is_running(int(match["pid"]))):
                if name in folders:
                    folders.remove(name)
                    shutil.rmtree(Path(root, name), ignore_errors=True)
                else:
                    Path(root, name).unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    """Delete the content of a folder, except its locks and the marker, which allows a retry."""
    for item in folder.iterdir():
        if item.name == MARKER or item.name.startswith(LOCK):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


def _check_may_write(
    path: Path,
    overwrite: bool | None,
    resume: bool | None,
    parts: Collection[str] | None,
) -> None:
    """Refuse a folder that another process writes to, or whose content must not be touched.

    Content must not be touched if it is neither to be kept nor to be deleted, or if maediff did
    not make it.
    """
    if not path.is_dir():
        return
    refuse_locked(path, parts)
    names = (item.name for item in path.iterdir())
    if all(name == MARKER or name.startswith((LOCK, f".{LOCK}")) for name in names):
        return  # empty but for a lock, or for one that could not be written
    made_by_maediff = (path / MARKER).is_file()
    if (overwrite or resume) and not made_by_maediff:
        raise InputError(
            f"{path}: was not made by maediff, so maediff changes nothing in it; "
            "delete it yourself or choose another folder"
        )
    if overwrite or resume:
        return
    remedies = ["choose another folder"]
    if made_by_maediff and resume is not None:
        remedies.append("use `resume=True` to continue")
    if made_by_maediff and overwrite is not None:
        remedies.append("use `overwrite=True` to start again")
    raise InputError(f"{path}: exists and is not empty; {', or '.join(remedies)}")


def refuse_inputs_inside_output(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output folder that holds an input, because results must never touch their sources.

    Raises:
        InputError: names both paths.
    """
    # Path.resolve raises an error for a link that leads to itself; realpath does not.
    place = Path(os.path.realpath(out))
    for path in inputs:
        if Path(os.path.realpath(path)).is_relative_to(place):
            raise InputError(
                f"{out}: holds the input {path}; choose an output folder that holds no input"
            )
