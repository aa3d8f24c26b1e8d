import numpy as np
import pytest

from helpers.brains import made_brain


@pytest.fixture
def volume():
    """(data, affine): 12 thick slices of whole numbers."""
    data, _, affine = made_brain(shape=(22, 26, 12), spacing=(6.0, 6.5, 7.0))
    return np.round(data), affine
