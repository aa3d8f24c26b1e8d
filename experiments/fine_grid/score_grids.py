"""Score a model on scans of its own grid and of a finer one, each map on both grids.

    python experiments/fine_grid/score_grids.py flair --pair COARSE FINE --pair COARSE FINE \
        --csv scores.csv

The network keeps its weights. Its slices and patches become larger in pixels, so that a patch
covers the same part of the brain. A map is brought to the other grid by linear interpolation, and
scored with the lesion mask and the brain of that grid.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from maediff.anomaly.postprocess import residual_map
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.files import write_table
from maediff.core.types import Map
from maediff.evaluation.intervals import bootstrap_interval
from maediff.evaluation.metrics import auprc
from maediff.methods.base import Method
from maediff.methods.volume import predict_volume
from maediff.models.model import TrainedMethod, read_model
from maediff.scans.volume import slices_to_volume, volume_to_slices

COLUMNS = ("cohort", "scored_on", "n", "coarse", "fine", "difference", "low", "high")
DRAWS = 10_000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Scored:
    """A scan on one grid, with the anomaly map of the model on that grid."""

    scan: SubjectSlices
    anomaly: Map


def enlarge(method: Method, size: int) -> Method:
    """Return the method with the same weights for slices of `size` pixels.

    Args:
        method: MAEDiff or pDDPM.
        size: rows and columns, a multiple of the method's own `size` / `p`.
    """
    config = method.config
    patch, stride = (length * size // config.size for length in (config.p, config.s))
    larger = type(method)(replace(config, size=size, p=patch, s=stride))
    larger.load_state_dict(method.state_dict())
    return larger


def predict(model: TrainedMethod, cohort: Path) -> dict[str, Scored]:
    """Return the scans of a cohort that have a lesion, with their maps, by name."""
    opened, scored = Cohort.open(cohort), {}
    method = enlarge(model.method, int(opened.meta["grid"]["size"]))
    for row in opened.rows:
        scan = opened.load(row)
        if scan.lesion is None or not (scan.lesion & scan.brain).any():
            continue
        residual, _ = predict_volume(method, scan.images, scan.brain, scan.slice_ids, seed=0)
        anomaly = residual_map(
            residual, scan.brain, scan.spacing_mm, model.postprocess, scan.images
        )
        scored[scan.name] = Scored(scan, anomaly)
    return scored


def bring_to(anomaly: Map, source: SubjectSlices, target: SubjectSlices) -> Map:
    """Return a map on the grid of `source` on that of `target`, by linear interpolation."""
    to_source = np.linalg.inv(source.affine) @ target.affine
    moved = ndimage.affine_transform(
        slices_to_volume(anomaly),
        to_source[:3, :3],
        to_source[:3, 3],
        slices_to_volume(target.images).shape,
        order=1,
    )
    return volume_to_slices(moved)


def score_both(coarse: Scored, fine: Scored) -> dict[str, tuple[float, float]]:
    """Return the AUPRC of both maps of a scan, coarse and fine, on each of the two grids."""
    scores = {}
    for name, target in (("coarse", coarse.scan), ("fine", fine.scan)):
        maps = (bring_to(scored.anomaly, scored.scan, target) for scored in (coarse, fine))
        of_coarse, of_fine = (auprc(m, target.lesion & target.brain, target.brain) for m in maps)
        scores[name] = of_coarse, of_fine
    return scores


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or name of a model")
    parser.add_argument(
        "--pair",
        type=Path,
        nargs=2,
        action="append",
        required=True,
        metavar=("COARSE", "FINE"),
        help="cohorts of the same scans on the model's grid and on a finer one",
    )
    parser.add_argument("--csv", type=Path, required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    model = read_model(args.model)
    rows: list[list[str | int]] = []
    for cohorts in args.pair:
        coarse, fine = (predict(model, cohort) for cohort in cohorts)
        each = [score_both(coarse[name], fine[name]) for name in coarse]
        for grid in ("coarse", "fine"):
            pairs = np.array([scores[grid] for scores in each])
            change = bootstrap_interval(pairs[:, 1] - pairs[:, 0], draws=DRAWS)
            values = [*pairs.mean(axis=0), change.mean, change.low, change.high]
            cells = [f"{value:.4f}" for value in values]
            rows.append([cohorts[0].name, grid, len(pairs), *cells])
    write_table(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
