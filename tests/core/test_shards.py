"""Shards: assignment, SLURM's variables, records in a shared folder."""

import hashlib

import pytest

from maediff.core.errors import InputError
from maediff.core.files import MARKER, fresh_folder
from maediff.core.shards import (
    SHARDS,
    Shard,
    finish_shard,
    open_shared_folder,
    read_shards,
    start_shard,
)

ONE = Shard(1, 1)
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "6",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_ARRAY_TASK_MAX": "6",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_STEP": "2",
}


def start(out, text, settings=None, *, resume=False):
    shard = Shard.parse(text)
    open_shared_folder(out, shard, overwrite=False, resume=resume)
    start_shard(out, shard, settings or {"size": 96}, resume=resume)
    return shard


@pytest.mark.parametrize("text", ["1/1", "2/4", " 4 / 4 "])
def test_a_shard_is_parsed_from_its_text(text):
    assert str(Shard.parse(text)) == text.replace(" ", "")


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0"])
def test_shard_beyond_n(text):
    with pytest.raises(InputError, match=rf"`shard={text}`: there is no such shard; give 1/"):
        Shard.parse(text)


@pytest.mark.parametrize("text", ["", "2", "2-4", "a/b", "-1/4", "1/4/2", "1.5/4", "²/4"])
def test_no_shard(text):
    with pytest.raises(InputError, match=r"for example 2/4, or auto"):
        Shard.parse(text)


def test_auto_reads_slurm():
    assert Shard.parse("auto", ARRAY) == Shard(4, 4)
    one_based = ARRAY | {
        "SLURM_ARRAY_TASK_MIN": "1",
        "SLURM_ARRAY_TASK_MAX": "7",
        "SLURM_ARRAY_TASK_ID": "3",
    }
    assert Shard.parse("auto", one_based) == Shard(2, 4)


def test_auto_outside_an_array_and_in_one_with_gaps():
    with pytest.raises(InputError, match="no task of a SLURM array"):
        Shard.parse("auto", {})
    with pytest.raises(InputError, match="has gaps"):
        Shard.parse("auto", ARRAY | {"SLURM_ARRAY_TASK_MAX": "9"})


def test_each_subject_in_one_shard():
    subjects = [f"sub-{number:03}" for number in range(400)]
    shards = [Shard(index, 4) for index in range(1, 5)]
    owners = [[shard for shard in shards if shard.owns("ixi", name)] for name in subjects]
    assert all(len(each) == 1 for each in owners)
    assert all(60 < sum(each[0] == shard for each in owners) < 140 for shard in shards)
    number = int(hashlib.sha256(b"ixi/sub-000").hexdigest()[:16], 16) % 4 + 1
    assert owners[0] == [Shard(number, 4)]  # stable: other versions and machines assign the same


def test_records_of_all_shards(tmp_path):
    out = tmp_path / "out"
    assert read_shards(tmp_path) == []
    for text in ("2/2", "1/2"):
        shard = start(out, text)
        finish_shard(out, shard, {"size": 96}, {"scans": [text]})
    assert [record["scans"] for record in read_shards(out)] == [["1/2"], ["2/2"]]
    assert (out / MARKER).is_file()


def test_missing_and_unfinished_shards_are_named(tmp_path):
    start(tmp_path / "out", "2/3")
    finish_shard(tmp_path / "out", Shard(1, 3), {"size": 96}, {})
    with pytest.raises(InputError, match=r"shard 2/3, 3/3 has not finished; run it"):
        read_shards(tmp_path / "out")


def test_other_settings_are_refused_and_nothing_is_lost(tmp_path):
    out = tmp_path / "out"
    start(out, "1/2", {"grid": {"size": 96}})
    before = (out / SHARDS / "1-of-2.json").read_text("utf-8")
    message = r"shard 1/2 was started with grid.size 96, but shard 2/2 has grid.size 48"
    with pytest.raises(InputError, match=message):
        start(out, "2/2", {"grid": {"size": 48}})
    assert [path.name for path in (out / SHARDS).iterdir()] == ["1-of-2.json"]
    assert (out / SHARDS / "1-of-2.json").read_text("utf-8") == before
    start(out, "2/2", {"grid": {"size": 96}})


def test_shards_that_start_at_the_same_moment_see_each_other(tmp_path, monkeypatch):
    out = tmp_path / "out"
    import maediff.core.shards as module

    write = module.write_json

    def write_after_other(path, value):
        if path.name == "2-of-2.json":  # the other shard starts between check and write
            write(out / SHARDS / "1-of-2.json", {**value, "settings": {"size": 48}})
        write(path, value)

    monkeypatch.setattr(module, "write_json", write_after_other)
    with pytest.raises(InputError, match="shard 1/2 was started with size 48"):
        start(out, "2/2")
    assert [path.name for path in (out / SHARDS).iterdir()] == ["1-of-2.json"]


def test_another_number_of_shards_is_refused(tmp_path):
    start(tmp_path / "out", "1/4")
    with pytest.raises(
        InputError, match=r"started with 4 shards \(1-of-4.json\), but `shard=1/3`"
    ):
        start(tmp_path / "out", "1/3")


def test_second_start_needs_resume(tmp_path):
    start(tmp_path / "out", "1/4")
    with pytest.raises(InputError, match="shard 1/4 was started before; use `resume=True`"):
        start(tmp_path / "out", "1/4")
    start(tmp_path / "out", "1/4", resume=True)


def test_overwrite_would_delete_other_shards(tmp_path):
    with pytest.raises(InputError, match="`overwrite=True` would delete"):
        open_shared_folder(tmp_path / "out", ONE, overwrite=True, resume=False)
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_not_utf8_has_a_shard():
    assert sum(Shard(index, 3).owns("M\udcfcnchen", "sub-1") for index in (1, 2, 3)) == 1


def test_folder_of_a_plain_command_needs_resume(tmp_path):
    out = fresh_folder(tmp_path / "out")
    (out / "detect.json").write_text("{}")
    with pytest.raises(InputError, match="exists and is not empty") as refusal:
        open_shared_folder(out, ONE, overwrite=False, resume=False)
    assert "`resume=True`" in str(refusal.value) and "overwrite" not in str(refusal.value)
    open_shared_folder(out, ONE, overwrite=False, resume=True)


def test_foreign_folder_and_file_are_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"):
        open_shared_folder(tmp_path / "notes", ONE, overwrite=False, resume=False)
    with pytest.raises(InputError, match="is a file"):
        open_shared_folder(tmp_path / "notes" / "todo.txt", ONE, overwrite=False, resume=False)


def test_folder_that_another_shard_is_creating(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / MARKER).touch()
    (out / f"{MARKER}.tmp-123").touch()  # the probe of the other shard
    assert open_shared_folder(out, ONE, overwrite=False, resume=False) == out
    assert (out / SHARDS).is_dir()


def test_damaged_record_is_named(tmp_path):
    shard = start(tmp_path / "out", "1/1")
    shard.record_in(tmp_path / "out").write_text("{")
    with pytest.raises(InputError, match=r"1-of-1.json: missing or damaged"):
        read_shards(tmp_path / "out")
