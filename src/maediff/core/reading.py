"""Content of small files that others made: opened without waiting, and with the true reason.

    path  --regular file?-->  bytes  --UTF-8?-->  text  --JSON?-->  value

A named pipe in the place of a file would wait for ever. A git-annex or Git LFS pointer is a small
text in the place of a file whose content was not downloaded.
"""

import errno
import io
import json
import stat
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

LFS_STARTS = (b"version https://git-lfs.github.com", b"version https://hawser.github")
MAX_POINTER_LINE = 1000
MAX_DIGITS = 40  # UIDs and hashes of 128 bits are shorter; double precision ends at 309

DAMAGED_NPZ = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error)
"""Errors of numpy for an npz file that is missing, damaged or something else."""


def read_content(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: the file cannot be read, or is a folder, a named pipe or a device.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.read_bytes()


def is_file(path: Path) -> bool:
    """Return True for a regular file; False also for a path that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Return True for a folder; False also for a path that is too long."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_lines(path: Path) -> str:
    """Return the text of a regular file in UTF-8, with line feeds at the ends of lines.

    Raises:
        OSError: see `read_content`.
        ValueError: the content is not UTF-8.
    """
    return io.StringIO(read_content(path).decode("utf-8"), newline=None).read()


def load_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        OSError: see `read_content`.
        ValueError: see `parse_json`.
    """
    return parse_json(read_content(path))


def parse_json(content: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the content is a pointer, not UTF-8, no JSON, nested too deeply, names a
            key twice, or holds a number with more than `MAX_DIGITS` digits.
    """
    try:
        # Editors on Windows write a byte order mark.
        return json.loads(
            content.decode("utf-8-sig"),
            parse_int=_parse_integer,
            object_pairs_hook=_refuse_doubled_keys,
        )
    except RecursionError:
        raise ValueError("nested too deeply, maximum recursion depth exceeded") from None
    except ValueError as error:
        raise ValueError(describe_pointer(content[:1024]) or str(error)) from None


def _parse_integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"holds a number of {len(text)} digits")
    return int(text)


def _refuse_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"names the key {twice!r} twice")
    return content


def describe_pointer(start: bytes) -> str | None:
    """Return the finding and the remedy for a pointer of git-annex or Git LFS.

    Args:
        start: first bytes of the content.

    Returns:
        None for any other content.
    """
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    first_line = text.partition(b"\n")[0]
    if b"annex/objects/" in first_line and len(first_line) < MAX_POINTER_LINE:
        return (
            "a git-annex pointer, its content is not there; run `datalad get` or `git annex get`"
        )
    if text.startswith(LFS_STARTS):
        return "a Git LFS pointer, its content is not there; run `git lfs pull`"
    return None
