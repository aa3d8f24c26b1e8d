"""The picture for quality control."""

import numpy as np
from PIL import Image

from helpers.brains import made_brain, made_volume
from maediff.preparation.picture import OUTLINE, render_picture, write_picture


def count_outline(picture):
    return (np.asarray(picture) == OUTLINE).all(axis=-1).sum()


def test_the_outline_follows_the_brain(tmp_path):
    data, brain, affine = made_brain()
    volume = made_volume(data, affine)
    picture = render_picture(volume, brain)
    assert picture.shape == (120, 600, 3)
    assert 200 < count_outline(picture) < 3000
    assert count_outline(render_picture(volume, brain & False)) == 0
    write_picture(tmp_path / "qc.png", volume, brain)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "qc.png")), picture)


def test_left_is_left_and_the_front_is_at_the_top():
    """Left is on the left; the front is at the top of axial views."""
    _, brain, affine = made_brain()
    left_front = brain.copy()
    left_front[30:] = left_front[:, :36] = False
    axial = render_picture(made_volume(np.where(left_front, 200, 0), affine), brain)[:, 120:240]
    rows, columns = np.nonzero((axial == 255).all(axis=-1))
    assert rows.max() <= 60 and columns.max() <= 60
