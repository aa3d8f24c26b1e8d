"""Kill commands at random moments, and start two commands on one output folder.

    python experiments/reliability/stop_commands.py kills --count 100 --minutes 5 --csv kills.csv
    python experiments/reliability/stop_commands.py pairs --count 2 --minutes 5 --csv pairs.csv

kills   SIGKILL at a random moment of preprocess, detect (one and two workers), train, calibrate.
        Then every file is read, and the command is resumed: killed again, or left to its end. The
        final folder is compared with that of an undisturbed run.
pairs   a command is started beside a running one, each with and without --resume. The folder is
        compared with that of an undisturbed run.

Packages are imported once; each run is a fork, so it is killed in its work and not in its imports.
Times are no part of the comparison. Inputs are tiny synthetic brains and models.
"""

import argparse
import csv
import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from safetensors import safe_open

from maediff.cohort.preprocess import preprocess
from maediff.core.errors import InputError
from maediff.core.files import MARKER, TEMPORARY
from maediff.core.options import RunOptions
from maediff.core.processes.lock import LOCK, hold_locks
from maediff.detection.detect import DetectOptions, detect
from maediff.models.calibrate import calibrate
from maediff.preparation.quality import QualityConfig
from maediff.scans.inputs.find import find_scans
from maediff.training.train import train

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
TIMES = ("seconds", "wall_seconds", "threads", "commit")
"""Entries of files that differ between two equal runs."""
CHAIN = 3
"""Kills of one run at most, before it is left to its end."""
KILL_COLUMNS = (
    "command",
    "kills",
    "damaged_files",
    "runs",
    "not_resumed",
    "different",
    "processes_left",
    "s",
)
PAIR_COLUMNS = ("command", "first", "second", "pairs", "refused", "wrong", "s")
Command = Callable[[Path, RunOptions], object]


def make_commands(folder: Path) -> dict[str, tuple[Command, RunOptions]]:
    """Write tiny inputs; return each command and its options."""
    from helpers.brains import made_brain, made_cohort, save
    from helpers.options import UNALIGNED
    from helpers.runs import made_run
    from helpers.training import FAST

    cohort = made_cohort(folder)
    run = made_run(folder / "run")
    for number in range(4):
        data, _, affine = made_brain((30, 36, 10), (4.0, 4.0, 8.0), seed=number)
        save(folder / "heads" / f"sub-{number}_T1w.nii.gz", data, affine)
    refs = find_scans([folder / "heads"])
    options = DetectOptions(qc=QualityConfig(align="never"))
    settings = {**FAST, "train": {**FAST["train"], "steps": 8}}

    def run_preprocess(out: Path, options: RunOptions) -> None:
        preprocess([folder / "heads"], out, modality="T1w", preparation=UNALIGNED, run=options)

    def run_detect(out: Path, chosen: RunOptions) -> None:
        report = detect(refs, out, model=run, threshold=0.2, options=options, run=chosen)
        assert not report.failures, report.failures

    def run_train(out: Path, options: RunOptions) -> None:
        train("maediff", cohort, out, preset="tiny", settings=settings, run=options)

    def run_calibrate(out: Path, options: RunOptions) -> None:
        # A calibration is short and starts again.
        chosen = RunOptions(device="cpu", quiet=True, overwrite=options.resume)
        calibrate(run, cohort, out, run=chosen)

    plain = RunOptions(device="cpu", quiet=True)
    two = RunOptions(device="cpu", quiet=True, workers=2)
    return {
        "preprocess": (run_preprocess, plain),
        "detect": (run_detect, plain),
        "train": (run_train, plain),
        "calibrate": (run_calibrate, plain),
        "detect, 2 workers": (run_detect, two),
    }


def start(command: Command, out: Path, options: RunOptions, *, resume: bool, log: Path) -> int:
    """Start a command in a process group of its own; return the number of the process.

    The process ends with 0, with 2 after an InputError, or with 3 after any other error.
    """
    process = os.fork()
    if process:
        return process
    code = 3
    try:
        os.setpgid(0, 0)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        logging.disable(logging.CRITICAL)
        with hold_locks():
            command(out, RunOptions(**{**vars(options), "resume": resume}))
        code = 0
    except InputError as error:
        os.write(1, str(error).encode())
        code = 2
    except BaseException:
        os.write(1, traceback.format_exc().encode())
    finally:
        os._exit(code)


def wait(process: int, seconds: float | None = None) -> int | None:
    """Return the exit code of a process; None if it still runs after `seconds`."""
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            return None
        time.sleep(0.002)


def group_is_alive(process: int, seconds: float) -> bool:
    """True if a process of the group still runs after `seconds`; it is then ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(process, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    return True


def final_files(out: Path) -> list[Path]:
    """Return the files of a folder without temporary ones, locks and the marker."""
    return sorted(
        path
        for path in out.rglob("*")
        if path.is_file()
        and not any(
            TEMPORARY.fullmatch(part) or part == MARKER or part.startswith(LOCK)
            for part in path.relative_to(out).parts
        )
    )


def read_content(path: Path) -> Any:
    """Return the content of a file without times; any exception means that it is damaged."""
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix in (".csv", ".tsv"):
        delimiter = "," if path.suffix == ".csv" else "\t"
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=delimiter))
        assert rows and len({len(row) for row in rows}) == 1, "cut off"
        kept = [i for i, name in enumerate(rows[0]) if name not in TIMES]
        return [[row[i] for i in kept] for row in rows]
    if path.name.endswith(".nii.gz"):
        image = nib.load(path)
        return [image.header.binaryblock.hex(), _hash(np.asarray(image.dataobj))]
    if path.suffix == ".npz":
        # A kill beside a checkpoint changes which checkpoints the report of a training shows.
        shown = ("steps", "references") if path.name == "samples.npz" else ()
        with np.load(path) as arrays:
            return {key: _hash(arrays[key]) for key in arrays if key not in shown}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: _hash(file.get_tensor(name).numpy()) for name in names}
    if path.suffix == ".pt":
        return _without_times(torch.load(path, weights_only=True))
    content = path.read_bytes()
    assert content and (path.suffix != ".png" or content.endswith(b"IEND\xaeB`\x82"))
    return hashlib.sha256(content).hexdigest()


def _hash(array: np.ndarray) -> str:
    data = np.ascontiguousarray(array)
    return hashlib.sha256(f"{data.dtype}{data.shape}".encode() + data.tobytes()).hexdigest()


def _without_times(value: Any) -> Any:
    """Return a value with hashes for tensors and without entries of TIMES."""
    if isinstance(value, dict):
        return {str(key): _without_times(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [_without_times(item) for item in value]
    return _hash(value.numpy()) if isinstance(value, torch.Tensor) else value


def read_folder(out: Path) -> tuple[dict[str, str], list[str]]:
    """Return the content of each file as JSON, and the names of damaged files."""
    contents, damaged = {}, []
    for path in final_files(out):
        name = str(path.relative_to(out))
        try:
            contents[name] = json.dumps(read_content(path), sort_keys=True, default=str)
        except Exception as error:
            damaged.append(f"{name}: {type(error).__name__}: {error}")
    return contents, damaged


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """Return the names of files that are in one folder only, or differ."""
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


class Bench:
    """Tiny inputs, and the undisturbed result of each command.

    Args:
        folder: an empty folder.
        rng: source of random moments.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.commands = make_commands(folder)
        self.expected: dict[str, tuple[dict[str, str], float]] = {}
        self.reports: list[str] = []
        self.log = folder / "log"

    def undisturbed(self, name: str) -> tuple[dict[str, str], float]:
        """Return the result of an undisturbed run, and its duration in seconds."""
        if name not in self.expected:
            out = self.folder / "undisturbed"
            shutil.rmtree(out, ignore_errors=True)
            started = time.monotonic()
            code = wait(self.start(name, out, resume=False))
            seconds = time.monotonic() - started
            if code:
                raise SystemExit(f"{name} ended with {code}: {self.log.read_text()}")
            self.expected[name] = (read_folder(out)[0], seconds)
        return self.expected[name]

    def start(self, name: str, out: Path, *, resume: bool, log: Path | None = None) -> int:
        """Start a command; see `start`."""
        command, options = self.commands[name]
        return start(command, out, options, resume=resume, log=log or self.log)

    def report(self, text: str) -> None:
        """Keep the description of a failure."""
        self.reports.append(text)

    def kill_one_run(self, name: str, most: int) -> dict[str, int]:
        """Run a command with up to `most` kills, to its end; return counts."""
        expected, seconds = self.undisturbed(name)
        out = self.folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        counts = dict.fromkeys(KILL_COLUMNS[1:-1], 0) | {"runs": 1}
        for _ in range(most):
            process = self.start(name, out, resume=out.exists())
            if wait(process, self.rng.uniform(0, 1.05 * seconds)) is not None:
                break
            os.kill(process, signal.SIGKILL)
            wait(process)
            counts["kills"] += 1
            if group_is_alive(process, 5.0):
                counts["processes_left"] += 1
                self.report(f"{name}: a process lived on")
            _, damaged = read_folder(out) if out.exists() else ({}, [])
            counts["damaged_files"] += len(damaged)
            self.reports += [f"{name}: damaged {text}" for text in damaged]
        code = wait(self.start(name, out, resume=out.exists()))
        if code:
            counts["not_resumed"] += 1
            self.report(f"{name}: not resumed, exit code {code}: {self.log.read_text()}")
            return counts
        if found := differences(expected, read_folder(out)[0]):
            counts["different"] += 1
            self.report(f"{name}: differs in {', '.join(found)}")
        leftovers = [path for path in out.rglob("*") if TEMPORARY.fullmatch(path.name)]
        if leftovers:
            counts["damaged_files"] += len(leftovers)
            self.report(f"{name}: left {leftovers}")
        return counts

    def start_pair(self, name: str, first: bool, second: bool) -> tuple[bool, bool]:
        """Start a command beside a running one on one folder.

        Args:
            name: the command.
            first: True if the running command resumes a killed one.
            second: True for a second command with --resume.

        Returns:
            True if the second command was refused; True if the folder is not as it must be.
        """
        expected, seconds = self.undisturbed(name)
        out, log = self.folder / "pair", self.folder / "log-2"
        shutil.rmtree(out, ignore_errors=True)
        if first:
            process = self.start(name, out, resume=False)
            if wait(process, seconds / 3) is None:
                os.kill(process, signal.SIGKILL)
                wait(process)
        process = self.start(name, out, resume=out.exists())
        while not (out.is_dir() and any(out.glob(f"{LOCK}*-{process}-*"))):
            time.sleep(0.001)
            if (ended := wait(process, 0)) is not None:
                raise SystemExit(f"{name} ended with {ended} unseen: {self.log.read_text()}")
        time.sleep(self.rng.uniform(0, seconds / 3))
        code = wait(self.start(name, out, resume=second, log=log))
        text = log.read_text()
        ended = wait(process, 0)
        still = ended is None  # the first command ran while the second came and went
        ended = wait(process) if still else ended
        refused = code == 2 and "has been writing" in text
        wrong = bool(ended) or (still and not refused) or code not in (0, 2)
        found = differences(expected, read_folder(out)[0])
        if wrong or found:
            self.report(f"{name}, resume {first}/{second}: {ended} {code} {text} {found}")
        return refused, wrong or bool(found)


def run_kills(
    bench: Bench, count: int, end: float, lines: list[dict[str, Any]], save: Callable[[], None]
) -> None:
    """Kill each command `count` times, as far as time allows; add to the lines of the CSV.

    Args:
        bench: inputs and commands.
        count: kills of each command.
        end: time at which no further run starts.
        lines: lines of the CSV.
        save: writes the lines.
    """
    for name in bench.commands:
        line = next((line for line in lines if line["command"] == name), None)
        if line is None:
            line = {"command": name} | dict.fromkeys(KILL_COLUMNS[1:], 0)
            lines.append(line)
        while line["kills"] < count and time.monotonic() < end:
            started = time.monotonic()
            for key, value in bench.kill_one_run(name, min(CHAIN, count - line["kills"])).items():
                line[key] += value
            line["s"] = round(line["s"] + time.monotonic() - started, 1)
            save()


def run_pairs(
    bench: Bench, count: int, end: float, lines: list[dict[str, Any]], save: Callable[[], None]
) -> None:
    """Start `count` pairs of each command and combination; see `run_kills`."""
    names = [name for name in bench.commands if name != "calibrate"]  # it has no --resume
    for name, first, second in itertools.product(names, (False, True), (False, True)):
        key = {"command": name, "first": _option(first), "second": _option(second)}
        line = next((line for line in lines if key.items() <= line.items()), None)
        if line is None:
            line = key | dict.fromkeys(PAIR_COLUMNS[3:], 0)
            lines.append(line)
        while line["pairs"] < count and time.monotonic() < end:
            started = time.monotonic()
            refused, wrong = bench.start_pair(name, first, second)
            line["pairs"] += 1
            line["refused"] += refused
            line["wrong"] += wrong
            line["s"] = round(line["s"] + time.monotonic() - started, 1)
            save()


def _option(resume: bool) -> str:
    return "--resume" if resume else "new"


def read_lines(path: Path | None) -> list[dict[str, Any]]:
    """Return the lines of a CSV of earlier calls, with numbers."""
    if path is None or not path.is_file():
        return []
    texts = ("command", "first", "second")
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {
                key: value if key in texts else float(value) if key == "s" else int(value)
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]


def write_lines(
    path: Path | None, columns: Sequence[str], lines: Sequence[Mapping[str, Any]]
) -> None:
    """Write the CSV, if one was asked for."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def build_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("kills", "pairs"))
    parser.add_argument("--count", type=int, default=100, help="kills or pairs of each command")
    parser.add_argument("--only", nargs="+", help="names of the commands; default: all")
    parser.add_argument("--minutes", type=float, default=5.0, help="stop after this time")
    parser.add_argument("--csv", type=Path, help="add the counts here; a second call continues")
    parser.add_argument("--seed", type=int, help="seed of the moments; default: another each time")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the counts of kills or pairs, and describe every failure."""
    options = build_parser().parse_args(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    end = time.monotonic() + 60 * options.minutes
    lines = read_lines(options.csv)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), random.Random(options.seed))  # noqa: S311
        if options.only:
            bench.commands = {name: bench.commands[name] for name in options.only}
        kills = options.what == "kills"
        columns = KILL_COLUMNS if kills else PAIR_COLUMNS
        run = run_kills if kills else run_pairs
        run(bench, options.count, end, lines, partial(write_lines, options.csv, columns, lines))
    for report in bench.reports:
        print(report)
    for line in lines:
        print(", ".join(f"{key} {line[key]}" for key in columns))
    if bench.reports:
        sys.exit(1)


if __name__ == "__main__":
    main()
