"""Resampling by hand, and its blur."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from helpers.brains import oblique
from maediff.preparation.resample import find_covered, kernel_radius, resample


def test_cells_twice_as_large():
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = 0.5  # cell 0 covers voxels 0 and 1
    mask = np.zeros((4, 2, 2), dtype=bool)
    mask[0] = True  # half of cell 0
    mask[2] = True
    mask[2, 0, 0] = False  # three eighths of cell 1
    result = resample(mask, coarse, (2, 1, 1), "majority")
    np.testing.assert_array_equal(result.ravel(), [True, False])


def test_cells_half_as_large():
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = 0.5
    values = np.array([[[1.0]], [[3.0]]], dtype=np.float32)
    nearest, linear = (
        resample(values, np.linalg.inv(coarse), (4, 2, 2), order)
        for order in ("nearest", "linear")
    )
    np.testing.assert_array_equal(nearest[:, 0, 0], [1, 1, 3, 3])
    np.testing.assert_allclose(linear[:, 0, 0], [1, 1.5, 2.5, 3])


def test_blur_keeps_the_mean_and_removes_a_checkerboard():
    checker = (np.indices((60, 60, 60)).sum(axis=0) % 2).astype(np.float32)
    coarse = np.diag([3.0, 3.0, 3.0, 1.0])
    coarse[:3, 3] = 10
    result = resample(checker, coarse, (10, 10, 10), "linear")
    assert result.mean() == pytest.approx(0.5, abs=1e-3)
    assert result.std() < 0.02  # without blur, this is 0.5


@pytest.mark.parametrize("order", ["linear", "nearest", "majority"])
@pytest.mark.parametrize("turned", [False, True])
def test_outside_the_source(order, turned):
    far = oblique(np.eye(4)) if turned else np.eye(4)
    far[0, 3] = 100
    ones = np.ones((3, 3, 3), dtype=np.float32)
    assert not resample(ones, far, (3, 3, 3), order).any()


def test_any_affine_against_scipy():
    rng = np.random.default_rng(0)
    data = ndimage.gaussian_filter(rng.random((20, 24, 18)), 1).astype(np.float32)
    matrix = oblique(np.diag([0.9, 0.8, 0.95, 1.0]))
    matrix[:3, 3] = [2, 3, 1]
    for order, spline in (("linear", 1), ("nearest", 0)):
        expected = ndimage.affine_transform(
            data, matrix[:3, :3], matrix[:3, 3], output_shape=(16, 18, 12), order=spline
        )
        result = resample(data, matrix, (16, 18, 12), order)
        inside = (slice(2, -2),) * 3
        np.testing.assert_allclose(result[inside], expected[inside], atol=1e-5)


def test_radius_of_the_blur():
    assert kernel_radius(1.0) == kernel_radius(0.5) == 0
    assert kernel_radius(2.0) == 3  # ceil(3 * sqrt(3) / 2.355)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("step", [1.3, 2.0, 4.0])
def test_same_as_blur_and_interpolation_of_simpleitk(step, turned):
    data = np.zeros((40, 36, 30), dtype=np.float32)
    data[5:, 8:30, 4:25] = np.random.default_rng(0).random((35, 22, 21))  # touches one end
    matrix = np.diag([step, step, step, 1.0])
    matrix = oblique(matrix) if turned else matrix
    matrix[:3, 3] = [3.2, 1.7, -2.4]
    shape = (12, 14, 13)
    sigma = np.sqrt(np.square(np.linalg.norm(matrix[:3, :3], axis=1)) - 1) / 2.3548
    image = sitk.DiscreteGaussian(
        sitk.GetImageFromArray(data.T.copy()), (sigma**2).tolist(), 31, 0.01, False
    )
    transform = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    grid = ([0.0] * 3, [1.0] * 3, np.eye(3).ravel().tolist())
    expected = sitk.Resample(image, shape, transform, sitk.sitkLinear, *grid, 0.0)
    np.testing.assert_allclose(
        resample(data, matrix, shape, "linear"), sitk.GetArrayFromImage(expected).T, atol=1e-5
    )


def test_nothing_but_zeros():
    zeros = np.zeros((4, 4, 4), dtype=bool)
    assert not resample(zeros, oblique(np.eye(4)), (3, 3, 3), "majority").any()


def test_voxels_inside_the_source():
    shifted = np.eye(4)
    shifted[0, 3] = 1.6
    covered = find_covered(shifted, (4, 1, 1), (4, 1, 1))
    np.testing.assert_array_equal(covered.ravel(), [True, True, False, False])
