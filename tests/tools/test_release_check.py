"""Checks of a wheel before a release."""

import os
import shutil
import sys
import zipfile

import pytest

from helpers.scripts import ROOT, load_script

check = load_script("tools/release_check.py")
INFO = "maediff-0.1.0.dist-info"
COMPLETE = (*check.NEEDED, f"{INFO}/licenses/LICENSE", f"{INFO}/METADATA")


def make_wheel(folder, names, size=10):
    path = folder / "maediff-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(name, b"0" * size)
    return path


def test_a_complete_wheel_passes(tmp_path):
    sample = "maediff/synthetic/sample/sub-sample_T1w.nii.gz"
    line = check.check_wheel(make_wheel(tmp_path, [*COMPLETE, sample]))
    assert f"{len({*COMPLETE, sample})} files" in line


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_missing_file_is_named(tmp_path, missing):
    wheel = make_wheel(tmp_path, [name for name in COMPLETE if name != missing])
    with pytest.raises(RuntimeError, match=f"lacks {missing.rpartition('/')[2]}|lacks {missing}"):
        check.check_wheel(wheel)


def test_a_link_to_the_repository_is_refused(tmp_path):
    names = [name for name in COMPLETE if not name.endswith("METADATA")]
    wheel = make_wheel(tmp_path, names)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr(f"{INFO}/METADATA", "[a](https://a.org) ![b](docs/b.png) [c](d.md)")
    with pytest.raises(RuntimeError, match=r": links to docs/b\.png; links to d\.md$"):
        check.check_wheel(wheel)


@pytest.mark.parametrize("scan", ["maediff/data/head.nii.gz", "maediff/a.dcm", "tests/b.nii"])
def test_a_scan_is_refused(tmp_path, scan):
    with pytest.raises(RuntimeError, match=f"holds {scan}"):
        check.check_wheel(make_wheel(tmp_path, [*COMPLETE, scan]))


def test_a_large_wheel_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "MAX_WHEEL_MB", 0.001)
    with pytest.raises(RuntimeError, match="more than 0"):
        check.check_wheel(make_wheel(tmp_path, COMPLETE, size=1000))


def test_lowest_versions_are_those_of_pyproject():
    lowest = check.lowest_versions()
    assert "numpy==1.26.*" in lowest
    assert "dcm2niix==1.0.20250506" in lowest
    assert not any(line.startswith("torch") for line in lowest)


def test_the_version_of_torch_is_that_of_the_constraints_or_the_given_one():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    first, *others = check.make_constraints("newest", None).splitlines()
    assert first.startswith("torch==") and first in pinned and not others
    assert check.make_constraints("newest", "2.6.0") == "torch==2.6.0\n"
    assert check.make_constraints("lowest", "2.6.0").splitlines()[1:] == check.lowest_versions()


def test_the_offline_module_refuses_connections():
    scope = {}
    import socket

    kept = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
    try:
        exec(check.OFFLINE, scope)
        with pytest.raises(OSError, match="cut off"):
            socket.create_connection(("localhost", 9))
    finally:
        socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo = kept


def test_a_failed_command_shows_its_output():
    with pytest.raises(RuntimeError, match="wrong"):
        check.run(["python3", "-c", "import sys; sys.exit('wrong')"])


def make_app(folder, *, repeats):
    """Write a `maediff-bids` that makes an empty map, each time or only if there is none."""
    app = folder / "maediff-bids"
    test = "" if repeats else "if not path.exists(): "
    app.write_text(
        f"""#!{sys.executable}
import pathlib, sys
path = pathlib.Path(sys.argv[2]) / "sub-sample" / "anat" / "sub-sample_desc-anomaly_T1w.nii.gz"
path.parent.mkdir(parents=True, exist_ok=True)
{test}path.write_text(sys.argv[3])
"""
    )
    app.chmod(0o755)
    python = folder / "python"
    python.write_text(f"#!/bin/sh\necho {folder}/sub-sample_T1w.nii.gz\n")
    python.chmod(0o755)
    (folder / "sub-sample_T1w.nii.gz").touch()
    return python


@pytest.mark.skipif(os.name == "nt", reason="the stub is a shell script")
def test_the_bids_app_runs_three_times_and_is_validated(tmp_path, monkeypatch):
    validator = tmp_path / "bin" / "bids-validator-deno"
    validator.parent.mkdir()
    validator.write_text("#!/bin/sh\necho invalid; exit 16\n")
    validator.chmod(0o755)
    python = make_app(tmp_path, repeats=False)
    monkeypatch.setattr(check.sys, "executable", str(validator.with_name("python")))
    with pytest.raises(RuntimeError, match="bids-derivative: invalid"):
        check.try_bids_app(python, tmp_path, dict(os.environ))
    assert (tmp_path / "bids" / "sub-sample" / "anat" / "sub-sample_T1w.nii.gz").is_file()
    assert "BIDSVersion" in (tmp_path / "bids" / "dataset_description.json").read_text("utf-8")
    validator.write_text("#!/bin/sh\n")
    shutil.rmtree(tmp_path / "bids")
    check.try_bids_app(python, tmp_path, dict(os.environ))


@pytest.mark.skipif(os.name == "nt", reason="the stub is a shell script")
def test_a_bids_app_that_repeats_finished_scans_is_refused(tmp_path):
    python = make_app(tmp_path, repeats=True)
    with pytest.raises(RuntimeError, match="repeated finished scans"):
        check.try_bids_app(python, tmp_path, dict(os.environ))


def test_missing_tools_are_named_before_anything_is_built(monkeypatch, capsys, tmp_path):
    work = tmp_path / "work"
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    monkeypatch.setattr(check, "find_validator", lambda: tmp_path / "bids-validator-deno")
    monkeypatch.setattr(sys, "argv", ["release_check.py", "--work", str(work)])
    assert check.main() == 1
    assert "pip install build twine bids-validator-deno" in capsys.readouterr().err
    assert not work.exists()
