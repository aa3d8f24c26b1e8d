import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maediff.core.errors import InputError
from maediff.core.processes.process import is_running
from maediff.scans.parallel import run_scans
from maediff.scans.reference import ScanRef

REFS = [
    ScanRef(subject=f"p{number}", session="", image=Path(f"p{number}.nii"), dataset="ds")
    for number in range(4)
]


def fail_or_name(ref):
    """Raise an InputError for p1 and another error for p2; return the name of other scans."""
    if ref.name == "p1":
        raise InputError("p1.nii: damaged; copy it again")
    if ref.name == "p2":
        raise KeyError("x")
    return ref.name


def test_failed_scans_give_messages_in_order():
    outcomes = list(run_scans(fail_or_name, REFS, 1))
    assert outcomes == ["p0", "p1.nii: damaged; copy it again", "p2.nii: KeyError: 'x'", "p3"]


@pytest.mark.slow
def test_processes_give_the_same_outcomes():
    assert list(run_scans(fail_or_name, REFS, 2)) == list(run_scans(fail_or_name, REFS, 1))


@pytest.mark.slow
def test_killed_process_fails_its_scan_only():
    def kill_or_name(ref):
        if ref.name == "p1":
            os.kill(os.getpid(), 9)
        return ref.name

    first, second, *others = run_scans(kill_or_name, REFS, 2)
    assert second.startswith("p1.nii: its process was killed")
    assert [first, *others] == ["p0", "p2", "p3"]


ONE_SCAN = """
import sys, time
from maediff.scans.parallel import run_scans

def wait(ref):
    open(ref, "w").close()
    time.sleep(100)

if __name__ == "__main__":
    list(run_scans(wait, sys.argv[1:], 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
@pytest.mark.parametrize("is_early", [False, True], ids=["one is idle", "both start"])
def test_nothing_lives_on_after_a_kill(tmp_path, is_early):
    """Neither the busy worker, nor the idle one, nor the resource trackers that wait for both."""
    script, begun = tmp_path / "script.py", tmp_path / "begun"
    script.write_text(ONE_SCAN)
    command = [sys.executable, str(script), str(begun)]
    process = subprocess.Popen(command, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def has_begun():
        if is_early and children.exists():
            return len(children.read_text("utf-8").split()) == 4  # two workers and two trackers
        return begun.exists()

    wait_for(has_begun, 60)
    process.kill()
    process.wait()

    def has_ended():
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    try:
        assert wait_for(has_ended, 20)
    finally:
        if not has_ended():
            os.killpg(process.pid, signal.SIGKILL)


PROGRAM_OF_A_WORKER = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
from maediff.core.processes.process import stops_as_interrupt
from maediff.preparation.brain_extraction import _run_to_end
from maediff.scans.parallel import run_scans

def extract(path):
    _run_to_end(["sh", "-c", f"echo $$ > {path}.new; mv {path}.new {path}; exec sleep 100"])

if __name__ == "__main__":
    try:
        with stops_as_interrupt():
            list(run_scans(extract, sys.argv[1:], 2))
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_stop_ends_the_programs_of_workers(name, tmp_path):
    """A brain extractor leads a session of its own, so signals to the command do not reach it."""
    script, begun = tmp_path / "script.py", tmp_path / "begun"
    script.write_text(PROGRAM_OF_A_WORKER)
    command = [sys.executable, str(script), str(begun), str(tmp_path / "other")]
    process = subprocess.Popen(command, start_new_session=True)
    wait_for(begun.exists, 60)
    extractor = int(begun.read_text())
    os.killpg(process.pid, signal.Signals[name])
    try:
        assert process.wait(60) == 130
        assert wait_for(lambda: not is_running(extractor), 20)
    finally:
        if is_running(extractor):
            os.kill(extractor, signal.SIGKILL)


def wait_for(condition, seconds):
    """Return True once a condition holds, False if it does not within some seconds."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
