"""Score filters of the anomaly map: AUPRC, and how well the scan score ranks patients.

    python experiments/map_filters/filter_maps.py flair --healthy COHORT... --labelled COHORT... \
        --csv scores.csv

`now` is the model's own post-processing. `symmetry K` replaces its symmetry; the other filters
follow after its last step:

    guided R EPS   edges of the scan: guided filter with cubes of 2 R + 1 voxels and the scan as
                   guide (He et al. 2013, https://doi.org/10.1109/TPAMI.2012.213)
    tfce E H       connected voxels support each other: threshold-free cluster enhancement (Smith
                   and Nichols 2009, https://doi.org/10.1016/j.neuroimage.2008.03.061)

The area under the ROC curve is that of the scan scores of all labelled scans with a lesion against
the healthy scans.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from maediff.anomaly.components import CONNECTIVITY
from maediff.anomaly.postprocess import PostprocessConfig, residual_map
from maediff.anomaly.score import scan_score
from maediff.cohort.cohort import Cohort
from maediff.core.files import write_table
from maediff.core.types import Map, Mask
from maediff.evaluation.intervals import bootstrap_interval
from maediff.evaluation.metrics import auprc
from maediff.methods.volume import predict_volume
from maediff.models.model import TrainedMethod, read_model

COLUMNS = ("filter", "cohort", "n", "auprc", "difference", "low", "high", "roc_auc")
LEVELS = 24
"""Levels of the cluster enhancement, geometric between `LOWEST` and the scan's maximum."""
LOWEST = 0.004
DRAWS = 10_000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Scan:
    """A scan's residual, and what its map is made from and scored with."""

    residual: Map
    images: Map
    brain: Mask
    lesion: Mask | None
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Variant:
    """Post-processing, and a filter after it."""

    post: PostprocessConfig
    filter: Callable[[Map, Scan], Map] | None = None

    def make_map(self, scan: Scan) -> Map:
        """Return the anomaly map of a scan."""
        anomaly = residual_map(scan.residual, scan.brain, scan.spacing_mm, self.post, scan.images)
        return self.filter(anomaly, scan) if self.filter else anomaly

    def score(self, scan: Scan, anomaly: Map) -> float:
        """Return the score of a scan with this map."""
        return scan_score(anomaly, scan.brain, scan.spacing_mm, self.post)


def guided_filter(anomaly: Map, scan: Scan, radius: int, eps: float) -> Map:
    """Return the map as a local linear function of the scan: eq. 5, 6 and 8 of the paper."""
    inside = scan.brain.astype(np.float32)
    count = np.maximum(ndimage.uniform_filter(inside, 2 * radius + 1), 1e-6)

    def mean(values: Map) -> Map:
        averaged: Map = ndimage.uniform_filter(values * inside, 2 * radius + 1) / count
        return averaged

    mean_scan, mean_map = mean(scan.images), mean(anomaly)
    covariance = mean(scan.images * anomaly) - mean_scan * mean_map
    slope = covariance / (mean(scan.images**2) - mean_scan**2 + eps)
    offset = mean_map - slope * mean_scan
    filtered = mean(slope) * scan.images + mean(offset)
    return np.where(scan.brain, filtered, 0).clip(min=0).astype(np.float32)


def enhance_clusters(anomaly: Map, scan: Scan, e: float, h: float) -> Map:
    """Return the sum over levels t of (mm3 of the voxel's component)^e t^h dt."""
    enhanced, voxel_mm3 = np.zeros_like(anomaly), float(np.prod(scan.spacing_mm))
    if anomaly.max() <= LOWEST:
        return enhanced
    levels = np.geomspace(LOWEST, float(anomaly.max()), LEVELS + 1)
    for low, high in pairwise(levels):
        labels, _ = ndimage.label(anomaly > low, CONNECTIVITY)
        volumes = np.bincount(labels.ravel()) * voxel_mm3
        volumes[0] = 0
        enhanced += (volumes**e * low**h * (high - low)).astype(np.float32)[labels]
    return enhanced


def list_variants(own: PostprocessConfig) -> dict[str, Variant]:
    """Return the rows of the table, by name."""
    variants = {"now": Variant(own)}
    for share in (0.0, 0.5):
        variants[f"symmetry {share:g}"] = Variant(replace(own, symmetry=share))
    for radius, eps in ((1, 1e-3), (1, 1e-2), (2, 1e-3)):
        edges = partial(guided_filter, radius=radius, eps=eps)
        variants[f"guided {radius} {eps:g}"] = Variant(own, edges)
    for e, h in ((0.2, 1.0), (0.5, 2.0)):
        variants[f"tfce {e:g} {h:g}"] = Variant(own, partial(enhance_clusters, e=e, h=h))
    return variants


def predict(model: TrainedMethod, cohort: Path) -> list[Scan]:
    """Return the scans of a cohort with their residuals."""
    opened, scans = Cohort.open(cohort), []
    for row in opened.rows:
        s = opened.load(row)
        residual, _ = predict_volume(model.method, s.images, s.brain, s.slice_ids, seed=0)
        lesion = None if s.lesion is None else s.lesion & s.brain
        scans.append(Scan(residual, s.images, s.brain, lesion, s.spacing_mm))
    return scans


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or name of a model")
    parser.add_argument("--healthy", type=Path, nargs="+", required=True, help="cohorts")
    parser.add_argument("--labelled", type=Path, nargs="+", required=True, help="cohorts")
    parser.add_argument("--csv", type=Path, required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    model = read_model(args.model)
    healthy = [scan for cohort in args.healthy for scan in predict(model, cohort)]
    labelled = {cohort.name: predict(model, cohort) for cohort in args.labelled}
    rows: list[list[str | int | float]] = []
    own_auprc: dict[str, np.ndarray] = {}
    for name, variant in list_variants(model.postprocess).items():
        of_healthy = [variant.score(scan, variant.make_map(scan)) for scan in healthy]
        of_patients, of_cohorts = [], []
        for cohort, scans in labelled.items():
            each = []
            for scan in scans:
                if scan.lesion is not None and scan.lesion.any():
                    anomaly = variant.make_map(scan)
                    each.append(auprc(anomaly, scan.lesion, scan.brain))
                    of_patients.append(variant.score(scan, anomaly))
            own = own_auprc.setdefault(cohort, np.array(each))
            change = bootstrap_interval(np.array(each) - own, draws=DRAWS)
            bounds = [change.mean, change.low, change.high]
            of_cohorts.append([name, cohort, len(each), float(np.mean(each)), *bounds])
        is_patient = [0] * len(of_healthy) + [1] * len(of_patients)
        area = float(roc_auc_score(is_patient, [*of_healthy, *of_patients]))
        rows += [[*row, area] for row in of_cohorts]
    write_table(
        args.csv,
        COLUMNS,
        [[f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row] for row in rows],
    )


if __name__ == "__main__":
    main()
