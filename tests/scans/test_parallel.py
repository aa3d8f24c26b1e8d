import os
from pathlib import Path

import pytest

from maediff.core.errors import InputError
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
