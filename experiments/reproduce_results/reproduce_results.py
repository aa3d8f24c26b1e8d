"""Score the shipped models on the public data again, and compare with the recorded scores.

    python experiments/reproduce_results/reproduce_results.py --data DATA
    python experiments/reproduce_results/reproduce_results.py --data DATA --dry-run

DATA holds lgg and mslub/patient07 (docs/guides/data_sets.md). The whole run takes about an hour on
one CPU core. Prepared scans go to `cohorts/`, evaluations to `runs/`. Evaluations that are
complete are not repeated: a stopped run resumes if the same command is given again. At the end, a
table compares the mean AUPRC of each model with `shipped_models.csv`, beside this script.
"""

import argparse
import csv
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.files import read_json, write_table

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "shipped_models.csv"
MANIFEST_COLUMNS = ("subject", "image", "lesion_mask", "split", "healthy")
MULTIPLE_SCLEROSIS = {"t1": ("T1", "T1w"), "flair": ("FLAIR", "FLAIR"), "t2": ("T2", "T2w")}
"""Model: file and modality of its scan of mslub/patient07."""


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


def preprocess(manifest: Path, cohort: Path, modality: str, like: str) -> Step:
    """Return the step that prepares scans as those of the model `like` were prepared."""
    return Step(
        words(
            "maediff preprocess {manifest} -o {cohort} --modality {modality} "
            "--like {like} --resume",
            manifest=manifest,
            cohort=cohort,
            modality=modality,
            like=like,
        )
    )


def evaluate(models: str, cohort: Path, out: Path, *, on_val: bool = False) -> Step:
    """Return the step that scores models on the test split, or on the validation split."""
    splits = "--score-split val --calibrate-split val " if on_val else ""
    command = f"maediff evaluate {models} --cohort {{cohort}} {splits}-o {{out}} --overwrite"
    return Step(words(command, cohort=cohort, out=out), done=out / "summary.json")


def steps(data: Path, cohorts: Path, runs: Path) -> Iterator[Step]:
    """Yield all steps in order."""
    lgg, patient = data / "lgg", data / "mslub" / "patient07"
    yield preprocess(lgg / "t1.csv", cohorts / "lgg-t1", "T1w", "t1")
    yield evaluate("t1", cohorts / "lgg-t1", runs / "results-lgg-t1")
    yield preprocess(lgg / "flair.csv", cohorts / "lgg-flair", "FLAIR", "flair")
    # One model at a time, because models of different post-processing would share the default.
    yield evaluate("flair-lgg", cohorts / "lgg-flair", runs / "results-lgg-flair-lgg")
    yield evaluate("flair", cohorts / "lgg-flair", runs / "results-lgg-flair-val", on_val=True)

    t2_like = cohorts / "t2-like-scans"
    yield Step(
        words(
            "python experiments/t2_like_scans/make_pseudo_t2.py {patient} {flair} {t1} {out}",
            patient=patient,
            flair=lgg / "flair.csv",
            t1=lgg / "t1.csv",
            out=t2_like,
        ),
        done=t2_like / "manifest.csv",
    )
    yield preprocess(t2_like / "manifest.csv", cohorts / "t2-like", "T2w", "t2")
    yield evaluate("t2", cohorts / "t2-like", runs / "results-t2-like", on_val=True)

    phantoms = cohorts / "phantom-scans"
    yield Step(
        words(
            "python tools/make_phantoms.py {out} --contrast T2w --train 0 --val 16 --test 16 "
            "--healthy-val 4 --healthy-test 4 --overwrite",
            out=phantoms,
        ),
        done=phantoms / "manifest.csv",
    )
    yield preprocess(phantoms / "manifest.csv", cohorts / "phantoms", "T2w", "t2")
    yield evaluate("t2", cohorts / "phantoms", runs / "results-phantoms")

    for model, (_, modality) in MULTIPLE_SCLEROSIS.items():
        cohort = cohorts / f"ms-{model}"
        yield preprocess(cohorts / f"ms-{model}.csv", cohort, modality, model)
        yield evaluate(model, cohort, runs / f"results-ms-{model}", on_val=True)


def write_patient_manifests(data: Path, cohorts: Path) -> None:
    """Write a manifest for each scan of mslub/patient07, as a patient of the validation split."""
    patient = (data / "mslub" / "patient07").absolute()
    for model, (file, _) in MULTIPLE_SCLEROSIS.items():
        row = ["patient07", patient / f"{file}.nii.gz", patient / "lesion_mask.nii.gz", "val", 0]
        write_table(cohorts / f"ms-{model}.csv", MANIFEST_COLUMNS, [row])


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


def comparison(runs: Path, recorded: Path = RECORDED) -> list[str]:
    """Compare the evaluations in `runs` with the recorded mean AUPRC, a line for each model.

    Raises:
        InputError: an evaluation is missing or damaged, or lacks the model.
    """
    lines = []
    with recorded.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = runs / row["evaluation"] / "summary.json"
            scores = read_json(path)["methods"].get(row["model"])
            if scores is None:
                raise InputError(f"{path}: has no scores of {row['model']}; delete it, run again")
            mean, expected = scores["auprc"]["mean"], float(row["auprc"])
            lines.append(
                f"{row['evaluation']:21} {row['model']:10} AUPRC {mean:.3f}, "
                f"recorded {expected:.3f}, difference {mean - expected:+.3f}"
            )
    return lines


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument(
        "--cohorts",
        type=Path,
        default=Path("cohorts"),
        help="folder for the prepared scans; default: %(default)s",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="folder for the evaluations; default: %(default)s",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="repeat complete evaluations as well"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands without running them"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps that are not done, then print the comparison.

    Returns:
        The exit code: 0, or that of the command that failed.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.dry_run:
        print(*steps(args.data, args.cohorts, args.runs), sep="\n")
        return 0
    missing = [name for name in ("lgg", "mslub/patient07") if not (args.data / name).is_dir()]
    if missing:
        parser.exit(
            2,
            f"error: {args.data}: does not hold {', '.join(missing)}; "
            "docs/guides/data_sets.md lists the sources\n",
        )
    write_patient_manifests(args.data, args.cohorts)
    for step in steps(args.data, args.cohorts, args.runs):
        repeat = args.overwrite and "evaluate" in step.command
        if step.done and step.done.is_file() and not repeat:
            print(f"skipped, {step.done} exists: {step}", flush=True)
            continue
        print(step, flush=True)
        try:
            run(step)
        except subprocess.CalledProcessError as error:
            print(f"error: stopped at: {step}", file=sys.stderr)
            return error.returncode if error.returncode > 0 else 1
    try:
        print(*comparison(args.runs), sep="\n")
    except InputError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
