"""The training loop: records, phases, averaged weights, precision and validation."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.training import FAST
from maediff.cohort.cohort import Cohort
from maediff.methods.base import Method, Objective
from maediff.methods.registry import build
from maediff.training.config import TrainConfig
from maediff.training.loop import TrainingRun, update_ema, validation_loss
from maediff.training.slices.lesions import FabricateConfig


def test_the_loop_yields_a_record_after_each_step_and_writes_nothing(cohort, tmp_path):
    method = build("maediff", "tiny", {key: FAST[key] for key in ("unet", "mae")})
    slices = Cohort.open(cohort).training_slices("train")
    config = TrainConfig(**FAST["train"], learning_rate=1e-3)
    before = sorted(tmp_path.rglob("*"))
    loop = TrainingRun(method, slices, config).records()
    records = [next(loop), *loop]
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.checkpoint_due for record in records] == [False, True] * 3
    assert all(record.loss == record.losses["l2"] > 0 for record in records)
    assert {record.learning_rate for record in records} == {1e-3}
    assert records[0].elapsed_seconds < records[-1].elapsed_seconds
    assert sorted(tmp_path.rglob("*")) == before


def test_objectives_are_stepped_in_their_phases():
    def loss(x, generator, seen=None):
        raise AssertionError("not called")

    generator = Objective("generator", loss, [], (0.0, 0.5), 5)
    encoder = Objective("encoder", loss, [], (0.5, 1.0))
    assert [step for step in range(21) if generator.is_due(step, 21)] == [4, 9]
    assert [step for step in range(21) if encoder.is_due(step, 21)] == list(range(11, 21))
    assert not encoder.has_begun(10, 21)


@pytest.mark.parametrize("name", ["maediff", "dae", "vae", "fanogan"])
def test_in_bf16_a_loss_gets_slices_that_are_not_rounded_to_it(cohort, name):
    train_config = TrainConfig(
        steps=4, batch_size=2, validation_slices=4, fabricate=FabricateConfig(share=1.0)
    )
    slices, method = Cohort.open(cohort).training_slices("train"), build(name, "tiny")
    run = TrainingRun(method, slices, train_config, validation=slices, precision="bf16")
    inputs = []

    def record_inputs(loss):
        def record(x, generator, seen):
            inputs.extend((x, seen))
            return loss(x, generator, seen)

        return record

    run.objectives = [
        replace(objective, loss=record_inputs(objective.loss)) for objective in run.objectives
    ]
    for _ in range(4):
        assert all(map(np.isfinite, run.train_step().values()))
    assert inputs
    assert {x.dtype for x in inputs} == {torch.float32}
    assert any(not torch.equal(x, x.bfloat16().float()) for x in inputs)


def test_the_average_follows_the_weights_by_hand():
    """d = min(0.999, (1 + step) / (10 + step)): 0.1 at step 0, 0.999 in the end."""

    class Norm(nn.BatchNorm1d, Method):
        pass

    method, ema = Norm(1), Norm(1)
    for step, expected in [(0, 0.1 * 1 + 0.9 * 3), (100_000, 0.999 * 1 + 0.001 * 3)]:
        nn.init.constant_(ema.weight, 1)
        nn.init.constant_(method.weight, 3)
        method.running_mean.fill_(5)  # buffers are copied
        update_ema(ema, method, 0.999, step)
        assert ema.weight.item() == pytest.approx(expected, rel=1e-6)
        assert ema.running_mean.item() == 5
        assert method.weight.item() == 3


def test_validation_draws_the_same_whatever_was_drawn_before(cohort):
    method = build("maediff", "tiny", {key: FAST[key] for key in ("unet", "mae")})
    slices, config = Cohort.open(cohort).training_slices("train"), TrainConfig(**FAST["train"])
    run = TrainingRun(method, slices, config, validation=slices)
    ema = deepcopy(run.ema)

    def validate(model):
        return validation_loss(model, slices, config, run.fabric)

    first, again = validate(ema), validate(ema)
    run.train_step()
    torch.rand(7)
    assert first == again == validate(ema)
    assert validate(run.ema) != first  # the weights have changed
