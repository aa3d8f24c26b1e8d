"""Threads of a process and its workers, and notices about cores and memory."""

import logging
import os
import sys
from functools import partial
from threading import Event, get_ident
from types import SimpleNamespace

import joblib
import pytest

from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.core.processes import threads
from maediff.core.processes.threads import (
    ITK_VARIABLE,
    let_threads_sleep,
    read_free_gb,
    use_threads,
)

GB_IN_KIB = 1e9 / 1024


@pytest.fixture(autouse=True)
def four_cores(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads, "read_free_gb", lambda: 100.0)
    for name in (*threads.VARIABLES, ITK_VARIABLE):
        monkeypatch.setenv(name, "7")
    calls = []
    torch = SimpleNamespace(set_num_threads=calls.append)
    process = SimpleNamespace(SetGlobalDefaultNumberOfThreads=calls.append)
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "SimpleITK", SimpleNamespace(ProcessObject=process))
    return calls


@pytest.mark.parametrize(("workers", "each"), [(2, 2), (3, 1), (4, 1), (9, 1)])
def test_workers_share_the_cores(workers, each, four_cores, caplog):
    assert use_threads(None, workers) == each
    assert os.environ[ITK_VARIABLE] == str(each)
    assert four_cores == [] and not caplog.records


def test_threads_of_this_process(four_cores, caplog):
    assert use_threads(3) == 3
    assert four_cores == [3, 3]
    assert os.environ["OMP_NUM_THREADS"] == os.environ[ITK_VARIABLE] == "3"
    assert not caplog.records


def test_without_a_number_nothing_changes(four_cores):
    use_threads(None)
    assert four_cores == [] and os.environ["OMP_NUM_THREADS"] == "7"


def test_more_threads_than_cores_are_used_as_given(four_cores, caplog):
    with caplog.at_level(logging.WARNING):
        assert use_threads(3, 2) == 3
    assert "`threads=3` with `workers=2`: this machine has 4 cores" in caplog.text


def test_notice_about_memory(monkeypatch, caplog):
    monkeypatch.setattr(threads, "read_free_gb", lambda: 2.5)
    use_threads(None, 2)
    assert "`workers=2`: a scan of 1 mm needs up to 1.6 GB" in caplog.text
    assert "2.5 GB are free" in caplog.text


def test_free_memory(tmp_path):
    table = tmp_path / "meminfo"
    table.write_text(f"MemTotal: 9 kB\nMemAvailable:   {2 * GB_IN_KIB:.0f} kB\n")
    assert read_free_gb(table) == pytest.approx(2.0, abs=1e-3)
    assert read_free_gb(tmp_path / "missing") is None


def test_a_wait_policy_that_is_set_stays(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_no_thread_at_all():
    with pytest.raises(InputError, match="`threads=0`: give 1 or more"):
        RunOptions(threads=0)


@pytest.mark.parametrize("count", [1, 2])
def test_calls_in_threads_keep_their_order(monkeypatch, count):
    monkeypatch.setattr(threads, "count_threads", lambda: count)
    released = Event()

    def wait():
        return released.wait(10) if count == 2 else True

    def release():
        released.set()
        return get_ident()

    waited, thread = threads.call_in_threads([wait, release])
    assert waited  # with two threads, the second call ran during the first
    assert (thread == get_ident()) == (count == 1)


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_failure_of_calls_in_threads_is_raised(monkeypatch, count):
    monkeypatch.setattr(threads, "count_threads", lambda: count)

    def fail(number):
        raise ValueError(f"call {number}")

    with pytest.raises(ValueError, match="call 1"):
        threads.call_in_threads([dict, partial(fail, 1), partial(fail, 2)])


def test_simpleitk_gives_the_number_of_threads(monkeypatch):
    process = sys.modules["SimpleITK"].ProcessObject
    monkeypatch.setattr(process, "GetGlobalDefaultNumberOfThreads", lambda: 3, raising=False)
    assert threads.count_threads() == 3
