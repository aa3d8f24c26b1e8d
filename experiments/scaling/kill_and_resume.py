"""Kill a part of a distributed command, resume it, and compare the files with a plain run.

    python experiments/scaling/kill_and_resume.py shards SCAN... --work FOLDER
    python experiments/scaling/kill_and_resume.py ray SCAN... --work FOLDER

shards: four shards of `maediff detect` at once in one folder; one is killed and resumed.
ray: a local cluster of two workers; one is killed in the middle. Then a second command loses both
workers, stops, and is resumed with a new one.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from maediff.core.shards import Shard
from maediff.scans.inputs.find import find_scans

MAEDIFF = (sys.executable, "-m", "maediff")
NOT_COMPARED = ("report.html", ".maediff", "detect.json")
"""Files with a date or with the command, which names the output folder and the engine."""


def compare_folders(plain: Path, other: Path) -> dict[str, int]:
    """Count the files of two folders of `detect` that are equal, different or missing.

    Records of shards, reports and detect.json are not compared.
    """

    def read(folder: Path) -> dict[Path, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {
            path.relative_to(folder): path.read_bytes()
            for path in files
            if path.name not in NOT_COMPARED and path.relative_to(folder).parts[0] != "shards"
        }

    first, second = read(plain), read(other)
    common = first.keys() & second.keys()
    equal = sum(first[name] == second[name] for name in common)
    return {
        "equal": equal,
        "different": len(common) - equal,
        "missing": len(first.keys() ^ second.keys()),
    }


def wait_for(folder: Path, names: Sequence[str], processes: Sequence[subprocess.Popen]) -> None:
    """Wait until a scan of `names` is finished in `folder`, or all processes have ended."""
    while not any((folder / name / "summary.json").is_file() for name in names):
        if all(process.poll() is not None for process in processes):
            return
        time.sleep(0.2)


def run_shards(scans: Sequence[str], arguments: Sequence[str], work: Path, count: int) -> None:
    """Run all shards at once, kill the largest after its first scan, resume it, and merge."""
    out = work / "shards"
    command = [*MAEDIFF, "detect", *scans, "-o", str(out), "-q", *arguments]
    shards = [Shard(index, count) for index in range(1, count + 1)]
    refs = find_scans([Path(scan) for scan in scans])
    members = {
        shard: [ref.name for ref in refs if shard.owns(ref.dataset, ref.subject)]
        for shard in shards
    }
    victim = max(shards, key=lambda shard: len(members[shard]))
    print("subjects per shard:", [len(names) for names in members.values()])
    processes = {
        shard: subprocess.Popen([*command, "--shard", str(shard)], start_new_session=True)
        for shard in shards
    }
    wait_for(out, members[victim], [processes[victim]])
    os.killpg(processes[victim].pid, signal.SIGKILL)
    codes = {str(shard): process.wait() for shard, process in processes.items()}
    print("exit codes:", json.dumps(codes), f"(killed: {victim})")
    report = [*MAEDIFF, "report", str(out)]
    print("report with a killed shard: exit code", subprocess.run(report, check=False).returncode)
    subprocess.run([*command, "--shard", str(victim), "--resume"], check=True)
    subprocess.run(report, check=True)


def run_ray(scans: Sequence[str], arguments: Sequence[str], work: Path) -> None:
    """Kill one of two workers in the middle of a command; then lose all workers, and resume."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    names = [ref.name for ref in find_scans([Path(scan) for scan in scans])]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}

    def start(out: Path, *more: str) -> subprocess.Popen:
        command = [*MAEDIFF, "detect", *scans, "-o", str(out), "-q", *arguments]
        return subprocess.Popen([*command, "--engine", "ray", *more], env=environment)

    try:
        workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        process = start(work / "ray")
        wait_for(work / "ray", names, [process])
        cluster.remove_node(workers[0], allow_graceful=False)
        print("a worker was killed; exit code:", process.wait())
        lost = work / "ray-lost"
        process = start(lost)
        wait_for(lost, names, [process])
        cluster.remove_node(workers[1], allow_graceful=False)
        print("the last worker was killed; exit code:", process.wait())
        done = len(list(lost.glob("*/summary.json")))
        print(f"{done} of {len(names)} scans were kept")
        cluster.add_node(num_cpus=1)
        print("resumed; exit code:", start(lost, "--resume").wait())
        print("after the loss:", json.dumps(compare_folders(work / "plain", lost)))
    finally:
        cluster.shutdown()
    code = start(work / "unreachable").wait()
    print("without a cluster: exit code", code, (work / "unreachable").exists())


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=["shards", "ray"])
    parser.add_argument("scans", nargs="+", help="scans, as for `maediff detect`")
    parser.add_argument("--work", type=Path, required=True, help="folder for the results")
    parser.add_argument("--shards", type=int, default=4, help="number of shards")
    parser.add_argument("--model", default="t1", help="model, as for `maediff detect`")
    return parser


def main() -> None:
    options = build_parser().parse_args()
    arguments = ["--model", options.model, "--device", "cpu"]
    plain = options.work / "plain"
    command = [*MAEDIFF, "detect", *options.scans, "-o", str(plain), "-q", *arguments]
    for name in ("shards", "ray", "ray-lost"):  # finished scans would not be killed
        shutil.rmtree(options.work / name, ignore_errors=True)
    subprocess.run([*command, *(["--resume"] if plain.exists() else [])], check=True)
    if options.engine == "ray":
        run_ray(options.scans, arguments, options.work)
    else:
        run_shards(options.scans, arguments, options.work, options.shards)
    counts = compare_folders(plain, options.work / options.engine)
    print(json.dumps(counts))
    sys.exit(counts["different"] + counts["missing"] > 0)


if __name__ == "__main__":
    main()
