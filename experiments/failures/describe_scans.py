"""Score a model on each scan with a lesion, and describe how visible the lesion is.

    python experiments/failures/describe_scans.py t1 COHORT --csv t1.csv

    auprc          average precision of the anomaly map
    contrast       median over the lesion of: grey level minus that of the mirrored voxel
    extreme_in_ml  volume inside the lesion mask that is as bright as the median voxel of the
                   lesion (as dark, for a model that detects dark anomalies)
    extreme_ml     the same outside the mask, at least 10 mm inside the brain

Grey levels are 0 and 1 at the 1st and 99th percentile of the brain. The scans must be registered
to MNI152, so that the mirrored voxel is that of the other side.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from maediff.anomaly.postprocess import residual_map
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.files import write_table
from maediff.evaluation.metrics import auprc
from maediff.methods.volume import predict_volume
from maediff.models.model import TrainedMethod, read_model

COLUMNS = ("scan", "lesion_ml", "auprc", "contrast", "extreme_in_ml", "extreme_ml")
MARGIN_MM = 10.0
"""Voxels nearer to the edge of the brain do not count as outside: skull and vessels are bright."""


def describe(model: TrainedMethod, scan: SubjectSlices) -> list[str | float]:
    """Return the row of a scan with a lesion."""
    assert scan.lesion is not None
    lesion, images = scan.lesion & scan.brain, scan.images
    residual, _ = predict_volume(model.method, images, scan.brain, scan.slice_ids, seed=0)
    anomaly = residual_map(residual, scan.brain, scan.spacing_mm, model.postprocess, images)
    sign = -1 if model.config["residual"] == "dark" else 1
    extreme = sign * images >= np.median(sign * images[lesion])
    depth_mm = ndimage.distance_transform_edt(scan.brain, sampling=scan.spacing_mm[::-1])
    volumes = (lesion, extreme & lesion, extreme & ~lesion & (depth_mm >= MARGIN_MM))
    lesion_ml, inside_ml, outside_ml = (float(mask.sum()) * scan.voxel_ml for mask in volumes)
    contrast = float(np.median((images - images[:, :, ::-1])[lesion]))
    score = auprc(anomaly, lesion, scan.brain)
    return [scan.name, lesion_ml, score, contrast, inside_ml, outside_ml]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or name of a model")
    parser.add_argument("cohort", type=Path, metavar="COHORT", help="prepared scans")
    parser.add_argument("--csv", type=Path, required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    model, cohort = read_model(args.model), Cohort.open(args.cohort)
    scans = (cohort.load(row) for row in cohort.rows)
    rows = [describe(model, s) for s in scans if s.lesion is not None and s.lesion.any()]
    rows.sort(key=lambda row: row[2])
    write_table(
        args.csv,
        COLUMNS,
        [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in rows],
    )


if __name__ == "__main__":
    main()
