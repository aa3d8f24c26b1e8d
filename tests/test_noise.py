"""Noise: variance by closed form, no zero at the origin, independence, and a pure function of its key."""

import pytest
import torch

from maediff.noise import draw_noise, keyed_generators

IDS = torch.tensor([3, 3, 7])
PATCHES = torch.tensor([0, 5, 0])


@pytest.mark.parametrize("kind", ["simplex", "gaussian"])
def test_has_zero_mean_and_unit_variance_at_every_pixel(kind):
    field = draw_noise(kind, (2000, 24, 24), torch.Generator().manual_seed(0))
    assert field.shape == (2000, 1, 24, 24)
    # sd of a mean of 2000 values is 0.022, of their variance 0.032; the worst of 576 pixels is under 4.5 sd off
    assert field.mean(0).abs().max() < 0.1
    assert (field.var(0) - 1).abs().max() < 0.16
    assert abs(float(field.var()) - 1) < 0.03  # pixels of a simplex field are far from independent


def test_simplex_does_not_vanish_at_the_first_pixel():
    field = draw_noise("simplex", (200, 8, 8), torch.Generator().manual_seed(1))
    assert 0.8 < float(field[:, 0, 0, 0].std()) < 1.2


def test_simplex_is_smooth_and_gaussian_is_not():
    for kind, low, high in (("simplex", 0.5, 0.95), ("gaussian", -0.1, 0.1)):
        field = draw_noise(kind, (200, 16, 16), torch.Generator().manual_seed(2))
        neighbours = float((field[..., 1:] * field[..., :-1]).mean())
        assert low < neighbours < high, kind


def test_images_of_a_batch_are_independent():
    a, b = draw_noise("simplex", (2, 96, 96), torch.Generator().manual_seed(0))
    # Long waves leave few independent values in a field, so even independent ones correlate a little.
    assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.5


@pytest.mark.parametrize("kind", ["simplex", "gaussian"])
def test_keyed_noise_depends_on_its_key_alone(kind):
    whole = draw_noise(kind, (3, 16, 16), keyed_generators(0, IDS, PATCHES))
    reversed_ = draw_noise(kind, (3, 16, 16), keyed_generators(0, IDS.flip(0), PATCHES.flip(0)))
    alone = draw_noise(kind, (1, 16, 16), keyed_generators(0, IDS[1:2], PATCHES[1:2]))
    torch.testing.assert_close(whole, reversed_.flip(0), rtol=0, atol=0)
    torch.testing.assert_close(whole[1:2], alone, rtol=0, atol=0)


@pytest.mark.parametrize("change", ["seed", "slice", "patch", "draw"])
def test_each_part_of_the_key_changes_the_noise(change):
    key = {"seed": 0, "slice_ids": torch.tensor([4]), "patches": torch.tensor([2]), "draw": 0}
    other = dict(key)
    name = {"seed": "seed", "slice": "slice_ids", "patch": "patches", "draw": "draw"}[change]
    other[name] = key[name] + 1
    a, b = (draw_noise("gaussian", (1, 8, 8), keyed_generators(**k)) for k in (key, other))
    assert (a - b).abs().max() > 0.1


def test_a_generator_is_needed_for_each_image():
    with pytest.raises(ValueError, match="1 generators for 2 images"):
        draw_noise("gaussian", (2, 8, 8), [torch.Generator()])
