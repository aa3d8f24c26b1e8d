"""Speed and memory of complete calls of `maediff detect`, as users run them.

    stripped       the MNI152 brain, 1 mm, turned by a few degrees, on zeros
    head           the same brain in skull and scalp, on noise: brain extraction comes first

Each call is a process of its own, so start-up and imports count. Its CPU time and its largest
memory are those that the operating system counted. The stages are then measured in this process,
after the model was loaded.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.stages import record_stages, stage
from maediff.detection.detector import load
from maediff.preparation.atlas.template import load_atlas
from maediff.scans.nifti import write_volume

Kind = Literal["stripped", "head"]
KINDS: tuple[Kind, ...] = ("stripped", "head")
MODEL = "t1"
COUNTS = (1,)
TURN_DEG, SCALE, SHIFT_MM = 6.0, 1.06, (4.0, -9.0, 12.0)
"""Position of the synthetic head: turned about the left-right axis, smaller, and shifted."""
FLUID_MM, SKULL_MM, SCALP_MM = 3.0, 9.0, 16.0
"""Distance from the brain at which fluid, skull and scalp end."""


@dataclass(frozen=True)
class CallFigures:
    """Figures of one call.

    Args:
        wall_s: seconds that passed.
        cpu_s: seconds of all threads and worker processes.
        peak_gb: largest memory of one process.
    """

    wall_s: float
    cpu_s: float
    peak_gb: float


Runner = Callable[[Sequence[str]], CallFigures]


def benchmark_detect(
    counts: Iterable[int] = COUNTS,
    *,
    kinds: Sequence[Kind] = KINDS,
    workers: int = 1,
    threads: int | None = None,
    device: str = "auto",
    run: Runner | None = None,
) -> dict[str, Any]:
    """Measure complete calls of `maediff detect` on synthetic 1 mm scans.

    Args:
        counts: numbers of scans in a call; each number is measured once.
        kinds: "stripped", "head" or both.
        workers: processes of a call.
        threads: threads of each process; None shares the cores.
        device: "auto", "cpu" or "cuda".
        run: runs a command and returns its figures; None starts a process.

    Returns:
        `counts`, `workers`, `threads`, `device`, and for each kind: `calls`, a list with
        `scans`, `scans_per_minute`, `wall_s`, `cpu_s` and `peak_memory_gb`; `stages`, seconds
        (`wall`, `cpu`) by stage; and `network_share`, the network's share of the CPU seconds of
        a call with the fewest scans.

    Raises:
        InputError: a count below 1, or a call that failed.
    """
    counts = sorted(set(counts))
    if not counts or counts[0] < 1:
        raise InputError(f"`scans={','.join(map(str, counts))}`: give numbers of 1 or more")
    device = resolve_device(device)
    run = run or run_command
    result: dict[str, Any] = {
        "counts": counts,
        "workers": workers,
        "threads": threads,
        "device": device,
    }
    options = ["--workers", str(workers), "--device", device, "--model", MODEL, "--quiet"]
    options += [] if threads is None else ["--threads", str(threads)]
    with tempfile.TemporaryDirectory(prefix="maediff-benchmark-") as scratch:
        folder = Path(scratch)
        for kind in kinds:
            scan = folder / f"{kind}_T1w.nii.gz"
            write_volume(scan, *make_scan(kind))
            calls = []
            for count in counts:
                inputs = _copy(scan, folder / f"{kind}{count}", count)
                out = folder / f"out-{kind}{count}"
                command = [sys.executable, "-m", "maediff", "detect", str(inputs), "-o", str(out)]
                figures = run([*command, *options])
                calls.append(
                    {
                        "scans": count,
                        "scans_per_minute": 60 * count / figures.wall_s,
                        "wall_s": figures.wall_s,
                        "cpu_s": figures.cpu_s,
                        "peak_memory_gb": figures.peak_gb,
                    }
                )
            stages = measure_stages(scan, folder / f"stages-{kind}", device)
            first = calls[0]
            network_cpu = first["scans"] * stages["network"]["cpu"]
            share = min(1.0, network_cpu / max(first["cpu_s"], 1e-9))
            result[kind] = {"calls": calls, "stages": stages, "network_share": share}
    return result


def make_scan(kind: Kind) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """Return a synthetic T1w scan of 1 mm and its affine; the same scan each time.

    Args:
        kind: "stripped" or "head".
    """
    atlas = load_atlas()
    turn = np.deg2rad(TURN_DEG)
    place = np.eye(4)
    place[1:3, 1:3] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    place[:3, :3] /= SCALE
    place[:3, 3] = SHIFT_MM
    affine = place @ atlas.affine
    rng = np.random.default_rng(0)
    texture = rng.normal(0, 8, atlas.t1.shape)
    brain = np.where(atlas.brain, 100 + 600 * atlas.t1 + texture, 0)
    if kind == "stripped":
        return brain.astype(np.float32), affine
    distance = ndimage.distance_transform_edt(~atlas.brain)
    shells = np.select(
        [distance <= FLUID_MM, distance <= SKULL_MM, distance <= SCALP_MM], [90.0, 60.0, 800.0], 0
    )
    head = np.where(atlas.brain, brain, shells + 15 * np.abs(rng.normal(size=brain.shape)))
    return head.astype(np.float32), affine


def run_command(command: Sequence[str]) -> CallFigures:
    """Run a command in a process of its own, and return its figures.

    A small process starts the command, because on Linux the peak memory of a new process begins
    with the memory of the process that started it.

    Raises:
        InputError: the command failed; the message has the end of its output.
    """
    with tempfile.TemporaryDirectory(prefix="maediff-benchmark-") as scratch:
        figures, output = Path(scratch) / "figures.json", Path(scratch) / "output.txt"
        with output.open("wb") as file:
            starter = [sys.executable, "-S", "-c", _RUN_AND_MEASURE, str(figures), *command]
            done = subprocess.run(starter, stdout=file, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            text = output.read_text(encoding="utf-8", errors="replace").strip()
            raise InputError(f"{' '.join(command)}: failed:\n{text[-2000:]}")
        wall_s, cpu_s, peak = json.loads(figures.read_text(encoding="utf-8"))
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes on macOS, KiB on Linux
    return CallFigures(wall_s, cpu_s, peak * unit / 1e9)


_RUN_AND_MEASURE = """
import json, os, subprocess, sys, time
began = time.perf_counter()
process = subprocess.Popen(sys.argv[2:])
cpu = peak = float("nan")
if hasattr(os, "wait4"):
    _, status, usage = os.wait4(process.pid, 0)
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss
    code = os.waitstatus_to_exitcode(status)
else:
    code = process.wait()
wall = time.perf_counter() - began
with open(sys.argv[1], "w") as file:
    json.dump([wall, cpu, peak], file)
sys.exit(code)
"""
"""Program that runs a command, writes wall s, CPU s and ru_maxrss as JSON, and ends like it.

Windows measures neither CPU time nor memory of another process here; they are NaN.
"""


def measure_stages(scan: Path, out: Path, device: str) -> dict[str, dict[str, float]]:
    """Return the seconds of each stage of a detection in this process.

    A first detection is not measured, because it imports libraries and loads networks.

    Args:
        scan: the scan.
        out: folder for the results.
        device: "cpu" or "cuda".
    """
    detector = load(MODEL, device=device)
    detector.detect(scan)
    with record_stages() as seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        detection = detector.detect(scan)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        stages = {name: {"wall": value.wall, "cpu": value.cpu} for name, value in seconds.items()}
        stages["rest"] = {
            "wall": wall - sum(value.wall for value in seconds.values()),
            "cpu": cpu - sum(value.cpu for value in seconds.values()),
        }
        with stage("write"):
            detection.save(out)
    written = seconds["write"]
    return {**stages, "write": {"wall": written.wall, "cpu": written.cpu}}


def format_table(result: Mapping[str, Any]) -> str:
    """Return the figures of `benchmark_detect` as text."""
    lines = []
    for kind in (kind for kind in KINDS if kind in result):
        figures = result[kind]
        lines.append(f"{kind}, {result['workers']} worker(s), {result['device']}")
        lines.append(f"{'scans':>8}{'per minute':>12}{'wall s':>10}{'CPU s':>10}{'GB':>8}")
        lines += [
            f"{call['scans']:8d}{call['scans_per_minute']:12.2f}{call['wall_s']:10.1f}"
            f"{call['cpu_s']:10.1f}{call['peak_memory_gb']:8.2f}"
            for call in figures["calls"]
        ]
        lines += [
            f"    {name:24}{value['wall']:8.2f} s wall{value['cpu']:8.2f} s CPU"
            for name, value in figures["stages"].items()
        ]
        lines.append(f"    network: {figures['network_share']:.0%} of the CPU time of a call")
    return "\n".join(lines)


def _copy(scan: Path, folder: Path, count: int) -> Path:
    """Fill a folder with links to a scan, and return the folder."""
    folder.mkdir()
    for number in range(count):
        os.link(scan, folder / f"sub-{number:02d}_T1w.nii.gz")
    return folder
