"""Dice of a model on val against the share of healthy voxels above a threshold: for `default_fpr`, `default_threshold`.

python experiments/default_rate.py MODEL COHORT [--rates 0.0001 0.001 0.01] [--thresholds 0.05 0.1] [--split val]

Rates stand for the thresholds of the model's calibration.json, from its healthy calibration scans, as `maediff detect`
takes them; masks are as `detect` makes them, on the model's grid. Columns: rate (`-`: a threshold that was named),
threshold, mean Dice, median volume marked in ml, healthy calibration scans that have something marked.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from maediff.anomaly.postprocess import anomaly_mask, residual_map
from maediff.cohort.cohort import Cohort
from maediff.core.files import read_json
from maediff.evaluation.measures import voxel_ml
from maediff.evaluation.metrics import dice
from maediff.methods import predict_volume
from maediff.models.folder import config_of
from maediff.models.model import load_model
from maediff.models.operating_point import own_postprocess, threshold_at
from maediff.models.reference import run_folders


def main() -> None:
    """Print a line for each rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("cohort", type=Path)
    parser.add_argument(
        "--rates", nargs="+", type=float, default=[1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    )
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=[], help="beside those of the rates"
    )
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    cohort = Cohort.open(args.cohort)
    method, info = load_model(args.model)
    post = own_postprocess(args.model)
    ill = [
        s
        for s in map(cohort.load, cohort.split(args.split))
        if s.lesion is not None and (s.lesion & s.brain).any()
    ]
    maps = []
    for s in ill:
        residual, _ = predict_volume(method, s.images, s.brain, s.slice_ids, seed=0)
        maps.append(residual_map(residual, s.brain, s.spacing_mm, post, s.images))
    scores = read_json(run_folders(args.model)[0] / "calibration.json").get("scan_scores") or []
    of_rate = {
        rate: threshold_at(args.model, config_of(method), rate, step=info["step"], post=post)[0]
        for rate in args.rates
    }
    for rate, threshold in [
        *of_rate.items(),
        *((None, threshold) for threshold in args.thresholds),
    ]:
        masks = [
            anomaly_mask(a, s.brain, threshold, s.spacing_mm, post)
            for a, s in zip(maps, ill, strict=True)
        ]
        found = [dice(mask, s.lesion & s.brain) for mask, s in zip(masks, ill, strict=True)]
        marked_ml = np.median(
            [mask.sum() * voxel_ml(s) for mask, s in zip(masks, ill, strict=True)]
        )
        healthy = (
            f"{sum(score > threshold for score in scores)} of {len(scores)}" if scores else "none"
        )
        name = "-" if rate is None else f"{rate:g}"
        print(
            name,
            f"{threshold:.4f}",
            f"{np.mean(found):.3f}",
            f"{marked_ml:.0f}",
            healthy,
            sep="\t",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
