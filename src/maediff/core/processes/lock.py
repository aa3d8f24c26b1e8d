"""Locks on output folders: two commands never write to one folder at the same time.

    OUT/.maediff.lock-<host>-<pid>     {pid, host, since, start, parts}

`fresh_folder` locks a folder, and the command releases it when it ends (`hold_locks`).
The lock of a process that no longer runs is removed. The lock of another machine stays, because
nobody here can check that machine's processes.

Processes that share a folder, such as the shards of one command, name their `parts`:

    parts={"1/4"}  beside  parts={"2/4"}     both run
    parts={"1/4"}  beside  parts={"1/4"}     the second is refused
    parts={"1/4"}  beside  parts=None        the second is refused: None is the whole folder
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from maediff.core.errors import InputError
from maediff.core.processes.process import host_name, is_running, start_of
from maediff.core.reading import load_json
from maediff.core.text import hash_text

LOCK = ".maediff.lock-"
"""Beginning of the name of a lock file."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock.

    Args:
        pid: number of the process.
        host: `host_name` of its machine.
        since: UTC time of the lock, for messages.
        start: `start_of` the process.
        parts: parts of the folder that the process writes; None is the whole folder.
    """

    pid: int
    host: str
    since: str
    start: str
    parts: tuple[str, ...] | None = None

    @property
    def is_gone(self) -> bool:
        """True if the process was on this machine and no longer runs."""
        return self.host == host_name() and not is_running(self.pid, self.start)

    def excludes(self, parts: Collection[str] | None) -> bool:
        """Return True if no other process may write these parts beside this one."""
        return self.parts is None or parts is None or not set(self.parts).isdisjoint(parts)


# Locks of the running command, by folder; None outside of `hold_locks`.
_held: ContextVar[dict[Path, Holder] | None] = ContextVar("held", default=None)
# Folders that any thread of this process has locked. They distinguish its locks from those of an
# earlier process with the same number (in a container, where the start may be unknown).
_of_process: dict[Path, int] = {}
_changing = Lock()


@contextmanager
def hold_locks() -> Iterator[None]:
    """Release the locks of the block at its end; also a decorator of a command's function.

    Inside another such block, the outer one releases them: a command holds the folder until its
    report is written, too.
    """
    if _held.get() is not None:
        yield
        return
    locks: dict[Path, Holder] = {}
    token = _held.set(locks)
    try:
        yield
    finally:
        _held.reset(token)
        for folder, holder in locks.items():
            _release(folder, holder)


def lock_folder(folder: Path, parts: Collection[str] | None = None) -> None:
    """Lock an existing folder until the running command ends.

    Outside of `hold_locks` nothing is locked.

    Args:
        folder: the folder.
        parts: parts that this process writes; None is the whole folder, or the parts of the
            surrounding folder that this command has locked.

    Raises:
        InputError: another process holds the folder; the message names it.
        OSError: the lock cannot be written.
    """
    locks = _held.get()
    folder = Path(os.path.realpath(folder))
    if locks is None or folder in locks:
        return
    parts = _parts_of(folder, parts)
    pid = os.getpid()
    holder = Holder(
        pid=pid,
        host=host_name(),
        since=datetime.now(UTC).isoformat(" ", "seconds").removesuffix("+00:00"),
        start=start_of(pid),
        parts=None if parts is None else tuple(sorted(parts)),
    )
    path = _lock_path(folder, holder)
    with _changing, _one_at_a_time(folder):
        refuse_locked(folder, parts)
        # First written, then compared: of two processes on two machines, at most one continues.
        temporary = path.with_name(f".{path.name}.tmp-{pid}")
        try:
            temporary.write_text(json.dumps(asdict(holder)), encoding="utf-8")
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        try:
            refuse_locked(folder, parts, besides=path)
        except InputError:
            path.unlink(missing_ok=True)
            raise
        _of_process[folder] = pid
    locks[folder] = holder


def refuse_locked(
    folder: Path, parts: Collection[str] | None = None, *, besides: Path | None = None
) -> None:
    """Refuse a folder that another process writes to; remove locks of processes that are gone.

    Args:
        folder: the folder; a folder that this command has locked is not refused.
        parts: see `lock_folder`.
        besides: lock file to ignore.

    Raises:
        InputError: names the process, its machine, the time of its lock, and the remedy.
    """
    if Path(os.path.realpath(folder)) in (_held.get() or {}):
        return
    parts = _parts_of(folder, parts)
    for path in lock_files(folder):
        if path == besides:
            continue
        holder = _read_holder(path)
        if holder is None or holder.is_gone or _is_of_former_process(holder, folder):
            path.unlink(missing_ok=True)
        elif holder.excludes(parts):
            raise InputError(_describe(folder, path, holder))


def _parts_of(folder: Path, parts: Collection[str] | None) -> Collection[str] | None:
    """Return the given parts, or those of the surrounding folder that this command has locked."""
    locks = _held.get() or {}
    if parts is None:
        outside = Path(os.path.realpath(folder)).parents
        parts = next((locks[place].parts for place in outside if place in locks), None)
    return parts


def lock_files(folder: Path) -> list[Path]:
    """Return the lock files in a folder, sorted."""
    return sorted(path for path in folder.glob(f"{LOCK}*") if ".tmp-" not in path.name)


def _describe(folder: Path, path: Path, holder: Holder) -> str:
    """Return the message about a folder that another process holds."""
    if holder.host == host_name():
        return (
            f"{folder}: process {holder.pid} has been writing to it since {holder.since} UTC; "
            "wait until it ends, or choose another folder"
        )
    machine = holder.host.partition("/")[0]
    return (
        f"{folder}: process {holder.pid} on {machine} has been writing to it since "
        f"{holder.since} UTC; wait until it ends, or, if it no longer runs there, delete {path}"
    )


def _is_of_former_process(holder: Holder, folder: Path) -> bool:
    """True for a lock of an earlier process that had the number of this one."""
    is_own = (holder.pid, holder.host) == (os.getpid(), host_name())
    return is_own and _of_process.get(Path(os.path.realpath(folder))) != os.getpid()


def _lock_path(folder: Path, holder: Holder) -> Path:
    """Return the lock file of a process, whose name no other process on any machine uses."""
    machine = re.sub(r"[^A-Za-z0-9.-]", "", holder.host.partition("/")[0])[:40]
    code = hash_text(f"{holder.host} {holder.start}")[:8]
    return folder / f"{LOCK}{machine}-{holder.pid}-{code}"


def _read_holder(path: Path) -> Holder | None:
    """Return the holder of a lock; None if the lock is gone or damaged."""
    try:
        stored = load_json(path)
        parts = stored["parts"]
        return Holder(
            pid=int(stored["pid"]),
            host=str(stored["host"]),
            since=str(stored["since"]),
            start=str(stored["start"]),
            parts=None if parts is None else tuple(map(str, parts)),
        )
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _release(folder: Path, holder: Holder) -> None:
    """Remove a lock of this process; a forked child leaves its parent's lock."""
    if holder.pid != os.getpid():
        return
    with _changing:
        _of_process.pop(folder, None)
        with suppress(OSError):
            _lock_path(folder, holder).unlink(missing_ok=True)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process of this machine look for locks at a time, where the system can do this."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows
        yield
        return
    try:
        with suppress(OSError):  # some network file systems have no such locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
