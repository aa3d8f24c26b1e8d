"""Mean AUPRC on val for settings that matter only at test: t, stride, merging, and how the residual is taken.

python experiments/sweep_test_settings.py RUN COHORT [--t 60] [--s 16] [--noise 0 1] [--refine 0.02] [--residuals abs ...]

The healthy reference is predicted once for each (s, t) and read with every residual. `+c` recentres, `+h` counts
intensities beyond the 99th percentile, `+i0.5` mixes in SSIM by half, `+x` multiplies by the intensity, `+x2` by its
square, `+b2` blurs with a sigma of 2 pixels; then, over the whole scan, `+g4` blurs with a sigma of 4 mm (`+g3,20`: the
mean of two, `+G2,20,20`: the geometric mean of three), `+y2` multiplies by the intensity's square, `+a0.5` takes off
half of what both sides of the brain share, and `+m1` is the median filter's size (without it, 5):
`bright+c+h+x2+g4+a0.5+y2+m1`. The seed of the noise is 0.
Columns: run as given, settings, cohort and split, slices or patches that the U-Net was run on for a subject (0: it has
none), residual, AUPRC, subjects, mean |scan - reference| inside lesions and in the rest of the brain. Rows are appended
to the CSV as they come, and what stands there already is not computed again, so that a long sweep can be cut and gone
on with.
"""

import argparse
import csv
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch

from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, check_symmetry, residual_map
from maediff.cohort.cohort import Cohort
from maediff.core.device import resolve_precision
from maediff.evaluation.metrics import auprc
from maediff.methods.diffusion_config import DiffusionConfig
from maediff.methods.residual import residual_of
from maediff.methods.volume import predict_volume
from maediff.models.model import load_model
from maediff.preparation.config import is_registered


def residual_config(name: str) -> tuple[DiffusionConfig, PostprocessConfig]:
    """`bright+c+x2+b2+m3` as configs of the residual and of what follows."""
    kind, *more = name.split("+")
    blurs = [float(mm) for key in more if key[0] in "gG" for mm in key[1:].split(",")]
    numbers = {key[0]: float(key[1:] or 1) for key in more if key[0] not in "gG"}
    if not numbers.keys() <= set("chxbymai"):
        sys.exit(
            f"{name}: + is followed by c, h, i, x, b, g, G, y, a or m, all but the first two with a number"
        )
    post = PostprocessConfig(
        median_size=int(numbers.get("m", DEFAULT.median_size)),
        smooth_mm=tuple(blurs),
        smooth_mean="geometric" if any(key[0] == "G" for key in more) else "arithmetic",
        times_intensity=numbers.get("y", 0.0),
        symmetry=numbers.get("a", 0.0),
    )
    config = DiffusionConfig(
        residual=kind,  # type: ignore[arg-type]
        recentre="c" in numbers,
        headroom="h" in numbers,
        times_intensity=numbers.get("x", 0.0),
        smooth_sigma=numbers.get("b", 0.0),
        ssim_weight=numbers.get("i", 0.0),
    )
    return config, post


def main() -> None:
    """Print a line for each setting as it is done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("cohort", type=Path)
    parser.add_argument(
        "--t",
        nargs="+",
        default=["60", "125", "250", "500"],
        help="125,250 is averaged; own: unchanged",
    )
    parser.add_argument(
        "--s", nargs="+", type=int, help="strides of a patch method; default: the run's own"
    )
    parser.add_argument(
        "--noise", nargs="+", type=float, help="values of noise_test; default: the run's own"
    )
    parser.add_argument(
        "--refine", nargs="+", type=float, help="values of refine_above (lesion-aware patches)"
    )
    parser.add_argument("--residuals", nargs="+", default=["abs"])
    parser.add_argument("--split", default="val")
    parser.add_argument("--precision", default="fp32", help="fp32, as `evaluate` scores, or bf16")
    parser.add_argument("--csv", type=Path)
    args = parser.parse_args()
    residuals = {name: residual_config(name) for name in args.residuals}
    cohort = Cohort.open(args.cohort)
    for _, post in residuals.values():
        check_symmetry(post, is_registered(cohort.meta), str(args.cohort))
    subjects = [cohort.load(row) for row in cohort.split(args.split)]
    subjects = [s for s in subjects if s.lesion is not None and (s.lesion & s.brain).any()]
    done: set[tuple[str, ...]] = set()
    if args.csv and args.csv.is_file():
        with args.csv.open(newline="") as file:
            done = {
                (*row[:3], row[4]) for row in csv.reader(file) if len(row) == 9 + len(subjects)
            }
    precision = resolve_precision(args.precision, "cpu")
    for s, t, noise, refine in product(
        args.s or [None], args.t, args.noise or [None], args.refine or [None]
    ):
        chosen = {
            "t_test": None if t == "own" else f"[{t}]",
            "s": s,
            "noise_test": noise,
            "refine_above": refine,
        }
        settings = ",".join(f"{key}={value}" for key, value in chosen.items() if value is not None)
        model = f"{args.run}{',' if '@' in args.run else '@'}{settings}" if settings else args.run
        here = [
            args.run.partition("@")[0],
            model.partition("@")[2] + ("" if precision == "fp32" else f" in {precision}"),
            f"{cohort.path.resolve().name}:{args.split}",
        ]
        wanted = {name: how for name, how in residuals.items() if (*here, name) not in done}
        if not wanted:
            continue
        method, _ = load_model(model)
        passes: list[int] = []
        if hasattr(method, "unet"):  # its stem: MAEDiff runs encoder and decoder apart
            method.unet.stem.register_forward_pre_hook(
                lambda _, inputs: passes.append(len(inputs[0]))
            )  # noqa: B023
        scores: dict[str, list[float]] = {name: [] for name in wanted}
        unlike: list[tuple[float, float]] = []
        for subject in subjects:
            _, reference = predict_volume(
                method,
                subject.images,
                subject.brain,
                subject.slice_ids,
                seed=0,
                precision=precision,
            )
            lesion, difference = (
                subject.lesion & subject.brain,
                abs(subject.images.clip(max=1) - reference),
            )
            unlike.append((difference[lesion].mean(), difference[subject.brain & ~lesion].mean()))
            x, ref, brain = (
                torch.from_numpy(a)[:, None] for a in (subject.images, reference, subject.brain)
            )
            for name, (config, post) in wanted.items():
                residual = residual_of(x, ref, brain, config)[:, 0].numpy()
                anomaly = residual_map(
                    residual, subject.brain, subject.spacing_mm, post, subject.images
                )
                scores[name].append(auprc(anomaly, lesion, subject.brain))
        for name, values in scores.items():
            work = f"{sum(passes) / len(subjects):.0f}"
            row = [*here, work, name, f"{np.mean(values):.4f}", len(values)]
            row += [f"{mean:.4f}" for mean in np.mean(unlike, axis=0)]
            print(*row, sep="\t", flush=True)
            if args.csv:
                with args.csv.open("a", newline="") as file:
                    csv.writer(file).writerow([*row, *(f"{value:.4f}" for value in values)])


if __name__ == "__main__":
    sys.exit(main())
