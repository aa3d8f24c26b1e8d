"""Files that are either whole or absent, and output folders that are never overwritten by accident.

    write to  <name>.tmp-<pid>  in the same folder  ->  flush and fsync  ->  os.replace to <name>

A process that is killed at any moment leaves the old file, or the new one, never half of one.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maediff.core.errors import InputError

MARKER = ".maediff"  # stands in every output folder, so that --overwrite empties nothing else


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved onto it when the block ends well and removed when it does not.

    Raises:
        InputError: the file could not be written (disk full, read-only folder); nothing half-written is left.
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
            f"{path}: could not be written ({error.strerror or error}); free space or choose another output folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically; NaN becomes null, because JSON has no NaN."""
    write_text(
        path, json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file, atomically."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([list(header), *rows])
    write_text(path, table.getvalue())


def read_json(
    path: Path,
    kind: type[dict] | type[list] = dict,
    *,
    remedy: str = "run the command that made it again",
) -> Any:
    """What `write_json` wrote to `path`: a `kind`, dict or list.

    Args:
        remedy: what to do where the file is damaged; the message ends with it.

    Raises:
        InputError: the file cannot be read, is cut off, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: missing or damaged ({said}); {remedy}") from None
    if not isinstance(value, kind):
        raise InputError(
            f"{path}: damaged ({type(value).__name__} found, {kind.__name__} expected); {remedy}"
        )
    return value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def fresh_folder(path: Path, *, overwrite: bool | None = None, resume: bool | None = None) -> Path:
    """Create the output folder `path`, mark it as ours and return it.

    Args:
        overwrite: empty it first. None: the caller has no such flag, so none is spoken of.
        resume: keep what it holds. None likewise.

    Raises:
        InputError: it exists, holds something, and neither `overwrite` (which empties it, but only a folder that
            maediff made) nor `resume` was asked for; or both were.
    """
    if overwrite and resume:
        raise InputError(
            f"{path}: --resume keeps what is there and --overwrite removes it; give one of them"
        )
    if path.exists() and not path.is_dir():
        raise InputError(
            f"{path}: is a file, and the output has to be a folder; choose another one"
        )
    try:
        return _fresh_folder(path, overwrite, resume)
    except OSError as error:
        what = "written to" if path.is_dir() else "created"
        raise InputError(
            f"{path}: could not be {what} ({error.strerror or error}); choose another folder"
        ) from error


def _fresh_folder(path: Path, overwrite: bool | None, resume: bool | None) -> Path:
    if path.is_dir() and any(item.name != MARKER for item in path.iterdir()):
        ours = (path / MARKER).is_file()
        if (overwrite or resume) and not ours:
            raise InputError(
                f"{path}: was not made by maediff, so nothing in it is touched; remove it yourself "
                "or choose another folder"
            )
        if overwrite:
            shutil.rmtree(path)
        elif not resume:
            flags = {"--resume to go on": resume, "--overwrite to start anew": overwrite}
            known = " or ".join(
                flag for flag, given in flags.items() if ours and given is not None
            )
            raise InputError(
                f"{path}: exists and is not empty; choose another folder"
                + (f", or add {known}" if known else "")
            )
    path.mkdir(parents=True, exist_ok=True)
    (path / MARKER).touch()
    probe = (
        path / f"{MARKER}.tmp-{os.getpid()}"
    )  # the marker can be touched where nothing new can be written
    probe.touch()
    probe.unlink()
    return path


def check_apart(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an output folder that holds one of the inputs: results must never touch what they are made from.

    Raises:
        InputError: naming both.
    """
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise InputError(
                f"{out}: holds the input {path}; choose an output folder apart from it"
            )
