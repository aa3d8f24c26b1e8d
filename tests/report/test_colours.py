"""The stored colours are those of matplotlib."""

import numpy as np
from matplotlib import colormaps

from maediff.report.colours import colour_values


def test_same_as_matplotlib():
    values = np.concatenate([np.linspace(-0.1, 1.1, 500), [0.0, 1.0, 0.5]]).reshape(-1, 1)
    expected = np.round(255 * colormaps["inferno"](values)[..., :3]).astype(np.uint8)
    np.testing.assert_array_equal(colour_values(values), expected)
