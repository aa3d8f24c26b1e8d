"""Synthetic lesions: inside the brain, as frequent and strong as set, repeatable."""

import pytest
import torch

from maediff.core.config import build_config
from maediff.core.errors import InputError
from maediff.training.lesions import FabricateConfig, fabricate


def slices(b=64, size=64):
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = torch.hypot(y - size / 2, x - size / 2) < 25
    return torch.where(disc, 0.5, 0.0).expand(b, 1, -1, -1).contiguous()


def make(x, seed=0, **settings):
    return fabricate(x, FabricateConfig(**settings), torch.Generator().manual_seed(seed))


def test_lesions_stay_inside_the_brain_and_in_range():
    x = slices()
    seen = make(x, share=1.0)
    assert torch.equal(seen[x == 0], x[x == 0])
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_share_of_the_slices():
    x = slices(400)
    changed = (make(x, share=0.3) != x).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(0.3, abs=0.08)
    assert torch.equal(make(x, share=0.0), x)
    assert (make(x, share=1.0) - x).abs().flatten(1).amax(1).gt(0.02).float().mean() > 0.9


def test_size_follows_the_radius():
    x = slices()
    areas = [
        (
            (make(x, share=1.0, most=1, radius=(r, r), level=(1.0, 1.0), opacity=(1.0, 1.0)) - x)
            > 0.25
        )
        .sum()
        .item()
        for r in (3.0, 10.0)
    ]
    assert 4 < areas[1] / areas[0] < 20  # (10 / 3)^2 = 11, less what lies outside the brain


def test_bright_and_dark():
    x = slices()
    assert (make(x, share=1.0, level=(1.0, 1.0)) - x).sum() > 0
    assert (make(x, share=1.0, level=(0.0, 0.0)) - x).sum() < 0


def test_same_generator_same_lesions_and_each_slice_its_own():
    x = slices()
    first = make(x, share=1.0)
    assert torch.equal(first, make(x, share=1.0))
    assert not torch.equal(first, make(x, seed=1, share=1.0))
    assert len(torch.unique(first.flatten(1), dim=0)) == len(x)


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 1.5},
        {"most": 0},
        {"radius": (0.0, 3.0)},
        {"radius": (5.0, 3.0)},
        {"level": (-0.1, 1.0)},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError):
        build_config(FabricateConfig, wrong, "train.fabricate")
