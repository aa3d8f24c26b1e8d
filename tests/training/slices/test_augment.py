"""Augmentation: each effect by itself, what it must keep, and its place in training."""

from dataclasses import replace

import pytest
import torch

from maediff.core.config import parse_settings
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.training.config import resolve_training
from maediff.training.slices.augment import (
    AUGMENT_PRESETS,
    ROBUST,
    AugmentConfig,
    augment,
    bias,
    contrast,
    ghosting,
    match_range,
    noise,
    place,
    resolution,
)

EFFECTS = (
    "place",
    "contrast",
    "bias",
    "resolution",
    "ghosting",
    "noise",
    "headroom",
    "atrophy",
)
OFF = AugmentConfig()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def slices():
    """Four equal slices, a smooth texture from 0 to 1 in an ellipse of 50 x 66 pixels."""
    row, column = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    brain = ((row - 48) / 33) ** 2 + ((column - 45) / 25) ** 2 <= 1
    x = 0.5 + 0.3 * torch.sin(row / 3) * torch.cos(column / 4) + 0.2 * torch.sin(row / 11)
    return (x * brain)[None, None].repeat(4, 1, 1, 1), brain[None, None].repeat(4, 1, 1, 1)


def test_off_is_the_identity_and_draws_nothing(slices):
    drawn = generator()
    assert torch.equal(augment(*slices, OFF, drawn), slices[0])
    assert torch.equal(drawn.get_state(), generator().get_state())
    assert not OFF.active
    assert ROBUST.active


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_changes_images_each_its_own_way_and_repeats(slices, effect):
    config = AugmentConfig(**{effect: 1.0})
    y = augment(*slices, config, generator())
    assert torch.equal(y, augment(*slices, config, generator()))
    assert not torch.equal(y, augment(*slices, config, generator(1)))
    differences = [(y[i] - y[j]).abs().max() for i in range(4) for j in range(i)]
    assert min(differences) > 1e-3
    assert (y - slices[0]).abs().flatten(1).amax(1).min() > 1e-3


@pytest.mark.parametrize("effect", EFFECTS)
def test_the_range_and_the_empty_background_are_kept(slices, effect):
    x, brain = slices
    y = augment(x, brain, AugmentConfig(**{effect: 1.0}), generator())
    assert y.min() >= 0
    assert y.max() <= 1
    if effect != "place":
        assert (y[~brain] == 0).all()
    else:
        area = (y > 0).flatten(1).sum(1) / brain.flatten(1).sum(1)
        assert (area > 0.8).all()
        assert (area < 1.25).all()


def test_the_share_decides_how_many_images_change(slices):
    x, brain = (values[:1].repeat(200, 1, 1, 1)[:, :, ::2, ::2] for values in slices)
    y = augment(x, brain, AugmentConfig(contrast=0.3), generator())
    assert 40 < (y != x).flatten(1).any(1).sum() < 80


def test_contrast_keeps_the_order_and_both_ends():
    levels = torch.linspace(0, 1, 96 * 96).view(1, 1, 96, 96).repeat(8, 1, 1, 1)
    y = contrast(levels, AugmentConfig(gamma=0.7, curve=1.0), generator()).flatten(1)
    assert (y.diff(dim=1) > -1e-6).all()
    torch.testing.assert_close(y[:, 0], torch.zeros(8))
    torch.testing.assert_close(y[:, -1], torch.ones(8))


@pytest.mark.parametrize(
    "effect",
    [
        lambda x, b, g: contrast(x, replace(OFF, gamma=0, curve=0), g),
        lambda x, b, g: bias(x, replace(OFF, bias_log=0), g),
        lambda x, b, g: resolution(x, b, replace(OFF, width_px=1), g),
        lambda x, b, g: ghosting(x, replace(OFF, ghost=0), g),
        lambda x, b, g: noise(x, replace(OFF, sigma=0), g),
        lambda x, b, g: place(x, b, replace(OFF, rotation_deg=0, scaling=0, shift_px=0), g)[0],
    ],
)
def test_without_strength_an_effect_is_the_identity(slices, effect):
    x, brain = slices
    torch.testing.assert_close(effect(x, brain, generator()), x, atol=0.005, rtol=0)


def test_bias_is_smooth():
    field = bias(torch.ones(4, 1, 96, 96), AugmentConfig(bias_log=0.3), generator())
    assert field.diff(dim=2).abs().max() < 0.06
    assert field.flatten(1).std(1).max() > 0.03


def test_resolution_blurs_but_keeps_what_is_flat_up_to_the_rim(slices):
    x, brain = slices
    torch.testing.assert_close(
        resolution(brain.float(), brain, ROBUST, generator()), brain.float()
    )
    y = resolution(x, brain, AugmentConfig(width_px=6), generator())
    rough, smooth = (v[:, :, 30:66, 30:60].diff(dim=2).abs().mean() for v in (x, y))
    assert smooth < 0.8 * rough


def test_ghosts_are_copies_at_a_fraction_of_the_slice():
    x = torch.zeros(16, 1, 96, 96)
    x[:, :, 50, 40] = 1
    y = ghosting(x, AugmentConfig(ghost=0.1), generator()) - x
    for image in y[:, 0]:
        places = image.nonzero()
        offset = places - torch.tensor([50, 40])
        axis = int(offset.abs().amax(0).argmax())
        assert (offset[:, 1 - axis] == 0).all()
        assert len(places) in range(1, 6)
        period = 96 / (len(places) + 1)
        wanted = period * torch.arange(1, len(places) + 1)
        torch.testing.assert_close(
            (offset[:, axis] % 96).sort().values.float(), wanted, atol=0.5, rtol=0
        )
        assert image.max() <= 0.1


def test_noise_is_rician(slices):
    flat = torch.full((400, 1, 16, 16), 0.5)
    y = noise(flat, AugmentConfig(sigma=0.1), generator())
    assert y.mean() == pytest.approx(
        0.5 + (0.1**2 / 3) / (2 * 0.5), abs=1e-3
    )  # E sigma^2 = max^2 / 3
    assert y.std() == pytest.approx(0.1 / 3**0.5, rel=0.1)


def test_the_brain_never_leaves_the_slice():
    """An L as large as the slice: whatever its turn, size and shift, none of it is cut off."""
    brain = torch.zeros(32, 1, 96, 96, dtype=torch.bool)
    brain[:, :, 1:95, 20:24] = brain[:, :, 91:95, 20:90] = True
    config = AugmentConfig(rotation_deg=30, scaling=0.0, shift_px=40)
    x, moved = place(brain.float(), brain, config, generator())
    assert torch.equal(x > 0, moved)
    rows, columns = moved.any(3)[:, 0].sum(1), moved.any(2)[:, 0].sum(1)
    area = moved.flatten(1).sum(1)
    long_side = (
        area / brain[0].sum()
    ).sqrt() * 94  # had a piece been cut, the area would tell of a shorter one
    assert (torch.hypot(rows.float(), columns.float()) > long_side).all()
    assert (rows >= 70).all()
    grown = place(
        brain.float(), brain, replace(config, rotation_deg=0.0, scaling=2.0), generator()
    )[1]
    assert grown.any(3)[:, 0].sum(1).max() == 96
    assert grown.any(3)[:, 0].sum(1).min() < 60


def test_headroom_dims_the_whole_brain(slices):
    x, brain = slices
    y = augment(x, brain, AugmentConfig(headroom=1.0, least=0.5), generator())
    heights = y[brain].view(4, -1) / x[brain].view(4, -1).clamp(min=1e-6)
    assert (heights.amax(1) <= 1).all()
    torch.testing.assert_close(y, x * y.flatten(1).amax(1)[:, None, None, None] / x.max())
    assert y.flatten(1).amax(1).min() >= 0.5 * x.max()


def test_the_percentiles_go_back_to_where_they_were(slices):
    x, brain = slices
    y = match_range(0.4 * x + 0.2, x, brain)
    torch.testing.assert_close(y[brain], x[brain], atol=0.02, rtol=0)
    flat = brain * 0.5
    assert torch.equal(match_range(flat, x, brain), flat)
    nothing = torch.zeros_like(brain)
    assert match_range(x * 0, x, nothing).isfinite().all()


def test_settings_take_a_preset_by_name_or_a_share_an_effect():
    assert (
        resolve_training("small", {"augment": "robust"}).augment
        == ROBUST
        == AUGMENT_PRESETS["robust"]
    )
    assert resolve_training("small", {"augment": {"contrast": 0.5}}).augment == AugmentConfig(
        contrast=0.5
    )
    assert resolve_training("small", {}).augment == OFF
    changed = resolve_training("small", {"augment": {"preset": "robust", "noise": 0.0}}).augment
    assert changed == replace(ROBUST, noise=0.0)
    assert resolve_training("small", parse_settings(["train.augment=off"])["train"]).augment == OFF
    assert (
        resolve_training("small", parse_settings(["train.augment.preset=off"])["train"]).augment
        == OFF
    )
    with pytest.raises(InputError, match="'wild': one of off, robust, robust-bright"):
        resolve_training("small", {"augment": "wild"})
    with pytest.raises(InputError, match="shares from 0 to 1"):
        resolve_training("small", {"augment": {"noise": 2.0}})
    with pytest.raises(InputError, match=r"width_px=0\.5 must not be below 1"):
        resolve_training("small", {"augment": {"width_px": 0.5}})


@pytest.mark.slow
def test_training_with_it_is_another_training_and_resumes_exactly(tmp_path, monkeypatch):
    import itertools

    from safetensors.torch import load_file

    from helpers.brains import made_cohort
    from maediff.training.train import train

    net = {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2}
    common = {
        "steps": 4,
        "batch_size": 2,
        "checkpoint_every": 2,
        "precision": "fp32",
        "validation_slices": 2,
    }
    cohort = made_cohort(tmp_path / "cohort")

    def run(name, *, resume=False, **kwargs):
        settings = {
            "unet": net,
            "train": common | {"flip": True, "augment": kwargs.pop("augment", "robust")},
        }
        train(
            "pddpm",
            cohort,
            tmp_path / name,
            preset="tiny",
            settings=settings,
            run=RunOptions(device="cpu", quiet=True, resume=resume),
            **kwargs,
        )
        return load_file(tmp_path / name / "last" / "model.safetensors")

    whole, off = run("whole"), run("off", augment="off")
    clock = itertools.count(step=1.0)
    monkeypatch.setattr(
        "maediff.training.loop.time.monotonic", lambda: next(clock)
    )  # a second a step
    run("parts", max_time="3s")
    parts = run("parts", resume=True)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert any(not torch.equal(whole[key], off[key]) for key in whole)
