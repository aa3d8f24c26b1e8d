"""Measure the CPU time of all scores of 20 volumes of 96 x 96 x 80 voxels.

    python experiments/speed/time_metrics.py

The volumes are ellipsoids with 2 mm voxels, half of them with a lesion. The residual is smooth
noise. The script times the work of `maediff evaluate` on the maps of one method, with and without
median filter:

    scan         scores of the reconstruction, computed once for each scan
    maps         post-processing of the residual
    thresholds   the four thresholds, with their Dice curves; 3/4 of the volumes calibrate
    scores       all columns of scores.csv
    pooled       the precision-recall curve over all voxels

Predictions, means and intervals are not included.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from maediff.anomaly.postprocess import DEFAULT, residual_map
from maediff.cohort.cohort import SubjectSlices
from maediff.core.types import Map
from maediff.evaluation.measures import measure, pooled_curve
from maediff.evaluation.metrics import reconstruction_l1, reconstruction_psnr, reconstruction_ssim
from maediff.evaluation.thresholds import Case, choose_thresholds

SHAPE = (80, 96, 96)
VOLUMES = 20


class Stopwatch:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.began = time.process_time()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = time.process_time()
        self.seconds[name] += now - self.began
        self.began = now


def make_subject(index: int, shape: tuple[int, int, int] = SHAPE) -> tuple[SubjectSlices, Map]:
    """Return a subject and its residual; the lesion is slightly brighter than the noise."""
    rng = np.random.default_rng(index)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radii = (0.9, 0.9, 0.75)
    brain = sum((axis / radius) ** 2 for axis, radius in zip(grid, radii, strict=True)) < 1
    centre, radius = rng.uniform(-0.3, 0.3, 3), rng.uniform(0.1, 0.25)
    ball = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True))
    lesion = ball < radius**2 if index % 2 else np.zeros(shape, bool)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 1.5)
    noise = 0.3 * smooth + 0.05 * rng.standard_normal(shape)
    residual = np.where(brain, abs(noise) + 0.1 * lesion, 0).astype(np.float32)
    texture = 0.5 + 0.1 * np.sin(9 * grid[0]) * np.cos(7 * grid[1])
    subject = SubjectSlices(
        name=f"s{index}",
        person=f"s{index}",
        images=np.where(brain, texture, 0).astype(np.float32),
        brain=brain,
        lesion=lesion,
        lesion_free=~lesion.any(axis=(1, 2)),
        slice_ids=np.arange(shape[0]),
        affine=np.eye(4),
        affine_to_scan=np.eye(4),
        spacing_mm=(2.0, 2.0, 2.0),
        healthy=not lesion.any(),
        extra={},
    )
    return subject, residual


def time_scores(subjects: Sequence[tuple[SubjectSlices, Map]]) -> Counter[str]:
    """Return the CPU seconds of each part."""
    first = subjects[0][0]
    one_slice = first.images[:1]
    reconstruction_ssim(one_slice, one_slice, first.brain[:1])  # imports scikit-image
    watch = Stopwatch()
    for s, residual in subjects:
        reference = (s.images + residual).clip(0, 1)
        for score in (reconstruction_l1, reconstruction_psnr, reconstruction_ssim):
            score(s.images, reference, s.brain)
    watch.lap("scan: l1, PSNR, SSIM")
    for name, post in {"filtered": DEFAULT, "unfiltered": replace(DEFAULT, median_size=1)}.items():
        cases = [
            Case(scan=s, anomaly=residual_map(r, s.brain, s.spacing_mm, post)) for s, r in subjects
        ]
        watch.lap(f"{name}: maps")
        choice = choose_thresholds(cases[::2] + cases[1::4], cases, 0.01, 0.1, post)
        watch.lap(f"{name}: thresholds")
        for case in cases:
            measure(case, choice.thresholds, post)
        watch.lap(f"{name}: scores")
        pooled_curve(cases)
        watch.lap(f"{name}: pooled")
    return watch.seconds


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--volumes", type=int, default=VOLUMES, help="number of volumes; default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the seconds of each part and of all."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.volumes < 4:
        parser.exit(2, f"error: --volumes {args.volumes}: at least 4, to calibrate and to score\n")
    seconds = time_scores([make_subject(index) for index in range(args.volumes)])
    for name, value in seconds.items():
        print(f"{name:24} {value:6.2f}")
    print(f"{'together':24} {seconds.total():6.2f} CPU s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
