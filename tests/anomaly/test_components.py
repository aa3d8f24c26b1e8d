"""Bounding boxes and linked voxels."""

import numpy as np
import pytest

from maediff.anomaly.components import bounding_box, later_voxel, linked_voxels


def test_bounding_box_by_hand():
    mask = np.zeros((4, 5, 6), dtype=bool)
    mask[1, 2, 5] = mask[2, 4, 3] = True
    assert bounding_box(mask) == (slice(1, 3), slice(2, 5), slice(3, 6))


def test_bounding_box_of_empty_mask():
    assert np.zeros((3, 4, 5))[bounding_box(np.zeros((3, 4, 5), dtype=bool))].size == 0


def test_linked_voxels_by_hand():
    voxels, pairs = linked_voxels(np.array([0, 3, 9, 0, 7, 8]).reshape(1, 1, 6))
    assert voxels.tolist() == [2, 5, 4, 1]
    assert [sorted(pair) for pair in pairs.tolist()] == [[1, 2], [0, 3]]
    assert later_voxel(pairs).tolist() == [2, 3]
    cube = linked_voxels(np.ones((2, 2, 2), dtype=np.float32))[1]
    assert (
        len({tuple(sorted(pair)) for pair in cube.tolist()}) == len(cube) == 8 * 7 / 2
    )  # all are neighbours
    assert linked_voxels(np.zeros((2, 2, 2)))[1].shape == (0, 2)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_sorted_by_later_voxel(seed):
    values = np.random.default_rng(seed).random((4, 5, 6)).astype(np.float32)
    voxels, pairs = linked_voxels(values)
    assert (np.diff(values.ravel()[voxels]) <= 0).all()
    assert (np.diff(later_voxel(pairs)) >= 0).all()
