"""Slices of a training step: every scan once per epoch, a random slice of it."""

import numpy as np

from maediff.training.slices.batches import batch_indices, slices_by_subject


def test_every_subject_once_an_epoch_and_a_random_slice_of_it():
    subject_index = np.array([0] * 10 + [1] * 2 + [2] * 5 + [3])
    chosen = np.concatenate(
        [
            batch_indices(slices_by_subject(subject_index), 2, seed=0, step=step)
            for step in range(200)
        ]
    )
    assert (np.sort(subject_index[chosen].reshape(-1, 4), axis=1) == [0, 1, 2, 3]).all()
    counts = np.bincount(chosen, minlength=18)
    assert counts[17] == 100
    assert (counts[:10] > 0).all()
    orders = set(map(tuple, subject_index[chosen].reshape(-1, 4).tolist()))
    assert len(orders) > 12  # of 24: each epoch has an order of its own
