"""Checkpoints of a training run, and the files that describe its course.

    RUN/last/            weights, their moving average and the optimiser state of the last step
    RUN/best/            weights and their average at the lowest validation loss
    RUN/metrics.csv      a row per checkpoint: step, train_loss, val_loss, seconds, learning_rate
    RUN/samples.npz      reconstructions of the same slices over time (maediff.training.samples)
    RUN/provenance.json  versions, machine, cohort, wall time, and the command that trains the run

`maediff.models.weights` defines the format of the weights and the order in which they are written.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maediff.core.errors import InputError
from maediff.core.files import write_json, write_table
from maediff.models.folder import provenance
from maediff.models.weights import (
    load_optimizer,
    load_state,
    prune,
    read_weights,
    save_model,
    save_optimizer,
)
from maediff.training.command import training_command
from maediff.training.config import learning_rate
from maediff.training.loop import TrainingRun
from maediff.training.samples import SAMPLES, Samples, load_samples, save_samples, thin
from maediff.training.slices.batches import to_batch

MIN_BRAIN_SHARE = 0.5  # of the slice with most brain


def save_checkpoint(
    run: TrainingRun, folder: Path, settings: Mapping[str, Any], train_loss: float
) -> bool:
    """Validate, then write last/, best/ if it improved, and the files about the course.

    Only regular checkpoints and the last step compete for best/. An interrupted and resumed
    training therefore selects the same best checkpoint as an uninterrupted one. If the run did
    better where it was stopped, `read_model` uses last/ until the run is resumed.

    Args:
        run: the training.
        folder: the run folder.
        settings: contents of the run's config.json.
        train_loss: mean training loss since the previous checkpoint.

    Returns:
        True if best/ was written.

    Raises:
        InputError: a file could not be written.
    """
    val_loss = run.validate()
    row = {
        "step": run.step,
        "train_loss": train_loss,
        "val_loss": val_loss,
        "seconds": round(run.seconds, 2),
        "learning_rate": learning_rate(run.config, run.step - 1),
    }
    run.history.append(row)
    improved = run.checkpoint_due and val_loss < run.best
    if improved:
        run.best = val_loss
    last = folder / "last"
    save_optimizer(last, _collect_state(run), run.step)
    for part in (folder / "best", last) if improved else (last,):
        save_model(
            part / "model.safetensors",
            run.method,
            run.ema,
            name=settings["method"],
            step=run.step,
            val_loss=val_loss,
        )
    prune(folder, run.step)
    # Checkpoints of older versions have no learning rate.
    table = [[line.get(key, "") for key in row] for line in run.history]
    write_table(folder / "metrics.csv", list(row), table)
    write_json(folder / "provenance.json", _collect_provenance(run, settings))
    update_samples(run, folder, run.config.sample_slices)
    return improved


@torch.no_grad()
def update_samples(run: TrainingRun, folder: Path, count: int) -> None:
    """Reconstruct the slices at the current step, and write samples.npz.

    Training does not depend on it: the weights and the random numbers stay as they are.

    Args:
        run: the training.
        folder: the run folder.
        count: number of slices; 0 writes nothing.

    Raises:
        InputError: the file could not be written.
    """
    if count == 0:
        return
    slices = run.validation or run.slices
    area = np.asarray(slices.brain).sum(axis=(1, 2))
    candidates = np.flatnonzero(area >= MIN_BRAIN_SHARE * area.max())
    index = candidates[np.linspace(0, len(candidates) - 1, count + 2).round().astype(int)[1:-1]]
    brain = np.asarray(slices.brain[index])
    x = to_batch(slices, index, run.fabric.device)
    run.ema.eval()
    prediction = run.ema.predict(
        x,
        slice_ids=torch.arange(len(index), device=x.device),
        seed=0,
        brain=torch.from_numpy(brain).to(x.device)[:, None],
        batch_size=run.config.batch_size,
    )
    reference = prediction.reconstruction[:, 0].float().cpu().numpy()[None]
    samples = Samples(x[:, 0].cpu().numpy(), brain, np.array([run.step]), reference)
    try:
        known = load_samples(folder / SAMPLES)
    except InputError:
        known = None
    if known is not None and known.images.shape == samples.images.shape:
        before = known.steps < run.step
        samples = replace(
            samples,
            steps=np.concatenate([known.steps[before], samples.steps]),
            references=np.concatenate([known.references[before], reference]),
        )
    save_samples(folder / SAMPLES, thin(samples))


def _collect_state(run: TrainingRun) -> dict[str, Any]:
    """Return everything that `restore_checkpoint` needs besides the weights."""
    return {
        "optimizers": [optimizer.state_dict() for optimizer in run.optimizers],
        "seconds": run.seconds,
        "best": run.best,
        "history": run.history,
        "scaler": run.scaler.state_dict() if run.scaler else None,
    }


def _collect_provenance(run: TrainingRun, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contents of provenance.json at the current step."""
    used = {"step": run.step, "wall_seconds": round(run.seconds, 1)}
    return provenance(
        seed=settings["seed"],
        device=str(run.fabric.device),
        precision=run.precision,
        cohort_hash=settings["cohort"]["hash"],
        **used,
        parameters=sum(p.numel() for p in run.method.parameters()),
        command=training_command(settings, used),
    )


def restore_checkpoint(run: TrainingRun, folder: Path, method: str) -> bool:
    """Set `run` back to the checkpoint in `folder`/last.

    Args:
        run: the training; its weights, optimisers and history are replaced.
        folder: the run folder.
        method: name of the method that the weights must belong to.

    Returns:
        False if there is no checkpoint: the run was stopped before its first one.

    Raises:
        InputError: the checkpoint is damaged, or belongs to another training.
    """
    path = folder / "last" / "model.safetensors"
    if not path.is_file():
        return False
    weights, run.step = read_weights(path, "weights.", method)
    load_state(run.method, weights, path)
    load_state(run.ema, read_weights(path, "ema.", method)[0], path)
    state = load_optimizer(folder / "last", run.step)
    try:
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        run.seconds = state["seconds"]
        run.best = state["best"]
        run.history = state["history"]
        if run.scaler is not None and state["scaler"]:
            run.scaler.load_state_dict(state["scaler"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.parent}: the optimizer's state does not belong to this training "
            f"({type(error).__name__}: {error}); train again with `overwrite=True`"
        ) from None
    return True
