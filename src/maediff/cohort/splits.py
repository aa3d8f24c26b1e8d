"""Which split a person belongs to, and the code that stands for the person."""

import hashlib

from maediff.scans.reference import subject_in_dataset


def split_of(dataset: str, subject: str) -> str:
    """Split of a subject that brings none: sha256 of `dataset/subject` mod 10, 0 to 6 train, 7 and 8 val, 9 test."""
    digit = (
        int(
            hashlib.sha256(
                f"{dataset}/{subject_in_dataset(dataset, subject)}".encode()
            ).hexdigest(),
            16,
        )
        % 10
    )
    return "train" if digit < 7 else "val" if digit < 9 else "test"


def person_code(dataset: str, subject: str) -> str:
    """16 hex digits that tell whether two rows are of the same person, without the name."""
    return hashlib.sha256(
        f"maediff {dataset}/{subject_in_dataset(dataset, subject)}".encode()
    ).hexdigest()[:16]
