"""Numbers that compare an anomaly map with what a reader drew, or a reconstruction with its scan.

Everything is counted over the brain mask (not eroded); lesion voxels outside it are not scored, and
`lesion_outside_brain` says how many those are.

    no lesion in the brain          AUPRC, recall: nan (the subject is left out of means)
    empty prediction, some lesion   Dice 0
    some prediction, no lesion      Dice 0
    both empty                      Dice 1
    threshold                       a voxel is positive strictly above it
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage, stats

from maediff.postprocess import (
    CONNECTIVITY,
    DEFAULT,
    Map,
    Mask,
    PostprocessConfig,
    bounding_box,
    eroded_brain,
    min_voxels,
)

CURVE_POINTS = 40  # thresholds tried


@dataclass(frozen=True)
class Interval:
    """A mean with a confidence interval; nan bounds where there are too few values for one."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float | None]:
        """`{"mean", "low", "high"}`, None for nan."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True)
class LesionCounts:
    """Components of a truth and a prediction; a lesion is found when one predicted voxel touches it."""

    lesions: int
    found: int
    false_positives: int


def auprc(anomaly_map: Map, lesion: Mask, brain: Mask, *, all_voxels: bool = False) -> float:
    """Average precision of the map's voxels (scikit-learn's definition), nan without a lesion in the brain.

    Args:
        all_voxels: count the background outside the brain as well, with a score of 0: the literature's way.
    """
    truth, score = lesion[brain], anomaly_map[brain]
    if not truth.any():
        return float("nan")
    touched = all_voxels and bool((score[truth] <= 0).any())  # else recall does not grow where the background counts
    return average_precision(truth, score, background=int(brain.size - brain.sum()) if touched else 0)


def average_precision(truth: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"], *, background: int = 0) -> float:
    """scikit-learn's average precision, with `background` further negatives whose score is 0."""
    from sklearn.metrics import average_precision_score

    if not background:
        return float(average_precision_score(truth, score))
    weight = np.ones(len(truth) + 1)
    weight[-1] = background
    return float(average_precision_score(np.append(truth, False), np.append(score, 0), sample_weight=weight))


def dice(predicted: Bool[np.ndarray, "*shape"], truth: Bool[np.ndarray, "*shape"]) -> float:
    """2 |A and B| / (|A| + |B|); 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0


def lesion_outside_brain(lesion: Mask, brain: Mask) -> float:
    """Share of the lesion's voxels outside the brain mask, nan without a lesion."""
    return float((lesion & ~brain).sum() / lesion.sum()) if lesion.any() else float("nan")


def lesion_counts(predicted: Mask, truth: Mask) -> LesionCounts:
    """Lesions (components of `truth`), how many are touched, and predicted components that touch none."""
    lesions, n_lesions = ndimage.label(truth, CONNECTIVITY)
    regions, n_regions = ndimage.label(predicted, CONNECTIVITY)
    both = predicted & truth
    found = len(np.unique(lesions[both]))
    return LesionCounts(n_lesions, found, n_regions - len(np.unique(regions[both])))


# ---- thresholds


def threshold_grid(
    maps: Sequence[Map],
    brains: Sequence[Mask],
    config: PostprocessConfig = DEFAULT,
    points: int = CURVE_POINTS,
) -> Float[np.ndarray, " k"]:
    """Ascending thresholds that leave from 0.3 down to 0.0001 of the (eroded) brains' voxels."""
    values = np.concatenate([m[eroded_brain(b, config)] for m, b in zip(maps, brains, strict=True)])
    if not len(values):
        return np.zeros(1)
    return np.unique(np.quantile(values, 1 - np.geomspace(0.3, 1e-4, points)))


def dice_curve(
    anomaly_map: Map,
    lesion: Mask,
    brain: Mask,
    thresholds: Float[np.ndarray, " k"],
    spacing_mm: Sequence[float],
    config: PostprocessConfig = DEFAULT,
) -> Float[np.ndarray, " k"]:
    """Dice, after all post-processing, at every threshold.

    The same as `dice(anomaly_mask(...), lesion & brain)`, counted by component to be twice as fast.
    """
    box, least = bounding_box(brain), min_voxels(spacing_mm, config)
    truth, values = (lesion & brain)[box], np.where(eroded_brain(brain, config), anomaly_map, -np.inf)[box]
    n_truth = int(truth.sum())
    curve = np.empty(len(thresholds))
    for index, threshold in enumerate(thresholds.tolist()):
        mask = values > threshold
        labels, count = ndimage.label(mask, CONNECTIVITY)
        sizes = np.bincount(labels[mask], minlength=count + 1)
        hits = np.bincount(labels[mask & truth], minlength=count + 1)
        kept = sizes >= least
        total = int(sizes[kept].sum()) + n_truth
        curve[index] = 2 * int(hits[kept].sum()) / total if total else 1.0
    return curve


def best_dice_threshold(
    maps: Sequence[Map],
    lesions: Sequence[Mask],
    brains: Sequence[Mask],
    spacings_mm: Sequence[Sequence[float]],
    config: PostprocessConfig = DEFAULT,
    *,
    also: Sequence[float] = (),
) -> float:
    """The threshold of the quantile grid with the highest mean Dice over subjects; nan without a lesion.

    Subjects without a lesion are left out: their Dice is 0 or 1 and says nothing about overlap.

    Args:
        also: further thresholds to try.
    """
    chosen = [i for i in range(len(maps)) if (lesions[i] & brains[i]).any()]
    if not chosen:
        return float("nan")
    thresholds = threshold_grid([maps[i] for i in chosen], [brains[i] for i in chosen], config)
    thresholds = np.union1d(thresholds, [value for value in also if np.isfinite(value)])
    curves = [dice_curve(maps[i], lesions[i], brains[i], thresholds, spacings_mm[i], config) for i in chosen]
    return float(thresholds[int(np.mean(curves, axis=0).argmax())])


# ---- healthy scans


def false_positive_rate(predicted: Mask, brain: Mask) -> float:
    """FP / (FP + TN) of a healthy scan: the share of its brain that is marked."""
    return float((predicted & brain).sum() / max(int(brain.sum()), 1))


def clopper_pearson(successes: int | float, trials: int, level: float = 0.95) -> Interval:
    """Exact interval of a proportion (Clopper and Pearson 1934, Biometrika 26(4), https://doi.org/10.2307/2331986)."""
    if trials == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Interval(successes / trials, float(low), float(high))


def reconstruction_l1(image: Map, reconstruction: Map, brain: Mask) -> float:
    """Mean absolute difference over the brain's voxels."""
    return float(np.abs(image[brain].astype(np.float64) - reconstruction[brain]).mean())


def reconstruction_psnr(image: Map, reconstruction: Map, brain: Mask) -> float:
    """10 log10(1 / mean squared difference over the brain's voxels) in dB (data range 1), inf for a copy."""
    error = float(np.square(image[brain].astype(np.float64) - reconstruction[brain]).mean())
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def reconstruction_ssim(image: Map, reconstruction: Map, brain: Mask) -> float:
    """Mean over the brain's voxels of scikit-image's SSIM map, slice by slice, both zero outside the brain.

    Gaussian weights of sigma 1.5, population covariance, data range 1: the settings of Wang et al. 2004
    (https://doi.org/10.1109/TIP.2003.819861), as scikit-image documents them.
    """
    from skimage.metrics import structural_similarity

    total = 0.0
    for x, y, inside in zip(image, reconstruction, brain, strict=True):
        if inside.any():
            a, b = np.where(inside, x, 0).astype(np.float64), np.where(inside, y, 0).astype(np.float64)
            _, ssim = structural_similarity(
                a,
                b,
                data_range=1.0,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                full=True,
            )
            total += float(ssim[inside].sum())
    return total / max(int(brain.sum()), 1)


# ---- intervals


def bootstrap_interval(
    values: Sequence[float] | Float[np.ndarray, " n"],
    seed: int = 0,
    *,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean over subjects with a percentile bootstrap interval; nan is left out, a single value has none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Interval(float("nan"), float("nan"), float("nan"))
    if len(finite) == 1:
        return Interval(float(finite[0]), float("nan"), float("nan"))
    picks = np.random.default_rng(seed).integers(0, len(finite), size=(draws, len(finite)))
    low, high = np.quantile(finite[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(finite.mean()), float(low), float(high))


def paired_difference(
    a: Sequence[float] | Float[np.ndarray, " n"], b: Sequence[float] | Float[np.ndarray, " n"], seed: int = 0
) -> Interval:
    """Mean of a - b over the subjects (same order in both) that have both, with its bootstrap interval."""
    return bootstrap_interval(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64), seed)
