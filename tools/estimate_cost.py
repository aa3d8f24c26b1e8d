"""Estimate core-hours, disk and hours of `maediff detect` on large cohorts, and what breaks first.

    python tools/estimate_cost.py                                     a table for large cohorts
    python tools/estimate_cost.py --scans 5000 --cores 64             one cohort
    python tools/estimate_cost.py measure SCAN... --work FOLDER       measure the stages here

    core-hours = (scans * cpu_s + shards * start_s) / 3600 + the merge
    hours      = (scans / cores * cpu_s + start_s + scans * listing_s + scans * report_s) / 3600

Each core runs one shard. `listing_s` is the time that every shard needs to find each scan of the
whole cohort, and `report_s` the time that the merge needs for each scan in one process.
"""

import argparse
import dataclasses
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Stages:
    """Measured cost of one scan.

    Args:
        cpu_s: CPU seconds of a scan.
        start_s: CPU seconds of a command before its first scan.
        listing_s: seconds in which a command finds one scan among the inputs.
        report_s: seconds of `maediff report` for each scan, in one process.
        read_mb: MB read for a scan.
        written_mb: MB written for a scan, with its page of the report.
        files: files written for a scan.
        memory_gb: memory of one process, in GB.
        source: origin of the figures.
    """

    cpu_s: float
    start_s: float
    listing_s: float
    report_s: float
    read_mb: float
    written_mb: float
    files: float
    memory_gb: float
    source: str


MEASURED = Stages(
    cpu_s=20.3,
    start_s=10.2,
    listing_s=0.0008,
    report_s=0.55,
    read_mb=3.5,
    written_mb=11.7,
    files=11.0,
    memory_gb=1.55,
    source="two T1w heads (1 x 1.33 x 1.33 mm), model t1, one thread of a busy machine",
)
"""Figures of `measure`; `listing_s` is of a BIDS dataset of 3,000 scans."""
STORAGE_MB_S = 1000.0
"""Throughput of a shared file system at which storage becomes the limit; our assumption."""
MANY_FILES = 1_000_000
"""Number of files that many clusters allow a user; our assumption."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Estimated cost of a cohort.

    Args:
        core_hours: CPU time of all processes, in hours.
        hours: wall time, in hours: the shards and then the merge.
        merge_hours: the part of `hours` that one process needs for the merge and the reports.
        disk_gb: results, in GB.
        files: number of files.
        storage_mb_s: MB that all processes together read and write in a second.
        limit: what limits the run or breaks first.
    """

    core_hours: float
    hours: float
    merge_hours: float
    disk_gb: float
    files: int
    storage_mb_s: float
    limit: str


def estimate(scans: int, cores: int, stages: Stages = MEASURED) -> Cost:
    """Return the cost of `maediff detect` on a cohort, with one shard for each core.

    Args:
        scans: number of scans, 1 or more.
        cores: number of cores, 1 or more.
        stages: measured cost of one scan.
    """
    shards = min(cores, scans)
    listing_s = scans * stages.listing_s
    shard_s = math.ceil(scans / shards) * stages.cpu_s + stages.start_s + listing_s
    merge_s = stages.start_s + scans * stages.report_s
    cpu_s = scans * stages.cpu_s + shards * (stages.start_s + listing_s) + merge_s
    storage = shards * (stages.read_mb + stages.written_mb) / stages.cpu_s
    files = round(scans * stages.files)
    limits = {
        "the merge and its reports, in one process": merge_s / shard_s,
        "the list of all scans, in every shard": listing_s / (shard_s - listing_s),
        f"the shared storage ({STORAGE_MB_S:.0f} MB/s)": storage / STORAGE_MB_S,
        f"the number of files ({MANY_FILES:,})": files / MANY_FILES,
    }
    worst = max(limits, key=lambda name: limits[name])
    return Cost(
        core_hours=cpu_s / 3600,
        hours=(shard_s + merge_s) / 3600,
        merge_hours=merge_s / 3600,
        disk_gb=scans * stages.written_mb / 1000,
        files=files,
        storage_mb_s=storage,
        limit=worst if limits[worst] > 1 else "the cores",
    )


def markdown_table(scans: list[int], cores: list[int], stages: Stages) -> str:
    """Return the costs of all combinations as a table in Markdown."""
    lines = [
        "| scans | cores | core-hours | hours | of which merge | disk, GB | files | limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for n in scans:
        for count in cores:
            cost = estimate(n, count, stages)
            lines.append(
                f"| {n:,} | {count:,} | {cost.core_hours:,.0f} | {cost.hours:,.1f} | "
                f"{cost.merge_hours:,.1f} | {cost.disk_gb:,.0f} | {cost.files:,} | {cost.limit} |"
            )
    return "\n".join(lines)


def _measure_bytes(image: Path) -> int:
    """Return the size of a file, or of all files in a DICOM folder."""
    files = image.rglob("*") if image.is_dir() else [image]
    return sum(path.stat().st_size for path in files if path.is_file())


def measure(scans: list[str], work: Path) -> Stages:
    """Measure the stages on this machine, with one thread.

    The scans are processed once alone and once all together; the difference is the cost of a scan.

    Args:
        scans: two or more scans, as for `maediff detect`.
        work: folder for the results; must be empty or not exist.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def run(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "maediff", *arguments]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)

    if len(scans) < 2:
        raise SystemExit("measure: give two or more scans")
    one, many = work / "one", work / "many"
    options = ("--device", "cpu", "-q")
    cpu_one = run("detect", scans[0], "-o", str(one), *options)
    cpu_many = run("detect", *scans, "-o", str(many), *options)
    memory_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    report_one, report_many = run("report", str(one)), run("report", str(many))
    from maediff.scans.inputs.find import find_scans

    began = time.monotonic()
    refs = find_scans([Path(scan) for scan in scans])
    listing_s = (time.monotonic() - began) / len(refs)
    files = [path for path in many.rglob("*") if path.is_file()]
    more = len(scans) - 1
    cpu_s = (cpu_many - cpu_one) / more
    return Stages(
        cpu_s=round(cpu_s, 1),
        start_s=round(max(0.0, cpu_one - cpu_s), 1),
        listing_s=round(listing_s, 4),
        report_s=round((report_many - report_one) / more, 2),
        read_mb=round(sum(_measure_bytes(ref.image) for ref in refs) / len(refs) / 1e6, 1),
        written_mb=round(sum(path.stat().st_size for path in files) / len(refs) / 1e6, 1),
        files=round(len(files) / len(refs), 1),
        memory_gb=round(memory_kb / 1e6, 2),
        source=f"{len(scans)} scans",
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 16, 1_000])
    parser.add_argument("--stages", type=Path, help="JSON file of `measure`")
    commands = parser.add_subparsers(dest="command")
    measured = commands.add_parser("measure", help="measure the stages on this machine")
    measured.add_argument("inputs", nargs="+", metavar="SCAN")
    measured.add_argument("--work", type=Path, required=True, help="folder for the results")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    if options.command == "measure":
        print(json.dumps(dataclasses.asdict(measure(options.inputs, options.work)), indent=2))
        return
    if min(*options.scans, *options.cores) < 1:
        raise SystemExit("--scans and --cores: give numbers of 1 or more")
    stages = MEASURED
    if options.stages:
        stages = Stages(**json.loads(options.stages.read_text(encoding="utf-8")))
    print(markdown_table(options.scans, options.cores, stages))


if __name__ == "__main__":
    main()
