"""Temporary folders that hold scans, removed even if their process was killed.

    $TMPDIR/maediff-<host>-<pid>-<start>-<random>/

A converted DICOM head must not stay in a temporary folder. Each run of the same user removes the
folders of processes that no longer run.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maediff.core.processes.process import host_name, is_running, start_of

FOLDER = re.compile(r"maediff-(?P<host>[\w.]*)-(?P<pid>\d+)-(?P<start>[\w.]*)-\w+")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder that only this user can read, and remove it at the end."""
    remove_abandoned_scratch()
    pid = os.getpid()
    prefix = f"maediff-{_plain(host_name())}-{pid}-{_plain(start_of(pid))}-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def remove_abandoned_scratch() -> None:
    """Remove this user's temporary folders of processes of this machine that no longer run."""
    try:
        entries = list(os.scandir(tempfile.gettempdir()))
    except OSError:
        return
    for entry in entries:
        match = FOLDER.fullmatch(entry.name)
        if not match or match["host"] != _plain(host_name()):
            continue
        try:
            is_own = entry.is_dir(follow_symlinks=False) and _is_own(entry)
        except OSError:  # removed in the meantime
            continue
        if is_own and not _is_running(int(match["pid"]), match["start"]):
            shutil.rmtree(entry.path, ignore_errors=True)


def _is_own(entry: os.DirEntry[str]) -> bool:
    """True for a folder of this user; systems without user numbers have a folder per user."""
    return not hasattr(os, "getuid") or entry.stat(follow_symlinks=False).st_uid == os.getuid()


def _is_running(pid: int, start: str) -> bool:
    """True if the process of a temporary folder still runs."""
    return is_running(pid) and (not start or _plain(start_of(pid)) in ("", start))


def _plain(text: str) -> str:
    """Return a text with only letters, digits and dots."""
    return re.sub(r"[^A-Za-z0-9]", ".", text)
