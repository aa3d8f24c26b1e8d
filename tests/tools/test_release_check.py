"""Checks of a wheel before a release."""

import zipfile

import pytest

from helpers.scripts import load_script

check = load_script("tools/release_check.py")
COMPLETE = (*check.NEEDED, "maediff-0.1.0.dist-info/licenses/LICENSE")


def make_wheel(folder, names, size=10):
    path = folder / "maediff-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(name, b"0" * size)
    return path


def test_a_complete_wheel_passes(tmp_path):
    sample = "maediff/synthetic/sample/sub-sample_FLAIR.nii.gz"
    line = check.check_wheel(make_wheel(tmp_path, [*COMPLETE, sample]))
    assert f"{len(COMPLETE) + 1} files" in line


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_missing_file_is_named(tmp_path, missing):
    wheel = make_wheel(tmp_path, [name for name in COMPLETE if name != missing])
    with pytest.raises(RuntimeError, match=f"lacks {missing.rpartition('/')[2]}|lacks {missing}"):
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
    assert "dcm2niix==1.0.20240202" in lowest
    assert not any(line.startswith("torch") for line in lowest)


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
