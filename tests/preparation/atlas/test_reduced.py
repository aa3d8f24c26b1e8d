"""The reduced template against the template that nilearn ships."""

import numpy as np
import pytest

from maediff.preparation.atlas.reduced import LEVELS_MM, Tissue, load_reduced_atlas
from maediff.preparation.atlas.template import load_atlas


def test_brain_and_centre():
    reduced, full = load_reduced_atlas(), load_atlas()
    assert reduced.brain_mm3 == full.brain.sum()
    np.testing.assert_array_equal(reduced.brain_2mm, full.brain[::2, ::2, ::2])
    np.testing.assert_allclose(reduced.affine_2mm[:3, 3], full.affine[:3, 3])
    voxels = np.argwhere(full.brain).mean(axis=0)
    expected = full.affine[:3, :3] @ voxels + full.affine[:3, 3]
    np.testing.assert_allclose(reduced.centre_mm, expected, atol=1e-6)


@pytest.mark.parametrize("mm", LEVELS_MM)
def test_levels_show_the_brain_in_its_place(mm):
    reduced = load_reduced_atlas()
    level = reduced.levels[mm]
    assert level.image.shape == level.mask.shape
    inside = level.image > 0.3
    centre = mm * np.argwhere(inside).mean(axis=0) + level.origin_mm
    np.testing.assert_allclose(centre, reduced.centre_mm, atol=1)
    assert inside.sum() * mm**3 == pytest.approx(reduced.brain_mm3, rel=0.2)
    assert not (inside & (level.mask == 0)).any()  # the metric covers the brain and a margin
    assert 0.1 < level.mask.mean() < 0.9


def test_every_tissue_class_occurs():
    tissues = load_reduced_atlas().tissues_2mm
    assert set(np.unique(tissues)) == {int(tissue) for tissue in Tissue}


def test_arrays_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        load_reduced_atlas().tissues_2mm[0, 0, 0] = 1
