"""Compare complete calls of `maediff detect` of this checkout and of an older one, in pairs.

    python experiments/speed/compare_detect.py OLD_CHECKOUT

Each figure is the median over pairs (old, new in turn), so drifts of the machine's speed cancel.
The script prints Markdown tables:

    one scan       wall and CPU seconds of a call, old and new, and their ratios
    agreement      difference of the anomaly maps of both
    throughput     scans per minute with one and with two workers, and with two threads
    at once        wall time of three calls at once, relative to one after the other
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from maediff.detection.benchmark_detect import (
    KINDS,
    CallFigures,
    make_scan,
    run_command,
)
from maediff.scans.nifti import write_volume

HERE = Path(__file__).parents[2]
START = "from maediff.cli import main; main()"
AT_ONCE = 3


def detect_command(checkout: Path, inputs: Path, out: Path, *options: str) -> list[str]:
    """Return a command that detects with the code of a checkout."""
    python = ["env", f"PYTHONPATH={checkout / 'src'}", sys.executable, "-c", START]
    return [*python, "detect", str(inputs), "-o", str(out), "--quiet", "--overwrite", *options]


def compare_pairs(old: Path, scan: Path, work: Path, pairs: int) -> list[list[CallFigures]]:
    """Run both checkouts in turn; return the figures of the old and of the new calls."""
    figures: list[list[CallFigures]] = [[], []]
    for _ in range(pairs):
        for checkout, made, name in zip((old, HERE), figures, ("old", "new"), strict=True):
            made.append(run_command(detect_command(checkout, scan, work / name)))
    return figures


def print_pairs(old: Path, work: Path, pairs: int) -> None:
    """Print the tables of one scan and of the agreement."""
    agreement = []
    print("| scan | old wall s | new wall s | ratio | old CPU s | new CPU s | ratio | new GB |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        scan = work / f"{kind}_T1w.nii.gz"
        write_volume(scan, *make_scan(kind))
        before, after = compare_pairs(old, scan, work / kind, pairs)
        cells = [kind]
        for field in ("wall_s", "cpu_s"):
            values = [[getattr(call, field) for call in calls] for calls in (before, after)]
            ratios = [a / b for a, b in zip(*values, strict=True)]
            cells += [f"{statistics.median(v):.1f}" for v in (*values, ratios)]
        cells.append(f"{max(call.peak_gb for call in after):.2f}")
        print("| " + " | ".join(cells) + " |", flush=True)
        maps = [load_map(work / kind / name) for name in ("old", "new")]
        apart = np.abs(maps[0] - maps[1])[(maps[0] > 0) | (maps[1] > 0)]
        agreement.append((kind, apart.mean(), np.percentile(apart, 99.9), (apart > 1e-3).mean()))
    print("\n| scan | mean difference of maps | 99.9th percentile | share above 1e-3 |")
    print("|---|---|---|---|")
    for kind, mean, high, share in agreement:
        print(f"| {kind} | {mean:.1e} | {high:.1e} | {share:.1e} |")


def load_map(folder: Path) -> np.ndarray:
    """Return the anomaly map of the only scan in a folder of `maediff detect`, as a residual.

    Newer maps are in units of the default threshold; `scale` turns them back.
    """
    (path,) = folder.glob("*/anomaly_map.nii.gz")
    scale = json.loads((folder / "detect.json").read_text()).get("scale") or 1.0
    return np.asarray(nib.load(path).dataobj, dtype=np.float32) * np.float32(scale)


def print_throughput(work: Path, scans: int) -> None:
    """Print scans per minute of a call with one or two workers, and with one or two threads."""
    folder = work / "many"
    folder.mkdir()
    for number in range(scans):
        (folder / f"sub-{number}_T1w.nii.gz").symlink_to(work / f"{KINDS[0]}_T1w.nii.gz")
    print("\n| workers | threads of each | scans | wall s | scans per minute | ratio |")
    print("|---|---|---|---|---|---|")
    first = None
    for workers, threads in (("1", "1"), ("2", "1"), ("1", "2")):
        options = ("--workers", workers, "--threads", threads)
        out = work / f"many-{workers}-{threads}"
        wall_s = run_command(detect_command(HERE, folder, out, *options)).wall_s
        first = first or wall_s
        cells = f"{scans} | {wall_s:.1f} | {60 * scans / wall_s:.1f} | {first / wall_s:.2f}"
        print(f"| {workers} | {threads} | {cells} |", flush=True)


def print_at_once(old: Path, work: Path) -> None:
    """Print the time of three calls at once, relative to one after the other."""
    print("\n| code | one after the other, s | at once, s | ratio |\n|---|---|---|---|")
    scan = work / f"{KINDS[0]}_T1w.nii.gz"
    for name, checkout in (("old", old), ("new", HERE)):
        commands = [
            detect_command(checkout, scan, work / f"at-once-{name}{number}")
            for number in range(AT_ONCE)
        ]
        began = time.perf_counter()
        for command in commands:
            run_command(command)
        serial = time.perf_counter() - began
        began = time.perf_counter()
        processes = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for command in commands
        ]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"{name}: a call failed")
        together = time.perf_counter() - began
        print(f"| {name} | {serial:.1f} | {together:.1f} | {together / serial:.2f} |", flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="a checkout of the older code")
    parser.add_argument("--pairs", type=int, default=3, help="default: %(default)s")
    parser.add_argument(
        "--scans", type=int, default=8, help="scans of the throughput; default: %(default)s"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if not (args.old / "src" / "maediff").is_dir():
        parser.exit(2, f"error: {args.old}: no checkout, it has no folder src/maediff\n")
    with tempfile.TemporaryDirectory(prefix="maediff-compare-") as scratch:
        print_pairs(args.old.resolve(), Path(scratch), args.pairs)
        print_throughput(Path(scratch), args.scans)
        print_at_once(args.old.resolve(), Path(scratch))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
