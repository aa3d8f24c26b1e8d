"""AUPRC of the simple baselines on the phantom's val or test mix, by kind of lesion: is the phantom too easy?

    python experiments/phantom_baselines.py [--contrast T1w --contrast T2w --contrast FLAIR] [--split val] [--subjects 32]

Same steps as evaluation: 1st to 99th percentile in the brain to [0, 1], residual, median filter in the slice (slices
are 4 mm thick), average precision per subject, mean over subjects. `aligned` is |x - the mean of healthy brains put on
the same place|: stricter than the `template` of `maediff evaluate`, which looks for a mean slice that fits. `truth` is
|x - the same brain without its lesion|, a ceiling that no method is meant to reach.
"""

import argparse

import numpy as np

from maediff.anomaly.postprocess import residual_map
from maediff.core.types import Modality
from maediff.evaluation.metrics import auprc
from maediff.synthetic.brain import Phantom
from maediff.synthetic.dataset import MIX, healthy_subject, lesioned_subject
from maediff.synthetic.lesion import LESION_KINDS

SPACING_MM = (2.0, 2.0, 4.0)
BASELINES = ("bright", "dark", "median", "slice", "aligned", "truth")


def slices(values: np.ndarray) -> np.ndarray:
    """(x, y, z) to (slice, row, column), centred on the brain and cut at its lowest slice as on the model's grid."""
    return np.ascontiguousarray(np.moveaxis(values, 2, 0)[:, :, ::-1].swapaxes(1, 2))


def centred(values: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """`values` shifted so that the brain's bounding box is centred in the slice and starts at slice 0."""
    return np.roll(values, _shift(brain), (0, 1, 2))


def normalised(image: np.ndarray, brain: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Intensities in [0, 1] between the two limits, zero outside the brain."""
    return np.clip((image - limits[0]) / (limits[1] - limits[0]), 0, 1) * brain


def mean_healthy_image(contrast: Modality, seed: int, count: int) -> np.ndarray:
    """The mean of the first `count` healthy training brains."""
    total, weight = 0.0, 1e-6
    for i in range(count):
        p = healthy_subject("train", i, contrast, seed)
        brain = slices(p.brain)
        x = centred(
            normalised(slices(p.image), brain, tuple(np.percentile(p.image[p.brain], (1, 99)))),
            brain,
        )
        total, weight = total + x, weight + (x > 0)
    return np.asarray(total / weight, np.float32)


def scores(p: Phantom, healthy: Phantom, mean_image: np.ndarray) -> list[float]:
    """AUPRC of each baseline on one subject."""
    brain, lesion = slices(p.brain), slices(p.lesion)
    limits = tuple(np.percentile(p.image[p.brain], (1, 99)))
    x = normalised(slices(p.image), brain, limits)
    medians = np.array(
        [np.median(s[b]) if b.any() else 0.0 for s, b in zip(x, brain, strict=True)]
    )[:, None, None]
    back = [-s for s in _shift(brain)]
    residuals = {
        "bright": x,
        "dark": 1 - x,
        "median": np.abs(x - np.median(x[brain])),
        "slice": np.maximum(x - medians, 0),
        "aligned": np.abs(x - np.roll(mean_image, back, (0, 1, 2))),
        "truth": np.abs(x - normalised(slices(healthy.image), brain, limits)),
    }
    return [
        auprc(residual_map(residuals[b].astype(np.float32), brain, SPACING_MM), lesion, brain)
        for b in BASELINES
    ]


def _shift(brain: np.ndarray) -> list[int]:
    where = np.nonzero(brain)
    centre = [int(w.min() + w.max() + 1) // 2 for w in where[1:]]
    return [-int(where[0].min()), brain.shape[1] // 2 - centre[0], brain.shape[2] // 2 - centre[1]]


def main() -> None:
    """Print a table per contrast."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contrast", action="append", choices=("T1w", "T2w", "FLAIR"))
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument(
        "--subjects", type=int, default=32, help="lesioned subjects, a multiple of 8"
    )
    parser.add_argument(
        "--templates", type=int, default=40, help="healthy brains in the mean image"
    )
    parser.add_argument("--seed", type=int, default=MIX.seed)
    args = parser.parse_args()
    for contrast in args.contrast or ("T1w", "T2w", "FLAIR"):
        mean_image = mean_healthy_image(contrast, args.seed, args.templates)
        rows, keys, volumes = [], [], []
        for i in range(args.subjects):
            healthy, p = lesioned_subject(args.split, i, contrast, args.seed)
            rows.append(scores(p, healthy, mean_image))
            keys.append((p.lesion_kind, p.lesion_size))
            volumes.append(p.lesion.sum() * np.prod(SPACING_MM) / 1000)
        table = np.array(rows)
        print(
            f"\n{contrast}, {args.split}, {len(rows)} subjects, seed {args.seed}: "
            f"lesions {np.min(volumes):.1f} to {np.max(volumes):.1f} ml"
        )
        print(f"{'':20s}" + "".join(f"{b:>10s}" for b in BASELINES))
        for name in [*LESION_KINDS, "large", "small", "all"]:
            chosen = table[[name in (*key, "all") for key in keys]]
            print(f"{name:20s}" + "".join(f"{v:10.3f}" for v in chosen.mean(0)))


if __name__ == "__main__":
    main()
