"""Mutate inputs of every kind: each must be accepted, or refused with an InputError.

    python experiments/reliability/mutate_inputs.py --count 10000 --minutes 5 --csv fuzz.csv
    python experiments/reliability/mutate_inputs.py --case nifti:17        one case, with its error

Kinds: NIfTI and other image files, DICOM, manifests, JSON files of models and cohorts,
safetensors, and command lines. A mutation sets, flips, inserts or removes bytes, most of them in
the header, or cuts the file; a command line loses, repeats, exchanges or mutates arguments.

Cases run in a process that is replaced after a crash, a hang or a case that used much memory.
Counts are added to the CSV after every block of cases; a second call does the remaining blocks.
"""

import argparse
import csv
import gzip
import importlib
import json
import logging
import os
import random
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import nibabel as nib
import numpy as np
import torch

from maediff.cli import main as run_command_line
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.models.model import read_model
from maediff.scans.inputs.find import find_scans
from maediff.scans.read import read_scan

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (12, 13, 14)
AFFINE = np.array([[-2.0, 0, 0, 11], [0, 2, 0, -12], [0, 0, 3, -20], [0, 0, 0, 1]])
SPECIAL = (0, 1, 2**31 - 1, 2**32 - 1, 0x7FC00000, 0x7F800000, 0xFF800000)  # also NaN, infinity
TEXTS = ("", "-1", "nan", "inf", "1e999", "null", "true", "../..", "\x1b[31m", "\u202e", "=1+1")
TEXTS += ("9" * 400, "[" * 2000, '"', "\n", "\0", "2020-13-45", "{}", "0", "\udcff", "é" * 300)
HANG_SECONDS = 60.0
LIMIT_MB = 1000
"""Memory of one case: the files are tiny, so three times the true size is far less."""
BLOCK, SLOW_BLOCK = 250, 25  # cases; commands detect and train, so their blocks are small
SHARES = {
    "nifti": 0.40,
    "dicom": 0.15,
    "manifest": 0.15,
    "json": 0.12,
    "safetensors": 0.08,
    "commands": 0.10,
}
"""Share of the cases by kind."""
USED_BY_COMMANDS = (
    "SimpleITK",
    "matplotlib.pyplot",
    "torch._dynamo",
    "maediff.cohort.preprocess",
    "maediff.detection.detect",
    "maediff.evaluation.compare",
    "maediff.evaluation.evaluate",
    "maediff.models.calibrate",
    "maediff.report",
    "maediff.training.train",
)
COLUMNS = ("kind", "first", "count", "accepted", "refused", "escaped", "hangs", "peak_mb", "s")


@dataclass(frozen=True)
class Target:
    """A file to mutate, and what reads it.

    Args:
        file: the file.
        read: reads the file or its folder.
        header_bytes: number of bytes at the start in which 85 % of the changes are.
        is_text: also insert words.
    """

    file: Path
    read: Callable[[], object]
    header_bytes: int = 1 << 20
    is_text: bool = False


def mutate(content: bytes, header_bytes: int, rng: random.Random, *, is_text: bool) -> bytes:
    """Return the content with 1 to 16 changes.

    Args:
        content: a valid file.
        header_bytes: number of bytes at the start in which 85 % of the changes are.
        rng: source of random numbers.
        is_text: also insert words.
    """
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        end = min(len(changed), header_bytes) if rng.random() < 0.85 else len(changed)
        at, length, action = rng.randrange(end), rng.randrange(1, 9), rng.random()
        if is_text and rng.random() < 0.5:
            word = rng.choice(TEXTS).encode("utf-8", "surrogateescape")
            changed[at : at + rng.choice([0, length])] = word
        elif action < 0.4:
            changed[at] = rng.randrange(256)
        elif action < 0.6:
            changed[at] ^= 1 << rng.randrange(8)
        elif action < 0.7:
            changed[at : at + 4] = struct.pack("<I", rng.choice(SPECIAL))
        elif action < 0.8:
            del changed[at : at + length]
        elif action < 0.9:
            changed[at:at] = rng.randbytes(length)
        else:
            del changed[max(at, 1) :]
        changed = changed or bytearray(b"x")
    return bytes(changed)


def read_finite(path: Path) -> None:
    """Read a scan; finite values only.

    Raises:
        AssertionError: NaN or infinity was read.
    """
    scan = read_scan(path)
    assert np.isfinite(scan.data).all() and np.isfinite(scan.affine).all(), "not finite"


def read_cohort(folder: Path) -> None:
    """Open a cohort and load all of its scans."""
    cohort = Cohort.open(folder)
    for row in cohort.rows:
        cohort.load(row)


def read_model_completely(folder: Path) -> None:
    """Read a model, its weights and its default threshold."""
    model = read_model(folder)
    _ = (model.method, model.thresholds.default())


def write_images(folder: Path) -> dict[str, list[Target]]:
    """Write valid images of every format; return the targets by kind."""
    from helpers.dicom import write_enhanced, write_series

    voxels = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
    writers: dict[str, Callable[..., object]] = {
        "a.nii": nib.Nifti1Image,
        "b.nii": nib.Nifti2Image,
        "c.nii.gz": nib.Nifti1Image,
        "d.hdr": nib.Nifti1Pair,
        "e.mgz": nib.MGHImage,
    }
    nifti = []
    for name, image_class in writers.items():
        path = folder / name
        nib.save(image_class(voxels, AFFINE), path)
        nifti.append(Target(path, lambda path=path: read_finite(path), 600))
    series = write_series(folder / "series", voxels.astype(float), AFFINE)[:5]
    enhanced = write_enhanced(folder / "enhanced" / "x.dcm", voxels.astype(float), AFFINE)
    dicom = [Target(file, lambda: read_finite(folder / "series"), 1100) for file in series]
    dicom.append(Target(enhanced, lambda: read_finite(enhanced.parent), 3000))
    return {"nifti": nifti, "dicom": dicom}


def write_texts(folder: Path) -> dict[str, list[Target]]:
    """Write a manifest, a cohort and models; return the targets by kind."""
    from helpers.brains import made_cohort
    from helpers.runs import ABOUT, made_run
    from maediff.core.files import write_json
    from maediff.models.export import export_model

    cohort = made_cohort(folder)
    run = made_run(folder / "run")
    write_json(run / "train_subjects.json", ["a", "b"])
    export_model(run, folder / "shipped", ABOUT)
    manifest = cohort.parent / "scans" / "manifest.csv"
    manifests = [
        Target(manifest, lambda: find_scans([manifest], "T1w"), is_text=True),
        Target(cohort / "manifest.csv", lambda: read_cohort(cohort), is_text=True),
    ]
    names = ("config.json", "calibration.json", "train_subjects.json", "provenance.json")
    models = [run / name for name in names[:3]]
    models += [folder / "shipped" / name for name in (*names[:3], "card.json")]
    jsons = [
        Target(path, lambda path=path: read_model_completely(path.parent), is_text=True)
        for path in models
    ]
    image = next(cohort.glob("*/image.json"))
    jsons += [
        Target(path, lambda: read_cohort(cohort), is_text=True)
        for path in (cohort / "cohort.json", image)
    ]
    weights = [
        Target(run / "best" / "model.safetensors", lambda: read_model_completely(run), 4000),
        Target(
            folder / "shipped" / "model.safetensors",
            lambda: read_model_completely(folder / "shipped"),
            4000,
        ),
    ]
    return {"manifest": manifests, "json": jsons, "safetensors": weights}


def write_command_lines(folder: Path) -> list[list[str]]:
    """Return valid command lines on the files of `write_texts`; all of them end quickly."""
    cohort, run, scans = folder / "cohort", folder / "run", folder / "scans" / "manifest.csv"
    out = folder / "out"
    return [
        text.split()
        for text in (
            f"detect {scans} -o {out} --model {run} --threshold 0.5 --modality T1w --workers 1",
            f"detect {scans} -o {out} --model {run} --fpr 0.01 --brain-mask {scans} --resume",
            f"detect {scans} -o {out} --model {run}@t_test=60,s=24 --set brain.tool=synthstrip",
            f"preprocess {scans} -o {out} --manifest-only --modality T1w --fold 0 --layout plain",
            f"train maediff --cohort {cohort} -o {out} --preset tiny --max-time 1s --seed 1",
            f"calibrate {run} --cohort {cohort} -o {out} --max-scans 1 --overwrite --quiet",
            f"evaluate {run} --cohort {cohort} -o {out} --precision fp32 --set n_snapshots=0",
            f"compare dae ae --preset tiny --cohort {cohort} -o {out} --steps 1 --seeds 0,1",
            f"report {cohort}",
            "models",
        )
    ]


def mutate_arguments(arguments: list[str], rng: random.Random) -> list[str]:
    """Return a command line with 1 to 3 changes."""
    changed = list(arguments)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed)) if changed else 0
        action = rng.randrange(5)
        if action == 0:
            del changed[at : at + 1]
        elif action == 1:
            changed.insert(at, rng.choice([*arguments, "--help", "--", "-x", *TEXTS]))
        elif action == 2 and changed:
            changed[at] = rng.choice(TEXTS)
        elif action == 3 and changed:
            other = rng.randrange(len(changed))
            changed[at], changed[other] = changed[other], changed[at]
        elif changed:
            text = changed[at]
            place = rng.randrange(len(text) + 1)
            changed[at] = text[:place] + rng.choice(TEXTS) + text[place + rng.randrange(3) :]
    return [text.replace("\0", "?") for text in changed]  # no program can receive a zero byte


def run_arguments(arguments: Sequence[str]) -> str:
    """Run a command line; return "accepted" or "refused".

    Raises:
        AssertionError: an exit code that is not documented.
    """
    sys.argv = ["maediff", *arguments]
    try:
        run_command_line()
    except SystemExit as stop:
        assert stop.code in (None, 0, 1, 2), f"exit code {stop.code}"
        return "accepted" if not stop.code else "refused"
    return "accepted"


class Cases:
    """Valid inputs in a folder, and the mutated cases made of them.

    Args:
        folder: an empty folder.
        kinds: kinds of inputs to write.
    """

    def __init__(self, folder: Path, kinds: Sequence[str]) -> None:
        sys.path.insert(0, str(ROOT / "tests"))
        self.folder = folder
        self.targets: dict[str, list[Target]] = write_images(folder)
        self.commands: list[list[str]] = []
        if "commands" in kinds:
            for name in USED_BY_COMMANDS:  # once, and not in the process of every block
                importlib.import_module(name)
        if not set(kinds) <= {"nifti", "dicom"}:
            self.targets |= write_texts(folder)
            self.commands = write_command_lines(folder)
        files = {target.file for targets in self.targets.values() for target in targets}
        self.originals = {file: file.read_bytes() for file in files}
        self.process = os.getpid()

    def run(self, kind: str, number: int) -> str:
        """Run one case; return "accepted" or "refused", or raise what escaped."""
        rng = random.Random(f"{kind}-{number}")  # noqa: S311
        if self.process != os.getpid():  # an earlier process may have ended in a case
            self.process = os.getpid()
            for file, content in self.originals.items():
                file.write_bytes(content)
        if kind == "commands":
            shutil.rmtree(self.folder / "out", ignore_errors=True)
            os.chdir(self.folder)  # a mutated path may be relative
            return run_arguments(mutate_arguments(rng.choice(self.commands), rng))
        target = rng.choice(self.targets[kind])
        original = self.originals[target.file]
        is_packed = original.startswith(b"\x1f\x8b") and rng.random() < 0.7
        content = gzip.decompress(original) if is_packed else original
        changed = mutate(content, target.header_bytes, rng, is_text=target.is_text)
        target.file.write_bytes(gzip.compress(changed, 1) if is_packed else changed)
        try:
            target.read()
        except InputError:
            return "refused"
        finally:
            target.file.write_bytes(original)
        return "accepted"


def run_apart(works: Sequence[Callable[[], str]]) -> list[tuple[str, float, str]]:
    """Run cases one after the other, in a process that is replaced if a case ends it.

    Returns:
        For each case: "accepted", "refused", "escaped" or "hangs"; the memory that the process
        used besides its imports so far, in MB; and the traceback of an escaped exception.
    """
    outcomes: list[tuple[str, float, str]] = []
    while len(outcomes) < len(works):
        receive, send = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(receive)
            _run_in_child(works[len(outcomes) :], send)
        os.close(send)
        outcomes += _read_outcomes(receive, process, len(works) - len(outcomes))
    return outcomes


def _run_in_child(works: Sequence[Callable[[], str]], send: int) -> NoReturn:
    """Run cases, write a line about each, and end after one that used much memory."""
    silence = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silence, stream)
    used = _read_memory_mb()
    space = int((used["VmSize"] + 4 * LIMIT_MB) * 1e6)
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    for work in works:
        try:
            text = work()
        except BaseException:
            text = traceback.format_exc()
        added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - used["VmRSS"]
        os.write(send, (json.dumps([round(added), text[-8000:]]) + "\n").encode())
        if added > LIMIT_MB:
            break
    os._exit(0)


def _read_outcomes(receive: int, process: int, count: int) -> list[tuple[str, float, str]]:
    """Read the lines of a child until it ends or hangs; see `run_apart`."""
    outcomes: list[tuple[str, float, str]] = []
    pending, hangs = b"", False
    while len(outcomes) < count:
        if not select.select([receive], [], [], HANG_SECONDS)[0]:
            hangs = True
            os.kill(process, signal.SIGKILL)
            break
        piece = os.read(receive, 1 << 16)
        if not piece:
            break
        *lines, pending = (pending + piece).split(b"\n")
        for memory, text in map(json.loads, lines):
            known = text in ("accepted", "refused")
            outcomes.append((text if known else "escaped", float(memory), "" if known else text))
    os.close(receive)
    os.waitpid(process, 0)
    if hangs:
        outcomes.append(("hangs", 0.0, "no answer in time"))
    elif len(outcomes) < count and not (outcomes and outcomes[-1][1] > LIMIT_MB):
        outcomes.append(("escaped", 0.0, "the process crashed"))
    return outcomes


def _read_memory_mb() -> dict[str, float]:
    """Return the memory of this process, by name in /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines if line.startswith("Vm")]
    return {name.rstrip(":"): float(size) / 1024 for name, size, *_ in fields}


def plan_blocks(count: int) -> list[tuple[str, int, int]]:
    """Return (kind, number of the first case, number of cases) of each block."""
    blocks = []
    for kind, share in SHARES.items():
        total = round(count * share)
        size = SLOW_BLOCK if kind == "commands" else BLOCK
        blocks += [(kind, first, min(size, total - first)) for first in range(0, total, size)]
    return blocks


def run_block(
    cases: Cases, kind: str, first: int, count: int, failures: list[str]
) -> dict[str, object]:
    """Run a block of cases; return its line of the CSV."""
    started, counts, peak = time.monotonic(), Counter[str](), 0.0
    numbers = range(first, first + count)
    works = [partial(cases.run, kind, number) for number in numbers]
    for number, (outcome, memory, reason) in zip(numbers, run_apart(works), strict=True):
        counts["escaped" if memory > LIMIT_MB else outcome] += 1
        peak = max(peak, memory)
        if reason or memory > LIMIT_MB:
            failures.append(f"{kind}:{number} {memory:.0f} MB {reason}")
    line: dict[str, object] = {"kind": kind, "first": first, "count": count, **dict(counts)}
    return line | {"peak_mb": round(peak), "s": round(time.monotonic() - started)}


def read_lines(path: Path | None) -> list[dict[str, str]]:
    """Return the lines of the CSV; none if there is no file."""
    if path is None or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_lines(path: Path, lines: Sequence[Mapping[str, object]]) -> None:
    """Write the CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval=0, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="number of cases of all kinds")
    parser.add_argument("--minutes", type=float, default=5.0, help="stop after this time")
    parser.add_argument("--csv", type=Path, help="add the counts here, and skip finished blocks")
    parser.add_argument("--case", help="KIND:NUMBER: run this case and print its error")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print how many cases were accepted, refused, escaped or hung, and the highest memory."""
    options = build_parser().parse_args(arguments)
    logging.disable(logging.CRITICAL)
    os.environ["COLUMNS"] = "80"
    torch.set_num_threads(1)  # a process that forks must have no threads
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        if options.case:
            kind, _, number = options.case.partition(":")
            print(Cases(Path(folder), [kind]).run(kind, int(number)))
            return
        lines: list[Mapping[str, object]] = [*read_lines(options.csv)]
        done = {(line["kind"], int(str(line["first"]))) for line in lines}
        blocks = [block for block in plan_blocks(options.count) if block[:2] not in done]
        failures: list[str] = []
        cases = Cases(Path(folder), [kind for kind, _, _ in blocks])
        for kind, first, count in blocks:
            if time.monotonic() > end:
                print("stopped after --minutes; the same command with --csv continues")
                break
            lines.append(run_block(cases, kind, first, count, failures))
            while failures:
                print(failures.pop(0), flush=True)
            if options.csv:
                write_lines(options.csv, lines)
    total = {
        key: sum(int(str(line.get(key) or 0)) for line in lines)
        for key in ("count", "accepted", "refused", "escaped", "hangs")
    }
    peak = max((int(str(line["peak_mb"])) for line in lines), default=0)
    print(f"{total}, highest memory of a case {peak} MB")
    if total["escaped"] or total["hangs"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
