"""Learn the landmarks of histogram standardisation from the healthy training scans of a cohort.

    python tools/learn_landmarks.py COHORT

prints the setting that `maediff preprocess` needs, for example
`--set normalise.landmarks=[0.1948, ...]`. The cohort itself must have been made without landmarks.
Landmarks: Nyul, Udupa and Zhang 2000, https://doi.org/10.1109/42.836373.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.preparation.intensities import compute_deciles, learn_landmarks


def landmarks_of(path: Path) -> list[float]:
    """Return the mean deciles of the healthy training brains, in [0, 1], rounded to 4 digits.

    Raises:
        InputError: `path` is no cohort, was made with landmarks, or has no healthy training scan.
    """
    cohort = Cohort.open(path)
    if cohort.meta["normalise"].get("landmarks"):
        raise InputError(
            f"{path}: was made with normalise.landmarks; run `maediff preprocess` without them, "
            "and learn the landmarks from that cohort"
        )
    scans = [cohort.load(row) for row in cohort.split("train") if row.healthy]
    if not scans:
        raise InputError(
            f"{path}: no healthy scan in its train split; landmarks need at least one"
        )
    landmarks = learn_landmarks([compute_deciles(scan.images, scan.brain) for scan in scans])
    return [round(float(value), 4) for value in landmarks]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, help="cohort made by `maediff preprocess`")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the setting for `maediff preprocess`."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        print(f"--set normalise.landmarks={landmarks_of(args.cohort)}")
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
