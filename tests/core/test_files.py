"""Atomic files and protected output folders."""

import errno
import json
import os
from pathlib import Path

import pytest

from maediff.core.errors import InputError
from maediff.core.files import (
    MARKER,
    atomic_path,
    fresh_folder,
    read_json,
    refuse_inputs_inside_output,
    write_json,
    write_table,
    write_text,
)


def test_failed_write_keeps_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text("utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_full_disk(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(
        InputError, match=r"b\.json: could not be written \(No space left on device\)"
    ):
        write_json(tmp_path / "b.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_exist_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.txt", tmp_path / ("x" * 251)):
        with pytest.raises(InputError, match=f"{path.name}: could not be written"):
            write_text(path, "text")
    with pytest.raises(InputError, match="x: could not be created"):
        fresh_folder(tmp_path / ("x" * 300))


def test_temporary_name_keeps_suffix(tmp_path):
    with atomic_path(tmp_path / "image.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")


def test_nan_becomes_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [1.5, float("inf")]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"a": None, "b": [1.5, None]}


def test_write_table_quotes_commas(tmp_path):
    write_table(tmp_path / "a.csv", ("name", "ml"), [("a,b", 1.5), ("c", None)])
    assert (tmp_path / "a.csv").read_text("utf-8") == 'name,ml\n"a,b",1.5\nc,\n'


def test_output_folder(tmp_path):
    out = fresh_folder(tmp_path / "out")
    fresh_folder(out)  # still empty
    (out / "result").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        fresh_folder(out)
    assert (fresh_folder(out, resume=True) / "result").exists()
    assert not (fresh_folder(out, overwrite=True) / "result").exists()
    (out / "result").write_text("x")
    with pytest.raises(
        InputError,
        match="`resume=True` keeps the results and `overwrite=True` deletes them; use only one",
    ):
        fresh_folder(out, resume=True, overwrite=True)
    assert (out / "result").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        fresh_folder(tmp_path / "file")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (
            {"overwrite": False, "resume": False},
            ", or use `resume=True` to continue, or use `overwrite=True` to start again",
        ),
        ({"overwrite": False}, ", or use `overwrite=True` to start again"),
        ({}, ""),
    ],
)
def test_remedy_names_known_arguments(tmp_path, arguments, remedy):
    (fresh_folder(tmp_path / "out") / "result").touch()
    with pytest.raises(InputError) as refusal:
        fresh_folder(tmp_path / "out", **arguments)
    assert str(refusal.value).endswith(f"choose another folder{remedy}")


def test_overwrite_refuses_foreign_folder(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="was not made by maediff"):
        fresh_folder(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_input_inside_output(tmp_path):
    inside = tmp_path / "out" / "scan.nii"
    refuse_inputs_inside_output(tmp_path / "out", [tmp_path, tmp_path / "scan.nii"])
    with pytest.raises(InputError, match=r"out: holds the input .*out/scan\.nii; choose"):
        refuse_inputs_inside_output(tmp_path / "out", [tmp_path, inside])


def test_damaged_json(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    for content, finding in [
        (b"", "Expecting value"),
        (b'{"a": ', "Expecting value"),
        (b"\xff\xfe", "decode"),
        (b"[" * 100_000, "recursion"),
        (b"[1]", "holds a list, expected a dict"),
        (b'"text"', "holds a str"),
        (b"null", "holds a NoneType"),
    ]:
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=rf"a\.json: .*damaged \(.*{finding}.*\); make it again"
        ):
            read_json(path, remedy="make it again")
    with pytest.raises(
        InputError,
        match=r"b\.json: missing or damaged \(No such file or directory\); run the command",
    ):
        read_json(tmp_path / "b.json", list)


def test_leftovers_of_killed_runs(tmp_path):
    """Temporary files and folders of processes that are gone are removed, others stay."""
    out = fresh_folder(tmp_path / "out")
    gone, alive = 2**22 + 5, os.getppid()
    (out / f".scan.tmp-{gone}" / "deep").mkdir(parents=True)
    (out / "best").mkdir()
    stays = [
        out / "best" / f".model.safetensors.tmp-{alive}.safetensors",
        out / ".note.tmp",
        out / f"result.tmp-{gone}",
        out / ".note.tmp-x1",
    ]
    leftovers = [
        out / f".summary.json.tmp-{gone}.json",
        out / f".image.nii.gz.tmp-{gone}.nii.gz",
        out / f".table.tmp-{os.getpid()}",
        out / "best" / f".model.safetensors.tmp-{gone}.safetensors",
    ]
    for path in [*stays, *leftovers]:
        path.touch()
    fresh_folder(out, resume=True)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    assert files == sorted([*stays, out / MARKER])
    assert not (out / f".scan.tmp-{gone}").exists()


def test_overwrite_stopped_half_way(tmp_path, monkeypatch):
    """The marker survives, so the folder can be overwritten again."""
    out = fresh_folder(tmp_path / "out")
    for name in "abc":
        (out / name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fresh_folder(out, overwrite=True)
    fresh_folder(out, overwrite=True)
    assert [path.name for path in out.iterdir()] == [MARKER]


def test_name_that_is_not_utf8(tmp_path):
    write_json(tmp_path / "a.json", {"command": "compare \udcff"})
    assert read_json(tmp_path / "a.json") == {"command": "compare \udcff"}
