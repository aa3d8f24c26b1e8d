r"""Compare settings that only matter at test: noise level, stride, residual, post-processing.

    python experiments/test_settings/sweep_test_settings.py RUN COHORT --t 60 125 --s 48 \
        --residuals residual=abs "residual=dark,postprocess.smooth_mm=[3,20]" --csv sweep.csv

The score is the mean AUPRC over the subjects with a lesion. For each model setting (--t, --s,
--noise, --refine) the healthy reference is predicted once, with seed 0, and compared with the scan
in all ways of --residuals. A residual is a list of settings as `maediff evaluate RUN@...` takes
them; settings of the post-processing start with `postprocess.`. A setting that is not named has
the default of its class, not the run's own value.

Printed columns: run, model settings, cohort and split, network passes per subject, residual, mean
AUPRC, number of subjects, mean |scan - reference| inside lesions and in the rest of the brain.
Passes are slices or patches that the U-Net predicts; 0 for a method without a U-Net. --csv stores
the scores of each subject. A stopped sweep resumes if it is called with the same --csv again.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

import numpy as np
import torch

from maediff.anomaly.postprocess import PostprocessConfig, check_symmetry, residual_map
from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.config import build_config, parse_settings
from maediff.core.device import resolve_precision
from maediff.core.errors import InputError
from maediff.core.files import write_table
from maediff.evaluation.metrics import auprc
from maediff.methods.residual import ComparisonConfig, residual_of
from maediff.methods.volume import predict_volume
from maediff.models.model import read_model
from maediff.models.reference import model_and_settings, split_settings
from maediff.preparation.config import PreparationConfig

TRAINING_FIELDS = ("size", "loss")
"""Fields of `ComparisonConfig` without effect on a residual."""
COLUMNS = (
    "run",
    "settings",
    "cohort",
    "residual",
    "passes",
    "subject",
    "auprc",
    "difference_in_lesions",
    "difference_elsewhere",
)


@dataclass(frozen=True)
class ResidualSettings:
    """One way to compute an anomaly map from scan and reference."""

    residual: ComparisonConfig
    postprocess: PostprocessConfig


@dataclass(frozen=True)
class SubjectScore:
    """The scores of one subject: an AUPRC for each way, and mean |scan - reference|."""

    auprcs: dict[str, float]
    difference_in_lesions: float
    difference_elsewhere: float


def parse_residual(text: str) -> ResidualSettings:
    """Convert `residual=bright,recentre=true,postprocess.smooth_mm=[2,20,20]` to configs.

    Raises:
        InputError: an unknown setting or a value that does not fit; the message quotes `text`.
    """
    try:
        settings = parse_settings(split_settings(text))
        post = settings.pop("postprocess", {})
        known = [field.name for field in fields(ComparisonConfig)]
        known = [name for name in known if name not in TRAINING_FIELDS]
        if unknown := [name for name in settings if name not in known]:
            raise InputError(
                f"{', '.join(unknown)} is no setting of the residual; these are: "
                f"{', '.join(known)}, and postprocess.KEY"
            )
        return ResidualSettings(
            build_config(ComparisonConfig, settings, "residual"),
            build_config(PostprocessConfig, post, "postprocess"),
        )
    except InputError as error:
        raise InputError(f"--residuals {text}: {error}") from None


def model_settings(args: argparse.Namespace) -> Iterator[str]:
    """Yield each combination of --s, --t, --noise and --refine as `s=48,t_test=[60]`."""
    choices = product(args.s or [None], args.t, args.noise or [None], args.refine or [None])
    for s, t, noise, refine in choices:
        values = {
            "t_test": None if t == "own" else f"[{t}]",
            "s": s,
            "noise_test": noise,
            "refine_above": refine,
        }
        yield ",".join(f"{key}={value}" for key, value in values.items() if value is not None)


def read_scores(path: Path | None) -> list[list[str]]:
    """Return the rows of an earlier sweep without the header, or nothing if there was none.

    Raises:
        InputError: the file was not written by this script.
    """
    if path is None or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    if tuple(header) != COLUMNS:
        raise InputError(f"{path}: was not written by this script; choose another --csv")
    return rows


def score_subject(
    method: torch.nn.Module,
    subject: SubjectSlices,
    residuals: dict[str, ResidualSettings],
    precision: str,
) -> SubjectScore:
    """Predict the reference of one subject with a lesion, and score each of `residuals`."""
    assert subject.lesion is not None
    lesion = subject.lesion & subject.brain
    _, reference = predict_volume(
        method, subject.images, subject.brain, subject.slice_ids, seed=0, precision=precision
    )
    difference = abs(subject.images.clip(max=1) - reference)
    x, x_reference, brain = (
        torch.from_numpy(array)[:, None] for array in (subject.images, reference, subject.brain)
    )
    auprcs = {}
    for name, settings in residuals.items():
        residual = residual_of(x, x_reference, brain, settings.residual)[:, 0].numpy()
        anomaly_map = residual_map(
            residual, subject.brain, subject.spacing_mm, settings.postprocess, subject.images
        )
        auprcs[name] = auprc(anomaly_map, lesion, subject.brain)
    return SubjectScore(
        auprcs, difference[lesion].mean(), difference[subject.brain & ~lesion].mean()
    )


def count_passes(method: torch.nn.Module) -> list[int]:
    """Return a list that grows by the batch size whenever the U-Net of `method` is run."""
    passes: list[int] = []
    if hasattr(method, "unet"):  # its stem, because MAEDiff runs encoder and decoder apart
        method.unet.stem.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    return passes


def sweep(args: argparse.Namespace) -> None:
    """Print a line for each model setting and residual, and store the scores in --csv.

    Raises:
        InputError: a setting, the run, the cohort or the CSV file cannot be used.
    """
    residuals = {text: parse_residual(text) for text in args.residuals}
    cohort = Cohort.open(args.cohort)
    registered = PreparationConfig.from_record(cohort.meta).registered
    for settings in residuals.values():
        check_symmetry(settings.postprocess, registered, str(args.cohort))
    subjects = [cohort.load(row) for row in cohort.split(args.split)]
    subjects = [s for s in subjects if s.lesion is not None and (s.lesion & s.brain).any()]
    if not subjects:
        raise InputError(f"{args.cohort}: no subject of split {args.split!r} has a lesion")
    precision = resolve_precision(args.precision, "cpu")
    rows = read_scores(args.csv)
    run, own_settings = model_and_settings(args.run)
    for settings in model_settings(args):
        changes = ",".join(text for text in (own_settings, settings) if text)
        label = changes if precision == "fp32" else f"{changes} in {precision}"
        key = [run, label, f"{cohort.path.resolve().name}:{args.split}"]
        wanted = {
            name: value
            for name, value in residuals.items()
            if sum(row[:4] == [*key, name] for row in rows) < len(subjects)
        }
        if not wanted:
            continue
        method = read_model(f"{run}@{changes}" if changes else run).method
        passes = count_passes(method)
        scores = [score_subject(method, subject, wanted, precision) for subject in subjects]
        work = f"{sum(passes) / len(subjects):.0f}"
        inside = [score.difference_in_lesions for score in scores]
        outside = [score.difference_elsewhere for score in scores]
        for name in wanted:
            values = [score.auprcs[name] for score in scores]
            means = [f"{np.mean(x):.4f}" for x in (values, inside, outside)]
            print(*key, work, name, means[0], len(values), *means[1:], sep="\t", flush=True)
            rows = [row for row in rows if row[:4] != [*key, name]]
            rows += [
                [*key, name, work, subject.name, *(f"{x:.4f}" for x in numbers)]
                for subject, *numbers in zip(subjects, values, inside, outside, strict=True)
            ]
        if args.csv:
            write_table(args.csv, COLUMNS, rows)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run folder or model name, also RUN@key=value")
    parser.add_argument("cohort", type=Path, help="cohort made by `maediff preprocess`")
    parser.add_argument(
        "--t",
        nargs="+",
        default=["60", "125", "250", "500"],
        help="values of t_test; 125,250 averages two; own keeps the run's value; "
        "default: 60 125 250 500",
    )
    parser.add_argument(
        "--s", nargs="+", type=int, help="strides of a patch method; default: the run's own"
    )
    parser.add_argument(
        "--noise", nargs="+", type=float, help="values of noise_test; default: the run's own"
    )
    parser.add_argument(
        "--refine", nargs="+", type=float, help="values of refine_above; default: the run's own"
    )
    parser.add_argument(
        "--residuals",
        nargs="+",
        metavar="KEY=VALUE,...",
        default=["residual=abs"],
        help="settings of the residual and its post-processing; default: residual=abs",
    )
    parser.add_argument(
        "--split", default="val", help="split of the subjects; default: %(default)s"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32, as `maediff evaluate` uses by default, or bf16; default: %(default)s",
    )
    parser.add_argument("--csv", type=Path, help="file for the scores of each subject")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sweep."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        sweep(args)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
