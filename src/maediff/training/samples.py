"""Reconstructions of a few slices in the course of a training, for its report.

    RUN/samples.npz   images (n, h, w), brain (n, h, w), steps (k), references (k, n, h, w)

The averaged weights reconstruct the same validation slices at every checkpoint. At most MAX_STEPS
checkpoints are kept: the first, the last, and others spread evenly over the steps between.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int

from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.core.types import Map, Mask
from maediff.training.loop import TrainingRun
from maediff.training.slices.batches import to_batch

SAMPLES = "samples.npz"
MAX_STEPS = 6
MIN_BRAIN_SHARE = 0.5  # of the slice with most brain


@dataclass(frozen=True, eq=False)
class Samples:
    """Slices and their reconstructions.

    Args:
        images: intensities, 0 outside the brain, 1 at the 99th percentile of the brain.
        brain: brain mask.
        steps: step of each checkpoint, ascending.
        references: reconstruction of each slice at each checkpoint.
    """

    images: Map
    brain: Mask
    steps: Int[np.ndarray, " k"]
    references: Float[np.ndarray, "k n h w"]


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
    save_samples(folder / SAMPLES, _thin(samples))


def save_samples(path: Path, samples: Samples) -> None:
    """Write the samples to a file.

    Raises:
        InputError: the file could not be written.
    """
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            images=samples.images.astype(np.float16),
            brain=samples.brain.astype(np.uint8),
            steps=samples.steps,
            references=samples.references.astype(np.float16),
        )


def load_samples(path: Path) -> Samples:
    """Return the samples in a file.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return Samples(
                stored["images"].astype(np.float32),
                stored["brain"].astype(bool),
                stored["steps"].astype(np.int64),
                stored["references"].astype(np.float32),
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path}: missing or damaged ({type(error).__name__}); the next checkpoint writes it"
        ) from None


def _thin(samples: Samples) -> Samples:
    """Return at most MAX_STEPS checkpoints, those nearest to evenly spaced steps."""
    steps = samples.steps
    if len(steps) <= MAX_STEPS:
        return samples
    wanted = np.linspace(steps[0], steps[-1], MAX_STEPS)
    kept = np.unique(np.abs(steps[:, None] - wanted).argmin(axis=0))
    return replace(samples, steps=steps[kept], references=samples.references[kept])
