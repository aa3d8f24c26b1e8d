"""A split's training slices as arrays on disk, read at memory speed.

    FOLDER/images.npy  brain.npy  subject_index.npy  subjects.json

The folder is whole or absent, and may be deleted at any time: it is made anew, and so is one that is damaged.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from maediff.core.files import read_json

ARRAYS = ("images", "brain", "subject_index")  # of a SliceSet


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Slices of several subjects, memory-mapped: `images` / 255 in [0, 1]; slice i is of subjects[subject_index[i]]."""

    images: UInt8[np.ndarray, "n h w"]
    brain: Bool[np.ndarray, "n h w"]
    subject_index: Int64[np.ndarray, " n"]
    subjects: list[str]


def read_slices(folder: Path) -> SliceSet | None:
    """The arrays in the cache, memory-mapped; None where they are absent or damaged."""
    try:
        subjects = read_json(folder / "subjects.json", list)
        images, brain, index = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS)
    except (OSError, ValueError, EOFError):
        return None
    return SliceSet(images, brain, index, subjects)


def store_slices(folder: Path, arrays: SliceSet) -> bool:
    """Put the arrays in the cache, all or nothing; False if the cohort cannot be written to (read-only, full)."""
    temporary = folder.with_name(
        f".{folder.name}.tmp-{os.getpid()}"
    )  # not of tempfile, whose folders are ours alone
    try:
        temporary.mkdir(parents=True)
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(arrays, name))
        (temporary / "subjects.json").write_text(json.dumps(arrays.subjects), encoding="utf-8")
        temporary.replace(folder)
    except OSError:
        return read_slices(folder) is not None  # another process was faster
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    prefix = folder.name.rsplit("-", 1)[0]
    for old in folder.parent.glob(f"{prefix}-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return True
