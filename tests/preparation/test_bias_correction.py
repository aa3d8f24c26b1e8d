"""N4 finds a known field."""

import numpy as np
import pytest
from scipy import ndimage

from helpers.brains import made_brain, made_volume
from maediff.core.errors import InputError
from maediff.preparation.bias_correction import BiasConfig, correct_bias


def test_known_field():
    data, brain, affine = made_brain((60, 72, 50))
    x, y, _ = np.indices(data.shape) / 60 - 0.5
    true_field = np.exp(0.4 * x - 0.3 * y * y)
    # Tissue has little contrast, so most of the variation is the field's.
    shaded = np.where(brain, 100 + 0.1 * data, 0) * true_field
    corrected, field = correct_bias(
        made_volume(shaded, affine), brain, BiasConfig(iterations=(30, 30))
    )
    inside = ndimage.binary_erosion(brain, iterations=3)
    assert np.corrcoef(np.log(field[inside]), np.log(true_field[inside]))[0, 1] > 0.97
    assert np.std(corrected.data[inside]) < 0.5 * np.std(shaded[inside])
    np.testing.assert_allclose(corrected.data * field, shaded, rtol=1e-4)


def test_same_field_each_time():
    data, brain, affine = made_brain((60, 72, 12), (2.0, 2.0, 7.0))
    fields = [
        correct_bias(made_volume(data, affine), brain, BiasConfig(iterations=(5,)))[1]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*fields)


def test_single_slice():
    data, brain, affine = made_brain((60, 72, 1))
    with pytest.raises(InputError, match=r"scan\.nii\.gz: N4 .*`bias\.enabled=false`") as caught:
        correct_bias(made_volume(data, affine), brain)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"target_mm": 0}, {"iterations": ()}, {"iterations": (5, 0)}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="both above 0"):
        BiasConfig(**wrong)
