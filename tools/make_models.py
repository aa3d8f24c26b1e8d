"""Prepare the public data and train all shipped models again. Needs a GPU for useful models.

    python tools/make_models.py --data DATA                   # trains each model for 12 minutes
    python tools/make_models.py --data DATA --max-time 30s    # a quick test that the steps work
    python tools/make_models.py --data DATA --dry-run         # prints the commands only

DATA holds the data sets ds002748, ds000011 and lgg (docs/guides/data_sets.md). Each model is
trained with the settings that the shipped model carries; tools/remake_model.py does this. A
stopped run resumes where it stopped if the same command is given again.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from maediff.core.errors import InputError
from maediff.training.config import parse_duration

ROOT = Path(__file__).resolve().parents[1]
MODELS = {"t1": "t1", "flair": "flair", "t2": "t2", "flair-lgg": "lgg-flair"}
"""The cohort of each model."""
DATA_SETS = ("ds002748", "ds000011", "lgg")


@dataclass(frozen=True)
class Step:
    """A command, and the file that shows that it is done.

    Args:
        command: starts with `maediff`, or with `python` and a script of this repository.
        done: the step is skipped if this file exists. None: the command resumes by itself.
    """

    command: tuple[str, ...]
    done: Path | None = None

    def __str__(self) -> str:
        """Return the command as it would be typed in the root of the repository."""
        return shlex.join(self.command)


def words(command: str, **values: object) -> tuple[str, ...]:
    """Split a command at its spaces, then insert the values, which may contain spaces."""
    return tuple(word.format(**values) for word in command.split())


def preprocess(inputs: Sequence[Path], cohort: Path, modality: str, like: str) -> Step:
    """Return the step that prepares scans as those of the model `like` were prepared."""
    options = words(
        "-o {cohort} --modality {modality} --like {like} --resume",
        cohort=cohort,
        modality=modality,
        like=like,
    )
    return Step(("maediff", "preprocess", *map(str, inputs), *options))


def synthetic_cohort(name: str, contrast: str, data: Path, cohorts: Path) -> Iterator[Step]:
    """Yield the steps that make the cohort of a model with few or no real scans of its contrast.

    Renderings of healthy T1w brains and healthy phantoms; for T2w also the real scans of ds000011.
    """
    scans, phantoms = cohorts / f"{name}-scans", cohorts / f"{name}-phantoms"
    yield Step(
        words(
            "python tools/render_contrast.py {source} {scans} {contrast} --n 2 --overwrite",
            source=data / "ds002748",
            scans=scans,
            contrast=contrast,
        ),
        done=scans / "manifest.csv",
    )
    yield Step(
        words(
            "python tools/make_phantoms.py {phantoms} --contrast {contrast} --train 24 --val 0 "
            "--test 0 --healthy-val 4 --healthy-test 0 --overwrite",
            phantoms=phantoms,
            contrast=contrast,
        ),
        done=phantoms / "manifest.csv",
    )
    inputs = [scans / "manifest.csv", phantoms / "manifest.csv"]
    if contrast == "T2w":
        inputs.append(data / "ds000011")
    yield preprocess(inputs, cohorts / name, contrast, name)


def steps(data: Path, cohorts: Path, out: Path, max_time: str) -> Iterator[Step]:
    """Yield all steps in order: the four cohorts first, then the four trainings."""
    healthy = [data / "ds002748", data / "ds000011"]
    yield preprocess(healthy, cohorts / "t1", "T1w", "t1")
    yield from synthetic_cohort("flair", "FLAIR", data, cohorts)
    yield from synthetic_cohort("t2", "T2w", data, cohorts)
    yield preprocess([data / "lgg" / "flair.csv"], cohorts / "lgg-flair", "FLAIR", "flair")
    for model, cohort in MODELS.items():
        yield Step(
            words(
                "python tools/remake_model.py {model} {cohort} {out} --max-time {max_time}",
                model=model,
                cohort=cohorts / cohort,
                out=out,
                max_time=max_time,
            )
        )


def check_data(data: Path) -> None:
    """Refuse a folder that lacks a data set.

    Raises:
        InputError: naming the missing data sets.
    """
    missing = [name for name in DATA_SETS if not (data / name).is_dir()]
    if missing:
        raise InputError(
            f"{data}: does not hold {', '.join(missing)}; "
            "docs/guides/data_sets.md lists the sources"
        )


def run(step: Step) -> None:
    """Run one step with this Python, from the current folder.

    Raises:
        subprocess.CalledProcessError: the command failed; it has printed the reason.
    """
    program, *rest = step.command
    if program == "maediff":
        command = [sys.executable, "-m", "maediff", *rest]
    else:
        command = [sys.executable, str(ROOT / rest[0]), *rest[1:]]
    subprocess.run(command, check=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with ds002748, ds000011 and lgg"
    )
    parser.add_argument(
        "--max-time",
        default="12m",
        help="training time of each model, for example 30s or 12m; default: %(default)s",
    )
    parser.add_argument(
        "--cohorts",
        type=Path,
        default=Path("cohorts"),
        help="folder for the prepared data; default: %(default)s",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/models"),
        help="folder for the trained models; default: %(default)s",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands without running them"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps that are not done.

    Returns:
        The exit code: 0, or that of the command that failed.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        parse_duration(args.max_time)
        if not args.dry_run:
            check_data(args.data)
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    for step in steps(args.data, args.cohorts, args.out, args.max_time):
        if args.dry_run:
            print(step)
        elif step.done and step.done.is_file():
            print(f"skipped, {step.done} exists: {step}", flush=True)
        else:
            print(step, flush=True)
            try:
                run(step)
            except subprocess.CalledProcessError as error:
                print(f"error: stopped at: {step}", file=sys.stderr)
                return error.returncode if error.returncode > 0 else 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
