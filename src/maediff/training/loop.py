"""The training loop: every step is a pure function of (weights, optimiser, seed, step).

Because slices, patches, t and noise of step n are drawn from a generator seeded with (seed, n), a run that was
stopped and resumed ends with the same weights as one that was not: there is no random state to carry.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from maediff.cohort.slices import SliceSet
from maediff.core.device import no_tf32
from maediff.core.errors import InputError
from maediff.core.files import write_json, write_table
from maediff.methods import Method
from maediff.models.folder import provenance
from maediff.models.weights import (
    load_optimizer,
    load_state,
    prune,
    read_weights,
    save_model,
    save_optimizer,
)
from maediff.training.augment import augment
from maediff.training.batches import (
    TRAIN,
    VALIDATE,
    batch_indices,
    slices_by_subject,
    stream,
    to_batch,
)
from maediff.training.config import TrainConfig, learning_rate
from maediff.training.cuda_graphs import graph_network
from maediff.training.lesions import fabricate


def update_ema(ema: Method, method: Method, decay: float, step: int) -> None:
    """Ema <- d ema + (1 - d) weights, with d = min(decay, (1 + step) / (10 + step)), to forget the first."""
    d = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(method.parameters()), 1 - d)
        for average, value in zip(ema.buffers(), method.buffers(), strict=True):
            average.copy_(value)


class _Step(nn.Module):
    """A loss as a module's forward, which is what Fabric wraps for precision and the device.

    It is given as a function: tensors that Fabric is given it rounds to bf16, and slices have more than 8 bits.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, loss: Callable[[], Tensor]) -> Tensor:
        return loss()


@contextmanager
def ctrl_c() -> Iterator[Event]:
    """Set by the first Ctrl-C, which interrupts nothing; the second one interrupts as ever.

    Never set outside the main thread, nor where somebody else handles or ignores Ctrl-C.
    """
    asked = Event()

    def first(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    ours = (
        current_thread() is main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if ours:
        signal.signal(signal.SIGINT, first)
    try:
        yield asked
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@torch.no_grad()
def validation_loss(ema: Method, slices: SliceSet, config: TrainConfig, fabric: Fabric) -> float:
    """Loss of the averaged weights on fixed slices with fixed t, noise and patches, so that checkpoints compare."""
    index = np.unique(
        np.linspace(0, len(slices.images) - 1, config.validation_slices).round().astype(int)
    )
    losses: list[float] = []
    ema.eval()
    for number, start in enumerate(range(0, len(index), config.batch_size)):
        batch = to_batch(slices, index[start : start + config.batch_size], fabric.device)
        with fabric.autocast():
            generator = stream(0, VALIDATE, number)
            seen = (
                fabricate(batch, config.fabricate, generator) if config.fabricate.share else None
            )
            loss = ema.objectives()[-1].loss(batch, generator, seen)
        losses += [float(loss)] * len(batch)
    return float(np.mean(losses))


class TrainingRun:
    """The state of a training: weights, their average, optimisers, step, history."""

    def __init__(
        self,
        method: Method,
        slices: SliceSet,
        validation: SliceSet | None,
        config: TrainConfig,
        out: Path,
        full_config: dict[str, Any],
        device: str,
        precision: str,
    ) -> None:
        plugin = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
        self.fabric = Fabric(accelerator=device, devices=1, precision=plugin)  # type: ignore[arg-type]
        self.slices, self.validation, self.config = slices, validation, config
        self.by_subject = slices_by_subject(np.asarray(slices.subject_index))
        self.out, self.full_config, self.precision = out, full_config, precision
        self.method, self.ema = method, deepcopy(method).requires_grad_(False)
        self.objectives = method.objectives()
        on_cuda = device == "cuda"
        fused = (
            True if on_cuda and precision != "fp16" else None
        )  # Fabric clips no gradients that Adam unscales itself
        optimizers = [
            torch.optim.Adam(o.parameters, config.learning_rate, o.betas, fused=fused)
            for o in self.objectives
        ]
        wrapped = self.fabric.setup(_Step(method), *optimizers)
        self.wrapped, self.optimizers = wrapped[0], list(wrapped[1:])
        self.ema.to(self.fabric.device)
        if on_cuda and config.cuda_graphs:
            with no_tf32():
                graph_network(
                    method,
                    config.batch_size,
                    {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision),
                )
        self.step, self.seconds, self.best = 0, 0.0, float("inf")
        self.history: list[dict[str, Any]] = []

    def restore(self) -> bool:
        """Go back to the last checkpoint, if there is one; a run killed before it starts from the beginning."""
        path = self.out / "last" / "model.safetensors"
        if not path.is_file():
            return False
        name = self.full_config["method"]
        weights, self.step = read_weights(path, "weights.", name)
        load_state(self.method, weights, path)
        load_state(self.ema, read_weights(path, "ema.", name)[0], path)
        state = load_optimizer(self.out / "last", self.step)
        try:
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.seconds, self.best, self.history = (
                state["seconds"],
                state["best"],
                state["history"],
            )
            scaler = getattr(self.fabric.strategy.precision, "scaler", None)
            if scaler is not None and state["scaler"]:
                scaler.load_state_dict(state["scaler"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path.parent}: the optimizer's state is not of this training ({type(error).__name__}: {error}); "
                "train again with --overwrite"
            ) from None
        return True

    def save(self, loss: float) -> None:
        """Validate, then write last/, best/ if it is the best, metrics.csv and provenance.json.

        Only regular checkpoints and the last step count for best/, so that a training that is stopped and gone on with
        ends with the same one. `checkpoint.load_model` sees where it did better when it was stopped.
        """
        value = float("nan")  # also while what is validated has not been trained
        if self.validation and self.objectives[-1].has_begun(self.step - 1, self.config.steps):
            value = validation_loss(self.ema, self.validation, self.config, self.fabric)
        row = {
            "step": self.step,
            "train_loss": loss,
            "val_loss": value,
            "seconds": round(self.seconds, 2),
        }
        self.history.append(row)
        counts = self.step % self.config.checkpoint_every == 0 or self.step == self.config.steps
        improved = counts and value < self.best
        self.best = value if improved else self.best
        name, last = self.full_config["method"], self.out / "last"
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        state = {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "seconds": self.seconds,
            "best": self.best,
            "history": self.history,
            "scaler": scaler.state_dict() if scaler else None,
        }
        save_optimizer(last, state, self.step)
        for folder in (self.out / "best", last) if improved else (last,):
            save_model(
                folder / "model.safetensors",
                self.method,
                self.ema,
                name=name,
                step=self.step,
                val_loss=value,
            )
        prune(self.out, self.step)
        write_table(
            self.out / "metrics.csv", list(row), [list(line.values()) for line in self.history]
        )
        write_json(
            self.out / "provenance.json",
            provenance(
                seed=self.full_config["seed"],
                device=str(self.fabric.device),
                precision=self.precision,
                cohort_hash=self.full_config["cohort"]["hash"],
                step=self.step,
                wall_seconds=round(self.seconds, 1),
                parameters=sum(p.numel() for p in self.method.parameters()),
            ),
        )

    def train_step(self) -> float:
        """One step of every objective that is due; the mean of their losses."""
        config, seed = self.config, self.full_config["seed"]
        generator = stream(seed, TRAIN, 2 * self.step)
        index = batch_indices(self.by_subject, config.batch_size, seed, self.step)
        x = to_batch(self.slices, index, self.fabric.device)
        if config.flip:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored.to(x.device)[:, None, None, None], x.flip(-1), x)
        if config.augment.active:
            brain = torch.from_numpy(
                np.ascontiguousarray(self.slices.brain[np.asarray(index)])
            ).to(x.device)[:, None]
            if config.flip:
                brain = torch.where(
                    mirrored.to(x.device)[:, None, None, None], brain.flip(-1), brain
                )
            x = augment(x, brain, config.augment, generator)
        seen = fabricate(x, config.fabricate, generator) if config.fabricate.share else None
        losses = []
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            if not objective.is_due(self.step, config.steps):
                continue
            self.wrapped.zero_grad()  # of the objectives before as well
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, self.step)
            loss = self.wrapped(partial(objective.loss, x, generator, seen))
            self.fabric.backward(loss)
            self.fabric.clip_gradients(
                self.wrapped, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
            )
            optimizer.step()
            losses.append(float(loss.detach()))
        update_ema(self.ema, self.method, config.ema_decay, self.step)
        self.step += 1
        return float(np.mean(losses))

    @no_tf32()
    def train(self, limit: float | None, quiet: bool) -> dict[str, Any]:
        """Steps until the budget is used, with a checkpoint every so often and at the end.

        Ctrl-C ends it like a budget: after the step in hand, which is saved. A second one ends it at once.

        Raises:
            KeyboardInterrupt: the second Ctrl-C, or one that came when the budget was used anyway.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        state, stderr = TextColumn("{task.fields[state]}"), Console(stderr=True)
        with (
            ctrl_c() as asked,
            Progress(*columns, state, disable=quiet, console=stderr) as progress,
        ):
            try:
                used_up = self._steps(limit, progress, asked)
            except KeyboardInterrupt:
                restored = self.restore()  # the step may be half done
                there = (
                    f"goes on from the checkpoint at step {self.step}"
                    if restored
                    else "starts from the beginning"
                )
                nothing = "" if restored else ", before anything was saved"
                progress.console.print(f"stopped at once by hand{nothing}; --resume {there}")
                raise
        if asked.is_set() and used_up:
            raise KeyboardInterrupt
        lowest = min(
            [
                self.best,
                *(row["val_loss"] for row in self.history[-1:] if np.isfinite(row["val_loss"])),
            ]
        )
        best = lowest if lowest < float("inf") else None
        return {
            "step": self.step,
            "steps": self.config.steps,
            "seconds": self.seconds,
            "best_val_loss": best,
        }

    def _steps(self, limit: float | None, progress: Progress, asked: Event) -> bool:
        """The steps of `train`; whether they ended because the budget was used."""
        began, before = time.monotonic(), self.seconds
        recent: list[float] = []
        task = progress.add_task(
            "training", total=self.config.steps, completed=self.step, state=""
        )
        used_up = self.step == self.config.steps
        stopped = used_up
        while not stopped:
            self.method.train()
            recent.append(self.train_step())
            if not np.isfinite(recent[-1]) and self.precision != "fp16":
                raise InputError(
                    f"{self.out}: the loss is not finite at step {self.step}; lower train.learning_rate"
                )
            elapsed = time.monotonic() - began
            self.seconds = before + elapsed
            state = f"loss {np.mean(recent[-50:]):.4f}  {self.step / self.seconds:.1f} steps/s"
            progress.update(task, completed=self.step, state=state)
            used_up = self.step == self.config.steps or (limit is not None and elapsed >= limit)
            stopped = used_up or asked.is_set()
            if stopped and not used_up:
                progress.console.print(
                    f"stopping by hand, saving step {self.step}; Ctrl-C again stops at once"
                )
            if stopped or self.step % self.config.checkpoint_every == 0:
                self.save(float(np.mean(recent)))
                recent.clear()
        return used_up
