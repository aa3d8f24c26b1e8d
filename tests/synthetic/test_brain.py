"""Synthetic healthy brains."""

import numpy as np
import pytest

from maediff.core.types import Modality
from maediff.synthetic.brain import Phantom, PhantomConfig, healthy_brain

VOXEL_ML = 2 * 2 * 4 / 1000


@pytest.fixture(scope="module")
def brain() -> Phantom:
    return healthy_brain((5, 1))


def test_field_of_view(brain: Phantom) -> None:
    assert brain.image.shape == brain.brain.shape == (80, 100, 40)
    assert brain.image.dtype == np.float32
    np.testing.assert_array_equal(np.abs(np.diag(brain.affine)[:3]), [2, 2, 4])
    assert 1000 < brain.brain.sum() * VOXEL_ML < 2000
    assert 30 <= brain.brain.any((0, 1)).sum() <= 40
    for axis in (0, 1):  # the field of view cuts no brain
        assert not brain.brain.take([0, -1], axis=axis).any()


def test_zero_outside_brain(brain: Phantom) -> None:
    assert (brain.image[~brain.brain] == 0).all()
    assert (brain.image[brain.brain] > 0).mean() == 1


def test_fractions_sum_to_1_in_the_brain(brain: Phantom) -> None:
    total = brain.fractions.sum(0)
    np.testing.assert_allclose(total[brain.depth_mm > 0], 1, atol=1e-5)
    assert (total[brain.depth_mm <= 0] == 0).all()
    csf, gm, wm = (float(f.sum() / total.sum()) for f in brain.fractions)
    assert 0.03 < csf < 0.25 and gm > 0.3 and wm > 0.25


@pytest.mark.parametrize(
    ("contrast", "order"), [("T1w", "csf gm wm"), ("T2w", "wm gm csf"), ("FLAIR", "csf wm gm")]
)
def test_order_of_intensities(contrast: Modality, order: str) -> None:
    b = healthy_brain((5, 2), PhantomConfig(contrast=contrast))
    thick = 0.5 * (b.fractions[:, :, :, 0::2] + b.fractions[:, :, :, 1::2])
    pure = {
        name: float(np.median(b.image[(f > 0.9) & b.brain]))
        for name, f in zip(("csf", "gm", "wm"), thick, strict=True)
    }
    values = [pure[name] for name in order.split()]
    assert values == sorted(values), pure


def test_the_seed_decides_the_brain(brain: Phantom) -> None:
    np.testing.assert_array_equal(healthy_brain((5, 1)).image, brain.image)
    other = healthy_brain((5, 2)).image
    assert np.abs(other - brain.image)[brain.brain].mean() > 0.05


def test_anatomy_is_independent_of_contrast(brain: Phantom) -> None:
    flair = healthy_brain((5, 1), PhantomConfig(contrast="FLAIR"))
    np.testing.assert_array_equal(flair.fractions, brain.fractions)


def test_sulci_differ_without_warp() -> None:
    still = PhantomConfig(
        rotation_deg=0, scaling=0, coarse_warp_mm=0, fine_warp_mm=0, ventricle_mm=(0, 0)
    )
    a, b = (healthy_brain((5, i), still) for i in (1, 2))
    # the same head, except for its random size
    np.testing.assert_allclose(a.depth_mm, b.depth_mm, atol=6)
    cortex = (a.depth_mm > 6) & (a.depth_mm < 14) & (a.cerebrum > 0.9) & (b.depth_mm > 6)
    r = np.corrcoef(a.fractions[2][cortex], b.fractions[2][cortex])[0, 1]
    assert r < 0.5


def test_unknown_contrast() -> None:
    with pytest.raises(ValueError, match="contrast"):
        PhantomConfig(contrast="PD")  # type: ignore[arg-type]
