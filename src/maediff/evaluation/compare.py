"""`maediff compare`: every method and seed trained with the same budget, then scored together. One command, one table.

OUT/  compare.json            what was asked for, the command, the hardware, what each run took
      runs/<method>-<seed>/   as `maediff train` writes them
      eval/                   as `maediff evaluate` writes it

Stopped at any moment, it goes on with --resume: runs that are done are left alone, the one that was stopped goes on at
its last checkpoint with what is left of its budget.
"""

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from maediff import __version__
from maediff.cohort.cohort import Cohort
from maediff.core.config import flatten, merge, parse_settings
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output, write_json
from maediff.evaluation.evaluate import evaluate
from maediff.evaluation.scoring import DEFAULT_SCORING, ScoringConfig
from maediff.methods.registry import BASELINES, TRAINED
from maediff.methods.registry import resolve as resolve_method
from maediff.models.reference import split_settings
from maediff.training.config import parse_duration, resolve_training
from maediff.training.train import train

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """What every run may use: steps (None: the preset's) and wall time, as `parse_duration` reads it (None: any)."""

    preset: str
    steps: int | None
    max_time: str | None


@dataclass(frozen=True)
class Planned:
    """One run to train, and the settings at test that it is scored with ("" for its own)."""

    method: str
    seed: int
    settings: dict[str, Any]
    at_test: tuple[str, ...]
    own: str = ""
    """The settings in training that tell it from the method's other runs, as typed."""

    @property
    def name(self) -> str:
        """Of the run's folder: `pddpm-0`, or `maediff,r=16-0`."""
        return (
            f"{self.method},{self.own}-{self.seed}" if self.own else f"{self.method}-{self.seed}"
        )


def plan(
    methods: Sequence[str],
    seeds: Sequence[int],
    budget: Budget,
    settings: Settings | None = None,
    method_seeds: Mapping[str, Sequence[int]] | None = None,
) -> list[Planned]:
    """The runs, all methods of the first seed first, after everything about them has been checked.

    Args:
        methods: `METHOD[:KEY=VALUE,...][@KEY=VALUE,...]`: settings in training after a colon, at test after an @.
            `maediff` and `maediff:r=16` are two trainings, `pddpm@s=48` and `pddpm@s=16` share one.
        settings: for every run, as `train` takes them; what stands after a colon comes on top.
        method_seeds: seeds of single methods, instead of `seeds`.

    Raises:
        InputError: an unknown or untrained method, the same one twice, settings that do not fit.
    """
    at_test: dict[tuple[str, str], list[str]] = {}
    for text in methods:
        head, _, changes = text.partition("@")
        name, _, own = head.partition(":")
        if name in BASELINES:
            raise InputError(
                f"{text}: learns nothing and stands in every table anyway; leave it out"
            )
        if name not in TRAINED:
            raise InputError(f"{text}: method {name!r} is not known: one of {', '.join(TRAINED)}")
        if set(own) & set("/\\:"):
            raise InputError(
                f"{text}: {own} names a run's folder; give settings with a slash or colon by --set"
            )
        if changes in at_test.setdefault((name, own), []):
            raise InputError(f"{text}: given twice; leave one out")
        at_test[name, own].append(changes)
    compared = dict.fromkeys(name for name, _ in at_test)
    for name in method_seeds or {}:
        if name not in compared:
            raise InputError(
                f"seeds for {name!r}, which is not compared: one of {', '.join(compared)}"
            )
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(
            f"--seeds {', '.join(map(str, seeds)) or 'none'}: give each seed once, e.g. 0,1,2"
        )
    planned = []
    for (name, own), readings in at_test.items():
        of_run = merge(settings or {}, parse_settings(split_settings(own)))
        if budget.steps is not None:
            of_run = merge(of_run, {"train": {"steps": budget.steps}})
        of_method = {key: value for key, value in of_run.items() if key != "train"}
        resolve_training(budget.preset, of_run.get("train", {}))
        for text in readings:
            resolve_method(
                name, budget.preset, merge(of_method, parse_settings(split_settings(text)))
            )
        own_seeds = (method_seeds or {}).get(name, seeds)
        if min(own_seeds) < 0:
            raise InputError(
                f"seeds {', '.join(map(str, own_seeds))} of {name}: give whole numbers from 0 up"
            )
        planned += [Planned(name, seed, of_run, tuple(readings), own) for seed in own_seeds]
    order = {
        seed: index
        for index, seed in enumerate(dict.fromkeys([*seeds, *(p.seed for p in planned)]))
    }
    return sorted(planned, key=lambda p: order[p.seed])


def compare(
    planned: Sequence[Planned],
    budget: Budget,
    cohort: Path,
    out: Path,
    *,
    calibrate_split: str = "val",
    score_split: str = "test",
    config: ScoringConfig = DEFAULT_SCORING,
    post: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 16,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
    command: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Train what `plan` says, score it on `cohort`, write all to `out` and return the summary.

    Args:
        post: changes to the post-processing, by field of `PostprocessConfig`.
        seed: of the noise at test and of the bootstrap.
        command: what was typed, for the records.

    Raises:
        InputError: as `train` and `evaluate` raise it; or a folder that was made with another budget, cohort or
            settings.
        KeyboardInterrupt: stopped by hand in a training; what is done is kept.
    """
    limit, device = parse_duration(budget.max_time), resolve_device(device)
    opened = Cohort.open(cohort)
    refuse_inputs_inside_output(out, [cohort])
    fresh_folder(out, overwrite=overwrite, resume=resume)
    record = _record(out, budget, opened, device, command)
    for run in planned:
        known = record["runs"].get(run.name)
        if known and known["settings"] != _plain(run.settings):
            raise InputError(
                f"{out / 'runs' / run.name}: was trained with {known['settings']}, and {run.settings} is asked for "
                "now; choose another OUT"
            )
    for number, run in enumerate(planned, start=1):
        folder = out / "runs" / run.name
        if record["runs"].get(run.name, {}).get("done"):
            continue
        if not quiet:
            print(f"{number}/{len(planned)} {run.name}", file=sys.stderr, flush=True)  # noqa: T201 - where it is
        result = train(
            run.method,
            cohort,
            folder,
            preset=budget.preset,
            settings=run.settings,
            seed=run.seed,
            device=device,
            max_time=None if limit is None else f"{max(0.0, limit - seconds_used(folder)):.3f}s",
            resume=True,
            quiet=quiet,
        )
        done = result["step"] == result["steps"] or (
            limit is not None and result["seconds"] >= 0.999 * limit
        )
        record["runs"][run.name] = {
            "method": run.method,
            "seed": run.seed,
            "settings": _plain(run.settings),
            "done": done,
            **{key: result[key] for key in ("step", "steps", "seconds", "best_val_loss")},
        }
        write_json(out / "compare.json", record)
        if not done:
            raise KeyboardInterrupt
    references = [
        str(out / "runs" / run.name) + (f"@{text}" if text else "")
        for run in planned
        for text in run.at_test
    ]
    return evaluate(
        references,
        cohort,
        out / "eval",
        calibrate_split=calibrate_split,
        score_split=score_split,
        config=config,
        post=post,
        seed=seed,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        overwrite=True,
        notes=_notes(record, planned, budget),
        quiet=quiet,
    )


def hardware(device: str) -> dict[str, Any]:
    """What the runs were trained on: processor, cores, threads, graphics card, memory."""
    facts: dict[str, Any] = {
        "device": device,
        "processor": platform.processor() or platform.machine(),
    }
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        ]
        facts["processor"] = models[0] if models else facts["processor"]
    facts |= {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
    return facts | {
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _record(
    out: Path, budget: Budget, cohort: Cohort, device: str, command: Sequence[str]
) -> dict[str, Any]:
    """compare.json: that of an earlier call if it fits, with this command added."""
    fixed = {
        "budget": asdict(budget),
        "cohort_hash": cohort.hash,
        "modality": cohort.meta["modality"],
    }
    path, runs, commands, machines = out / "compare.json", {}, [], []
    if path.is_file():
        known = read_json(path, remedy="choose another OUT or add --overwrite")
        runs, commands, machines = known.get("runs"), known.get("commands"), known.get("hardware")
        if not (
            isinstance(runs, dict) and isinstance(commands, list) and isinstance(machines, list)
        ):
            raise InputError(f"{path}: damaged; choose another OUT or add --overwrite")
        for key, value in fixed.items():
            if known.get(key) != value:
                raise InputError(
                    f"{out}: was begun with {key} {known.get(key)}, and now it is {value}; a table is resumed with the "
                    "budget and cohort it was begun with, choose another OUT"
                )
    facts, typed = hardware(device), shlex.join(command)
    record = {
        **fixed,
        "commands": [*commands, typed] if typed and typed not in commands else commands,
        "hardware": machines if facts in machines else [*machines, facts],
        "maediff": __version__,
        "runs": runs,
    }
    write_json(path, record)
    return record


def seconds_used(run: Path) -> float:
    """Seconds of training that a run's last checkpoint holds; 0 before the first."""
    try:
        return float(read_json(run / "provenance.json")["wall_seconds"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _notes(record: Mapping[str, Any], planned: Sequence[Planned], budget: Budget) -> list[str]:
    """What a reader of the table has to know about how its runs were made."""
    runs = {run.name: record["runs"][run.name] for run in planned}
    trained = resolve_training(budget.preset, planned[0].settings.get("train", {}))
    time = f", at most {budget.max_time} of training" if budget.max_time else ""
    machine = "; ".join(
        f"{facts.get('gpu') or facts['processor']}, {facts['cores']} cores, {facts['threads']} threads"
        for facts in record["hardware"]
    )
    where = (
        "CPU budget" if all(facts["device"] == "cpu" for facts in record["hardware"]) else "Budget"
    )
    total = sum(run["seconds"] for run in runs.values())
    notes = [
        f"{where} of every run: preset {budget.preset}, {trained.steps} steps of {trained.batch_size} slices{time}. "
        f"{len(runs)} runs, {total / 60:.1f} minutes of training together, on {machine}."
    ]
    short = [f"{name} {run['step']}" for name, run in runs.items() if run["step"] < run["steps"]]
    if short:
        notes.append(f"Stopped by the time limit, steps done: {', '.join(short)}.")
    alike: dict[str, list[str]] = {}
    for run in planned:
        text = ", ".join(f"{key}={value}" for key, value in flatten(run.settings).items())
        if text and run.method not in alike.setdefault(text, []):
            alike[text].append(run.method)
    if alike:
        said = "; ".join(f"{', '.join(methods)}: {text}" for text, methods in alike.items())
        notes.append(f"Settings beside the preset's: {said}.")
    return [*notes, *(f"Made by `{text}`." for text in record["commands"])]


def _plain(settings: Settings) -> Any:
    return json.loads(json.dumps(settings))
