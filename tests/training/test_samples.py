"""Reconstructions over time: the same slices, few checkpoints, and no effect on training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from maediff.cohort.slices import SliceSet
from maediff.core.errors import InputError
from maediff.methods.base import Prediction
from maediff.training.checkpoint import update_samples
from maediff.training.loop import TrainingRun
from maediff.training.samples import MAX_STEPS, SAMPLES, load_samples


class Halves(torch.nn.Module):
    """A method whose reconstruction is a half of the slice."""

    def predict(self, x, **_):
        return Prediction(x, 0.5 * x)


@pytest.fixture
def run():
    images = np.zeros((30, 16, 16), dtype=np.uint8)
    images[:, 4:12, 4:12] = np.arange(30, dtype=np.uint8)[:, None, None] + 100
    images[:10] = 0  # slices without brain are not used
    run = TrainingRun.__new__(TrainingRun)
    run.ema, run.step = Halves(), 0
    run.validation = SliceSet(images, images > 0, np.zeros(30, dtype=np.int64), ["a"])
    run.fabric = SimpleNamespace(device=torch.device("cpu"))
    run.config = SimpleNamespace(batch_size=2)
    return run


def test_steps_are_spread_over_the_training(run, tmp_path):
    state = torch.get_rng_state()
    for step in range(10, 210, 10):
        run.step = step
        update_samples(run, tmp_path, 3)
    samples = load_samples(tmp_path / SAMPLES)
    assert samples.images.shape == (3, 16, 16)
    assert (samples.images.max(axis=(1, 2)) > 0.39).all()
    assert len(samples.steps) == MAX_STEPS
    assert samples.steps[0] == 10 and samples.steps[-1] == 200
    assert np.diff(samples.steps).max() <= 80
    np.testing.assert_allclose(samples.references[2], 0.5 * samples.images, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_resumed_run_replaces_later_steps(run, tmp_path):
    for step in (10, 20, 30, 20):
        run.step = step
        update_samples(run, tmp_path, 3)
    assert load_samples(tmp_path / SAMPLES).steps.tolist() == [10, 20]


def test_no_slices_and_damage(run, tmp_path):
    update_samples(run, tmp_path, 0)
    assert not (tmp_path / SAMPLES).exists()
    (tmp_path / SAMPLES).write_bytes(b"PK")
    with pytest.raises(InputError, match=r"samples\.npz: missing or damaged"):
        load_samples(tmp_path / SAMPLES)
    update_samples(run, tmp_path, 2)
    assert load_samples(tmp_path / SAMPLES).references.shape == (1, 2, 16, 16)
