"""Locks on output folders: living and dead processes, other machines, parts, threads."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from maediff.core.errors import InputError
from maediff.core.files import MARKER, fresh_folder
from maediff.core.processes import lock
from maediff.core.processes.lock import Holder, hold_locks, lock_files, lock_folder
from maediff.core.processes.process import host_name, is_running, start_of

HOLD = """
import sys
from pathlib import Path
from maediff.core.files import fresh_folder
from maediff.core.processes.lock import hold_locks
with hold_locks():
    fresh_folder(Path(sys.argv[1]), resume=True, parts=sys.argv[2:] or None)
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Function that starts a process which locks a folder; every process is ended."""
    started = []

    def start(folder, *parts):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), *parts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "locked\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def write_holder(folder, **changes):
    """Write the lock of another process; return its file."""
    values = {"pid": 1, "host": host_name(), "since": "2026-01-02 03:04:05", "start": ""}
    values["parts"] = None
    path = folder / f"{lock.LOCK}other"
    path.write_text(json.dumps(values | changes))
    return path


@hold_locks()
def use(folder, **options):
    return fresh_folder(folder, **options)


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_folder_of_a_running_process(tmp_path, hold, options):
    out = tmp_path / "out"
    process = hold(out)
    (out / "result").touch()
    with pytest.raises(
        InputError, match=rf"out: process {process.pid} has been writing to it since 20\S+ \S+ UTC"
    ):
        use(out, **{"overwrite": False, "resume": False} | options)
    assert (out / "result").exists()
    process.communicate()  # ends by itself and removes its lock
    assert not lock_files(out)
    use(out, resume=True)


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
def test_lock_of_a_killed_process(tmp_path, hold, options):
    out = tmp_path / "out"
    process = hold(out)
    process.kill()  # not yet collected: a zombie counts as gone
    process.stdout.read()
    assert lock_files(out)
    assert use(out, **options) == out
    assert [path.name for path in out.iterdir()] == [MARKER]


def test_other_process_of_the_same_number(tmp_path):
    out = use(tmp_path / "out")
    write_holder(out, pid=os.getpid(), start="boot-1")
    use(out, resume=True)
    write_holder(out, pid=os.getppid(), start="boot-1")
    use(out, resume=True)
    assert not lock_files(out)


def test_a_lock_that_cannot_be_written_leaves_an_empty_folder(tmp_path, monkeypatch):
    out, replace = tmp_path / "out", os.replace

    def fail(source, target):
        if ".maediff.lock-" in str(target):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        hold_locks()(fresh_folder)(out)
    assert not list(out.iterdir())
    monkeypatch.setattr(os, "replace", replace)
    (out / "..maediff.lock-host-1-x.tmp-1").touch()  # of a process that was killed
    assert hold_locks()(fresh_folder)(out) == out


def test_own_number_without_a_start(tmp_path):
    """In a container, a killed run and the next one may both be process 1."""
    out = use(tmp_path / "out")
    write_holder(out, pid=os.getpid())
    use(out, resume=True)
    assert not lock_files(out)


def test_lock_of_another_machine(tmp_path):
    out = use(tmp_path / "out")
    path = write_holder(out, pid=2**22 + 5, host="node17/4026531836")
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(InputError) as refusal:
            use(out, **options)
        assert str(refusal.value) == (
            f"{out}: process {2**22 + 5} on node17 has been writing to it since 2026-01-02 "
            f"03:04:05 UTC; wait until it ends, or, if it no longer runs there, delete {path}"
        )
    path.unlink()
    use(out, resume=True)


def test_lock_of_another_container(tmp_path):
    """One host name, but another namespace: its process numbers mean nothing here."""
    out = use(tmp_path / "out")
    write_holder(out, pid=2**22 + 5, host=f"{host_name().partition('/')[0]}/1")
    with pytest.raises(InputError, match="delete"):
        use(out, resume=True)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "host": 1}'])
def test_damaged_lock(tmp_path, content):
    out = use(tmp_path / "out")
    (out / f"{lock.LOCK}other").write_text(content)
    use(out, resume=True)
    assert not lock_files(out)


def test_only_processes_with_other_parts_share_a_folder(tmp_path, hold):
    out = tmp_path / "out"
    process = hold(out, "1/4", "2/4")
    (out / "result").touch()
    with hold_locks():
        fresh_folder(out, resume=True, parts={"3/4"})
        assert len(lock_files(out)) == 2
    assert len(lock_files(out)) == 1
    for parts in ({"2/4"}, None):
        with pytest.raises(InputError, match=f"process {process.pid} "):
            use(out, resume=True, parts=parts)
    hold(tmp_path / "whole")
    with pytest.raises(InputError, match="has been writing"):
        use(tmp_path / "whole", resume=True, parts={"1/4"})


def test_folder_inside_has_the_same_parts(tmp_path, hold):
    use(tmp_path / "out")
    hold(tmp_path / "out" / "reports", "T1w sub-1")
    with hold_locks():
        fresh_folder(tmp_path / "out", resume=True, parts={"T1w sub-2"})
        fresh_folder(tmp_path / "out" / "reports", resume=True)
    with hold_locks(), pytest.raises(InputError, match="has been writing"):
        fresh_folder(tmp_path / "out", resume=True, parts={"T1w sub-1"})
        fresh_folder(tmp_path / "out" / "reports", resume=True)


def test_one_command_locks_once(tmp_path):
    out = tmp_path / "out"
    with hold_locks():
        fresh_folder(out)
        assert len(lock_files(out)) == 1
        use(out)  # the outer command keeps the lock
        assert len(lock_files(out)) == 1
        fresh_folder(out / "inside")
        assert len(lock_files(out / "inside")) == 1
    assert not lock_files(out) and not lock_files(out / "inside")


def test_released_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), hold_locks():
        fresh_folder(tmp_path / "out")
        raise KeyboardInterrupt
    assert not lock_files(tmp_path / "out")


def test_second_thread(tmp_path):
    errors = []

    def second():
        try:
            use(tmp_path / "out", resume=True)
        except InputError as error:
            errors.append(str(error))

    with hold_locks():
        fresh_folder(tmp_path / "out")
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(errors) == 1 and f"process {os.getpid()} has been writing" in errors[0]


def test_child_keeps_the_lock_of_its_parent(tmp_path):
    with hold_locks():
        out = fresh_folder(tmp_path / "out")
        holder = Holder(os.getpid() + 1, host_name(), "", "")
        lock._release(Path(os.path.realpath(out)), holder)
        assert len(lock_files(out)) == 1


def test_no_lock_without_a_command(tmp_path):
    lock_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_is_running():
    assert is_running(os.getpid()) and is_running(os.getpid(), start_of(os.getpid()))
    assert not is_running(2**22 + 5) and not is_running(0) and not is_running(-1)
