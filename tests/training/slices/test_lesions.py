"""Synthetic lesions: inside the brain, as frequent and strong as set, repeatable."""

import pytest
import torch

from maediff.core.config import build_config
from maediff.core.errors import InputError
from maediff.training.slices.lesions import FabricateConfig, fabricate


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


def test_pairs_are_mirror_images():
    x = slices(40)
    seen = make(x, share=1.0, most=1, pairs=1.0, radius=(3.0, 6.0), level=(1.0, 1.0))
    changed = (seen - x).abs() > 0.02
    both = (changed & changed.flip(-1)).flatten(1).sum(1)
    assert (both > 0.5 * changed.flatten(1).sum(1)).float().mean() > 0.8
    alone = (make(x, share=1.0, most=1, radius=(3.0, 6.0), level=(1.0, 1.0)) - x).abs() > 0.02
    assert (alone & alone.flip(-1)).flatten(1).any(1).float().mean() < 0.5


def test_blobs_are_small_and_many():
    x = slices(200)
    settings = {"share": 1.0, "most": 1, "opacity": (1.0, 1.0), "level": (1.0, 1.0)}
    tiny = {"radius": (0.01, 0.01)}  # lesions of the main formula vanish
    without = make(x, **settings, **tiny)
    seen = make(x, **settings, **tiny, blobs=1.0, blob_mm3=(60.0, 60.0))
    area = ((seen - without) > 0.2).flatten(1).sum(1).float()
    # A sphere of 60 mm3 has a radius of 1.2 pixels, so a disc of 4.6; 6.5 lesions on average.
    assert area.mean() == pytest.approx(6.5 * 4.6, rel=0.3)


def test_shift_keeps_grey_levels_outside_its_window():
    x = slices(100)
    x = torch.where(x > 0, torch.where(torch.arange(64) < 32, 0.2, 0.9), x)
    seen = make(x, share=1.0, most=1, shift=1.0, radius=(40.0, 40.0), opacity=(1.0, 1.0))
    middle = (slice(None), 0, slice(28, 36), slice(28, 36))
    dark = (seen - x)[middle][..., :4].abs().flatten(1).amax(1) > 0.1
    bright = (seen - x)[middle][..., 4:].abs().flatten(1).amax(1) > 0.1
    assert (dark ^ bright).float().mean() > 0.3  # only one of both levels changes


def test_texture_comes_from_another_slice():
    x = slices(8)
    stripes = torch.where(x > 0, 0.2 + 0.6 * (torch.arange(64) % 2), x)
    x = torch.cat([stripes[:1], x[1:]])
    seen = make(x, share=1.0, most=1, texture=1.0, radius=(20.0, 20.0), opacity=(1.0, 1.0))
    assert (seen[1, 0, :, 1:] - seen[1, 0, :, :-1]).abs()[20:44, 20:44].mean() > 0.1


def test_rim_differs_from_its_core():
    x = slices(60)
    settings = {"share": 1.0, "most": 1, "radius": (12.0, 12.0), "opacity": (1.0, 1.0)}
    plain, rimmed = (make(x, **settings, rim=rim) for rim in (0.0, 1e-9))
    assert torch.equal(plain, rimmed)  # nothing is drawn before the main formula
    rimmed = make(x, **settings, rim=1.0)
    assert (rimmed - plain).abs().flatten(1).amax(1).gt(0.1).float().mean() > 0.5


@pytest.mark.parametrize(
    ("name", "value"), [("blobs", 1.5), ("pairs", -0.1), ("most_blobs", 0), ("blob_mm3", (0, 3))]
)
def test_values_outside_their_range_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        build_config(FabricateConfig, {name: value}, "train.fabricate")
