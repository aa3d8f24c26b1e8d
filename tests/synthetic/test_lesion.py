"""Lesions and their masks."""

import inspect
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from maediff.core.types import MODALITIES, Modality
from maediff.synthetic.brain import Phantom, PhantomConfig, healthy_brain
from maediff.synthetic.lesion import LESION_KINDS, LESION_ML, LesionKind, LesionSize, add_lesion

VOXEL_ML = 2 * 2 * 4 / 1000


@cache
def cached_brain(contrast: Modality) -> Phantom:
    return healthy_brain((6, 0), PhantomConfig(contrast=contrast))


@pytest.mark.parametrize("contrast", MODALITIES)
@pytest.mark.parametrize("size", ["large", "small"])
@pytest.mark.parametrize("kind", LESION_KINDS)
def test_size_and_place(kind: LesionKind, size: LesionSize, contrast: Modality) -> None:
    healthy = cached_brain(contrast)
    lesioned = add_lesion(healthy, kind, size, 11)
    assert lesioned.lesion is not None and lesioned.lesion.dtype == bool
    assert (lesioned.lesion_kind, lesioned.lesion_size) == (kind, size)
    low, high = LESION_ML[size]
    assert low <= lesioned.lesion.sum() * VOXEL_ML <= high
    assert not (lesioned.lesion & ~healthy.brain).any()
    change = np.abs(lesioned.image - healthy.image)
    assert change[lesioned.lesion].mean() > 10 * change[healthy.brain & ~lesioned.lesion].mean()


def test_far_voxels_are_unchanged() -> None:
    healthy = healthy_brain((6, 1))
    lesioned = add_lesion(healthy, "dark", "small", 3)
    x = np.argwhere(lesioned.lesion)
    far = np.ones(healthy.brain.shape, bool)
    low, high = np.maximum(x.min(0) - 6, 0), x.max(0) + 7
    far[low[0] : high[0], low[1] : high[1], low[2] : high[2]] = False
    np.testing.assert_array_equal(lesioned.image[far], healthy.image[far])


def test_mean_change_by_kind() -> None:
    healthy = healthy_brain((6, 2), PhantomConfig(contrast="FLAIR"))
    quiet = replace(healthy, noise=0.0, blur_mm=0.1)

    def mean_change(kind: LesionKind) -> float:
        lesioned = add_lesion(quiet, kind, "large", 4)
        thick = (
            0.5 * (lesioned.clean - quiet.clean)[:, :, 0::2]
            + 0.5 * (lesioned.clean - quiet.clean)[:, :, 1::2]
        )
        return float(thick[lesioned.lesion].mean())

    changes = {kind: mean_change(kind) for kind in LESION_KINDS}
    assert changes["bright"] > 0.08
    assert changes["dark"] < -0.15
    assert abs(changes["texture"]) < 0.05
    assert abs(changes["mass_effect"]) < 0.06


def test_unknown_lesion() -> None:
    healthy = healthy_brain((6, 2))
    with pytest.raises(ValueError, match=r"'purple'.*mass_effect"):
        inspect.unwrap(add_lesion)(healthy, "purple", "large", 0)  # without the type checker
