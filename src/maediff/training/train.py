"""`maediff train`: check the request, prepare the run folder, run the training loop, calibrate.

RUN/config.json            the resolved settings
RUN/train_subjects.json    codes of the people whose scans the run learns from
RUN/last/, RUN/best/, RUN/metrics.csv, RUN/provenance.json    see maediff.training.checkpoint
RUN/calibration.json       thresholds from the healthy scans of the val split
"""

import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import distributed

from maediff.cohort.cohort import Cohort
from maediff.cohort.slices import SliceSet
from maediff.cohort.splits import person_code
from maediff.core.config import SettingsError, flatten, merge, take_group
from maediff.core.device import no_tf32, resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_json
from maediff.core.options import DEFAULT_RUN, RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.processes.threads import use_threads
from maediff.core.progress import Progress
from maediff.methods.base import Method
from maediff.methods.registry import BASELINES, build, resolve
from maediff.models.calibrate import calibrate_folder
from maediff.models.folder import TRAINED_ON, config_of, plain, read_config, write_config
from maediff.models.model import TrainedMethod, read_model
from maediff.models.weights import load_state
from maediff.preparation.config import SHARED, PreparationConfig
from maediff.training.checkpoint import restore_checkpoint, save_checkpoint
from maediff.training.config import (
    TrainConfig,
    parse_duration,
    resolve_training,
    training_precision,
)
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
            `maediff.report.LiveReport()`. With several `devices`, it must be possible to pickle
            it.
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
    request = _resolve_request(method, out, preset, settings, init, run)
    check_batch_size(request.train.batch_size, run.devices, run.nodes)
    check_devices(device, run.devices)
    if launcher == "maediff":
        result: dict[str, Any] = run_ranks(
            train,
            {
                "method": method,
                "cohort": cohort,
                "out": out,
                "preset": request.preset,
                "settings": settings,
                "max_time": max_time,
                "init": init,
                "on_checkpoint": on_checkpoint,
                "run": run,
            },
            run.devices,
        )
        return {key: value for key, value in result.items() if key != "rank"}
    if not ranks.is_first:
        logging.getLogger("maediff").setLevel(logging.ERROR)
        run = replace(run, quiet=True)
    precision = training_precision(request.train.precision, device)
    resolve(method, request.preset, request.settings)  # refused before the cohort is read
    opened = Cohort.open(Path(cohort))
    network = _build_network(request, str(opened.meta["modality"]))
    slices, validation = _read_slices(opened, network)
    config = _describe_run(request, network, opened)
    initial, postprocess = request.initial, None
    if initial:
        warn_about_scans(initial, opened)
        postprocess = postprocess_for(initial, opened)
        config["postprocess"] = plain(postprocess)
        remedy = "leave out `preset` and the network's settings, or `init`"
        load_state(network, initial.method.state_dict(), initial.folder, remedy)
        refuse_inputs_inside_output(out, [initial.folder])
    refuse_inputs_inside_output(out, [opened.path])
    resuming = False
    if ranks.is_first:
        fresh_folder(out, overwrite=run.overwrite, resume=run.resume)
        resuming = _start_or_resume(out, config, _list_people(opened, initial))
    training = TrainingRun(
        network,
        slices,
        request.train,
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
        result["rank"] = ranks.rank
        # DDP must end before the group. Its last reference to the group would wait, with the GIL,
        # for a thread of the group that needs the GIL.
        del training
        gc.collect()
        distributed.destroy_process_group()
    has_weights = (out / "last" / "model.safetensors").is_file()
    if ranks.is_first and has_weights and request.train.calibration_scans:
        calibrate_folder(
            out,
            opened,
            device=device,
            postprocess=postprocess,
            max_scans=request.train.calibration_scans,
            default_fpr=initial.chosen_fpr if initial else None,
            quiet=run.quiet,
        )
    return result


def check_request(
    method: str,
    out: Path,
    *,
    modality: str,
    size: int,
    preset: str | None,
    settings: Mapping[str, Any] | None,
    max_time: str | int | float | None,
    run: RunOptions,
) -> str:
    """Refuse settings that `train` would refuse, before a folder is emptied or a scan is read.

    Args:
        method, out, preset, settings, max_time, run: as for `train`.
        modality: contrast of the scans; empty if it is not known yet.
        size: rows and columns of the slices.

    Returns:
        The preset of the run.

    Raises:
        InputError: an unknown or untrained method, or a setting that does not fit.
    """
    parse_duration(max_time)
    resolve(method)
    if method in BASELINES:
        raise _refuse_untrained(method)
    request = _resolve_request(method, out, preset, settings, None, run)
    training_precision(request.train.precision, resolve_device(run.device))
    wanted = resolve(method, request.preset, request.complete(modality))
    _check_slice_size(wanted, size, out.name)
    return request.preset


def _refuse_untrained(method: str) -> InputError:
    return InputError(
        f"`method={method!r}`: has nothing to train; `maediff evaluate` runs it untrained"
    )


@dataclass(frozen=True)
class _Request:
    """The settings of a call of `train`, resolved before the cohort is read.

    Args:
        method: name of the method.
        preset: name of the preset.
        settings: settings of the method that differ from the preset.
        train: settings of the training.
        seed: seed of the training.
        init: the model to start from, as the caller named it; None for random weights.
        initial: this model.
    """

    method: str
    preset: str
    settings: Mapping[str, Any]
    train: TrainConfig
    seed: int
    init: str | None
    initial: TrainedMethod | None

    @property
    def is_recommended(self) -> bool:
        """True if the run uses the settings that are recommended for the contrast."""
        return self.train.recommended and self.preset != "paper" and self.initial is None

    def complete(self, modality: str) -> Mapping[str, Any]:
        """Return the settings of the method, with those that are recommended for a contrast."""
        if not self.is_recommended:
            return self.settings
        return merge(recommend_settings(self.method, modality), self.settings)


def _resolve_request(
    method: str,
    out: Path,
    preset: str | None,
    settings: Mapping[str, Any] | None,
    init: str | Path | None,
    run: RunOptions,
) -> _Request:
    """Return the preset and the settings of a run: from the caller, `init`, or the run to resume.

    Raises:
        InputError: `settings` is no mapping, a setting of the training does not fit, or `init` is
            no model of this method.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise SettingsError(f"`settings={settings!r}`: give a mapping of setting to value")
    requested = dict(settings or {})
    started = read_config(out) if run.resume and (out / "config.json").is_file() else None
    initial = read_model(init) if init else None
    preset = None if preset == "auto" else preset
    if initial:
        preset, requested = adopt_settings(initial, method, preset, requested)
    preset = preset or (
        started["preset"] if started else _choose_preset(resolve_device(run.device))
    )
    if started and "recommended" not in started["train"]:  # started by an older version
        requested = merge({"train": {"recommended": False}}, requested)
    train_config = resolve_training(preset, take_group(requested, "train"))
    return _Request(
        method=method,
        preset=preset,
        settings=requested,
        train=train_config,
        seed=run.seed,
        init=str(init) if init else None,
        initial=initial,
    )


def _build_network(request: _Request, modality: str) -> Method:
    """Return the method to train, with random weights.

    Raises:
        InputError: the method has nothing to train, or its settings do not fit.
    """
    settings = request.complete(modality)
    network = build(request.method, request.preset, settings, request.seed)
    if not network.objectives():
        raise _refuse_untrained(request.method)
    return network


def _read_slices(cohort: Cohort, network: Method) -> tuple[SliceSet, SliceSet | None]:
    """Return the slices to train on, and those to validate on; None without a healthy val scan.

    Raises:
        InputError: no healthy training scan, or slices of another size than the network's.
    """
    slices = cohort.training_slices("train")
    validation = cohort.training_slices("val") if _has_healthy_slices(cohort, "val") else None
    _check_slice_size(network.config, slices.images.shape[-1], str(cohort.path))
    if validation is None:
        logger.warning(
            "%s: no healthy val scan, so the run has no validation loss and no thresholds; "
            "preprocess the scans again, or give some of them the split val",
            cohort.path,
        )
    return slices, validation


def _describe_run(request: _Request, network: Method, cohort: Cohort) -> dict[str, Any]:
    """Return the content of the run's config.json."""
    config = {
        "method": request.method,
        "preset": request.preset,
        "config": config_of(network),
        "train": plain(request.train),
        "seed": request.seed,
        "init": request.init,
        "cohort": {
            "hash": cohort.hash,
            **{key: cohort.meta[key] for key in COHORT_KEYS if key in cohort.meta},
        },
    }
    if request.is_recommended:
        registered = PreparationConfig.from_record(cohort.meta).registered
        modality = str(cohort.meta["modality"])
        config["postprocess"] = recommend_postprocess(modality, registered=registered)
    return config


def _list_people(cohort: Cohort, initial: TrainedMethod | None) -> set[str]:
    """Return the codes of the people that the run and its initial model learn from."""
    people = {person_code(row.dataset, row.subject) for row in cohort.split("train")}
    return people | (initial.learned_from if initial else frozenset())


def _choose_preset(device: str) -> str:
    """Return the preset for a device: `tiny` on a CPU, `small` on a GPU."""
    preset = "tiny" if device == "cpu" else "small"
    logger.info("preset %s, chosen for this device (%s)", preset, device)
    return preset


def _has_healthy_slices(cohort: Cohort, split: str) -> bool:
    """Return True if a scan of the split has a slice without a lesion."""
    return any(cohort.load(row).lesion_free.any() for row in cohort.split(split))


def _check_slice_size(config: Any, size: int, cohort: str) -> None:
    """Refuse a cohort whose slices are not of the method's size, in pixels."""
    expected = getattr(config, "size", size)
    if expected != size:
        raise InputError(
            f"{cohort}: slices of {size} pixels, but the method's size is {expected}; leave size "
            f"out, or preprocess with `grid.size={expected}`"
        )


def _start_or_resume(out: Path, config: dict[str, Any], people: set[str]) -> bool:
    """Write the settings of a new run, or check those of a run to resume.

    Args:
        out: the run folder.
        config: contents of the run's config.json.
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
    if saved.get("init"):  # such a run of an older version lacks the post-processing, too
        saved.setdefault("postprocess", config.get("postprocess"))
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
        run: the training.
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
