"""Split of a subject, and a code for a person that does not reveal the name."""

import hashlib

from maediff.core.types import Split
from maediff.scans.reference import subject_in_dataset


def split_of(dataset: str, subject: str) -> Split:
    """Return the split of a subject whose dataset defines none.

    The SHA-256 hash of `dataset/subject`, modulo 10, decides: 0-6 train, 7-8 val, 9 test.
    The split therefore depends neither on the other subjects nor on their order.
    """
    name = f"{dataset}/{subject_in_dataset(dataset, subject)}"
    digit = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    if digit < 7:
        return "train"
    return "val" if digit < 9 else "test"


def person_code(dataset: str, subject: str) -> str:
    """Return 16 hexadecimal digits that identify a person without the name.

    Two scans show the same person if their codes are equal.
    """
    name = f"maediff {dataset}/{subject_in_dataset(dataset, subject)}"
    return hashlib.sha256(name.encode()).hexdigest()[:16]
