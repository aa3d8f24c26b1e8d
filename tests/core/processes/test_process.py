"""Workers that end with their parent, stops as Ctrl-C, and temporary folders of killed runs."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from maediff.core.processes import process
from maediff.core.processes.process import (
    STOPS,
    host_name,
    interrupt,
    is_running,
    start_of,
    stops_as_interrupt,
)
from maediff.core.processes.scratch import remove_abandoned_scratch, scratch_folder

PARENT = """
import os, subprocess, sys, time
child = "from maediff.core.processes.process import end_with_parent; import time; "
child += "end_with_parent(); print(1, flush=True); "
child += sys.argv[1]
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
process.stdout.readline()
print(process.pid, flush=True)
time.sleep(100)
"""


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("work", ["time.sleep(100)", "\nwhile True: pass"])
def test_worker_ends_with_a_killed_parent(work):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, work], stdout=subprocess.PIPE, text=True
    )
    worker = int(parent.stdout.readline())
    assert is_running(worker)
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: not is_running(worker))


@pytest.mark.parametrize("system", ["other", "linux"])
def test_worker_of_a_parent_that_is_gone(system):
    """The kernel sends no signal if the parent ended before the worker asked for one."""
    code = (
        f"import multiprocessing, sys, time, types; sys.platform = {system!r}\n"
        "multiprocessing.parent_process = lambda: types.SimpleNamespace(pid=2**22 + 5)\n"
        "from maediff.core.processes.process import end_with_parent\n"
        "end_with_parent(); time.sleep(100)"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_acts_like_ctrl_c_inside_the_block(number, monkeypatch):
    monkeypatch.setattr(process, "leave_closed_terminal", lambda _: None)  # of this test
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), stops_as_interrupt():
            assert signal.getsignal(number) is interrupt
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)  # nohup
        with stops_as_interrupt():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


IN_TERMINAL = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
from maediff.core.processes.process import stops_as_interrupt
try:
    with stops_as_interrupt():
        print("ready", flush=True)
        time.sleep(100)
except KeyboardInterrupt:
    print("saving", flush=True)
    print("saving", file=sys.stderr, flush=True)
    time.sleep(0.3)
    Path(sys.argv[1]).touch()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
def test_a_closed_terminal_does_not_prevent_saving(tmp_path):
    master, terminal = os.openpty()
    command = [sys.executable, "-c", IN_TERMINAL, str(tmp_path / "saved")]
    program = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    assert os.read(master, 100).split() == [b"ready"]
    os.close(master)
    for _ in range(2):  # the shell and the kernel both send it to the jobs of a terminal
        program.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    assert program.wait(60) == 0
    assert (tmp_path / "saved").exists()


def test_sigterm_follows_the_handler_of_ctrl_c():
    numbers = []
    before = signal.signal(signal.SIGINT, lambda number, _: numbers.append(number))
    try:
        with stops_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a background job of a shell
        with pytest.raises(KeyboardInterrupt), stops_as_interrupt():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    assert numbers == [signal.SIGINT]


def test_handler_of_the_program_is_kept():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stops_as_interrupt():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_scratch_of_a_killed_process(temporary):
    code = (
        "import sys, tempfile, time; tempfile.tempdir = sys.argv[1]\n"
        "from maediff.core.processes.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'head.nii').touch(); print(folder, flush=True); time.sleep(100)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(temporary)], stdout=subprocess.PIPE, text=True
    )
    folder = Path(process.stdout.readline().strip())
    remove_abandoned_scratch()
    assert (folder / "head.nii").exists(), "of a living process"
    process.kill()
    process.communicate()
    with scratch_folder() as other:
        assert not folder.exists()
        assert other.stat().st_mode & 0o077 == 0
    assert not other.exists()


def test_scratch_of_others(temporary):
    """Folders of other machines, of other programs and files stay."""
    host, pid, start = host_name(), 2**22 + 5, start_of(os.getpid())
    plain = "".join(letter if letter.isalnum() else "." for letter in host)
    stays = ["maediff-node17-12-x-abc", f"other-{plain}-{pid}-x-abc", f"maediff-{plain}-x-abc"]
    for name in stays:
        (temporary / name).mkdir()
    (temporary / f"maediff-{plain}-{pid}-x-file").touch()
    (temporary / f"maediff-{plain}-{pid}-x-abc").mkdir()
    (temporary / f"maediff-{plain}-{os.getpid()}-old-abc").mkdir()  # number used again
    remove_abandoned_scratch()
    assert sorted(path.name for path in temporary.iterdir()) == sorted(
        [*stays, f"maediff-{plain}-{pid}-x-file"]
    )
    assert start


def test_a_worker_under_nohup_ignores_sighup():
    code = (
        "import signal; from maediff.core.processes.process import end_with_parent\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); end_with_parent()\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
        "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
