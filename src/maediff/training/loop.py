"""The training loop: every step is a pure function of (weights, optimiser, seed, step).

    x             = augment(flip(slices of step n))
    seen          = x with synthetic lesions
    loss          = objective.loss(x, generator, seen)      for each objective that is due
    weights       <- Adam(weights, clipped gradient of loss)
    ema           <- d ema + (1 - d) weights                 d = min(ema_decay, (1 + n) / (10 + n))

Several ranks share a batch, see `maediff.training.ranks`.

The generator of step n is seeded with (seed, n). A resumed run therefore ends with the same
weights as an uninterrupted one: no random state has to be stored.

The loop writes no file and prints nothing. `maediff.training.train` saves checkpoints, shows
progress and decides when to stop.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn

from maediff.cohort.slices import SliceSet
from maediff.core.device import no_tf32
from maediff.methods import Method
from maediff.training.config import TrainConfig, learning_rate
from maediff.training.cuda_graphs import graph_network
from maediff.training.ranks import ALONE, Ranks, RowDraws
from maediff.training.slices.augment import augment
from maediff.training.slices.batches import (
    TRAIN,
    VALIDATE,
    batch_indices,
    slices_by_subject,
    stream,
    to_batch,
)
from maediff.training.slices.lesions import fabricate


@dataclass(frozen=True)
class StepRecord:
    """One finished training step."""

    step: int
    """Steps done so far: 1 after the first step."""
    losses: dict[str, float]
    """Loss of each objective that was stepped, by the objective's name."""
    learning_rate: float
    """Learning rate of this step."""
    elapsed_seconds: float
    """Wall time since this call of `TrainingRun.records` began."""
    checkpoint_due: bool
    """True every `checkpoint_every` steps and at the last step."""

    @property
    def loss(self) -> float:
        """Mean of the losses."""
        return float(np.mean(list(self.losses.values())))


def update_ema(ema: Method, method: Method, decay: float, step: int) -> None:
    """Move the averaged weights: ema <- d ema + (1 - d) weights. Buffers are copied.

    Args:
        ema: the averaged weights; changed in place.
        method: the weights.
        decay: upper limit of d. In early steps d = (1 + step) / (10 + step), so that the average
            forgets the initial weights.
        step: the step, counted from 0.
    """
    d = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(method.parameters()), 1 - d)
        for average, value in zip(ema.buffers(), method.buffers(), strict=True):
            average.copy_(value)


class _Step(nn.Module):
    """A loss as a module's forward, which Fabric wraps for precision and device.

    The loss is passed as a closure, because Fabric casts tensor arguments to bf16, and slices
    have more than its 8 bits of precision.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, loss: Callable[[], Tensor]) -> Tensor:
        return loss()


@torch.no_grad()
def validation_loss(ema: Method, slices: SliceSet, config: TrainConfig, fabric: Fabric) -> float:
    """Return the loss of the averaged weights on a fixed set of slices.

    Slices, t, noise and patches are the same in every call, so the losses of two checkpoints can
    be compared. The loss is that of the method's last objective.

    Args:
        ema: the averaged weights.
        slices: `config.validation_slices` of them are used, evenly spaced.
        config: batch size, number of slices and synthetic lesions.
        fabric: device and precision.
    """
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


def _make_fabric(
    device: str, precision: str, ranks: Ranks, nodes: int, *, find_unused: bool
) -> Fabric:
    """Return Fabric for one process, or joined with the other ranks.

    Args:
        device: see `TrainingRun`.
        precision: see `TrainingRun`.
        ranks: see `TrainingRun`.
        nodes: see `TrainingRun`.
        find_unused: True if a loss does not depend on all parameters.
    """
    plugin: Any = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[precision]
    if ranks.count == 1:
        return Fabric(accelerator=device, devices=1, precision=plugin)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # a line for each rank
    fabric = Fabric(
        accelerator=device,
        devices=ranks.count // nodes,
        num_nodes=nodes,
        strategy=DDPStrategy(find_unused_parameters=find_unused),
        precision=plugin,
    )
    fabric.launch()
    return fabric


class TrainingRun:
    """State of a training run: weights, their moving average, optimisers, step and history.

    Args:
        method: moved to `device`, and trained in place.
        slices: training slices.
        config: settings of the training.
        validation: slices for the validation loss. None: the validation loss is NaN.
        seed: seed of slices, patches, t and noise, at least 0.
        device: `cpu`, `cuda` or `mps`.
        precision: `fp32`, `bf16` or `fp16`; fp16 needs CUDA.
        ranks: this process among those that train together.
        nodes: number of machines of these processes.

    Attributes:
        step: steps done.
        seconds: wall time of training, over all calls that contributed to this run.
        best: lowest validation loss of a regular checkpoint; infinity before the first.
        history: one row of metrics.csv for each checkpoint.
    """

    def __init__(
        self,
        method: Method,
        slices: SliceSet,
        config: TrainConfig,
        *,
        validation: SliceSet | None = None,
        seed: int = 0,
        device: str = "cpu",
        precision: str = "fp32",
        ranks: Ranks = ALONE,
        nodes: int = 1,
    ) -> None:
        self.ranks = ranks
        self.objectives = method.objectives()
        several = len(self.objectives) > 1  # each objective trains only a part of the parameters
        self.fabric = _make_fabric(device, precision, ranks, nodes, find_unused=several)
        self.slices = slices
        self.validation = validation
        self.config = config
        self.seed = seed
        self.precision = precision
        self.by_subject = slices_by_subject(np.asarray(slices.subject_index))
        self.method = method
        self.ema = deepcopy(method).requires_grad_(False)
        on_cuda = device == "cuda"
        # A fused Adam unscales fp16 gradients itself, and Fabric then refuses to clip them.
        fused = True if on_cuda and precision != "fp16" else None
        optimizers = [
            torch.optim.Adam(o.parameters, config.learning_rate, o.betas, fused=fused)
            for o in self.objectives
        ]
        wrapped = self.fabric.setup(_Step(method), *optimizers)
        self.wrapped, self.optimizers = wrapped[0], list(wrapped[1:])
        self.ema.to(self.fabric.device)
        if on_cuda and config.cuda_graphs and ranks.count == 1:
            autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
            with no_tf32():
                graph_network(method, config.batch_size, autocast)
        self.step = 0
        self.seconds = 0.0
        self.best = float("inf")
        self.history: list[dict[str, Any]] = []

    @property
    def finished(self) -> bool:
        """True once all steps are done."""
        return self.step == self.config.steps

    @property
    def scaler(self) -> Any:
        """The gradient scaler of fp16; None for other precisions."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    @property
    def checkpoint_due(self) -> bool:
        """True at a multiple of `checkpoint_every` and after the last step."""
        return self.step % self.config.checkpoint_every == 0 or self.finished

    def records(self) -> Iterator[StepRecord]:
        """Train until the last step, and yield a record after each step.

        The caller saves a checkpoint when one is due, and may stop after any record. `seconds`
        includes the time that the caller spends between two records.
        """
        began, seconds_before = time.monotonic(), self.seconds
        while not self.finished:
            self.method.train()
            rate = learning_rate(self.config, self.step)
            losses = self.train_step()
            elapsed = time.monotonic() - began
            self.seconds = seconds_before + elapsed
            yield StepRecord(self.step, losses, rate, elapsed, self.checkpoint_due)

    def train_step(self) -> dict[str, float]:
        """Step every objective that is due, then update the averaged weights.

        Returns:
            The loss of each objective that was stepped, by the objective's name.
        """
        config = self.config
        generator = stream(self.seed, TRAIN, 2 * self.step)
        x = self._draw_batch(generator)
        seen = fabricate(x, config.fabricate, generator) if config.fabricate.share else None
        draws: AbstractContextManager[Any] = nullcontext()
        if self.ranks.count > 1:
            rows = self.ranks.rows(config.batch_size)
            x, seen = x[rows], None if seen is None else seen[rows]
            draws = RowDraws(generator, config.batch_size, rows)
        losses = {}
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            if not objective.is_due(self.step, config.steps):
                continue
            self.wrapped.zero_grad()  # also clears the gradients of the other objectives
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, self.step)
            with draws:
                loss = self.wrapped(partial(objective.loss, x, generator, seen))
            self.fabric.backward(loss)
            self.fabric.clip_gradients(
                self.wrapped, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
            )
            optimizer.step()
            losses[objective.name] = float(self._mean_of_ranks(loss.detach()))
        update_ema(self.ema, self.method, config.ema_decay, self.step)
        self.step += 1
        return losses

    def _mean_of_ranks(self, loss: Tensor) -> Tensor:
        """Return the mean of a loss over all ranks: the loss of the whole batch."""
        if self.ranks.count == 1:
            return loss
        mean: Any = self.fabric.all_reduce(loss, reduce_op="mean")
        return torch.as_tensor(mean)

    def _draw_batch(self, generator: torch.Generator) -> Float[Tensor, "b 1 h w"]:
        """Draw the slices of the current step; `config` decides on mirroring and augmentation."""
        config = self.config
        index = batch_indices(self.by_subject, config.batch_size, self.seed, self.step)
        x = to_batch(self.slices, index, self.fabric.device)
        mirrored = None
        if config.flip:
            mirrored = (torch.rand(len(x), generator=generator) < 0.5).to(x.device)
            x = torch.where(mirrored[:, None, None, None], x.flip(-1), x)
        if config.augment.active:
            brain = self._take_brain(index)
            if mirrored is not None:
                brain = torch.where(mirrored[:, None, None, None], brain.flip(-1), brain)
            x = augment(x, brain, config.augment, generator)
        return x

    def _take_brain(self, index: np.ndarray) -> Bool[Tensor, "b 1 h w"]:
        """Return the brain masks of the slices at `index`, on the run's device."""
        brain = torch.from_numpy(np.ascontiguousarray(self.slices.brain[np.asarray(index)]))
        return brain.to(self.fabric.device)[:, None]

    def validate(self) -> float:
        """Return the validation loss of the averaged weights.

        NaN without validation slices, and before the phase of the last objective has begun: until
        then the validated network is untrained.
        """
        if not self.validation:
            return float("nan")
        if not self.objectives[-1].has_begun(self.step - 1, self.config.steps):
            return float("nan")
        return validation_loss(self.ema, self.validation, self.config, self.fabric)
