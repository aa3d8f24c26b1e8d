"""Which slices and which random numbers a step of training gets: functions of (seed, step), with no state between.

    epoch n:  the subjects in an order shuffled anew, one random slice of each

Every purpose has a stream of its own, so that what one of them draws changes nothing for the others.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from maediff.cohort.slices import SliceSet

TRAIN, EPOCH, VALIDATE = 0, 1, 2  # purposes of a random stream


def stream(seed: int, purpose: int, index: int) -> torch.Generator:
    """A generator that is a pure function of its arguments."""
    state = np.random.SeedSequence((seed, purpose, index)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def slices_by_subject(subject_index: Int[np.ndarray, " n"]) -> list[Int[np.ndarray, "..."]]:
    """For each subject the indices of its slices."""
    order = np.argsort(subject_index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(subject_index[order])) + 1)


def batch_indices(
    by_subject: Sequence[Int[np.ndarray, "..."]], batch_size: int, seed: int, step: int
) -> Int[np.ndarray, " b"]:
    """Slices of one step: subjects in an order shuffled anew each epoch, one random slice of each."""
    n, pick = len(by_subject), stream(seed, TRAIN, 2 * step + 1)
    items = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {
        epoch: torch.randperm(n, generator=stream(seed, EPOCH, epoch))
        for epoch in np.unique(items // n).tolist()
    }
    subjects = [int(orders[item // n][item % n]) for item in items.tolist()]
    return np.array(
        [
            by_subject[s][int(torch.randint(len(by_subject[s]), (1,), generator=pick))]
            for s in subjects
        ]
    )


def to_batch(
    slices: SliceSet, index: Int[np.ndarray, " b"], device: torch.device
) -> Float[Tensor, "b 1 h w"]:
    """Those slices, in [0, 1], on `device`."""
    images = torch.from_numpy(np.ascontiguousarray(slices.images[np.asarray(index)]))
    return images.to(device).float().div_(255)[:, None]
