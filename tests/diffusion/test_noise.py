"""Noise: variance, smoothness, independence, and a pure function of its key."""

import json

import pytest
import torch

from helpers.methods import make, predict, scan
from helpers.runs import made_run
from maediff.core.errors import InputError
from maediff.diffusion.noise import (
    COARSE_PX,
    DEFAULT_SIMPLEX,
    SimplexConfig,
    draw_noise,
    keyed_generators,
)
from maediff.methods.registry import build
from maediff.models.model import read_model

IDS = torch.tensor([3, 3, 7])
PATCHES = torch.tensor([0, 5, 0])


@pytest.mark.parametrize(
    ("kind", "waves"),
    [
        ("simplex", {}),
        ("simplex", {"octaves": 1, "frequency": 16}),
        ("simplex", {"octaves": 3, "persistence": 0.3}),
        ("simplex", {"octaves": 4, "persistence": 1, "frequency": 10}),
        ("simplex", {"persistence": 0}),
        ("gaussian", {}),
        ("coarse", {}),
    ],
)
def test_has_zero_mean_and_unit_variance_at_every_pixel(kind, waves):
    field = draw_noise(
        kind, (2000, 24, 24), torch.Generator().manual_seed(0), simplex=SimplexConfig(**waves)
    )
    assert field.shape == (2000, 1, 24, 24)
    # The mean of 2000 values has sd 0.022, their variance sd 0.032.
    # The worst of 576 pixels deviates by less than 4.5 sd.
    assert field.mean(0).abs().max() < 0.1
    assert (field.var(0) - 1).abs().max() < 0.16
    assert abs(float(field.var()) - 1) < 0.03  # pixels of a simplex field are dependent


def test_the_default_noise_is_that_of_earlier_runs():
    """The numbers are from commit d048ecb, where the waves were constants of the module."""
    field = draw_noise("simplex", (2, 96, 96), torch.Generator().manual_seed(0))
    first, last = [-0.32882461, -0.45095301, -0.87889731], [-0.65710229, -0.68650818, -1.13913000]
    torch.testing.assert_close(field[0, 0, 0, :3], torch.tensor(first), rtol=0, atol=1e-5)
    torch.testing.assert_close(field[1, 0, 95, 93:], torch.tensor(last), rtol=0, atol=1e-5)


def test_fewer_octaves_and_less_persistence_are_smoother():
    def roughness(**waves):
        field = draw_noise(
            "simplex",
            (100, 32, 32),
            torch.Generator().manual_seed(0),
            simplex=SimplexConfig(**waves),
        )
        return float((field[..., 1:] - field[..., :-1]).square().mean())

    assert roughness(octaves=3) < 0.5 * roughness()
    assert roughness(persistence=0.4) < 0.5 * roughness()
    assert roughness(octaves=3, frequency=256) < 0.5 * roughness(octaves=3)


@pytest.mark.parametrize(
    ("waves", "message"),
    [
        ({"octaves": 0}, "octaves=0 must be at least 1"),
        ({"octaves": 2.5}, "octaves: "),
        (
            {"octaves": 8},
            "octaves=8 end in waves finer than a pixel: from frequency=64 at most octaves=7",
        ),
        ({"octaves": 10**6}, "octaves=1000000"),
        ({"persistence": -0.1}, "persistence=-0.1 must be in 0..1"),
        ({"persistence": 1.5}, "persistence=1.5 must be in 0..1"),
        ({"persistence": float("nan")}, "persistence=nan"),
        ({"frequency": 0}, "frequency=0.0 must be a wavelength"),
        ({"frequency": -64}, "frequency=-64.0 must be a wavelength"),
        ({"frequency": float("inf")}, "frequency=inf"),
        ({"scale": 2}, "scale: "),
    ],
)
def test_impossible_waves_are_refused_and_the_message_names_them(waves, message):
    with pytest.raises(InputError, match=f"settings of maediff: simplex.*{message}"):
        build("maediff", "tiny", {"simplex": waves})


@pytest.mark.parametrize("name", ["maediff", "pddpm", "ddpm", "anoddpm"])
def test_waves_change_the_noise_in_training_and_prediction(name):
    (images, brain, ids), waves = scan(), {"octaves": 2, "persistence": 0.5}
    usual, other = make(name, noise="simplex"), make(name, noise="simplex", simplex=waves)
    x = torch.from_numpy(images)[1:4, None]
    losses = [method.loss(x, torch.Generator().manual_seed(0)).item() for method in (usual, other)]
    assert abs(losses[0] - losses[1]) > 1e-4
    references = [predict(method, images, brain, ids)[1] for method in (usual, other)]
    assert abs(references[0] - references[1]).max() > 1e-3


def test_a_run_saved_without_waves_gets_the_defaults(tmp_path):
    run = made_run(tmp_path / "run")
    for name in ("config.json", "calibration.json"):
        saved = json.loads((run / name).read_text("utf-8"))
        del saved["config"]["simplex"]
        (run / name).write_text(json.dumps(saved))
    model = read_model(run)
    assert model.method.config.simplex == DEFAULT_SIMPLEX
    assert model.thresholds.at_fpr(0.01).residual == 0.1
    changed = read_model(f"{run}@simplex.octaves=2,simplex.persistence=0.5")
    assert changed.method.config.simplex == SimplexConfig(2, 0.5)
    with pytest.raises(InputError, match="other settings of simplex"):
        changed.thresholds.at_fpr(0.01)


def test_simplex_does_not_vanish_at_the_first_pixel():
    field = draw_noise("simplex", (200, 8, 8), torch.Generator().manual_seed(1))
    assert 0.8 < float(field[:, 0, 0, 0].std()) < 1.2


def test_simplex_noise_is_smooth_coarse_noise_smoother_and_gaussian_noise_rough():
    for kind, low, high in (
        ("coarse", 0.95, 1.0),
        ("simplex", 0.5, 0.95),
        ("gaussian", -0.1, 0.1),
    ):
        field = draw_noise(kind, (200, 16, 16), torch.Generator().manual_seed(2))
        neighbours = float((field[..., 1:] * field[..., :-1]).mean() / field.var())
        assert low < neighbours < high, kind


def test_images_of_a_batch_are_independent():
    a, b = draw_noise("simplex", (2, 96, 96), torch.Generator().manual_seed(0))
    # Long waves leave few independent values in a field, so independent fields correlate a bit.
    assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.5


def test_coarse_noise_is_uncorrelated_after_two_cells_and_bilinear_between():
    field = draw_noise("coarse", (500, 40, 40), torch.Generator().manual_seed(3))[:, 0]
    cell = int(COARSE_PX)
    assert abs(float((field[..., 2 * cell :] * field[..., : -2 * cell]).mean())) < 0.02
    bends = (field[..., 2:] - 2 * field[..., 1:-1] + field[..., :-2]).abs() > 1e-4
    # A node between two pixels bends the line at both; 40 pixels have 38 inner ones.
    assert bends.sum(dim=-1).max() <= 2 * (38 // cell + 1)


@pytest.mark.parametrize("kind", ["simplex", "gaussian", "coarse"])
def test_keyed_noise_depends_on_its_key_alone(kind):
    whole = draw_noise(kind, (3, 16, 16), keyed_generators(0, IDS, PATCHES))
    reversed_ = draw_noise(kind, (3, 16, 16), keyed_generators(0, IDS.flip(0), PATCHES.flip(0)))
    alone = draw_noise(kind, (1, 16, 16), keyed_generators(0, IDS[1:2], PATCHES[1:2]))
    torch.testing.assert_close(whole, reversed_.flip(0), rtol=0, atol=0)
    torch.testing.assert_close(whole[1:2], alone, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["simplex", "gaussian", "coarse"])
def test_noise_is_the_same_if_the_network_runs_in_bf16(kind):
    plain = draw_noise(kind, (2, 16, 16), torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(
            draw_noise(kind, (2, 16, 16), torch.Generator().manual_seed(0)), plain, rtol=0, atol=0
        )


@pytest.mark.parametrize("change", ["seed", "slice", "patch", "draw"])
def test_each_part_of_the_key_changes_the_noise(change):
    key = {"seed": 0, "slice_ids": torch.tensor([4]), "patches": torch.tensor([2]), "draw": 0}
    other = dict(key)
    name = {"seed": "seed", "slice": "slice_ids", "patch": "patches", "draw": "draw"}[change]
    other[name] = key[name] + 1
    a, b = (draw_noise("gaussian", (1, 8, 8), keyed_generators(**k)) for k in (key, other))
    assert (a - b).abs().max() > 0.1


def test_each_image_needs_a_generator():
    with pytest.raises(ValueError, match="1 generators for 2 images"):
        draw_noise("gaussian", (2, 8, 8), [torch.Generator()])
