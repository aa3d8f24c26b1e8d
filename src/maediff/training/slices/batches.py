"""The slices and the random numbers of each training step, as functions of (seed, step).

    epoch n:  all scans in a newly shuffled order, one random slice of each

No state is kept between steps. Each purpose has its own random stream, so the numbers that one
purpose draws do not change those of the others.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from maediff.cohort.slices import SliceSet

TRAIN, EPOCH, VALIDATE = 0, 1, 2
"""Purposes of a random stream."""


def stream(seed: int, purpose: int, index: int) -> torch.Generator:
    """Return a CPU generator whose state depends on the three arguments only.

    Args:
        seed: seed of the run, at least 0.
        purpose: TRAIN, EPOCH or VALIDATE.
        index: number of the stream within its purpose, at least 0.
    """
    state = np.random.SeedSequence((seed, purpose, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def slices_by_subject(subject_index: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, "..."]]:
    """Return the indices of the slices of each scan.

    Args:
        subject_index: for each slice, the number of its scan (`SliceSet.subject_index`).
    """
    order = np.argsort(subject_index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(subject_index[order])) + 1)


def batch_indices(
    by_subject: Sequence[Int[np.ndarray, "..."]], batch_size: int, seed: int, step: int
) -> Int[np.ndarray, " b"]:
    """Return the indices of the slices of one step, drawn as the module docstring describes.

    Args:
        by_subject: from `slices_by_subject`.
        batch_size: slices to draw. The epochs follow each other, so that a step may span two.
        seed: seed of the run.
        step: the step, counted from 0.
    """
    n, generator = len(by_subject), stream(seed, TRAIN, 2 * step + 1)
    items = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: torch.randperm(n, generator=stream(seed, EPOCH, epoch))
        for epoch in np.unique(items // n).tolist()
    }
    subjects = [int(orders[item // n][item % n]) for item in items.tolist()]
    return np.array(
        [
            by_subject[s][int(torch.randint(len(by_subject[s]), (1,), generator=generator))]
            for s in subjects
        ]
    )


def to_batch(
    slices: SliceSet, index: Int[np.ndarray, " b"], device: torch.device
) -> Float[Tensor, "b 1 h w"]:
    """Return the slices at `index`, in [0, 1], on `device`."""
    images = torch.from_numpy(np.ascontiguousarray(slices.images[np.asarray(index)]))
    return images.to(device).float().div_(255)[:, None]
