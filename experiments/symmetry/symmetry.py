"""Score kinds of left-right symmetry, each at a threshold that keeps healthy scans empty.

    python experiments/symmetry/symmetry.py flair HEALTHY COHORT... --csv scores.csv

The capped kinds subtract k times the common part of both sides, but at most k times a percentile
of the common part in that brain. The threshold of a kind is the lowest at which the healthy scans
have 0 ml in the median and at most 2 ml in nine of ten.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maediff.anomaly.postprocess import PostprocessConfig, anomaly_mask, residual_map
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.files import write_table
from maediff.core.types import Map
from maediff.evaluation.metrics import auprc, dice
from maediff.methods.volume import predict_volume
from maediff.models.model import TrainedMethod, read_model

KINDS = ((0.5, None), (0.0, None), (0.5, 0.9), (1.0, 0.9), (1.0, 0.7))
"""Share k of the common part that is subtracted, and the quantile at which it is capped."""
THRESHOLDS = np.geomspace(0.01, 0.2, 60)
MEDIAN_ML, NINE_OF_TEN_ML = 0.0, 2.0
COLUMNS = (
    "k",
    "cap_quantile",
    "cohort",
    "n",
    "auprc",
    "dice",
    "threshold",
    "healthy_median_ml",
    "healthy_nine_of_ten_ml",
)


@dataclass(frozen=True)
class Scan:
    """A scan with the residual of a model, blurred, before symmetry and power of intensity."""

    slices: SubjectSlices
    blurred: Map


def predict(model: TrainedMethod, cohort: Path) -> list[Scan]:
    """Return the scans of a cohort with their residuals."""
    opened = Cohort.open(cohort)
    flat = replace(model.postprocess, symmetry=0.0, times_intensity=0.0)
    scans = []
    for row in opened.rows:
        s = opened.load(row)
        residual, _ = predict_volume(model.method, s.images, s.brain, s.slice_ids, seed=0)
        scans.append(Scan(s, residual_map(residual, s.brain, s.spacing_mm, flat, s.images)))
    return scans


def anomaly_map(scan: Scan, post: PostprocessConfig, k: float, quantile: float | None) -> Map:
    """Return the anomaly map of a scan with a kind of symmetry."""
    brain, blurred = scan.slices.brain, scan.blurred
    common = np.minimum(blurred, np.where(brain, blurred[:, :, ::-1], 0)).clip(0)
    if quantile is not None:
        common = np.minimum(common, np.quantile(common[brain], quantile))
    power = scan.slices.images**post.times_intensity
    return ((blurred - k * common) * power).astype(np.float32).clip(0, 1)


def volume_ml(scan: Scan, anomaly: Map, threshold: float, post: PostprocessConfig) -> float:
    """Return the volume above a threshold."""
    mask = anomaly_mask(anomaly, scan.slices.brain, threshold, scan.slices.spacing_mm, post)
    return float(mask.sum()) * scan.slices.voxel_ml


def lowest_threshold(
    healthy: Sequence[tuple[Scan, Map]], post: PostprocessConfig
) -> tuple[float, list[float]]:
    """Return the lowest threshold that keeps healthy scans nearly empty, and their volumes."""
    for threshold in THRESHOLDS:
        ml = [volume_ml(scan, anomaly, threshold, post) for scan, anomaly in healthy]
        if np.median(ml) <= MEDIAN_ML and np.quantile(ml, 0.9) <= NINE_OF_TEN_ML:
            return float(threshold), ml
    raise SystemExit("error: no threshold keeps the healthy scans empty; raise THRESHOLDS")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or name of a model")
    parser.add_argument("healthy", metavar="HEALTHY", type=Path, help="cohort of healthy scans")
    parser.add_argument("cohorts", metavar="COHORT", type=Path, nargs="+", help="labelled cohort")
    parser.add_argument("--csv", type=Path, required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    model = read_model(args.model).with_postprocess({"extent": 1.0})  # regions did not grow then
    scans = {path.name: predict(model, path) for path in (args.healthy, *args.cohorts)}
    rows = []
    for k, quantile in KINDS:
        maps = {
            name: [(scan, anomaly_map(scan, model.postprocess, k, quantile)) for scan in cohort]
            for name, cohort in scans.items()
        }
        threshold, ml = lowest_threshold(maps.pop(args.healthy.name), model.postprocess)
        for name, cohort in maps.items():
            lesioned = [(s, m) for s, m in cohort if s.slices.lesion is not None]
            scores = []
            for scan, anomaly in lesioned:
                s = scan.slices
                truth = s.lesion & s.brain
                mask = anomaly_mask(anomaly, s.brain, threshold, s.spacing_mm, model.postprocess)
                scores.append((auprc(anomaly, truth, s.brain), dice(mask, truth)))
            mean_auprc, mean_dice = np.mean(scores, axis=0)
            capped = "" if quantile is None else quantile
            row = [k, capped, name, len(scores), mean_auprc, mean_dice, threshold]
            rows.append([*row, np.median(ml), np.quantile(ml, 0.9)])
    write_table(
        args.csv,
        COLUMNS,
        [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in rows],
    )


if __name__ == "__main__":
    main()
