"""Content of small files that others made."""

import os
from pathlib import Path

import pytest

from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.core.reading import (
    describe_pointer,
    is_file,
    is_folder,
    load_json,
    read_content,
    read_lines,
)
from maediff.models.model import read_model
from maediff.scans.inputs.find import find_scans
from maediff.scans.read import read_scan


def find_one(path):
    return find_scans([path])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
ANNEX = b"/annex/objects/MD5E-s10--0.json\n"


def test_values_and_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('{"a": ["é"]}\r\n'.encode())
    assert load_json(path) == {"a": ["é"]}
    assert read_lines(path) == '{"a": ["é"]}\n'
    assert read_content(path).endswith(b"\r\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "a Git LFS pointer"),
        (ANNEX, "a git-annex pointer"),
        (b"../../.git/annex/objects/aa/x", "a git-annex pointer"),
        (b"\xff\xfe", "utf-8"),
        (b"", "Expecting value"),
        (b'{"a": {"b": 1, "b": 2}}', "names the key 'b' twice"),
        (b"[1" + b"0" * 400 + b"]", "holds a number of 401 digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 5000, "nested too deeply"),
    ],
)
def test_content_that_is_no_json(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_json(path)
    with pytest.raises(InputError, match=message):
        read_json(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_and_folder_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ""):
        with pytest.raises(OSError, match="not a regular file"):
            read_content(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_content(tmp_path / "absent")
    with pytest.raises(InputError, match=r"pipe: missing or damaged \(not a regular file"):
        read_json(tmp_path / "pipe")


def test_text_that_is_no_pointer(tmp_path):
    assert describe_pointer(b"x" * 2000 + b"annex/objects/") is None
    assert describe_pointer(b'{"a": 1}') is None
    path = tmp_path / "a.json"
    path.write_text('{"source": ".git/annex/objects/x"}')
    assert load_json(path) == {"source": ".git/annex/objects/x"}


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
@pytest.mark.parametrize("use", [read_scan, read_model, Cohort.open, find_one])
def test_path_that_the_system_refuses_is_an_input_error(name, use):
    assert not is_file(Path(name)) and not is_folder(Path(name))
    with pytest.raises(InputError, match="x"):
        use(Path(name))
