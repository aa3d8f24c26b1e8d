"""Intensities by hand."""

import numpy as np
import pytest

from maediff.core.errors import InputError
from maediff.core.types import CEILING
from maediff.preparation.intensities import (
    NormaliseConfig,
    compute_deciles,
    floor_intensity,
    intensity_range,
    learn_landmarks,
    normalise,
    standardise,
)


def test_the_percentiles_become_0_and_1():
    data = np.arange(101, dtype=np.float32).reshape(101, 1, 1) + 50
    brain = np.ones_like(data, dtype=bool)
    brain[0] = False
    result = normalise(data, brain, intensity_range(data, brain, NormaliseConfig(0, 100))).ravel()
    assert result[0] == 0 and result[1] == 0 and result[100] == 1
    assert result[51] == pytest.approx(50 / 99)
    everywhere = np.ones_like(brain)
    intensities = intensity_range(data, everywhere, NormaliseConfig(10, 90))
    clipped = normalise(data, everywhere, intensities).ravel()
    assert clipped[10] == 0 and clipped[90] == 1 and clipped[50] == pytest.approx(0.5)
    assert clipped[100] == pytest.approx(90 / 80)
    data[100] = 5000
    assert normalise(data, everywhere, (60.0, 140.0)).max() == CEILING


def test_no_contrast():
    data = np.ones((101, 1, 1), dtype=np.float32)
    with pytest.raises(InputError, match=r"scan\.nii\.gz: .* both 1; check"):
        intensity_range(data, data > 0, NormaliseConfig(), "scan.nii.gz")


@pytest.mark.parametrize(
    ("shift", "background", "expected"),
    [
        (50, 0, 0),  # a plain scan
        (50, -3, -3),  # a background darker than the brain
        (-60, 0, -60),  # z-scores of the brain alone, on zeros
        (50, 70, 0),  # a bright background
    ],
)
def test_the_floor_is_the_darkest_of_background_and_brain(shift, background, expected):
    data = np.arange(101, dtype=np.float32).reshape(101, 1, 1) + shift
    config = NormaliseConfig(0, 100)
    assert floor_intensity(data, data > -1e3, float(background), config) == expected


def test_deciles_move_to_the_landmarks_and_back():
    landmarks = tuple(value**2 for value in np.linspace(0.1, 0.9, 9))
    config = NormaliseConfig(0, 100, landmarks)
    data = np.linspace(0, 1, 1001, dtype=np.float32).reshape(-1, 1, 1)
    deciles = compute_deciles(data, np.ones(data.shape, dtype=bool))
    np.testing.assert_allclose(deciles, np.linspace(0.1, 0.9, 9), atol=1e-6)
    moved = standardise(data, deciles, config)
    np.testing.assert_allclose(moved[[0, 100, 500, 1000], 0, 0], [0, 0.01, 0.25, 1], atol=1e-6)
    between = (0.01 + 0.04) / 2  # linear between landmarks
    np.testing.assert_allclose(moved[150, 0, 0], between, atol=1e-6)
    np.testing.assert_allclose(standardise(moved, deciles, config, back=True), data, atol=1e-6)
    assert standardise(data, [], NormaliseConfig()) is data


def test_landmarks_are_mean_deciles():
    assert learn_landmarks([[0.1] * 9, [0.3] * 9]) == pytest.approx([0.2] * 9)


@pytest.mark.parametrize(
    "landmarks",
    [
        (0.5,),
        (0.1, 0.3, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0),
    ],
)
def test_wrong_landmarks(landmarks):
    with pytest.raises(ValueError, match="nine numbers that rise"):
        NormaliseConfig(1, 99, landmarks)


def test_wrong_percentiles():
    with pytest.raises(ValueError, match="low < high"):
        NormaliseConfig(50, 50)
