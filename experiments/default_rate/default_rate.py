r"""Score the masks of a model at several thresholds, to choose the default of `detect`.

    python experiments/default_rate/default_rate.py MODEL COHORT \
        --rates 0.0001 0.001 0.01 --thresholds 0.05 0.1

A rate is a share of healthy voxels above the threshold. Its threshold comes from the model's
calibration.json, as in `maediff detect --fpr`. The masks are those of `maediff detect`, on the
model's grid; Dice is the mean over the subjects with a lesion.

Printed columns: rate (`-` for a threshold of --thresholds), threshold, mean Dice, median volume of
the mask in ml, number of healthy calibration scans in which the threshold flags a region.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maediff.anomaly.postprocess import anomaly_mask, residual_map
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.evaluation.metrics import dice
from maediff.methods.volume import predict_volume
from maediff.models.model import read_model
from maediff.models.thresholds import Thresholds


def score_thresholds(args: argparse.Namespace) -> None:
    """Print a line for each rate and each threshold.

    Raises:
        InputError: the model has no calibration for a rate, or the split has no lesion.
    """
    cohort = Cohort.open(args.cohort)
    model = read_model(args.model)
    post = model.postprocess  # today with the growth of regions, which the recorded rows lack
    thresholds = [(f"{rate:g}", model.thresholds.at_fpr(rate).residual) for rate in args.rates]
    thresholds += [("-", threshold) for threshold in args.thresholds]
    healthy_scores: tuple[float, ...] = ()
    if isinstance(model.thresholds, Thresholds):
        healthy_scores = model.thresholds.scan_scores

    subjects = [cohort.load(row) for row in cohort.split(args.split)]
    subjects = [s for s in subjects if s.lesion is not None and (s.lesion & s.brain).any()]
    if not subjects:
        raise InputError(f"{args.cohort}: no subject of split {args.split!r} has a lesion")
    maps = []
    for s in subjects:
        residual, _ = predict_volume(model.method, s.images, s.brain, s.slice_ids, seed=0)
        maps.append(residual_map(residual, s.brain, s.spacing_mm, post, s.images))

    for rate, threshold in thresholds:
        masks = [
            anomaly_mask(anomaly_map, s.brain, threshold, s.spacing_mm, post)
            for anomaly_map, s in zip(maps, subjects, strict=True)
        ]
        pairs = list(zip(masks, subjects, strict=True))
        mean_dice = np.mean([dice(mask, s.lesion & s.brain) for mask, s in pairs])
        median_ml = np.median([mask.sum() * s.voxel_ml for mask, s in pairs])
        flagged = "none"
        if healthy_scores:
            flagged = f"{sum(s > threshold for s in healthy_scores)} of {len(healthy_scores)}"
        columns = (rate, f"{threshold:.4f}", f"{mean_dice:.3f}", f"{median_ml:.0f}", flagged)
        print(*columns, sep="\t", flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="run folder or model name, also RUN@key=value")
    parser.add_argument("cohort", type=Path, help="cohort made by `maediff preprocess`")
    parser.add_argument(
        "--rates",
        nargs="+",
        type=float,
        default=[1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2],
        help="shares of healthy voxels above the threshold; default: 0.0001 to 0.01",
    )
    parser.add_argument(
        "--thresholds", nargs="+", type=float, default=[], help="further thresholds, in [0, 1]"
    )
    parser.add_argument(
        "--split", default="val", help="split of the subjects; default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        score_thresholds(args)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
