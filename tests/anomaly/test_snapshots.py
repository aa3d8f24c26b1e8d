"""Slices for a report."""

import numpy as np
import pytest

from helpers.brains import ellipsoid
from maediff.anomaly.snapshots import (
    Snapshot,
    display_maximum,
    load_slices,
    pick_slices,
    save_slices,
)
from maediff.core.errors import InputError


def test_display_maximum():
    assert display_maximum(0.2) == 0.4
    assert display_maximum(0.9) == 1
    assert display_maximum(None) == 0.5
    # In units of the default threshold, the scale does not depend on the threshold of the mask.
    assert display_maximum(0.7, scaled=True) == display_maximum(1.9, scaled=True) == 2
    assert display_maximum(3.0, scaled=True) == 6


def test_pick_slices_by_hand():
    brain = np.ones((9, 4, 4), dtype=bool)
    weight = np.broadcast_to(np.array([0, 1, 9, 8, 1, 0, 5, 1, 0.0])[:, None, None], brain.shape)
    np.testing.assert_array_equal(pick_slices(brain, weight, 4), [0, 2, 4, 6])
    brain[0], brain[8] = False, False
    assert not {0, 8} & set(pick_slices(brain, weight, 4))
    np.testing.assert_array_equal(pick_slices(brain[1:4], weight[1:4], 6), [0, 1, 2])


def test_pick_slices_without_weight():
    even = pick_slices(np.ones((30, 4, 4), dtype=bool), np.zeros((30, 4, 4)))
    assert len(set(even)) == 6
    assert np.ptp(np.diff(even)) <= 1


def snapshot(**optional):
    brain = ellipsoid()
    image = np.random.default_rng(0).random(brain.shape).astype(np.float32)
    return Snapshot(
        slice_ids=np.arange(10, 10 + len(brain)),
        image=image,
        anomaly_map=image / 2,
        brain=brain,
        mask=brain & (image > 0.9),
        spacing_mm=(2.0, 2.0, 5.0),
        **optional,
    )


def test_slices_are_read_back(tmp_path):
    whole = snapshot(lesion=ellipsoid(radii=(2, 3, 3)), z_mm=np.linspace(-40, 40, 12))
    save_slices(tmp_path / "x" / "slices.npz", whole, np.array([1, 4]))
    stored = load_slices(tmp_path / "x" / "slices.npz")
    assert stored.slice_ids.tolist() == [11, 14]
    np.testing.assert_allclose(stored.image, whole.image[[1, 4]], atol=1e-3)
    np.testing.assert_allclose(stored.anomaly_map, whole.anomaly_map[[1, 4]], atol=1e-3)
    np.testing.assert_array_equal(stored.mask, whole.mask[[1, 4]])
    np.testing.assert_array_equal(stored.lesion, whole.lesion[[1, 4]])
    np.testing.assert_array_equal(stored.z_mm, whole.z_mm[[1, 4]])
    assert stored.spacing_mm == (2.0, 2.0, 5.0)
    assert stored.reference is None


def test_optional_slices(tmp_path):
    whole = snapshot(reference=np.full((12, 20, 18), 0.25, np.float32))
    save_slices(tmp_path / "slices.npz", whole, np.array([0]))
    stored = load_slices(tmp_path / "slices.npz")
    assert stored.lesion is None and stored.z_mm is None
    assert (stored.reference == 0.25).all()


@pytest.mark.parametrize("content", [None, b"PK\x03\x04 cut off"])
def test_damaged_file(tmp_path, content):
    if content:
        (tmp_path / "slices.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"slices\.npz: missing or damaged"):
        load_slices(tmp_path / "slices.npz")


def test_every_changed_byte_is_an_error_or_harmless(tmp_path):
    path = tmp_path / "slices.npz"
    save_slices(path, snapshot(), np.array([1, 4]))
    content = path.read_bytes()
    refused = 0
    for place in range(40, len(content), len(content) // 60):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            load_slices(path)
        except InputError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("n", range(3, 14))
@pytest.mark.parametrize("count", [2, 4, 6])
def test_no_slice_is_shown_twice(n, count):
    brain = np.ones((n, 4, 4), dtype=bool)
    chosen = pick_slices(brain, np.zeros(brain.shape), count)
    assert len(set(chosen.tolist())) == len(chosen) == min(n, count)
