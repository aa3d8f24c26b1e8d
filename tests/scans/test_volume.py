import numpy as np
import pytest

from helpers.brains import oblique
from maediff.core.errors import InputError
from maediff.scans.volume import (
    slice_spacing_mm,
    slices_to_volume,
    volume_from_array,
    volume_to_slices,
)


def test_slice_has_front_at_top_and_small_x_at_left():
    volume = np.zeros((3, 4, 2), dtype=np.float32)
    volume[0, 3, 1] = 7  # left, front, upper slice
    slices = volume_to_slices(volume)
    assert slices.shape == (2, 4, 3)
    assert slices[1, 0, 0] == 7
    assert slices.sum() == 7


def test_slices_to_volume_inverts_volume_to_slices():
    volume = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    np.testing.assert_array_equal(slices_to_volume(volume_to_slices(volume)), volume)


def test_array_is_reoriented_to_ras():
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    flipped = np.diag([-1.0, 2.0, 3.0, 1.0])  # voxel (0, 0, 0) is the right end of X
    volume = volume_from_array(data, flipped, "mine")
    np.testing.assert_array_equal(volume.data, data[::-1])
    np.testing.assert_array_equal(volume.affine @ [0, 0, 0, 1], [-1, 0, 0, 1])
    np.testing.assert_allclose(volume.spacing_mm, [1, 2, 3])
    np.testing.assert_array_equal(volume.native_affine, flipped)
    assert (volume.data.dtype, volume.native_shape) == (np.float32, (2, 3, 4))
    assert str(volume.source) == "mine"


def test_unusable_array_is_refused():
    data = np.ones((2, 3, 4))
    with pytest.raises(InputError, match="mine: holds NaN or infinity"):
        volume_from_array(np.where(data > 0, np.nan, 0), oblique(np.eye(4)), "mine")
    for affine in (np.zeros((4, 4)), np.diag([1, np.nan, 1, 1]), np.diag([np.inf, 1, 1, 1])):
        with pytest.raises(InputError, match="mine: the affine is not an invertible"):
            volume_from_array(data, affine, "mine")


@pytest.mark.parametrize(("axis", "degrees"), [(0, 20), (1, 5), (1, -30)])
@pytest.mark.parametrize("is_oblique", [False, True])
def test_volume_of_a_sheared_voxel_is_the_determinant(axis, degrees, is_oblique):
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    affine[axis, 2] = 3 * np.tan(np.radians(degrees))
    affine = oblique(affine) if is_oblique else affine
    scan = volume_from_array(np.arange(60.0).reshape(3, 4, 5), affine)
    assert scan.voxel_mm3 == pytest.approx(15)
    np.testing.assert_allclose(slice_spacing_mm(scan.affine), [2, 2.5, 3])  # slices 3 mm apart
    assert scan.spacing_mm[2] == pytest.approx(3 / np.cos(np.radians(degrees)))


def test_volume_of_a_straight_voxel_is_exactly_the_product_of_its_edges():
    affine = oblique(np.diag([0.9375, 0.9375, 1.3, 1.0])).astype(np.float32).astype(float)
    scan = volume_from_array(np.arange(60.0).reshape(3, 4, 5), affine)
    assert scan.voxel_mm3 == float(np.prod(scan.spacing_mm))
