"""Score how far regions grow below the threshold, each extent at a default of its own.

    python experiments/extent/extent.py flair HEALTHY COHORT... --csv scores.csv

The threshold of an extent is that of the level default (`maediff.anomaly.sensitivity`): the most
sensitive stored rate at which healthy scans have 0 ml in the median and at most 2 ml in nine of
ten. It is found for each extent anew, because regions in healthy scans grow as well.
`--threshold` scores all extents at one threshold instead.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maediff.anomaly.postprocess import eroded_brain, mask_inside, residual_map
from maediff.anomaly.sensitivity import detected_ml, find_default_rate, summarise_volumes
from maediff.anomaly.thresholds import threshold_from_healthy
from maediff.cohort.cohort import Cohort
from maediff.core.files import write_table
from maediff.core.types import Map, Mask
from maediff.evaluation.metrics import dice
from maediff.methods.volume import predict_volume
from maediff.models.model import TrainedMethod, read_model
from maediff.models.thresholds import FPRS

EXTENTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
RATES = tuple(fpr for fpr in FPRS if fpr <= 0.03)
COLUMNS = (
    "extent",
    "cohort",
    "n",
    "dice",
    "dice_of_each",
    "fpr",
    "threshold",
    "healthy_median_ml",
    "healthy_nine_of_ten_ml",
)


@dataclass(frozen=True)
class Scan:
    """A scan's anomaly map, and what its mask is scored with."""

    anomaly: Map
    inside: Mask
    truth: Mask | None
    spacing_mm: tuple[float, float, float]
    voxel_ml: float


def predict(model: TrainedMethod, cohort: Path) -> list[Scan]:
    """Return the scans of a cohort with their anomaly maps."""
    opened, scans = Cohort.open(cohort), []
    for row in opened.rows:
        s = opened.load(row)
        residual, _ = predict_volume(model.method, s.images, s.brain, s.slice_ids, seed=0)
        anomaly = residual_map(residual, s.brain, s.spacing_mm, model.postprocess, s.images)
        truth = None if s.lesion is None else s.lesion & s.brain
        inside = eroded_brain(s.brain, model.postprocess)
        scans.append(Scan(anomaly, inside, truth, s.spacing_mm, s.voxel_ml))
    return scans


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or name of a model")
    parser.add_argument("healthy", metavar="HEALTHY", type=Path, help="cohort of healthy scans")
    parser.add_argument("cohorts", metavar="COHORT", type=Path, nargs="+", help="labelled cohort")
    parser.add_argument("--threshold", type=float, help="residual, the same for all extents")
    parser.add_argument("--csv", type=Path, required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    model = read_model(args.model)
    healthy = predict(model, args.healthy)
    labelled = {path.name: predict(model, path) for path in args.cohorts}
    maps, insides = [s.anomaly for s in healthy], [s.inside for s in healthy]
    rows = []
    for extent in EXTENTS:
        post = replace(model.postprocess, extent=extent)
        if args.threshold is None:
            thresholds = {fpr: threshold_from_healthy(maps, insides, fpr, extent) for fpr in RATES}
        else:
            thresholds = {"": args.threshold}
        ml = [
            detected_ml(
                s.anomaly, s.inside, s.spacing_mm, s.voxel_ml, list(thresholds.values()), post
            )
            for s in healthy
        ]
        volumes = dict(zip(thresholds, zip(*ml, strict=True), strict=True))
        rate = find_default_rate(volumes) if args.threshold is None else ""
        if rate is None:
            print(f"extent {extent}: every stored rate detects too much in healthy scans")
            continue
        threshold, usual = thresholds[rate], summarise_volumes(volumes[rate])
        for name, scans in labelled.items():
            scores = [
                dice(mask_inside(s.anomaly, s.inside, threshold, s.spacing_mm, post), s.truth)
                for s in scans
                if s.truth is not None and s.truth.any()
            ]
            each = " ".join(f"{score:.3f}" for score in scores)
            row = [extent, name, len(scores), float(np.mean(scores)), each, rate, threshold]
            rows.append([*row, usual.median, usual.nine_of_ten])
    write_table(
        args.csv,
        COLUMNS,
        [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in rows],
    )


if __name__ == "__main__":
    main()
