"""Weight the anomaly map by a difference of encoder features, and score the AUPRC.

    python experiments/encoder_features/score_features.py t1 COHORT... --csv scores.csv

The encoder of the model's U-Net sees the scan and its healthy reference, both without noise. At
each resolution, the difference of their features f and g in a cell is

    cosine      1 - f g / (|f| |g|)
    distance    |f - g|

It is interpolated to the slice, and the anomaly map after all post-processing is multiplied by
its power K. `now` is the map of the model. Each row has the mean AUPRC of a cohort and its paired
difference from `now`, with the 95 % bootstrap interval over scans.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maediff.anomaly.postprocess import residual_map
from maediff.cohort.cohort import Cohort
from maediff.core.files import write_table
from maediff.core.types import Map
from maediff.evaluation.intervals import bootstrap_interval
from maediff.evaluation.metrics import auprc
from maediff.methods.base import to_signed
from maediff.methods.volume import predict_volume
from maediff.models.model import TrainedMethod, read_model

COLUMNS = ("weight", "cohort", "n", "auprc", "difference", "low", "high")
POWERS = (0.25, 0.5, 1.0)
DRAWS = 10_000
"""Bootstrap samples."""
SLICES = 16
"""Slices that the encoder sees at once."""


@torch.inference_mode()
def encode(model: TrainedMethod, images: Map) -> list[Tensor]:
    """Return the features of all slices at each resolution: the last skip connection of each.

    Args:
        model: a model with a U-Net.
        images: slices in [0, 1] and above, (n, h, w).
    """
    network: Any = model.method.unet
    x0 = to_signed(torch.from_numpy(images).clamp_max(1)[:, None])
    t = int(model.method.config.t_test[0])
    parts: dict[int, list[Tensor]] = {}
    for part in torch.split(x0, SLICES):
        last = {}
        for skip in network.encode(part, torch.full((len(part),), t))[1]:
            last[skip.shape[-1]] = skip
        for width, skip in last.items():
            parts.setdefault(width, []).append(skip)
    return [torch.cat(parts[width]) for width in sorted(parts, reverse=True)]


def compare_features(f: Tensor, g: Tensor, size: int) -> dict[str, Map]:
    """Return the differences of two feature maps, (n, size, size), by name.

    Args:
        f: features of the scan, (n, c, y, x).
        g: features of its healthy reference.
        size: rows and columns of a slice.
    """
    cells = size // f.shape[-1]
    differences = {
        f"cosine, cells of {cells}": 1 - functional.cosine_similarity(f, g, dim=1),
        f"distance, cells of {cells}": (f - g).norm(dim=1),
    }
    maps = {}
    for name, values in differences.items():
        large = functional.interpolate(values[:, None], (size, size), mode="bilinear")
        maps[name] = large[:, 0].clamp_min(0).numpy()
    return maps


def score_scans(model: TrainedMethod, cohort: Path) -> Iterator[dict[str, float]]:
    """Yield the AUPRC of each weight, by its name, for each scan of a cohort with a lesion."""
    opened = Cohort.open(cohort)
    for row in opened.rows:
        s = opened.load(row)
        if s.lesion is None or not (s.lesion & s.brain).any():
            continue
        residual, reference = predict_volume(
            model.method, s.images, s.brain, s.slice_ids, seed=0, device=model.device
        )
        now = residual_map(residual, s.brain, s.spacing_mm, model.postprocess, s.images)
        maps = {"now": now}
        levels = zip(encode(model, s.images), encode(model, reference), strict=True)
        for f, g in levels:
            for name, weight in compare_features(f, g, now.shape[-1]).items():
                for power in POWERS:
                    maps[f"{name}, power {power:g}"] = now * weight**power
        yield {name: auprc(map_, s.lesion & s.brain, s.brain) for name, map_ in maps.items()}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="run folder or name of a model")
    parser.add_argument("cohorts", type=Path, nargs="+", metavar="COHORT", help="with lesions")
    parser.add_argument("--csv", type=Path, required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    model = read_model(args.model)
    rows: list[list[object]] = []
    for cohort in args.cohorts:
        scans = list(score_scans(model, cohort))
        own = np.array([scores["now"] for scores in scans])
        for name in scans[0]:
            scores = np.array([each[name] for each in scans])
            change = bootstrap_interval(scores - own, draws=DRAWS)
            values = [scores.mean(), change.mean, change.low, change.high]
            rows.append([name, cohort.name, len(scans), *(f"{value:.4f}" for value in values)])
    write_table(args.csv, COLUMNS, rows)


if __name__ == "__main__":
    main()
