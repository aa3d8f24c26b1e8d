"""Tissues of synthetic T1w brains."""

import numpy as np
import pytest

from helpers.tissues import SPACING
from maediff.core.errors import InputError
from maediff.synthetic.tissues import find_ventricles, segment


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_fractions_with_bias_and_noise(head, tissues):
    _, brain, truth = head
    scores = [dice(tissues.fractions[k] > 0.5, truth[k]) for k in range(3)]
    assert scores[0] > 0.75
    assert min(scores[1:]) > 0.85
    total = tissues.fractions.sum(0)
    np.testing.assert_allclose(total[brain], 1, atol=1e-5)
    assert (total[~brain] == 0).all()
    assert tissues.levels[0] < tissues.levels[1] < tissues.levels[2]
    assert (tissues.texture[~brain] == 0).all()


def test_ventricle_without_grey_wall(head, tissues):
    middle = tuple(n // 2 for n in head[1].shape)
    inside = find_ventricles(tissues.fractions[0], tissues.depth_mm, SPACING)
    assert inside[middle]
    assert inside.sum() < 0.2 * head[1].sum()
    assert tissues.to_ventricle_mm[middle] == 0
    wall = (tissues.to_ventricle_mm > 0) & (tissues.to_ventricle_mm < 5)
    assert tissues.fractions[1][wall].mean() < 0.05
    x = np.indices(head[1].shape) - np.array(middle).reshape(3, 1, 1, 1)
    ventricle = (np.linalg.norm(x, axis=0) < 14) & (head[0] < 200)
    filled = np.where(ventricle, 270, head[0]).astype(np.float32)
    assert np.isinf(segment(filled, head[1], SPACING).to_ventricle_mm).all()


@pytest.mark.parametrize("brain", [np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)])
def test_empty_or_constant_brain(brain):
    with pytest.raises(InputError, match="empty or has no contrast"):
        segment(np.ones((4, 4, 4), np.float32), brain, SPACING)


def test_brain_without_tissues(head):
    with pytest.raises(InputError, match="does not show three tissues"):
        segment((100 + head[0] / 1000) * head[1], head[1], SPACING)
