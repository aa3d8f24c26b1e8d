"""Compare brain extraction of raw T2w and FLAIR scans by several tools, without their T1w.

The reference is the brain of the T1w of the same session (deepbet), moved rigidly to the scan. For
lgg, whose scans are stripped, it is the stripped brain: the question is how much a tool removes.
A second run computes only the rows that the CSV lacks.
"""

import argparse
import csv
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import numpy as np
from scipy import ndimage

from maediff.core.errors import InputError
from maediff.preparation.background import brain_from_background
from maediff.preparation.brain_extraction import EXTRACTORS, BrainConfig, brain_from_t1
from maediff.preparation.hd_bet import run_hd_bet_package
from maediff.scans.read import read_scan
from maediff.scans.volume import Volume

COLUMNS = [
    "data",
    "subject",
    "tool",
    "brain_ml",
    "reference_ml",
    "dice",
    "hd95_mm",
    "outside_ml",
    "missing_ml",
    "seconds",
    "failure",
]
TOOLS = ("deepbet", "hd-bet-fast", "hd-bet-accurate")


def list_scans(data: Path) -> Iterator[tuple[str, str, Path, Path | None]]:
    """Yield data set, subject, scan, and T1w of the session (None for stripped scans)."""
    for folder in sorted(data.glob("wmh/Subj*")):
        yield "wmh FLAIR", folder.name, folder / "FLAIR.nii.gz", folder / "T1w.nii.gz"
    for folder in sorted(data.glob("ds000011/sub-*")):
        stem = folder / "anat" / folder.name
        t2, t1 = (Path(f"{stem}_{suffix}.nii.gz") for suffix in ("inplaneT2", "T1w"))
        yield "ds000011 T2w", folder.name, t2, t1
    with (data / "lgg/flair.csv").open(newline="") as handle:
        for row in csv.DictReader(handle):
            if row["split"] == "val":
                yield "lgg FLAIR", row["subject"], data / "lgg" / row["image"], None


def extract(volume: Volume, tool: str) -> np.ndarray:
    """Return the brain mask of a tool."""
    if tool == "deepbet":
        return EXTRACTORS["deepbet"](volume, BrainConfig())
    return run_hd_bet_package(volume, "fast" if tool == "hd-bet-fast" else "accurate")


def measure(mask: np.ndarray, reference: np.ndarray, volume: Volume) -> dict[str, float]:
    """Return the agreement of a mask with the reference."""
    ml = volume.voxel_mm3 / 1000
    surfaces = [part & ~ndimage.binary_erosion(part) for part in (mask, reference)]
    distances = []
    for one, other in (surfaces, surfaces[::-1]):
        to_other = ndimage.distance_transform_edt(~other, sampling=volume.spacing_mm)
        distances.append(to_other[one])
    return {
        "brain_ml": mask.sum() * ml,
        "reference_ml": reference.sum() * ml,
        "dice": 2 * (mask & reference).sum() / max(1, mask.sum() + reference.sum()),
        "hd95_mm": max(
            float(np.percentile(part, 95)) if part.size else np.inf for part in distances
        ),
        "outside_ml": (mask & ~reference).sum() * ml,
        "missing_ml": (reference & ~mask).sum() * ml,
    }


def make_reference(scan: Path, t1: Path | None) -> tuple[Volume, np.ndarray]:
    """Return a scan and its reference mask."""
    volume = read_scan(scan)
    if t1 is None:
        return volume, brain_from_background(volume)
    t1_volume = read_scan(t1)
    return volume, brain_from_t1(volume, t1_volume, extract(t1_volume, "deepbet"))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with wmh, ds000011 and lgg")
    parser.add_argument("out", type=Path, help="CSV file")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--limit", type=int, default=1000, help="scans of each data set")
    parser.add_argument("--max-time", type=float, default=inf, help="seconds until it stops")
    return parser


def main() -> None:
    """Write the missing rows of the CSV."""
    options = build_parser().parse_args()
    started = time.monotonic()
    rows = list(csv.DictReader(options.out.open(newline=""))) if options.out.is_file() else []
    done = {(row["data"], row["subject"], row["tool"]) for row in rows}
    counts: dict[str, int] = {}
    for data, subject, scan, t1 in list_scans(options.data):
        counts[data] = counts.get(data, 0) + 1
        if counts[data] > options.limit:
            continue
        tools = [tool for tool in options.tools if (data, subject, tool) not in done]
        if not tools:
            continue
        if time.monotonic() - started > options.max_time:
            print(f"stopped before {data} {subject}; run the command again to continue")
            break
        volume, reference = make_reference(scan, t1)
        for tool in tools:
            before = time.process_time()
            row = {"data": data, "subject": subject, "tool": tool, "failure": ""}
            try:
                mask = extract(volume, tool)
            except InputError as error:
                row["failure"] = str(error).partition(": ")[2]
            else:
                row |= {
                    key: f"{value:.4g}" for key, value in measure(mask, reference, volume).items()
                }
            row["seconds"] = f"{time.process_time() - before:.1f}"
            rows.append(row)
            with options.out.open("w", newline="") as handle:
                writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
