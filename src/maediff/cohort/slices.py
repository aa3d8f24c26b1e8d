"""Training slices of a split as arrays on disk, mapped into memory.

    FOLDER/images.npy  brain.npy  subject_index.npy  subjects.json

The folder is whole or absent. It can be deleted at any time: `Cohort` rebuilds it.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from maediff.core.files import read_json

ARRAYS = ("images", "brain", "subject_index")
"""Fields of a `SliceSet` that are arrays."""


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Slices of several scans; arrays from the cache are memory-mapped.

    Args:
        images: `images` / 255 is the intensity, clipped to [0, 1].
        brain: brain mask.
        subject_index: slice i belongs to the scan `subjects[subject_index[i]]`.
        subjects: names of the scans.
    """

    images: UInt8[np.ndarray, "n h w"]
    brain: Bool[np.ndarray, "n h w"]
    subject_index: Int64[np.ndarray, " n"]
    subjects: list[str]


def read_slices(folder: Path) -> SliceSet | None:
    """Return the cached slices, memory-mapped; None if the cache is missing or damaged."""
    try:
        subjects = read_json(folder / "subjects.json", list)
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    except (OSError, ValueError, EOFError):
        return None
    return SliceSet(**arrays, subjects=subjects)


def store_slices(folder: Path, slices: SliceSet) -> bool:
    """Write slices to the cache, and delete caches of the same split with other content.

    Returns:
        True if the cache is complete; False if it cannot be written (read-only, full disk).
    """
    # `tempfile` would make a folder that only its owner can read.
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(slices, name))
        (temporary / "subjects.json").write_text(json.dumps(slices.subjects), encoding="utf-8")
        temporary.replace(folder)
    except OSError:
        return read_slices(folder) is not None  # another process was faster
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    prefix = folder.name.rsplit("-", 1)[0]
    for outdated in folder.parent.glob(f"{prefix}-*"):
        if outdated != folder:
            shutil.rmtree(outdated, ignore_errors=True)
    return True
