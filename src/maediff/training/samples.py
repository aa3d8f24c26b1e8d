"""Reconstructions of a few slices in the course of a training, for its report.

    RUN/samples.npz   images (n, h, w), brain (n, h, w), steps (k), references (k, n, h, w)

The averaged weights reconstruct the same validation slices at every checkpoint. At most MAX_STEPS
checkpoints are kept: the first, the last, and others spread evenly over the steps between.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.core.reading import DAMAGED_NPZ
from maediff.core.types import Map, Mask

SAMPLES = "samples.npz"
MAX_STEPS = 6


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
    except DAMAGED_NPZ as error:
        raise InputError(
            f"{path}: missing or damaged ({type(error).__name__}); the next checkpoint writes it"
        ) from None


def thin(samples: Samples) -> Samples:
    """Return at most MAX_STEPS checkpoints, those nearest to evenly spaced steps."""
    steps = samples.steps
    if len(steps) <= MAX_STEPS:
        return samples
    wanted = np.linspace(steps[0], steps[-1], MAX_STEPS)
    kept = np.unique(np.abs(steps[:, None] - wanted).argmin(axis=0))
    return replace(samples, steps=steps[kept], references=samples.references[kept])
