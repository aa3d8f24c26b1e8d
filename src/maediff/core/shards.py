"""Shards: several processes or machines share the subjects of one command and one output folder.

    shard of a subject = sha256("DATASET/SUBJECT") mod n + 1

    OUT/shards/2-of-4.json    settings of shard 2, and its results when it has finished

The hash depends on nothing but the two names, so every process assigns a subject to the same
shard. All scans of a subject are in one shard.
Each shard writes only its own record and the folders of its own scans. `maediff report` merges the
records when all shards have finished.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maediff.core.config import flatten
from maediff.core.errors import InputError
from maediff.core.files import MARKER, fresh_folder, read_json, write_json
from maediff.core.text import hash_text

SHARDS = "shards"
"""Folder of the records, in an output folder."""
MERGED = f"{SHARDS}/merged.txt"
"""Hash of the records that were merged last; a shard that starts deletes it."""


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a command.

    Args:
        index: number of this part, 1 to `count`.
        count: number of parts, 1 or more.

    Raises:
        InputError: a number outside its range.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise InputError(
                f"`shard={self}`: there is no such shard; give 1/{max(self.count, 1)} to "
                f"{max(self.count, 1)}/{max(self.count, 1)}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> "Shard":
        """Return the shard that `text` names.

        Args:
            text: `2/4` for the second of four shards; `auto` for the task of a SLURM array.
            environment: environment variables.

        Raises:
            InputError: the text has another form, the shard does not exist, or `auto` finds no
                SLURM array.
        """
        if text.strip() == "auto":
            return cls._from_slurm(environment)
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
        if not match:
            raise InputError(
                f"`shard={text!r}`: give the shard and the number of shards, for example 2/4, "
                "or auto in a SLURM array"
            )
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def _from_slurm(cls, environment: Mapping[str, str]) -> "Shard":
        """Return the shard of a task of a SLURM array (https://slurm.schedmd.com/job_array.html).

        Raises:
            InputError: this is no task of an array, or the array has gaps.
        """
        keys = ("ID", "MIN", "MAX", "COUNT")
        try:
            task, first, last, count = (int(environment[f"SLURM_ARRAY_TASK_{k}"]) for k in keys)
            step = int(environment.get("SLURM_ARRAY_TASK_STEP") or 1)
        except (KeyError, ValueError):
            raise InputError(
                "`shard='auto'`: this is no task of a SLURM array (SLURM_ARRAY_TASK_ID, _MIN, "
                "_MAX and _COUNT are not set); give the shard, for example 2/4"
            ) from None
        if step < 1 or last != first + (count - 1) * step or (task - first) % step:
            raise InputError(
                f"`shard='auto'`: the SLURM array of {count} tasks from {first} to {last} has "
                f"gaps, so the shard of task {task} is unknown; give the shard, for example 2/4"
            )
        return cls((task - first) // step + 1, count)

    def owns(self, dataset: str, subject: str) -> bool:
        """Return True if a subject belongs to this shard."""
        digits = hash_text(f"{dataset}/{subject}")[:16]
        return int(digits, 16) % self.count + 1 == self.index

    def record_in(self, out: Path) -> Path:
        """Return the path of this shard's record in an output folder."""
        return out / SHARDS / f"{self.index}-of-{self.count}.json"


def hash_names(names: Sequence[str]) -> str:
    """Return a hash of the names of all scans, in their order; all shards must have the same."""
    return hash_text("\n".join(names))


def open_shared_folder(out: Path, shard: Shard, *, overwrite: bool, resume: bool) -> Path:
    """Create an output folder that several shards share, or join it, lock the shard, return `out`.

    Args:
        out: the folder.
        shard: this shard.
        overwrite: not possible, because it would delete the results of other shards.
        resume: join a folder that a command without shards has made.

    Raises:
        InputError: `overwrite` is true, the folder holds results of a command without shards and
            `resume` is false, maediff did not make the folder, or another process runs the same
            shard or a command without shards there.
    """
    if overwrite:
        raise InputError(
            f"{out}: `overwrite=True` would delete the results of other shards; delete the folder "
            "yourself before the first shard starts, or leave out `overwrite`"
        )
    # Other shards may start at the same moment, and their probe files begin with MARKER.
    if not out.exists() or (
        out.is_dir() and all(path.name.startswith(MARKER) for path in out.iterdir())
    ):
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / MARKER).touch()
            (out / SHARDS).mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{out}: could not be created ({error.strerror or error}); choose another folder"
            ) from error
    joins = resume or (out / SHARDS).is_dir()
    return fresh_folder(out, resume=joins, parts={str(shard)})


def start_shard(out: Path, shard: Shard, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Write the record of a shard that starts, after a check of the records of other shards.

    Args:
        out: the shared output folder.
        shard: this shard.
        settings: everything that all shards must have in common.
        resume: continue this shard if it was started before.

    Raises:
        InputError: this shard was started before and `resume` is false; the command has another
            number of shards; another shard was started with other settings.
    """
    record = shard.record_in(out)
    if record.is_file() and not resume:
        raise InputError(
            f"{out}: shard {shard} was started before; use `resume=True` to continue it"
        )
    common = json.loads(json.dumps(settings, default=str))
    _check_records(out, shard, common)
    is_new = not record.is_file()
    write_json(record, {"shard": str(shard), "finished": False, "settings": common})
    try:
        # Two shards may start at the same moment. At least one of them sees the other's record.
        _check_records(out, shard, common)
    except InputError:
        if is_new:
            record.unlink(missing_ok=True)
        raise
    (out / MERGED).unlink(missing_ok=True)


def finish_shard(
    out: Path, shard: Shard, settings: Mapping[str, Any], results: Mapping[str, Any]
) -> None:
    """Write the results of a finished shard into its record.

    Args:
        out: the shared output folder.
        shard: this shard.
        settings: as for `start_shard`.
        results: entries that `read_shards` returns, JSON values.
    """
    common = json.loads(json.dumps(settings, default=str))
    record = {"shard": str(shard), "finished": True, "settings": common, **results}
    write_json(shard.record_in(out), record)


def read_shards(out: Path) -> list[dict[str, Any]]:
    """Return the records of all shards of a folder, in order; an empty list without shards.

    Raises:
        InputError: a shard is missing or has not finished; names it.
    """
    paths = _find_records(out)
    if not paths:
        return []
    records = {path: read_json(path, remedy="run this shard again") for path in paths.values()}
    count = next(iter(paths)).count
    shards = [Shard(index, count) for index in range(1, count + 1)]
    unfinished = [
        str(shard)
        for shard in shards
        if shard not in paths or not records[paths[shard]].get("finished")
    ]
    if unfinished:
        raise InputError(
            f"{out}: shard {', '.join(unfinished)} has not finished; run it (with `resume=True` "
            "if it was stopped), then run `maediff report` again"
        )
    return [records[paths[shard]] for shard in shards]


def forget_shards(out: Path) -> None:
    """Delete the records of shards, because a command without shards has done all the work."""
    for path in _find_records(out).values():
        path.unlink(missing_ok=True)


def _find_records(out: Path) -> dict[Shard, Path]:
    """Return the records in a folder by shard, in the order of the shards."""
    found = {}
    for path in (out / SHARDS).glob("*-of-*.json"):
        if match := re.fullmatch(r"(\d+)-of-(\d+)", path.stem):
            found[Shard(int(match[1]), int(match[2]))] = path
    return dict(sorted(found.items(), key=lambda item: (item[0].count, item[0].index)))


def _check_records(out: Path, shard: Shard, settings: Mapping[str, Any]) -> None:
    """Refuse a shard that differs from the other shards of the folder, in number or settings."""
    for other, path in _find_records(out).items():
        if other.count != shard.count:
            raise InputError(
                f"{out}: was started with {other.count} shards ({path.name}), but `shard={shard}` "
                f"is one of {shard.count}; give one of {other.count}, or choose another folder"
            )
        record = read_json(path, remedy=f"run shard {other} again in another folder")
        before, now = flatten(record["settings"]), flatten(dict(settings))
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                raise InputError(
                    f"{out}: shard {other} was started with {key} {before.get(key)}, but shard "
                    f"{shard} has {key} {now.get(key)}; use the same settings and inputs for all "
                    "shards, or choose another folder"
                )
