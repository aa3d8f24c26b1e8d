"""tools/make_atlas.py makes the file that is shipped."""

import numpy as np
import pytest

from helpers.scripts import load_script
from maediff.preparation.atlas.reduced import FILE

make_atlas = load_script("tools/make_atlas.py")


@pytest.mark.slow
def test_shipped_file():
    with np.load(FILE) as stored:
        arrays = make_atlas.make_arrays()
        assert set(stored.files) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_allclose(stored[name], array, atol=1e-5, err_msg=name)
