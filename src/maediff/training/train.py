"""`maediff train`: check the request, prepare the run folder, run the training loop, calibrate.

RUN/config.json            the resolved settings
RUN/train_subjects.json    codes of the people whose scans the run learns from
RUN/last/, RUN/best/, RUN/metrics.csv, RUN/provenance.json    see maediff.training.checkpoint
RUN/calibration.json       thresholds from the healthy scans of the val split
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import distributed

from maediff.anomaly.postprocess import PostprocessConfig
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.config import SettingsError, flatten, merge
from maediff.core.device import no_tf32, resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_json
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.threads import use_threads
from maediff.core.progress import Progress
from maediff.methods.base import Method
from maediff.methods.registry import METHODS, build, resolve
from maediff.models.calibrate import calibrate_folder
from maediff.models.folder import TRAINED_ON, config_of, plain, read_config, write_config
from maediff.models.model import read_model
from maediff.models.weights import load_state
from maediff.preparation.config import SHARED, PreparationConfig
from maediff.training.checkpoint import restore_checkpoint, save_checkpoint
from maediff.training.config import parse_duration, resolve_training, training_precision
from maediff.training.initial_model import adopt_settings, postprocess_for, warn_about_scans
from maediff.training.interrupt import deferred_interrupt
from maediff.training.launch import run_ranks
from maediff.training.loop import TrainingRun
from maediff.training.ranks import (
    LostRankError,
    any_rank,
    check_batch_size,
    check_devices,
    check_same_step,
    find_launcher,
    name_lost_ranks,
    rank_of,
)
from maediff.training.recommended import recommend_postprocess, recommend_settings

logger = logging.getLogger(__name__)
COHORT_KEYS = ("modality", *SHARED)
"""Keys of cohort.json that config.json keeps: a scan must be prepared in the same way."""
RECENT_STEPS = 50
"""Number of steps whose mean loss is shown."""


@hold_locks()
def train(
    method: str,
    cohort: str | Path,
    out: str | Path,
    *,
    preset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    max_time: str | int | float | None = None,
    init: str | Path | None = None,
    on_checkpoint: Callable[[Path], None] | None = None,
    run: RunOptions = DEFAULT_RUN,
) -> dict[str, Any]:
    """Train a method on the train split of a cohort, and write the run folder `out`.

    Ctrl-C stops the training after the current step and saves it. A second Ctrl-C stops at once.

    Args:
        method: name of a trained method, for example `maediff` or `dae`.
        cohort: folder made by `preprocess`.
        out: the run folder. It must not exist, unless `run` asks for `overwrite` or `resume`.
        preset: `paper`, `small`, `tiny` or `auto`: `tiny` on a CPU and `small` on a GPU. None: the
            preset of `init` or of the run to resume, or `auto`.
        settings: fields of the method's config, and under `train` those of `TrainConfig`.
        max_time: wall time of this call after which the training stops and saves: seconds, or
            text such as `90s`, `10m` or `1.5h`. None: no limit.
        init: a run or a shipped model whose averaged weights the run starts from. The run keeps
            the model's settings, unless `settings` or another `preset` override them.
        on_checkpoint: called with the run folder after each checkpoint, for example
            `maediff.report.LiveReport()`.
        run: device, seed, `threads`, `resume`, `overwrite`, `quiet`, `devices` and `nodes`; the
            other fields have no effect. A resumed run continues exactly where it stopped, also
            with another number of devices.

    Returns:
        `step` (steps done), `steps` (steps planned), `seconds` (wall time of the whole run) and
        `best_val_loss` (None if nothing was validated). With several processes that a launcher
        started, also `rank`, the number of this process.

    Raises:
        InputError: the method is not trained, the settings do not fit, the cohort has no healthy
            training scan, the loss is not finite, `out` exists, or a process of the training died.
        KeyboardInterrupt: Ctrl-C was pressed twice, or in the step that ended the training anyway.

    Example:
        ```python
        train("maediff", "cohort", "run", max_time="2h", run=RunOptions(seed=1))
        ```
    """
    out, limit_s, device = Path(out), parse_duration(max_time), resolve_device(run.device)
    use_threads(run.threads)
    launcher = find_launcher(run.devices, run.nodes)
    ranks = rank_of(launcher)
    if settings is not None and not isinstance(settings, Mapping):
        raise SettingsError(f"`settings={settings!r}`: give a mapping of setting to value")
    requested = dict(settings or {})
    started = read_config(out) if run.resume and (out / "config.json").is_file() else None
    initial = read_model(init) if init else None
    preset = None if preset == "auto" else preset
    if initial:
        preset, requested = adopt_settings(initial, method, preset, requested)
    preset = preset or (started["preset"] if started else _choose_preset(device))
    if started and "recommended" not in started["train"]:  # started by an older version
        requested = merge({"train": {"recommended": False}}, requested)
    train_config = resolve_training(preset, requested.pop("train", {}))
    check_batch_size(train_config.batch_size, run.devices, run.nodes)
    check_devices(device, run.devices)
    if launcher == "maediff":
        result: dict[str, Any] = run_ranks(
            train,
            {
                "method": method,
                "cohort": cohort,
                "out": out,
                "preset": preset,
                "settings": settings,
                "max_time": max_time,
                "init": init,
                "run": run,
            },
            run.devices,
        )
        return {key: value for key, value in result.items() if key != "rank"}
    if not ranks.is_first:
        logging.getLogger("maediff").setLevel(logging.ERROR)
        run = replace(run, quiet=True)
    precision = training_precision(train_config.precision, device)
    is_recommended = train_config.recommended and preset != "paper" and initial is None
    resolve(method, preset, requested)  # wrong settings are refused before the cohort is read
    opened = Cohort.open(Path(cohort))
    modality = str(opened.meta["modality"])
    if is_recommended and method in METHODS:
        requested = merge(recommend_settings(method, modality), requested)
    network = build(method, preset, requested, run.seed)
    if not network.objectives():
        raise InputError(
            f"`method={method!r}`: has nothing to train; `maediff evaluate` runs it untrained"
        )
    slices = opened.training_slices("train")
    validation = opened.training_slices("val") if _has_healthy_slices(opened, "val") else None
    _check_slice_size(network, slices.images.shape[-1], opened.path)
    if validation is None:
        logger.warning(
            "%s: no healthy val scan, so the run has no validation loss and no thresholds; "
            "preprocess the scans again, or give some of them the split val",
            opened.path,
        )
    config = {
        "method": method,
        "preset": preset,
        "config": config_of(network),
        "train": plain(train_config),
        "seed": run.seed,
        "init": str(init) if init else None,
        "cohort": {
            "hash": opened.hash,
            **{key: opened.meta[key] for key in COHORT_KEYS if key in opened.meta},
        },
    }
    if is_recommended:
        registered = PreparationConfig.from_record(opened.meta).registered
        config["postprocess"] = recommend_postprocess(modality, registered=registered)
    people = {person_code(row.dataset, row.subject) for row in opened.split("train")}
    postprocess: PostprocessConfig | None = None
    default_fpr: float | None = None
    if initial:
        warn_about_scans(initial, opened)
        people |= initial.learned_from
        postprocess, default_fpr = postprocess_for(initial, opened), initial.chosen_fpr
        remedy = "leave out `preset` and the network's settings, or `init`"
        load_state(network, initial.method.state_dict(), initial.folder, remedy)
        refuse_inputs_inside_output(out, [initial.folder])
    refuse_inputs_inside_output(out, [opened.path])
    resuming = False
    if ranks.is_first:
        fresh_folder(out, overwrite=run.overwrite, resume=run.resume)
        resuming = _start_or_resume(out, config, people)
    training = TrainingRun(
        network,
        slices,
        train_config,
        validation=validation,
        seed=run.seed,
        device=device,
        precision=precision,
        ranks=ranks,
        nodes=run.nodes,
    )
    # Rank 0 has prepared the folder before the other ranks come here.
    if resuming or not ranks.is_first:
        restore_checkpoint(training, out, method)
    check_same_step(training.step, ranks, training.fabric.device)
    result = run_training(
        training, out, config, limit_s=limit_s, on_checkpoint=on_checkpoint, quiet=run.quiet
    )
    if ranks.count > 1:
        distributed.destroy_process_group()
        result["rank"] = ranks.rank
    if ranks.is_first and (out / "last" / "model.safetensors").is_file():
        calibrate_folder(
            out,
            opened,
            device=device,
            postprocess=postprocess,
            max_scans=train_config.calibration_scans,
            default_fpr=default_fpr,
        )
    return result


def _choose_preset(device: str) -> str:
    """Return the preset for a device: `tiny` on a CPU, `small` on a GPU."""
    preset = "tiny" if device == "cpu" else "small"
    logger.info("preset %s, chosen for this device (%s)", preset, device)
    return preset


def _has_healthy_slices(cohort: Cohort, split: str) -> bool:
    """Return True if a scan of the split has a slice without a lesion."""
    return any(cohort.load(row).lesion_free.any() for row in cohort.split(split))


def _check_slice_size(network: Method, size: int, cohort: Path) -> None:
    """Refuse a cohort whose slices are not of the network's size, in pixels."""
    expected = getattr(network.config, "size", size)
    if expected != size:
        raise InputError(
            f"{cohort}: slices of {size} pixels, but the method's size is {expected}; leave size "
            f"out, or preprocess with `grid.size={expected}`"
        )


def _start_or_resume(out: Path, config: dict[str, Any], people: set[str]) -> bool:
    """Write the settings of a new run, or check those of a run to resume.

    Args:
        people: codes of the people that the run learns from. Evaluation refuses to score them.

    Returns:
        True if `out` holds a run to resume.

    Raises:
        InputError: the run was started with other settings.
    """
    if not (out / "config.json").is_file():
        write_json(out / TRAINED_ON, sorted(people))
        write_config(out, config)  # written last, because it makes the folder a run
        return False
    saved = read_config(out)
    # A run of an older version lacks the training settings that were added later.
    saved["train"] = plain(
        resolve_training(saved["preset"], {"recommended": False, **saved["train"]})
    )
    before, now = flatten(saved), flatten(config)
    for key in sorted({*before, *now} - {"format"}):
        if before.get(key) != now.get(key):
            raise InputError(
                f"{out}: the run was started with {key} {before.get(key)}, and {key} is now "
                f"{now.get(key)}; resume it with the settings that it was started with"
            )
    return True


@no_tf32()
def run_training(
    run: TrainingRun,
    out: Path,
    config: Mapping[str, Any],
    *,
    limit_s: float | None = None,
    on_checkpoint: Callable[[Path], None] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train until the last step or the time limit, with checkpoints, and show the progress.

    Args:
        out: the run folder.
        config: contents of the run's config.json.
        limit_s: wall time of this call, in seconds. None: no limit.
        on_checkpoint: see `train`.
        quiet: show no progress.

    Returns:
        The result of `train`.

    Raises:
        InputError: the loss is not finite, or a checkpoint could not be written.
        KeyboardInterrupt: Ctrl-C was pressed twice, or in the step that ended the training anyway.
    """
    with (
        deferred_interrupt() as interrupt,
        Progress(
            "training", run.config.steps, done=run.step, limit_s=limit_s, window=500, quiet=quiet
        ) as progress,
    ):
        try:
            budget_used = _run_steps(run, out, config, limit_s, on_checkpoint, interrupt, progress)
        except RuntimeError as error:
            if run.ranks.count == 1 or isinstance(error, torch.OutOfMemoryError):
                raise
            raise LostRankError(
                f"{out}: the training stopped after step {run.step}, because "
                f"{name_lost_ranks(run.ranks)} ({error}); the last checkpoint is kept: use "
                "`resume=True` to continue"
            ) from error
        except KeyboardInterrupt:
            # The interrupted step may have changed some of the weights.
            if restore_checkpoint(run, out, config["method"]):
                logger.warning("stopped at once; the last checkpoint is of step %d", run.step)
            else:
                logger.warning("stopped at once, before the first checkpoint: nothing was saved")
            raise
    if interrupt.is_set() and budget_used:
        raise KeyboardInterrupt  # `maediff compare` must not start its next training
    measured = [run.best, *(row["val_loss"] for row in run.history[-1:])]
    finite = [loss for loss in measured if np.isfinite(loss)]
    return {
        "step": run.step,
        "steps": run.config.steps,
        "seconds": run.seconds,
        "best_val_loss": min(finite, default=None),
    }


def _run_steps(
    run: TrainingRun,
    out: Path,
    config: Mapping[str, Any],
    limit_s: float | None,
    on_checkpoint: Callable[[Path], None] | None,
    interrupt: Event,
    progress: Progress,
) -> bool:
    """Train, save checkpoints, and stop at the time limit or at the first Ctrl-C.

    Returns:
        True if the last step or the time limit was reached, False if Ctrl-C stopped the run.
    """
    losses: list[float] = []  # since the last checkpoint
    budget_used = run.finished
    for record in run.records():
        if not np.isfinite(record.loss) and run.precision != "fp16":
            # In fp16 the gradient scaler skips such a step.
            raise InputError(
                f"{out}: the loss is not finite at step {record.step}; lower train.learning_rate"
            )
        losses.append(record.loss)
        speed = f"{record.step / run.seconds:.1f} steps/s"
        state = f"loss {np.mean(losses[-RECENT_STEPS:]):.4f}, {speed}"
        progress.advance(state, detail=True)
        late = limit_s is not None and record.elapsed_seconds >= limit_s
        late, interrupted = any_rank([late, interrupt.is_set()], run.ranks, run.fabric.device)
        budget_used = run.finished or late
        stopping = budget_used or interrupted
        if stopping and not budget_used:
            logger.warning("stopping and saving step %d; Ctrl-C again stops at once", record.step)
        if stopping or record.checkpoint_due:
            if run.ranks.is_first:
                save_checkpoint(run, out, config, float(np.mean(losses)))
                if on_checkpoint is not None:
                    on_checkpoint(out)
            losses.clear()
        if stopping:
            break
    return budget_used
