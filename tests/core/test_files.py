"""Whole or absent; and nothing of the user's is ever emptied."""

import errno
import json
from pathlib import Path

import pytest

from maediff.core.errors import InputError
from maediff.core.files import atomic_path, fresh_folder, read_json, write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(
        InputError, match=r"b\.json: could not be written \(No space left on device\)"
    ):
        write_json(tmp_path / "b.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_name_keeps_the_kind_of_file(tmp_path):
    with atomic_path(tmp_path / "image.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")


def test_json_has_null_for_what_is_not_a_number(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, float("inf")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [1.5, None]}


def test_output_folders_are_refused_unless_asked_for(tmp_path):
    out = fresh_folder(tmp_path / "out")
    fresh_folder(out)  # still empty
    (out / "result").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        fresh_folder(out)
    assert (fresh_folder(out, resume=True) / "result").exists()
    assert not (fresh_folder(out, overwrite=True) / "result").exists()
    (out / "result").write_text("x")
    with pytest.raises(
        InputError, match="--resume keeps what is there and --overwrite removes it; give one"
    ):
        fresh_folder(out, resume=True, overwrite=True)
    assert (out / "result").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        fresh_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"overwrite": False, "resume": False},
            ", or add --resume to go on or --overwrite to start anew",
        ),
        ({"overwrite": False}, ", or add --overwrite to start anew"),
        ({}, ""),
    ],
)
def test_only_flags_that_the_command_has_are_spoken_of(tmp_path, flags, said):
    (fresh_folder(tmp_path / "out") / "result").touch()
    with pytest.raises(InputError) as refusal:
        fresh_folder(tmp_path / "out", **flags)
    assert str(refusal.value).endswith(f"choose another folder{said}")


def test_overwrite_empties_no_folder_of_somebody_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="was not made by maediff"):
        fresh_folder(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_damaged_json_is_said_with_its_file_and_what_to_do(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    for content, said in [
        (b"", "Expecting value"),
        (b'{"a": ', "Expecting value"),
        (b"\xff\xfe", "decode"),
        (b"[" * 100_000, "recursion"),
        (b"[1]", "list found, dict expected"),
        (b'"text"', "str found"),
        (b"null", "NoneType found"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.json: .*damaged \(.*{said}.*\); make it again"):
            read_json(path, remedy="make it again")
    with pytest.raises(
        InputError,
        match=r"b\.json: missing or damaged \(No such file or directory\); run the command",
    ):
        read_json(tmp_path / "b.json", list)
