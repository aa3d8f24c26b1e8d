"""Simulated atrophy: the edge of CSF moves by the given distance, and nothing else changes."""

import pytest
import torch

from maediff.training.slices.atrophy import widen_csf
from maediff.training.slices.augment import AugmentConfig, augment

DARK, TISSUE = 0.1, 0.6


def head(ventricle_px=6, size=64, csf=DARK):
    """A disc of tissue with a square ventricle in its middle."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    brain = torch.hypot(y - size / 2, x - size / 2) < 28
    inside = torch.maximum((y - size / 2).abs(), (x - size / 2).abs()) < ventricle_px
    image = torch.where(inside, csf, torch.where(brain, TISSUE, 0.0))
    return image[None, None], brain[None, None]


def widen(x, brain, px, csf=(0.0, 0.3), seed=0):
    return widen_csf(x, brain, px, csf, torch.Generator().manual_seed(seed))


def mean_width(x, brain, csf=(-1.0, 0.35)):
    """Widths of the ventricle along the middle row, averaged over 40 draws of up to 4 px."""
    row = x.shape[2] // 2
    widths = []
    for seed in range(40):
        line = widen(x, brain, 4.0, seed=seed)[0, 0, row, 10:54]
        widths.append(((line > csf[0]) & (line < csf[1])).sum().item())
    return sum(widths) / len(widths)


def test_the_edge_moves_by_the_drawn_distance():
    x, brain = head()
    # Up to 4 px on both sides, 2 on average: 11 -> 15 pixels.
    assert mean_width(x, brain) == pytest.approx(11 + 2 * 2, abs=1.2)


def test_the_larger_the_distance_the_larger_the_ventricle():
    x, brain = head()
    areas = [(widen(x, brain, px) < 0.3).logical_and(brain).sum().item() for px in (0.0, 2.0, 4.0)]
    assert areas[0] == (x < 0.3).logical_and(brain).sum().item()
    assert areas[0] < areas[1] < areas[2]


def test_zero_distance_changes_nothing():
    x, brain = head()
    torch.testing.assert_close(widen(x, brain, 0.0), x, atol=1e-5, rtol=0)


def test_a_brain_without_csf_stays_as_it_is():
    x, brain = head(ventricle_px=0)
    changed = (widen(x, brain, 4.0) - x).abs()[brain]
    assert changed.max() < 1e-3


def test_bright_csf():
    x, brain = head(csf=0.95)
    y = widen(x, brain, 4.0, csf=(0.75, 1.0))
    assert (y > 0.8).sum() > (x > 0.8).sum()


def test_the_background_stays_empty_and_the_edge_of_the_brain_in_place():
    x, brain = head()
    y = widen(x, brain, 4.0)
    assert (y[~brain] == 0).all()
    ring = brain & ~torch.nn.functional.avg_pool2d(brain.float(), 3, 1, 1).gt(0.99)
    torch.testing.assert_close(y[ring], x[ring], atol=0.02, rtol=0)


def test_augment_applies_it_to_its_share():
    x, brain = (t.expand(200, -1, -1, -1).contiguous() for t in head())
    y = augment(x, brain, AugmentConfig(atrophy=0.4), torch.Generator().manual_seed(0))
    share = (y - x).abs().flatten(1).amax(1).gt(1e-4).float().mean()
    assert share == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("csf", [(0.3, 0.3), (0.5, 0.2), (-0.1, 0.3), (0.7, 1.2)])
def test_csf_must_be_a_range(csf):
    with pytest.raises(ValueError, match="csf="):
        AugmentConfig(csf=csf)
