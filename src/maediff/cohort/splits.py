"""Split of a subject, and a code for a person that does not reveal the name.

    assign_splits    splits of a cohort: those given, else the hash of the name, with enough val
    split_of         split by the hash of the name alone: 70 % train, 20 % val, 10 % test

Thresholds need healthy val scans, so a cohort without given splits has at least `MIN_VAL` val
subjects or `VAL_SHARE` of its subjects, whichever is more:

    10 subjects, by hash 6 train, 0 val, 4 test  ->  6 train, 3 val, 1 test
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maediff.core.text import hash_text
from maediff.core.types import SPLITS, Split
from maediff.scans.reference import ScanRef, subject_in_dataset

MIN_VAL, VAL_SHARE = 3, 0.2


@dataclass(frozen=True)
class Splits:
    """Splits of the subjects of a cohort.

    Args:
        of_person: split by (dataset, subject), for each scan of a cohort.
        n_given: subjects whose split was given.
        n_moved: subjects without a given split whose hash gives train or test, but that are val.
    """

    of_person: Mapping[tuple[str, str], Split]
    n_given: int
    n_moved: int

    def of(self, ref: ScanRef) -> Split:
        """Return the split of a scan."""
        return self.of_person[_name_person(ref)]

    @property
    def counts(self) -> dict[str, int]:
        """Number of subjects by split."""
        splits = list(self.of_person.values())
        return {split: splits.count(split) for split in SPLITS}

    def describe(self) -> str:
        """Return the split in one line: numbers, and their origin."""
        counts = ", ".join(f"{number} {split}" for split, number in self.counts.items())
        total = len(self.of_person)
        origin = "given" if self.n_given == total else "by the hash of each name"
        if 0 < self.n_given < total:
            origin = f"{self.n_given} given, {total - self.n_given} by the hash of each name"
        if self.n_moved:
            origin += f", {self.n_moved} of them moved to val for thresholds"
        return f"{total} subject{'s' if total != 1 else ''}: {counts} ({origin})"

    def list_shortages(self) -> list[str]:
        """Return a sentence for each step that the cohort has too few subjects for."""
        counts = self.counts
        shortages = []
        if not counts["train"]:
            needed = f"at least {MIN_VAL + 1} subjects, or a manifest with the column split"
            shortages.append(
                f"no train subject, so no model can be trained on this cohort; give {needed}"
            )
        if not counts["val"]:
            shortages.append(
                "no val subject, so a model that is trained on this cohort has no thresholds; "
                "give some subjects the split val"
            )
        elif counts["val"] < MIN_VAL:
            shortages.append(
                f"{counts['val']} val subject{'s' if counts['val'] > 1 else ''}, so thresholds of "
                f"a model that is trained on this cohort are not reliable; give {MIN_VAL} or more"
            )
        if not counts["test"]:
            shortages.append(
                "no test subject, so no scans are left to score a model that is trained on this "
                "cohort"
            )
        return shortages


def assign_splits(refs: Sequence[ScanRef]) -> Splits:
    """Return the split of each subject of a cohort.

    A given split is kept. Any other subject gets the split of `split_of`. If this leaves too few
    val subjects, subjects without a given split move to val: first from test, then from train;
    the last subject of each moves only if there is no other. If a subject of the cohort is
    healthy, the rule applies to healthy subjects alone, because thresholds come from them.

    Args:
        refs: the scans, with `healthy` as far as it is known.
    """
    given = {_name_person(ref): _check_split(ref.split) for ref in refs if ref.split}
    split: dict[tuple[str, str], Split] = dict(given)
    unsplit = {_name_person(ref): ref for ref in refs if _name_person(ref) not in given}
    split.update({person: split_of(*person) for person in unsplit})
    healthy = {_name_person(ref) for ref in refs if ref.healthy}
    counted = set(split) & healthy or set(split)
    movable = sorted(set(unsplit) & counted, key=lambda person: _hash_name(*person))
    needed = 0
    if movable:
        needed = max(MIN_VAL, math.ceil(VAL_SHARE * len(movable)))
        needed -= sum(split[person] == "val" for person in counted)
    n_moved = 0
    # Train stays as it is while test has subjects, so that the same people train a model.
    for source, n_kept in (("test", 1), ("train", 1), ("test", 0), ("train", 0)):
        donors = [person for person in movable if split[person] == source]
        for person in donors[: max(0, min(needed - n_moved, len(donors) - n_kept))]:
            split[person] = "val"
            n_moved += 1
    return Splits(split, len(given), n_moved)


def split_of(dataset: str, subject: str) -> Split:
    """Return the split of a subject whose dataset defines none, by its name alone.

    The SHA-256 hash of `dataset/subject`, modulo 10, decides: 0-6 train, 7-8 val, 9 test.
    The split therefore depends neither on the other subjects nor on their order.
    """
    digit = _hash_name(dataset, subject) % 10
    if digit < 7:
        return "train"
    return "val" if digit < 9 else "test"


def person_code(dataset: str, subject: str) -> str:
    """Return 16 hexadecimal digits that identify a person without the name.

    Two scans show the same person if their codes are equal.
    """
    return hash_text(f"maediff {dataset}/{subject_in_dataset(dataset, subject)}")[:16]


def _hash_name(dataset: str, subject: str) -> int:
    """Return the SHA-256 hash of a subject's name in its dataset."""
    return int(hash_text(f"{dataset}/{subject_in_dataset(dataset, subject)}"), 16)


def _name_person(ref: ScanRef) -> tuple[str, str]:
    return ref.dataset, subject_in_dataset(ref.dataset, ref.subject)


def _check_split(split: str) -> Split:
    """Return a split with its type.

    Raises:
        ValueError: unknown split.
    """
    for name in SPLITS:
        if split == name:
            return name
    raise ValueError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
