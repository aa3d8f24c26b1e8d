"""Train methods and seeds with one budget, and score them together: one call, one table.

    OUT/  compare.json            the budget, the command, the hardware, the time of each run
          runs/<method>-<seed>/   as `train` writes it
          eval/                   as `evaluate` writes it

A comparison that was stopped can be resumed. Finished runs are kept, and the stopped run continues
at its last checkpoint with the rest of its budget.
"""

import json
import logging
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from maediff import __version__
from maediff.anomaly.postprocess import DEFAULT, apply_changes, check_symmetry
from maediff.cohort.cohort import Cohort
from maediff.core.config import flatten, merge, parse_settings
from maediff.core.device import resolve_device, resolve_precision
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, read_json, refuse_inputs_inside_output, write_json
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.threads import use_threads
from maediff.evaluation.admission import check_splits
from maediff.evaluation.evaluate import evaluate
from maediff.evaluation.scoring import DEFAULT_SCORING, ScoringConfig
from maediff.methods.registry import BASELINES, TRAINED
from maediff.methods.registry import resolve as resolve_method
from maediff.models.reference import split_settings
from maediff.preparation.config import PreparationConfig
from maediff.training.config import parse_duration, resolve_training
from maediff.training.train import train

logger = logging.getLogger(__name__)
Settings = Mapping[str, Any]
START_AGAIN = "choose another output folder, or use `overwrite=True` to start again"


@dataclass(frozen=True)
class Budget:
    """Resources of every run.

    Args:
        preset: "paper", "small" or "tiny".
        steps: training steps; None for those of the preset.
        max_time: wall time of the training as `parse_duration` reads it, for example "10m"; None
            for no limit.
    """

    preset: str
    steps: int | None = None
    max_time: str | None = None


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run to train, and how it is scored.

    Args:
        method: name of the method.
        seed: training seed.
        settings: training settings, as `train` accepts them.
        test_settings: texts `KEY=VALUE,...`, one for each time that the run is scored; the empty
            text changes nothing.
        variant: settings after the colon of METHOD, as given; empty without a colon.
    """

    method: str
    seed: int
    settings: dict[str, Any]
    test_settings: tuple[str, ...]
    variant: str = ""

    @property
    def name(self) -> str:
        """Name of the run folder, for example `pddpm-0` or `maediff,r=16-0`."""
        variant = f",{self.variant}" if self.variant else ""
        return f"{self.method}{variant}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """The runs of a comparison and their budget.

    Args:
        budget: resources of every run.
        runs: in the order of training.
    """

    budget: Budget
    runs: tuple[PlannedRun, ...]


def plan_runs(
    methods: Sequence[str],
    seeds: Sequence[int],
    budget: Budget,
    settings: Settings | None = None,
    method_seeds: Mapping[str, Sequence[int]] | None = None,
) -> Plan:
    """Check a comparison and list its runs: all methods with the first seed, then the next seed.

    Args:
        methods: `METHOD[:KEY=VALUE,...][@KEY=VALUE,...]`. Settings after the colon apply to the
            training, settings after the @ only to the test. `maediff` and `maediff:r=16` are two
            trainings; `pddpm@s=48` and `pddpm@s=16` share one.
        seeds: training seeds of every method.
        budget: resources of every run.
        settings: settings of every run, as `train` accepts them; those after a colon override
            them.
        method_seeds: seeds of single methods, instead of `seeds`.

    Raises:
        InputError: a method is unknown, is not trained or occurs twice; the seeds are invalid;
            settings do not fit a method.
    """
    tests = _group_by_training(methods)
    _check_seeds(seeds, method_seeds or {}, [name for name, _ in tests])
    runs: list[PlannedRun] = []
    for (name, variant), test_settings in tests.items():
        run_settings = settings or {}
        if budget.steps is not None:
            run_settings = merge(run_settings, {"train": {"steps": budget.steps}})
        run_settings = merge(run_settings, parse_settings(split_settings(variant)))
        resolve_training(budget.preset, run_settings.get("train", {}))
        method_settings = {key: value for key, value in run_settings.items() if key != "train"}
        for text in test_settings:
            changes = parse_settings(split_settings(text))
            resolve_method(name, budget.preset, merge(method_settings, changes))
        runs += [
            PlannedRun(
                method=name,
                seed=seed,
                settings=run_settings,
                test_settings=tuple(test_settings),
                variant=variant,
            )
            for seed in (method_seeds or {}).get(name, seeds)
        ]
    order = list(dict.fromkeys([*seeds, *(run.seed for run in runs)]))
    return Plan(budget, tuple(sorted(runs, key=lambda run: order.index(run.seed))))


def _group_by_training(methods: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Return (method, settings after the colon) -> the settings after each @.

    Raises:
        InputError: a method is unknown, is not trained or occurs twice.
    """
    tests: dict[tuple[str, str], list[str]] = {}
    for text in methods:
        training, _, test_settings = text.partition("@")
        name, _, variant = training.partition(":")
        if name in BASELINES:
            raise InputError(
                f"{text}: is not trained, and every table has it already; leave it out"
            )
        if name not in TRAINED:
            raise InputError(
                f"{text}: unknown method {name!r}; choose one of {', '.join(TRAINED)}"
            )
        if set(variant) & set("/\\:"):
            raise InputError(
                f"{text}: {variant} becomes a part of a folder's name, so it must not contain a "
                "slash or a colon; give this setting in `settings`"
            )
        if test_settings in tests.setdefault((name, variant), []):
            raise InputError(f"{text}: occurs twice; leave one out")
        tests[name, variant].append(test_settings)
    return tests


def _check_seeds(
    seeds: Sequence[int], method_seeds: Mapping[str, Sequence[int]], methods: Sequence[str]
) -> None:
    """Refuse seeds that occur twice or are negative, and seeds of a method that is not compared.

    Raises:
        InputError: names the seeds or the method.
    """
    for name, own_seeds in method_seeds.items():
        if name not in methods:
            raise InputError(
                f"`method_seeds`: {name!r} is not compared; "
                f"choose one of {', '.join(dict.fromkeys(methods))}"
            )
        _check_seed_list("method_seeds", own_seeds)
    _check_seed_list("seeds", seeds)


def _check_seed_list(argument: str, seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(
            f"`{argument}={list(seeds)}`: give each seed once, as a whole number from 0 up, "
            "for example 0,1,2"
        )


@hold_locks()
def compare(
    plan: Plan,
    cohort: str | Path,
    out: str | Path,
    *,
    calibrate_split: str = "val",
    score_split: str = "test",
    scoring: ScoringConfig = DEFAULT_SCORING,
    postprocess: Mapping[str, Any] | None = None,
    precision: str = "fp32",
    command: Sequence[str] = (),
    run: RunOptions = DEFAULT_RUN,
) -> dict[str, Any]:
    """Train the runs of a plan, score them on `cohort` and write everything to `out`.

    The start of each training is logged, unless `run` is quiet.

    Args:
        plan: from `plan_runs`.
        cohort: folder made by `preprocess`.
        out: folder for the results. It must be empty or not exist, unless `run` asks for `resume`
            or `overwrite`.
        calibrate_split, score_split, scoring, postprocess, precision: as for `evaluate`.
        command: the command line, for the notes.
        run: as for `evaluate`; the seed is that of the evaluation, not of the trainings.

    Returns:
        The content of eval/summary.json.

    Raises:
        InputError: as for `train` and `evaluate`; or `out` was made with another budget, cohort
            or settings.
        KeyboardInterrupt: a training was stopped by hand; the finished runs are kept.
    """
    cohort, out = Path(cohort), Path(out)
    run = replace(run, device=resolve_device(run.device))
    use_threads(run.threads, run.workers)  # before the record of the hardware
    # What `evaluate` would refuse is refused before hours of training.
    resolve_precision(precision, run.device)
    chosen = apply_changes(scoring.postprocess or DEFAULT, postprocess)
    limit_s = parse_duration(plan.budget.max_time)
    opened = Cohort.open(cohort)
    check_splits(opened, calibrate_split, score_split)
    registered = PreparationConfig.from_record(opened.meta).registered
    check_symmetry(chosen, registered, str(opened.path))
    refuse_inputs_inside_output(out, [cohort])
    fresh_folder(out, overwrite=run.overwrite, resume=run.resume)
    record = _open_record(out, plan.budget, opened, run.device, command)
    _check_same_settings(out, plan, record)
    for number, planned in enumerate(plan.runs, start=1):
        if record["runs"].get(planned.name, {}).get("done"):
            continue
        if not run.quiet:
            logger.info("%d/%d %s", number, len(plan.runs), planned.name)
        result = _train(planned, plan.budget, cohort, out, limit_s, run)
        is_done = result["step"] == result["steps"] or (
            limit_s is not None and result["seconds"] >= 0.999 * limit_s - 0.1  # times are rounded
        )
        record["runs"][planned.name] = {
            "method": planned.method,
            "seed": planned.seed,
            "settings": _as_json(planned.settings),
            "done": is_done,
            **{key: result[key] for key in ("step", "steps", "seconds", "best_val_loss")},
        }
        write_json(out / "compare.json", record)
        if not is_done:
            raise KeyboardInterrupt
    references = [
        str(out / "runs" / planned.name) + (f"@{text}" if text else "")
        for planned in plan.runs
        for text in planned.test_settings
    ]
    return evaluate(
        references,
        cohort,
        out / "eval",
        calibrate_split=calibrate_split,
        score_split=score_split,
        scoring=scoring,
        postprocess=postprocess,
        precision=precision,
        notes=_describe_runs(record, plan),
        run=replace(run, resume=False, overwrite=True),
    )


def _train(
    planned: PlannedRun,
    budget: Budget,
    cohort: Path,
    out: Path,
    limit_s: float | None,
    run: RunOptions,
) -> dict[str, Any]:
    """Train a run, or continue it with the rest of its time, and return the result of `train`."""
    folder = out / "runs" / planned.name
    max_time = None if limit_s is None else f"{max(0.0, limit_s - seconds_used(folder)):.3f}s"
    return train(
        planned.method,
        cohort,
        folder,
        preset=budget.preset,
        # All methods and contrasts share the preset's settings, so that tables can be compared.
        settings=merge({"train": {"recommended": False}}, planned.settings),
        max_time=max_time,
        run=RunOptions(
            device=run.device,
            seed=planned.seed,
            resume=True,
            quiet=run.quiet,
            threads=run.threads,
        ),
    )


def describe_hardware(device: str) -> dict[str, Any]:
    """Return processor, cores, threads, graphics card and versions, for the records.

    Args:
        device: "cpu" or "cuda".
    """
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


def _open_record(
    out: Path, budget: Budget, cohort: Cohort, device: str, command: Sequence[str]
) -> dict[str, Any]:
    """Return the content of compare.json, with this command added, and write it.

    Raises:
        InputError: compare.json of an earlier call is damaged, or has another budget or cohort.
    """
    fixed = {
        "budget": asdict(budget),
        "cohort_hash": cohort.hash,
        "modality": cohort.meta["modality"],
    }
    path, runs, commands, machines = out / "compare.json", {}, [], []
    if path.is_file():
        stored = read_json(path, remedy=START_AGAIN)
        runs, commands, machines = (stored.get(key) for key in ("runs", "commands", "hardware"))
        if not (
            isinstance(runs, dict) and isinstance(commands, list) and isinstance(machines, list)
        ):
            raise InputError(f"{path}: damaged; {START_AGAIN}")
        for key, value in fixed.items():
            if stored.get(key) != value:
                raise InputError(
                    f"{out}: was started with {key} {stored.get(key)}, but {key} is now {value}; "
                    "resume with the same budget and cohort, or choose another output folder"
                )
    facts, typed = describe_hardware(device), shlex.join(command)
    record = {
        **fixed,
        "commands": [*commands, typed] if typed and typed not in commands else commands,
        "hardware": machines if facts in machines else [*machines, facts],
        "maediff": __version__,
        "runs": runs,
    }
    write_json(path, record)
    return record


def _check_same_settings(out: Path, plan: Plan, record: Mapping[str, Any]) -> None:
    """Refuse a run that an earlier call trained with other settings.

    Raises:
        InputError: names the run and both settings.
    """
    for planned in plan.runs:
        stored = record["runs"].get(planned.name)
        if stored and stored["settings"] != _as_json(planned.settings):
            raise InputError(
                f"{out / 'runs' / planned.name}: was trained with {stored['settings']}, but the "
                f"settings are now {planned.settings}; choose another output folder"
            )


def seconds_used(run: Path) -> float:
    """Return the training time of a run folder's last checkpoint in seconds; 0 without one."""
    try:
        return float(read_json(run / "provenance.json")["wall_seconds"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _describe_runs(record: Mapping[str, Any], plan: Plan) -> list[str]:
    """Return the notes on budget, hardware and settings of the runs."""
    budget = plan.budget
    runs = {planned.name: record["runs"][planned.name] for planned in plan.runs}
    trained = (resolve_training(budget.preset, p.settings.get("train", {})) for p in plan.runs)
    sizes = dict.fromkeys(f"{each.steps} steps of {each.batch_size} slices" for each in trained)
    limit = f", at most {budget.max_time} of training" if budget.max_time else ""
    machines = "; ".join(
        f"{facts.get('gpu') or facts['processor']}, {facts['cores']} cores, "
        f"{facts['threads']} threads"
        for facts in record["hardware"]
    )
    is_cpu = all(facts["device"] == "cpu" for facts in record["hardware"])
    minutes = sum(run["seconds"] for run in runs.values()) / 60
    notes = [
        f"{'CPU budget' if is_cpu else 'Budget'} of every run: preset {budget.preset}, "
        f"{' or '.join(sizes)}{limit}. "
        f"{len(runs)} runs, {minutes:.1f} minutes of training in total, on {machines}."
    ]
    stopped = [f"{name} {run['step']}" for name, run in runs.items() if run["step"] < run["steps"]]
    if stopped:
        notes.append(f"Stopped by the time limit, steps done: {', '.join(stopped)}.")
    by_settings: dict[str, list[str]] = {}
    for planned in plan.runs:
        text = ", ".join(f"{key}={value}" for key, value in flatten(planned.settings).items())
        if text and planned.method not in by_settings.setdefault(text, []):
            by_settings[text].append(planned.method)
    if by_settings:
        settings = "; ".join(
            f"{', '.join(methods)}: {text}" for text, methods in by_settings.items()
        )
        notes.append(f"Settings other than the preset's: {settings}.")
    return [*notes, *(f"Made by `{command}`." for command in record["commands"])]


def _as_json(settings: Settings) -> Any:
    """Return settings as JSON stores them: tuples become lists."""
    return json.loads(json.dumps(settings))
