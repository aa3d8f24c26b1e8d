"""Brain masks of stripped scans, and refusal of raw ones."""

import numpy as np
import pytest

from helpers.brains import dice, made_brain, made_volume
from helpers.options import UNALIGNED
from maediff.core.errors import InputError
from maediff.preparation.background import Gap, brain_from_background, fill_empty_slices
from maediff.preparation.onto_grid import prepare_scan
from maediff.preparation.prepare import prepare
from maediff.preparation.steps import run_steps
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_nifti


def test_largest_object_with_holes_filled():
    data, brain, affine = made_brain()
    damaged = data.copy()
    damaged[28:32, 30:34, 20:24] = 0  # a hole
    damaged[40:42, 30:34, 20:24] = -5  # ringing inside
    damaged[0, 0, 0] = 90  # a speck outside
    damaged[1:4, 60, 40] = 1e-4  # distant ringing of a spline
    np.testing.assert_array_equal(brain_from_background(made_volume(damaged, affine)), brain)


@pytest.mark.parametrize(
    ("axis", "lost", "value"),
    [(2, slice(25, 26), 0), (0, slice(30, 31), 0), (1, slice(36, 38), 0), (2, slice(25, 27), -3)],
)
def test_lost_slices(axis, lost, value):
    """The reported case and variants: another axis, two slices, another value."""
    data, brain, affine = made_brain()
    damaged = data.copy()
    damaged[(slice(None),) * axis + (lost,)] = value
    volume, filled = fill_empty_slices(made_volume(damaged, affine))
    n_filled = lost.stop - lost.start
    assert filled == [Gap(axis, lost.start, lost.stop)]
    assert dice(brain_from_background(volume), brain) > 0.999
    assert np.quantile(np.abs(volume.data - data)[brain], 0.99) < 10
    stepped = run_steps(made_volume(damaged, affine), None, UNALIGNED.for_modality("T1w"))
    assert [flag.code for flag in stepped.flags] == ["empty-slices"]
    assert stepped.record["empty_slices"] == n_filled and dice(stepped.brain, brain) > 0.999
    given = brain.copy()
    given[(slice(None),) * axis + (lost,)] = False  # a mask of the damaged scan
    stepped = run_steps(made_volume(damaged, affine), given, UNALIGNED.for_modality("T1w"))
    assert [flag.code for flag in stepped.flags] == ["empty-slices"]
    assert stepped.record["empty_slices"] == n_filled


def test_filled_slices_beside_a_lesion_are_not_lesion_free():
    data, brain, affine = made_brain()
    lesion = np.zeros(brain.shape, dtype=bool)
    lesion[30:36, 30:36, 20:24] = True
    data[lesion] *= 3
    config, masks = UNALIGNED.for_modality("T1w"), {"brain": brain, "lesion": lesion}
    plain = prepare(made_volume(data, affine), config, **masks)
    damaged = data.copy()
    damaged[:, :, 24:29] = 0
    filled = prepare(made_volume(damaged, affine), config, **masks)
    changed = np.abs(filled.on_grid.image - plain.on_grid.image).max(axis=(0, 1)) > 0.1
    assert changed.any()
    assert not (filled.on_grid.lesion_free & changed).any()
    assert filled.on_grid.lesion_free.sum() < plain.on_grid.lesion_free.sum()


def test_a_long_gap_separates_no_brain():
    data, brain, affine = made_brain()
    data[:, :, 20:28] = 0  # 16 mm
    volume, filled = fill_empty_slices(made_volume(data, affine))
    assert filled == []
    both = brain_from_background(volume)
    assert both[:, :, 10:20].any() and both[:, :, 30:].any() and not both[:, :, 20:28].any()
    np.testing.assert_array_equal(both, brain & (data > 0))
    stepped = run_steps(volume, None, UNALIGNED.for_modality("T1w"))
    assert stepped.record["empty_slices"] == 8 and stepped.flags[0].code == "empty-slices"


@pytest.mark.parametrize("left", [None, (5, 5, 25)])
def test_no_large_piece_of_a_brain_is_lost(left):
    """A gap of 40 mm, and one slice that is empty but for a speck."""
    data, brain, affine = made_brain()
    gap = slice(16, 36) if left is None else slice(25, 26)
    data[:, :, gap] = 0
    if left is not None:
        data[left] = 90
    expected = brain.copy()
    expected[:, :, gap] = False
    volume = made_volume(data, affine)
    np.testing.assert_array_equal(brain_from_background(volume), expected)
    stepped = run_steps(volume, None, UNALIGNED.for_modality("T1w"))
    assert [flag.code for flag in stepped.flags] == ["empty-slices"]


def test_specks_are_no_brain():
    """Empty slices between a brain and a small object stay a gap."""
    data, brain, affine = made_brain()
    data[29:31, 35:37, 48] = 90  # above the vertex, after an empty slice
    volume = made_volume(data, affine)
    assert fill_empty_slices(volume) == (volume, [])
    np.testing.assert_array_equal(brain_from_background(volume), brain)


def test_raw_scans():
    data, brain, affine = made_brain((100, 110, 90), (2.0, 2.0, 2.0), radii_mm=(75.0, 95.0, 80.0))
    noise = np.random.default_rng(0).integers(1, 9, data.shape)
    head = made_brain((100, 110, 90), (2.0, 2.0, 2.0), radii_mm=(92.0, 107.0, 88.0))[1]
    skull = np.where(head, 90, 0)
    for raw in (np.where(brain, data, noise), np.where(brain, data, skull)):
        with pytest.raises(
            InputError, match=r"scan\.nii\.gz: raw scan with skull.*brain mask in a manifest"
        ):
            prepare_scan(made_volume(raw, affine))
        assert prepare_scan(made_volume(raw, affine), brain).brain.any()


def test_thin_slab():
    """Few slices fill more of their bounding box than a whole brain."""
    data, _, affine = made_brain((100, 110, 90), (2.0, 2.0, 2.0), radii_mm=(75.0, 95.0, 80.0))
    assert prepare_scan(made_volume(data[:, :, 43:47], affine)).brain.any()


@pytest.mark.parametrize(
    ("folder", "modality", "raw"),
    [
        ("ds002748", "T1w", False),
        ("mslub", "T1w", False),
        ("mslub", "T2w", False),
        ("mslub", "FLAIR", False),
        ("lgg", "FLAIR", False),
        ("lgg", "T1w", False),
        ("ixi10", "T1w", True),
        ("ds000011", "T1w", True),
    ],
)
def test_real_scans(shared_data, folder, modality, raw):
    for ref in find_scans([shared_data / folder], modality)[:3]:
        volume = read_nifti(ref.image)
        if raw:
            with pytest.raises(InputError, match="raw scan with skull"):
                brain_from_background(volume)
        else:
            assert brain_from_background(volume).any()
