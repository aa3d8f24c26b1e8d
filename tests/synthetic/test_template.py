"""Maps of the MNI152 template."""

import numpy as np

from maediff.synthetic.template import load_template, sample


def test_sample_by_hand():
    maps = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    origin = np.array([10.0, 20.0, 30.0])
    positions = np.array([[10.0, 11.0, -99.0], [20.0, 20.0, 20.0], [30.0, 30.0, 30.0]])
    np.testing.assert_allclose(sample(maps, origin, 2.0, positions), [[0, 6, 0]])


def test_template_is_brain_like():
    template = load_template()
    depth, to_ventricle, mantle, cerebrum = template.maps
    inside = depth > 0
    assert 1500 < inside.sum() * 8 / 1000 < 2100  # ml
    assert 10 < (to_ventricle < 0).sum() * 8 / 1000 < 60
    assert mantle.min() >= 0 and mantle.max() <= 1 and (mantle <= cerebrum + 1e-6).all()
    grey, white, _ = template.tissue
    assert grey.min() >= 0 and (grey + white).max() <= 1.01
