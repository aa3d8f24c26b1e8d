"""CPU seconds that all scores of 20 volumes of 96 x 96 x 80 take: `python experiments/time_metrics.py`.

Ten made-up brains of 2 mm voxels with a lesion, ten without; smooth noise for a residual, the scan with it for a
reference. Timed is all that `maediff evaluate` does with one method's maps: filter, the four thresholds with their Dice
curves, every column of scores.csv, with the median filter and without; three quarters of the volumes calibrate, too.
"scan" is what is computed once, the reconstruction's scores. Predictions, means and intervals are not in it.
"""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
from scipy import ndimage

from maediff.anomaly.postprocess import DEFAULT, residual_map
from maediff.cohort.cohort import SubjectSlices
from maediff.core.types import Map
from maediff.evaluation.measures import measure, pooled_curve
from maediff.evaluation.metrics import reconstruction_l1, reconstruction_psnr, reconstruction_ssim
from maediff.evaluation.thresholds import Case, choose_thresholds

SHAPE, VOLUMES = (80, 96, 96), 20


def made(index: int) -> tuple[SubjectSlices, Map]:
    """A subject and its residual, in which the lesion is a little brighter than the noise."""
    rng = np.random.default_rng(index)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    brain = (
        sum((axis / radius) ** 2 for axis, radius in zip(grid, (0.9, 0.9, 0.75), strict=True)) < 1
    )
    at, radius = rng.uniform(-0.3, 0.3, 3), rng.uniform(0.1, 0.25)
    ball = sum((axis - middle) ** 2 for axis, middle in zip(grid, at, strict=True)) < radius**2
    lesion = ball if index % 2 else np.zeros_like(ball)
    noise = 0.3 * ndimage.gaussian_filter(
        rng.standard_normal(SHAPE), 1.5
    ) + 0.05 * rng.standard_normal(SHAPE)
    residual = np.where(brain, abs(noise) + 0.1 * lesion, 0).astype(np.float32)
    images = np.where(brain, 0.5 + 0.1 * np.sin(9 * grid[0]) * np.cos(7 * grid[1]), 0).astype(
        np.float32
    )
    subject = SubjectSlices(
        name=f"s{index}",
        images=images,
        brain=brain,
        lesion=lesion,
        lesion_free=~lesion.any(axis=(1, 2)),
        slice_ids=np.arange(SHAPE[0]),
        affine=np.eye(4),
        affine_to_scan=np.eye(4),
        spacing_mm=(2.0, 2.0, 2.0),
        healthy=not lesion.any(),
        extra={},
    )
    return subject, residual


def main() -> None:
    subjects = [made(index) for index in range(VOLUMES)]
    spent: Counter[str] = Counter()
    began = time.process_time()

    def lap(name: str) -> None:
        nonlocal began
        spent[name] += time.process_time() - began
        began = time.process_time()

    reconstruction_ssim(
        *2 * [subjects[0][0].images[:1]], subjects[0][0].brain[:1]
    )  # imports scikit-image
    began = time.process_time()
    for s, residual in subjects:
        reference = (s.images + residual).clip(0, 1)
        for of_reconstruction in (reconstruction_l1, reconstruction_psnr, reconstruction_ssim):
            of_reconstruction(s.images, reference, s.brain)
    lap("scan: l1, PSNR, SSIM")
    for said, post in {"filtered": DEFAULT, "unfiltered": replace(DEFAULT, median_size=1)}.items():
        cases = [
            Case(s, residual_map(r, s.brain, s.spacing_mm, post), s.name) for s, r in subjects
        ]
        lap(f"{said}: maps")
        thresholds, *_ = choose_thresholds(cases[::2] + cases[1::4], cases, 0.01, 0.1, post)
        lap(f"{said}: thresholds")
        for case in cases:
            measure(case, thresholds, post)
        lap(f"{said}: scores")
        pooled_curve(cases)
        lap(f"{said}: pooled")
    for name, seconds in spent.items():
        print(f"{name:24} {seconds:6.2f}")
    print(f"{'together':24} {spent.total():6.2f} CPU s")


if __name__ == "__main__":
    main()
