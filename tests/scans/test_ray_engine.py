"""Scans on a Ray cluster: order, repetitions, lost workers. A fake replaces Ray, if need be."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.scans import ray_engine
from maediff.scans.parallel import run_scans
from maediff.scans.reference import ScanRef


class RayError(Exception):
    """As in Ray."""


class RaySystemError(RayError):
    """As in Ray."""


class WorkerCrashedError(RayError):
    """As in Ray."""


class FakeRay:
    """A cluster in this process; tasks run, last submitted first, when the driver waits."""

    exceptions = SimpleNamespace(RayError=RayError, RaySystemError=RaySystemError)

    def __init__(self, cpus=2, *, works=True):
        self.cpus, self.works = cpus, works
        self.calls, self.results, self.options = [], {}, {}
        self.initialized = False

    def is_initialized(self):
        return self.initialized

    def init(self, **options):
        if not self.cpus:
            raise ConnectionError("nobody\nanswers")
        self.options |= options

    def shutdown(self):
        self.options["shutdown"] = True

    def put(self, value):
        return value

    def remote(self, **options):
        self.options |= options

        def decorate(function):
            def submit(*args):
                self.calls.append((function, args))
                return len(self.calls) - 1

            return SimpleNamespace(remote=submit)

        return decorate

    def wait(self, references, timeout):
        if not self.works:
            return [], references
        reference = max(references)
        function, args = self.calls[reference]
        try:
            self.results[reference] = function(*args)
        except RayError as error:
            self.results[reference] = error
        return [reference], []

    def get(self, reference):
        if isinstance(self.results[reference], RayError):
            raise self.results[reference]
        return self.results[reference]

    def nodes(self):
        return [
            {"Alive": True, "Resources": {"CPU": self.cpus}},
            {"Alive": True, "Resources": {}},
            {"Alive": False, "Resources": {"CPU": 64}},
        ]


@pytest.fixture
def refs():
    return [ScanRef(f"sub-{n}", "", Path(f"sub-{n}.nii.gz"), "in") for n in range(4)]


@pytest.fixture
def use(monkeypatch):
    def replace(ray):
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    return replace


def test_order_of_the_inputs(use, refs):
    ray = use(FakeRay())
    outcomes = list(run_scans(lambda ref: (ref.name,), refs, 1, engine="ray", threads=1))
    assert outcomes == [(ref.name,) for ref in refs]
    assert ray.options["num_cpus"] == 1 and ray.options["shutdown"]


def test_running_cluster_of_the_caller_is_kept(use, refs):
    ray = use(FakeRay())
    ray.initialized = True
    list(run_scans(lambda ref: None, refs, 1, engine="ray"))
    assert "shutdown" not in ray.options and "address" not in ray.options


def test_the_address_of_the_cluster_comes_from_the_environment(use, refs, monkeypatch):
    ray = use(FakeRay())
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    list(run_scans(lambda ref: None, refs, 1, engine="ray"))
    assert ray.options["address"] == "10.0.0.1:6379"


def test_failed_scan_is_repeated_twice_and_named(use, refs, caplog):
    use(FakeRay())
    attempts = []

    def fail_on_1(ref):
        attempts.append(ref.name)
        if ref.name == "sub-1":
            raise InputError("sub-1.nii.gz: too dark")

    with caplog.at_level(logging.WARNING, "maediff"):
        outcomes = list(run_scans(fail_on_1, refs, 1, engine="ray"))
    assert outcomes == [None, "sub-1.nii.gz: too dark", None, None]
    assert attempts.count("sub-1") == 3 and len(attempts) == 6
    assert "sub-1 failed, attempt 1 of 3: sub-1.nii.gz: too dark" in caplog.messages


def test_lost_worker_is_repeated(use, refs):
    use(FakeRay())
    crashes = [2]

    def crash(ref):
        if ref.name == "sub-2" and crashes[0]:
            crashes[0] -= 1
            raise WorkerCrashedError("the worker died")
        return ref.name.upper()

    outcomes = list(ray_engine.run_on_ray(crash, refs))
    # Text counts as failure; two crashes and one text make three attempts.
    assert outcomes == ["SUB-0", "SUB-1", "SUB-2", "SUB-3"]
    crashes[0] = 3
    outcomes = list(ray_engine.run_on_ray(crash, refs))
    assert outcomes[2].startswith("sub-2.nii.gz: its worker was lost (WorkerCrashedError: the w")


def test_no_worker_left(use, refs):
    ray = FakeRay(works=False)
    use(ray)
    outcomes = ray_engine.run_on_ray(lambda ref: None, refs, threads=4, patience_s=0.01)
    with pytest.raises(InputError, match=r"no worker left, and 4 scans .* `resume=True`"):
        list(outcomes)
    assert ray.options["shutdown"]


def test_lost_cluster(use, refs):
    use(FakeRay())

    def lose(ref):
        raise RaySystemError("the head died")

    with pytest.raises(InputError, match=r"cluster auto was lost \(the head died\).*resume=True"):
        list(ray_engine.run_on_ray(lose, refs))


def test_no_cluster(use, refs):
    use(FakeRay(cpus=0))
    with pytest.raises(InputError, match=r"no Ray cluster at auto \(nobody answers\); start one"):
        list(ray_engine.run_on_ray(lambda ref: None, refs))


def test_ray_is_not_installed(use, refs):
    use(None)  # an import of it fails
    with pytest.raises(InputError, match=r"`engine='ray'`: Ray is not installed; pip install"):
        list(run_scans(lambda ref: None, refs, 1, engine="ray"))


def test_an_unknown_engine_and_workers_beside_ray_are_refused():
    with pytest.raises(InputError, match="`engine='dask'`: choose local or ray"):
        RunOptions(engine="dask")
    with pytest.raises(InputError, match="`workers=2`: the Ray cluster decides"):
        RunOptions(engine="ray", workers=2)
