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
from jaxtyping import Bool, Float, Int
from scipy import ndimage, sparse
from scipy.sparse import csgraph

from maediff.anomaly.components import CONNECTIVITY, bounding_box, later_voxel, linked_voxels
from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, eroded_brain, min_voxels
from maediff.core.types import Map, Mask

CURVE_POINTS = 40  # thresholds tried
SSIM_SIGMA, SSIM_TRUNCATE = 1.5, 3.5  # pixels, and in sigmas: windows of 11 x 11


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
    touched = all_voxels and bool(
        (score[truth] <= 0).any()
    )  # else recall does not grow where the background counts
    return average_precision(
        truth, score, background=int(brain.size - brain.sum()) if touched else 0
    )


def average_precision(
    truth: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"], *, background: int = 0
) -> float:
    """Sum over thresholds of (recall gained) x precision, scikit-learn's definition; nan without a positive.

    Args:
        background: so many further negatives whose score is 0.
    """
    if not truth.any():
        return float("nan")
    precision, recall = precision_recall(truth, score, background=background)
    return float(np.diff(recall, prepend=0.0) @ precision)


def precision_recall(
    truth: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"], *, background: int = 0
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Precision and recall at every threshold where recall grows, from the highest down.

    Those are the distinct scores of positives: only they are sorted, which is four times faster than scikit-learn.
    """
    values, counts = np.unique(score[truth], return_counts=True)
    negatives = score[~truth]
    negatives = negatives[negatives >= values[0]]
    above = np.bincount(
        np.searchsorted(values, negatives, side="right") - 1, minlength=len(values)
    )
    if values[0] <= 0:
        above[np.searchsorted(values, 0, side="right") - 1] += background
    found, wrong = np.cumsum(counts[::-1]), np.cumsum(above[::-1])
    return found / (found + wrong), found / found[-1]


def dice(predicted: Bool[np.ndarray, "*shape"], truth: Bool[np.ndarray, "*shape"]) -> float:
    """2 |A and B| / (|A| + |B|); 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 2 * int((predicted & truth).sum()) / total if total else 1.0


def lesion_outside_brain(lesion: Mask, brain: Mask) -> float:
    """Share of the lesion's voxels outside the brain mask, nan without a lesion."""
    return float((lesion & ~brain).sum() / lesion.sum()) if lesion.any() else float("nan")


def lesion_counts(predicted: Mask, truth: Mask) -> LesionCounts:
    """Lesions (components of `truth`), how many are touched, and predicted components that touch none."""
    found = lesions_found(predicted, truth)[1]
    box = bounding_box(predicted)
    regions, n_regions = ndimage.label(predicted[box], CONNECTIVITY)
    touching = len(np.unique(regions[predicted[box] & truth[box]]))
    return LesionCounts(len(found), int(found.sum()), n_regions - touching)


def lesions_found(
    predicted: Mask, truth: Mask
) -> tuple[Int[np.ndarray, " k"], Bool[np.ndarray, " k"]]:
    """Of each lesion (component of `truth`): its voxels, and whether a predicted voxel touches it."""
    box = bounding_box(truth)
    labels, count = ndimage.label(truth[box], CONNECTIVITY)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    touched = np.bincount(labels[predicted[box] & truth[box]], minlength=count + 1)[1:]
    return voxels, touched > 0


# ---- thresholds


def threshold_grid(
    maps: Sequence[Map],
    brains: Sequence[Mask],
    config: PostprocessConfig = DEFAULT,
    points: int = CURVE_POINTS,
) -> Float[np.ndarray, " k"]:
    """Ascending thresholds that leave from 0.3 down to 0.0001 of the (eroded) brains' voxels."""
    values = np.concatenate(
        [m[eroded_brain(b, config)] for m, b in zip(maps, brains, strict=True)]
    )
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

    The same as `dice(anomaly_mask(...), lesion & brain)`, four times faster: from the highest threshold down, voxels
    and links between neighbours are added to the components there are, so that each is looked at once.
    """
    inside = eroded_brain(brain, config)
    box, least = bounding_box(inside), min_voxels(spacing_mm, config)
    n_truth = int((lesion & brain).sum())
    level = np.where(inside, np.searchsorted(thresholds, anomaly_map), 0)[
        box
    ]  # how many thresholds lie below
    voxels, pairs = linked_voxels(level)
    hit = (lesion & brain)[box].ravel()[voxels]
    until = np.searchsorted(
        -level.ravel()[voxels], -np.arange(len(thresholds), 0, -1), side="right"
    )  # above each
    links_until = np.searchsorted(later_voxel(pairs), until)
    component = np.empty(len(voxels), dtype=np.int64)  # of each voxel
    size: np.ndarray = np.zeros(0)  # of each component, as `hits`
    hits: np.ndarray = np.zeros(0)
    curve, last_voxel, last_link = np.empty(len(thresholds)), 0, 0
    for step, (voxel, link) in enumerate(zip(until, links_until, strict=True)):
        component[last_voxel:voxel] = np.arange(len(size), len(size) + voxel - last_voxel)
        size = np.append(size, np.ones(voxel - last_voxel))
        hits = np.append(hits, hit[last_voxel:voxel])
        if link > last_link:
            one, other = component[pairs[last_link:link]].T
            graph = sparse.coo_matrix(
                (np.ones(len(one), dtype=np.int8), (one, other)), shape=(len(size), len(size))
            )
            count, merged = csgraph.connected_components(graph, directed=False)
            component[:voxel] = merged[component[:voxel]]
            size, hits = np.bincount(merged, size, count), np.bincount(merged, hits, count)
        kept = size >= least
        total = size[kept].sum() + n_truth
        curve[len(thresholds) - 1 - step] = 2 * hits[kept].sum() / total if total else 1.0
        last_voxel, last_link = voxel, link
    return curve


def dice_by_threshold(
    maps: Sequence[Map],
    lesions: Sequence[Mask],
    brains: Sequence[Mask],
    spacings_mm: Sequence[Sequence[float]],
    config: PostprocessConfig = DEFAULT,
    *,
    also: Sequence[float] = (),
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Thresholds, ascending, and the mean over subjects of their Dice at each; both empty without a lesion.

    Subjects without a lesion are left out: their Dice is 0 or 1 and says nothing about overlap.

    Args:
        also: thresholds to try besides those of `threshold_grid`; nan is passed over.
    """
    chosen = [i for i in range(len(maps)) if (lesions[i] & brains[i]).any()]
    if not chosen:
        return np.empty(0), np.empty(0)
    thresholds = threshold_grid([maps[i] for i in chosen], [brains[i] for i in chosen], config)
    thresholds = np.union1d(thresholds, [value for value in also if np.isfinite(value)])
    curves = [
        dice_curve(maps[i], lesions[i], brains[i], thresholds, spacings_mm[i], config)
        for i in chosen
    ]
    return thresholds, np.mean(curves, axis=0)


# ---- healthy scans


def false_positive_rate(predicted: Mask, brain: Mask) -> float:
    """FP / (FP + TN) of a healthy scan: the share of its brain that is marked."""
    return float((predicted & brain).sum() / max(int(brain.sum()), 1))


def reconstruction_l1(image: Map, reconstruction: Map, brain: Mask) -> float:
    """Mean absolute difference over the brain's voxels."""
    return float(np.abs(image[brain].astype(np.float64) - reconstruction[brain]).mean())


def reconstruction_psnr(image: Map, reconstruction: Map, brain: Mask) -> float:
    """10 log10(1 / mean squared difference over the brain's voxels) in dB (data range 1), inf for a copy."""
    error = float(np.square(image[brain].astype(np.float64) - reconstruction[brain]).mean())
    return float(-10 * np.log10(error)) if error > 0 else float("inf")


def reconstruction_ssim(image: Map, reconstruction: Map, brain: Mask) -> float:
    """Mean over the brain's voxels of the SSIM map (scikit-image's), slice by slice, both zero outside the brain.

    Gaussian weights of sigma 1.5, population covariance, data range 1: the settings of Wang et al. 2004
    (https://doi.org/10.1109/TIP.2003.819861), as scikit-image documents them. The weights stand in two matrices, one
    for rows and one for columns, which is twice as fast as a filter.
    """
    c1, c2 = 0.01**2, 0.03**2
    along_rows, along_columns = (
        ndimage.gaussian_filter1d(np.eye(size), SSIM_SIGMA, axis=0, truncate=SSIM_TRUNCATE)
        for size in brain.shape[1:]
    )
    total = 0.0
    for x, y, inside in zip(image, reconstruction, brain, strict=True):
        if inside.any():
            a, b = (
                np.where(inside, x, 0).astype(np.float64),
                np.where(inside, y, 0).astype(np.float64),
            )
            mean_a, mean_b, squares, product = (
                along_rows @ moment @ along_columns.T for moment in (a, b, a * a + b * b, a * b)
            )
            both, either = mean_a * mean_b, mean_a**2 + mean_b**2
            ssim = (
                (2 * both + c1)
                * (2 * (product - both) + c2)
                / ((either + c1) * (squares - either + c2))
            )
            total += float(ssim[inside].sum())
    return total / max(int(brain.sum()), 1)


# ---- intervals
