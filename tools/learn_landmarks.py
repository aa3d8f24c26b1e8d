"""Landmarks for histogram standardisation from the healthy scans of a cohort's train split.

    python tools/learn_landmarks.py COHORT

prints the setting for `maediff preprocess`, which then stands in the new cohort and in the models trained on it.
The cohort must have been made without landmarks.
"""

import sys
from pathlib import Path

import numpy as np

from maediff.cohort.cohort import Cohort
from maediff.preparation.intensities import deciles_of, learn_landmarks


def main(path: Path) -> None:
    cohort = Cohort.open(path)
    if cohort.meta["normalise"].get("landmarks"):
        sys.exit(f"{path}: was made with landmarks; make one without to learn them from")
    scans = [cohort.load(row) for row in cohort.split("train") if row.healthy]
    if not scans:
        sys.exit(f"{path}: no healthy scan in its train split")
    landmarks = learn_landmarks([deciles_of(scan.images, scan.brain) for scan in scans])
    print(
        f"--set normalise.landmarks={[round(float(value), 4) for value in np.asarray(landmarks)]}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
