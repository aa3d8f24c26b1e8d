"""Volumes that models detect in a cohort, at several thresholds, in all and in dark deep voxels.

    python experiments/lesion_factors/detected_volumes.py cohorts/wmh-t1 t1 RUN --csv volumes.csv

Old people have wide ventricles, which are dark on T1w. Dark: below 0.3. Deep: within 36 mm of the
midsagittal plane and 50 mm of the middle of the slice, which holds the lateral ventricles. Both
limits are our choice.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from maediff.anomaly.postprocess import anomaly_mask, residual_map
from maediff.cohort.cohort import Cohort
from maediff.methods import predict_volume
from maediff.models.model import read_model

DARK = 0.3
HALF_WIDTH_MM, HALF_LENGTH_MM = 36.0, 50.0
COLUMNS = ("model", "scan", "threshold", "ml", "deep_ml")
THRESHOLDS = (0.0212, 0.0232, 0.03, 0.045, 0.065)


def detected_ml(
    images: np.ndarray,
    mask: np.ndarray,
    spacing: list[float],
    voxel_ml: float,
) -> tuple[float, float]:
    """Return the detected volume in ml: all of it, and the part in dark deep voxels."""
    _, rows, columns = mask.shape
    half_rows, half_columns = round(HALF_LENGTH_MM / spacing[1]), round(HALF_WIDTH_MM / spacing[0])
    deep = np.zeros_like(mask)
    deep[
        :,
        rows // 2 - half_rows : rows // 2 + half_rows,
        columns // 2 - half_columns : columns // 2 + half_columns,
    ] = True
    return float(mask.sum()) * voxel_ml, float((mask & deep & (images < DARK)).sum()) * voxel_ml


def measure(cohort: Cohort, reference: str, like: str) -> list[dict[str, object]]:
    """Return a row for each scan and threshold.

    Args:
        cohort: prepared scans.
        reference: model.
        like: model whose post-processing is used.
    """
    model, post = read_model(reference), read_model(like).postprocess
    rows: list[dict[str, object]] = []
    for row in cohort.rows:
        scan = cohort.load(row)
        residual, _ = predict_volume(model.method, scan.images, scan.brain, scan.slice_ids, seed=0)
        spacing = [float(mm) for mm in scan.spacing_mm]
        anomaly = residual_map(residual, scan.brain, spacing, post, scan.images)
        for threshold in THRESHOLDS:
            mask = anomaly_mask(anomaly, scan.brain, threshold, spacing, post)
            total, deep = detected_ml(scan.images, mask, spacing, scan.voxel_ml)
            values = (model.name, row.name, threshold, round(total, 2), round(deep, 2))
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cohort", type=Path, help="cohort of `maediff preprocess`")
    parser.add_argument("models", nargs="+", help="models or run folders")
    parser.add_argument("--like", default="t1", help="model whose post-processing is used")
    parser.add_argument("--csv", type=Path, required=True, help="output")
    return parser


def main() -> None:
    """Measure and write the CSV."""
    args = build_parser().parse_args()
    cohort = Cohort.open(args.cohort)
    rows = [row for name in args.models for row in measure(cohort, name, args.like)]
    with args.csv.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
