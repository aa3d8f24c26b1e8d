"""Score simple baselines on phantoms, by kind of lesion: are the phantoms difficult enough?

    python experiments/phantom_baselines/phantom_baselines.py --contrast FLAIR --split val

The steps are those of an evaluation: intensities between the 1st and 99th percentile of the brain
to [0, 1], residual, median filter within the slice (slices are 4 mm thick), AUPRC per subject,
mean over subjects. Two residuals are not baselines of `maediff evaluate`:

    aligned = |x - mean of healthy brains|, all brains centred at the same position;
              stricter than `template`, which searches for a mean slice that fits
    truth   = |x - the same brain without its lesion|, an upper limit
"""

import argparse
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from maediff.anomaly.postprocess import residual_map
from maediff.core.types import Modality, Split
from maediff.evaluation.metrics import auprc
from maediff.synthetic.brain import Phantom
from maediff.synthetic.dataset import MIX, healthy_subject, lesioned_subject
from maediff.synthetic.lesion import LESION_KINDS

CONTRASTS: tuple[Modality, ...] = ("T1w", "T2w", "FLAIR")
SPACING_MM = (2.0, 2.0, 4.0)
RESIDUALS = ("bright", "dark", "median", "slice", "aligned", "truth")


def to_slices(values: np.ndarray) -> np.ndarray:
    """Reorder a volume (x, y, z) to (slice, row, column), as on the model's grid."""
    return np.ascontiguousarray(np.moveaxis(values, 2, 0)[:, :, ::-1].swapaxes(1, 2))


def centring_shift(brain: Bool[np.ndarray, "n h w"]) -> tuple[int, int, int]:
    """Return the shift that centres the brain in the slice and moves its lowest slice to 0."""
    where = np.nonzero(brain)
    row, column = (int(w.min() + w.max() + 1) // 2 for w in where[1:])
    return -int(where[0].min()), brain.shape[1] // 2 - row, brain.shape[2] // 2 - column


def normalise(
    image: Float[np.ndarray, "n h w"],
    brain: Bool[np.ndarray, "n h w"],
    limits: tuple[float, float],
) -> Float[np.ndarray, "n h w"]:
    """Scale the intensities between the two limits to [0, 1]; zero outside the brain."""
    return np.clip((image - limits[0]) / (limits[1] - limits[0]), 0, 1) * brain


def intensity_limits(phantom: Phantom) -> tuple[float, float]:
    """Return the 1st and 99th percentile of the intensities in the brain."""
    low, high = np.percentile(phantom.image[phantom.brain], (1, 99))
    return float(low), float(high)


def mean_healthy_image(contrast: Modality, seed: int, count: int) -> Float[np.ndarray, "n h w"]:
    """Return the mean of the first `count` healthy training brains, each centred."""
    total, weight = 0.0, 1e-6
    for i in range(count):
        phantom = healthy_subject("train", i, contrast, seed)
        brain = to_slices(phantom.brain)
        image = normalise(to_slices(phantom.image), brain, intensity_limits(phantom))
        image = np.roll(image, centring_shift(brain), (0, 1, 2))
        total, weight = total + image, weight + (image > 0)
    return np.asarray(total / weight, np.float32)


def score_subject(
    phantom: Phantom, healthy: Phantom, mean_image: Float[np.ndarray, "n h w"]
) -> list[float]:
    """Return the AUPRC of each of RESIDUALS on one subject; `healthy` is it without its lesion."""
    brain, lesion = to_slices(phantom.brain), to_slices(phantom.lesion)
    limits = intensity_limits(phantom)
    x = normalise(to_slices(phantom.image), brain, limits)
    medians = [
        np.median(image[inside]) if inside.any() else 0.0
        for image, inside in zip(x, brain, strict=True)
    ]
    shift_back = [-shift for shift in centring_shift(brain)]
    residuals = {
        "bright": x,
        "dark": 1 - x,
        "median": np.abs(x - np.median(x[brain])),
        "slice": np.maximum(x - np.array(medians)[:, None, None], 0),
        "aligned": np.abs(x - np.roll(mean_image, shift_back, (0, 1, 2))),
        "truth": np.abs(x - normalise(to_slices(healthy.image), brain, limits)),
    }
    return [
        auprc(residual_map(residuals[name].astype(np.float32), brain, SPACING_MM), lesion, brain)
        for name in RESIDUALS
    ]


def print_table(
    contrast: Modality, split: Split, subjects: int, mean_image: np.ndarray, seed: int
) -> None:
    """Print the mean AUPRC of each residual: by kind of lesion, by size, and of all subjects."""
    rows, labels, volumes_ml = [], [], []
    for i in range(subjects):
        healthy, phantom = lesioned_subject(split, i, contrast, seed)
        rows.append(score_subject(phantom, healthy, mean_image))
        labels.append((phantom.lesion_kind, phantom.lesion_size, "all"))
        volumes_ml.append(phantom.lesion.sum() * np.prod(SPACING_MM) / 1000)
    table = np.array(rows)
    print(
        f"\n{contrast}, {split}, {subjects} subjects, seed {seed}: "
        f"lesions of {min(volumes_ml):.1f} to {max(volumes_ml):.1f} ml"
    )
    print(f"{'':20s}" + "".join(f"{name:>10s}" for name in RESIDUALS))
    for name in [*LESION_KINDS, "large", "small", "all"]:
        chosen = table[[name in label for label in labels]]
        if len(chosen):
            print(f"{name:20s}" + "".join(f"{value:10.3f}" for value in chosen.mean(0)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--contrast", action="append", choices=CONTRASTS, help="can be repeated; default: all"
    )
    parser.add_argument(
        "--split", default="val", choices=("val", "test"), help="default: %(default)s"
    )
    parser.add_argument(
        "--subjects",
        type=int,
        default=32,
        help="subjects with a lesion; a multiple of 8 has all kinds; default: %(default)s",
    )
    parser.add_argument(
        "--templates",
        type=int,
        default=40,
        help="healthy brains in the mean image; default: %(default)s",
    )
    parser.add_argument(
        "--seed", type=int, default=MIX.seed, help="seed of the phantoms; default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table for each contrast."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if min(args.subjects, args.templates) < 1:
        parser.exit(2, "error: --subjects and --templates must be at least 1\n")
    for contrast in args.contrast or CONTRASTS:
        mean_image = mean_healthy_image(contrast, args.seed, args.templates)
        print_table(contrast, args.split, args.subjects, mean_image, args.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
