r"""Detect in the same scans again under other conditions, and compare the results.

    python experiments/reproducibility/repeat_detection.py measure --work FOLDER \
        --csv differences.csv sub-01_T1w=SCAN Subj10_FLAIR=SCAN
    python experiments/reproducibility/repeat_detection.py measure ... \
        --python old=ENVIRONMENT/bin/python    # also in another environment
    python experiments/reproducibility/repeat_detection.py table differences.csv

The two scans of `maediff detect --sample` are always used. Each variant detects in all scans of a
contrast with one command. Every variant is compared with the variant `base`:

    dice                 2 |A and B| / (|A| + |B|) of the anomaly masks; 1 if both are empty
    mean_difference      mean over the brain of |map - map of base|
    largest_difference   largest |map - map of base|
    volume_ml            volume of the anomaly mask

1 in a map is the default threshold. Finished scans are kept, so a stopped command resumes if it is
started again. `environments.csv` beside the differences has the versions of each environment.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from maediff.core.files import write_table
from maediff.core.types import MODALITIES
from maediff.evaluation.metrics import dice
from maediff.synthetic.sample import CONTRASTS, find_sample

Row = Mapping[str, str]
ROOT = Path(__file__).parents[2]
BASE = "base"
COMMAND_S = 290
"""A command that takes longer is stopped; the next call resumes it."""
BF16 = """
from functools import partial
from maediff.detection import detector
detector.predict_volume = partial(detector.predict_volume, precision="bf16")
from maediff.cli import main
main()
"""
"""`maediff` with a network in bf16, which `maediff detect` does not offer."""
PLAIN = "from maediff.cli import main; main()"
PACKAGES = ("torch", "numpy", "scipy", "SimpleITK", "nilearn", "nibabel", "deepbet")
ENVIRONMENT_COLUMNS = ("environment", "python", *PACKAGES)
READ_VERSIONS = f"""\
import json, sys
from importlib.metadata import version
print(json.dumps([sys.version.split()[0], *map(version, {PACKAGES})]))
"""
COLUMNS = (
    "variant",
    "scan",
    "identical",
    "dice",
    "mean_difference",
    "largest_difference",
    "volume_ml",
    "base_volume_ml",
    "score",
    "base_score",
    "brain_dice",
)


@dataclass(frozen=True)
class Variant:
    """One condition of the detection.

    Args:
        change: difference from `base`, in words.
        options: options of `maediff detect`.
        start: Python code that starts maediff.
        python: program that runs it.
    """

    change: str
    options: tuple[str, ...] = ("--threads", "1")
    start: str = PLAIN
    python: str = sys.executable


VARIANTS = {
    BASE: Variant("one thread, one worker, batches of 16, fp32"),
    "again": Variant("the same command again"),
    "threads": Variant("two threads", ("--threads", "2")),
    "bf16": Variant("network in bf16", start=BF16),
    "workers": Variant("two workers", ("--threads", "1", "--workers", "2")),
    "batch": Variant("batches of 5", ("--threads", "1", "--batch-size", "5")),
}


def parse_scan(text: str) -> tuple[str, Path]:
    """Return name and path of an argument `NAME_CONTRAST=PATH`."""
    name, _, path = text.partition("=")
    if not name.endswith(tuple(f"_{modality}" for modality in MODALITIES)) or not path:
        choices = ", ".join(MODALITIES)
        raise argparse.ArgumentTypeError(f"{text}: give NAME_CONTRAST=PATH, with {choices}")
    return name, Path(path)


def parse_python(text: str) -> tuple[str, str]:
    """Return name and program of an argument `NAME=PROGRAM`."""
    name, _, program = text.partition("=")
    if not name or not program or name in VARIANTS:
        raise argparse.ArgumentTypeError(f"{text}: give NAME=PROGRAM, with a new name")
    return name, program


def link_scans(scans: Iterable[tuple[str, Path]], work: Path) -> dict[str, list[Path]]:
    """Return links to the scans with names that state the contrast, by contrast.

    Raises:
        SystemExit: a scan does not exist.
    """
    links: dict[str, list[Path]] = {}
    samples = [(f"sub-sample_{contrast}", find_sample(contrast)) for contrast in CONTRASTS]
    for name, path in [*samples, *scans]:
        if not path.is_file():
            raise SystemExit(f"{name}: {path}: no such file; check the path")
        contrast = name.rpartition("_")[2]
        link = work / "scans" / contrast / f"{name}.nii.gz"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path.resolve())
        links.setdefault(contrast, []).append(link)
    return links


def detect_command(variant: Variant, scans: Sequence[Path], out: Path) -> list[str]:
    """Return the command that detects in scans; it resumes a folder that exists."""
    command = [variant.python, "-c", variant.start, "detect", *map(str, scans), "-o", str(out)]
    resume = ["--resume"] if out.exists() else []
    return [*command, "--device", "cpu", "--quiet", *variant.options, *resume]


def run_variant(variant: Variant, scans: Sequence[Path], out: Path) -> None:
    """Detect in scans with the code of this checkout.

    Raises:
        SystemExit: the command failed or took too long.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = detect_command(variant, scans, out)
    try:
        done = subprocess.run(
            command, env=environment, timeout=COMMAND_S, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{out}: not finished after {COMMAND_S} s; run again to resume") from None
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-2000:]}")


def load_image(folder: Path, kind: str) -> np.ndarray:
    """Return an image of a scan's results."""
    return np.asarray(nib.load(folder / f"{kind}.nii.gz").dataobj, dtype=np.float64)


def compare_results(base: Path, other: Path) -> dict[str, Any]:
    """Return the differences of the results of one scan, by column."""
    maps = [load_image(folder, "anomaly_map") for folder in (base, other)]
    masks = [load_image(folder, "anomaly_mask") > 0 for folder in (base, other)]
    brains = [load_image(folder, "brain_mask") > 0 for folder in (base, other)]
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (base, other)]
    apart = np.abs(maps[0] - maps[1])
    return {
        "identical": int(np.array_equal(*maps) and np.array_equal(*masks)),
        "dice": f"{dice(*masks):.6f}",
        "mean_difference": f"{apart[brains[0] | brains[1]].mean():.1e}",
        "largest_difference": f"{apart.max():.1e}",
        "volume_ml": f"{summaries[1]['volume_ml']:.3f}",
        "base_volume_ml": f"{summaries[0]['volume_ml']:.3f}",
        "score": f"{summaries[1]['score']:.5f}",
        "base_score": f"{summaries[0]['score']:.5f}",
        "brain_dice": f"{dice(*brains):.6f}",
    }


def compare_all(work: Path, variants: Iterable[str]) -> list[dict[str, Any]]:
    """Return a row for each variant and scan that are finished."""
    rows = []
    for variant in variants:
        for summary in sorted((work / BASE).glob("*/*/summary.json")):
            base = summary.parent
            other = work / variant / base.relative_to(work / BASE)
            if variant != BASE and (other / "summary.json").is_file():
                contrast = base.parent.name
                scan = f"{base.name.removesuffix(f'_{contrast}')}_{contrast}"
                rows.append({"variant": variant, "scan": scan, **compare_results(base, other)})
    return rows


def read_environment(name: str, python: str) -> dict[str, str]:
    """Return the versions of an environment, by column."""
    output = subprocess.run(
        [python, "-c", READ_VERSIONS], check=True, capture_output=True, text=True
    ).stdout
    return dict(zip(ENVIRONMENT_COLUMNS, [name, *json.loads(output)], strict=True))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows to a CSV file."""
    write_table(path, columns, [[row[column] for column in columns] for row in rows])


def measure(args: argparse.Namespace) -> int:
    """Run the commands that are not finished, and write the differences after each of them."""
    began = time.monotonic()
    links = link_scans(args.scans, args.work)
    pythons = dict(args.python)
    others = {name: Variant(name, python=python) for name, python in pythons.items()}
    variants = {**VARIANTS, **others}
    environments = [read_environment(*item) for item in {BASE: sys.executable, **pythons}.items()]
    write_csv(args.csv.with_name("environments.csv"), ENVIRONMENT_COLUMNS, environments)
    for name, variant in variants.items():
        for contrast, scans in links.items():
            out = args.work / name / contrast
            if len(list(out.glob("*/summary.json"))) == len(scans):
                continue
            if args.minutes and time.monotonic() - began > 60 * args.minutes:
                print(f"stopped before {name} {contrast}; run again to resume")
                return 1
            print(f"{name}: {len(scans)} {contrast}", flush=True)
            run_variant(variant, scans, out)
            write_csv(args.csv, COLUMNS, compare_all(args.work, variants))
    return 0


def format_difference(value: float) -> str:
    """Return a difference with one digit; 0 for none."""
    return f"{value:.0e}" if value else "0"


def format_table(rows: Iterable[Row], environments: Iterable[Row]) -> str:
    """Return the differences as a Markdown table, with the worst scan of each variant."""
    changes = {name: variant.change for name, variant in VARIANTS.items()}
    for entry in environments:
        if entry["environment"] != BASE:
            changes[entry["environment"]] = (
                f"Python {entry['python']}, torch {entry['torch']}, numpy {entry['numpy']}, "
                f"SimpleITK {entry['SimpleITK']}"
            )
    by_variant: dict[str, list[Row]] = {}
    for row in rows:
        by_variant.setdefault(row["variant"], []).append(row)
    lines = [
        "| change | scans with equal maps and masks | lowest Dice | mean difference | "
        "largest difference | volume changes by, ml |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in by_variant.items():
        identical = sum(int(row["identical"]) for row in group)
        volume = max(abs(float(row["volume_ml"]) - float(row["base_volume_ml"])) for row in group)
        lowest = min(float(row["dice"]) for row in group)
        mean = max(float(row["mean_difference"]) for row in group)
        largest = max(float(row["largest_difference"]) for row in group)
        lines.append(
            f"| {changes.get(name, name)} | {identical} of {len(group)} | {lowest:.4f} | "
            f"{format_difference(mean)} | {format_difference(largest)} | {volume:.2f} |"
        )
    return "\n".join(lines)


def read_table(path: Path) -> str:
    """Return the table of a CSV file of differences."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.with_name("environments.csv").open(encoding="utf-8") as file:
        return format_table(rows, list(csv.DictReader(file)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="detect in all variants and compare")
    measuring.add_argument("scans", nargs="*", type=parse_scan, metavar="NAME_CONTRAST=PATH")
    measuring.add_argument("--work", type=Path, required=True, help="folder for the results")
    measuring.add_argument("--csv", type=Path, required=True, help="file for the differences")
    measuring.add_argument(
        "--python",
        action="append",
        type=parse_python,
        default=[],
        metavar="NAME=PROGRAM",
        help="Python of another environment that has the packages of maediff; can be repeated",
    )
    measuring.add_argument(
        "--minutes", type=float, help="start no command after this time; run again to resume"
    )
    table = commands.add_parser("table", help="print the differences as a Markdown table")
    table.add_argument("csv", type=Path, help="file of the differences")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or print the table; return the exit code."""
    args = build_parser().parse_args(argv)
    if args.command == "table":
        print(read_table(args.csv))
        return 0
    return measure(args)


if __name__ == "__main__":
    raise SystemExit(main())
