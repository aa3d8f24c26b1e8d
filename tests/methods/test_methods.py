"""Properties of single methods, beyond the contract of all methods (test_contract.py)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.methods import make, predict, scan
from maediff.core.errors import InputError
from maediff.detection.benchmark import reference_loop
from maediff.diffusion.noise import coarse_noise
from maediff.methods.diffusion_config import DiffusionConfig
from maediff.methods.mean_reference import MeanReference
from maediff.methods.registry import build
from maediff.methods.residual import residual_of


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
def test_only_the_noised_patch_differs_from_the_slice_that_enters_the_network(name, monkeypatch):
    method, x, seen = make(name), torch.rand(6, 1, 48, 48), []
    encode = method.unet.encode

    def spy(perturbed, t):
        seen.append(perturbed)
        return encode(perturbed, t)

    monkeypatch.setattr(method.unet, "encode", spy)
    method.loss(x, torch.Generator().manual_seed(0))
    different = seen[0] != 2 * x - 1
    for image in different:
        masks = method.training_grid.masks
        fits = [k for k, mask in enumerate(masks) if not (image[0] & ~mask).any()]
        assert len(fits) == 1  # bit-equal outside exactly one patch of the grid
        assert image[0][masks[fits[0]]].float().mean() > 0.99


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
def test_only_pixels_inside_the_patch_count_in_the_loss(name, monkeypatch):
    settings = {"p": 24, "s": 24, "visible_weight": 0.0, "loss": "l1"} | (
        {"s_train": 24} if name == "pddpm" else {}
    )
    method, x, p = make(name, **settings), torch.rand(1, 1, 48, 48), 24
    entered = []
    encode = method.unet.encode
    monkeypatch.setattr(method.unet, "encode", lambda x, t: entered.append(x) or encode(x, t))
    for outside in (0.0, 5.0):  # the prediction outside the patch must not matter

        def predict_constant(*args, outside=outside):
            noised = entered[-1] != 2 * x - 1
            return torch.where(noised, 0.0, outside)

        monkeypatch.setattr(method.unet, "decode", predict_constant)
        loss = method.loss(x, torch.Generator().manual_seed(0)).item()
        inside = entered[-1] != 2 * x - 1
        assert int(inside.sum()) == p * p
        assert loss == pytest.approx(float((2 * x - 1)[inside].abs().mean()), rel=1e-5)


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
def test_visible_weight_adds_the_loss_outside_the_patch(name, monkeypatch):
    x, losses = torch.rand(1, 1, 48, 48), []
    for weight in (0.0, 0.5):
        method = make(name, visible_weight=weight, loss="l1")
        monkeypatch.setattr(method.unet, "decode", lambda *args: torch.zeros_like(x))
        losses.append(method.loss(x, torch.Generator().manual_seed(0)).item())
    grid = make(name).grid
    errors = (2 * x - 1).abs()[0, 0]
    sums = [(float(errors[mask].mean()), float(errors[~mask].mean())) for mask in grid.masks]
    assert any(
        losses == pytest.approx([inside, inside + 0.5 * outside], rel=1e-5)
        for inside, outside in sums
    )


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
def test_seen_enters_the_network_and_the_healthy_slice_is_the_target(name, monkeypatch):
    method, x = make(name, visible_weight=1.0), torch.rand(2, 1, 48, 48)
    monkeypatch.setattr(method.unet, "decode", lambda *args: 2 * x - 1)  # predicts x
    assert method.loss(x, torch.Generator().manual_seed(0), 1 - x).item() == pytest.approx(
        0, abs=1e-6
    )
    entered, encode = [], method.unet.encode
    monkeypatch.setattr(method.unet, "encode", lambda x, t: entered.append(x) or encode(x, t))
    method.loss(x, torch.Generator().manual_seed(0), 1 - x)
    assert float((entered[0] == 2 * (1 - x) - 1).float().mean()) > 0.7  # all but the patch


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
def test_only_patches_with_a_coarse_difference_are_refined(name, monkeypatch):
    images, brain, ids = scan()
    calls, full = [], make(name)
    maps = {}
    for above in (None, 0.0, 2.0):
        method = make(name, refine_above=above)
        decode = method.unet.decode
        monkeypatch.setattr(
            method.unet,
            "decode",
            lambda f, *a, decode=decode: calls.append(len(f)) or decode(f, *a),
        )
        calls.clear()
        maps[above] = predict(method, images, brain, ids)[1], sum(calls)
    # Above 0, every patch is refined; above 2, none is.
    np.testing.assert_allclose(maps[0.0][0], maps[None][0], atol=1e-6)
    assert maps[0.0][1] == maps[None][1]
    assert maps[2.0][1] < maps[None][1]
    assert (
        np.abs(
            maps[2.0][0]
            - full.predict(
                torch.from_numpy(images)[:, None], slice_ids=torch.from_numpy(ids), seed=0
            )
            .reconstruction[:, 0]
            .detach()
            .numpy()
        ).max()
        > 1e-3
    )
    # Without noise: with s=24 the patches have other numbers, and so another noise.
    monkeypatch.setattr(
        "maediff.methods.diffusion_config.draw_noise",
        lambda kind, shape, *_: torch.zeros(shape[0], 1, *shape[1:]),
    )
    alone, coarse = (
        predict(make(name, **how), images, brain, ids)[1]
        for how in ({"refine_above": 2.0}, {"s": 24})
    )
    np.testing.assert_allclose(alone, coarse, atol=1e-6)


def test_refining_needs_coarse_patches_among_the_fine():
    with pytest.raises(InputError, match="refine_above needs the patches"):
        # 40 is not among 0, 16, 32, 48, 56
        build("pddpm", "tiny", {"p": 40, "s": 16, "refine_above": 0.1})


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"s": 24, "simplex": {"octaves": 2}},
        {"t_test": (125, 250), "draws": 2},
        {"t_test": (250,), "noise_test": 0},
    ],
)
def test_batched_prediction_equals_the_reference_loop(name, settings):
    method, (images, brain, ids) = make(name, **settings), scan()
    _, reference = predict(method, images, brain, ids, batch_size=7)
    plain = reference_loop(method, images, ids, seed=0)
    np.testing.assert_allclose(reference[brain], plain[brain], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm"])
def test_without_noise_at_test_the_seed_changes_nothing_but_t_still_does(name, monkeypatch):
    images, brain, ids = scan()
    noisy, bare = make(name, t_test=(250,)), make(name, t_test=(250,), noise_test=0)
    references = [
        predict(method, images, brain, ids, seed=seed)[1]
        for method in (noisy, bare)
        for seed in (0, 1)
    ]
    assert not np.array_equal(references[0], references[1])
    np.testing.assert_array_equal(references[2], references[3])
    earlier = make(name, t_test=(60,), noise_test=0)
    assert np.abs(predict(earlier, images, brain, ids)[1] - references[2]).max() > 1e-3
    monkeypatch.setattr(
        "maediff.methods.diffusion_config.draw_noise",
        lambda *_: pytest.fail("drew noise for noise_test=0"),
    )
    predict(bare, images, brain, ids)


@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm"])
def test_noise_has_the_standard_deviation_of_noise_sd_in_training_and_at_test(name):
    images, brain, ids = scan()
    whole, less = make(name, noise_sd=1.0), make(name, noise_sd=0.45)
    for kind in ("simplex", "gaussian", "coarse"):
        config = replace(less.config, noise=kind)
        drawn = config.sample_noise((32, 96, 96), torch.Generator().manual_seed(0), "cpu")
        assert drawn.std().item() == pytest.approx(0.45, rel=0.05)
    x = torch.from_numpy(images)[:, None]
    losses = [method.loss(x, torch.Generator().manual_seed(0)).item() for method in (whole, less)]
    assert losses[0] != losses[1]
    scaled = predict(make(name, noise_test=0.45), images, brain, ids)[1]
    np.testing.assert_allclose(predict(less, images, brain, ids)[1], scaled, rtol=0, atol=1e-6)
    assert np.abs(scaled - predict(whole, images, brain, ids)[1]).max() > 1e-4


def test_a_patch_is_reconstructed_from_its_own_noise_only():
    """Two equal slices get different noise if their index on the grid differs."""
    method, (images, brain, _) = make("maediff"), scan()
    twice, mask = np.stack([images[2], images[2]]), np.stack([brain[2], brain[2]])
    residual, _ = predict(method, twice, mask, np.array([4, 5]))
    assert np.abs(residual[0] - residual[1]).max() > 1e-4
    residual, _ = predict(method, twice, mask, np.array([4, 4]))
    np.testing.assert_allclose(residual[0], residual[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm"])
def test_a_chain_of_one_step_is_the_one_step_prediction_and_more_differ(name):
    images, brain, ids = scan()
    one, also_one, four = (
        predict(make(name, chain=n, t_test=200), images, brain, ids)[0] for n in (1, 1, 4)
    )
    assert np.array_equal(one, also_one)
    assert np.abs(one - four).max() > 1e-4


@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm"])
def test_a_chain_with_fresh_noise_is_a_pure_function_of_seed_and_slice(name):
    images, brain, ids = scan()
    chain = {"chain": 4, "t_test": 200}
    fresh = make(name, eta=1, **chain)
    first, again, other_seed = (
        predict(fresh, images, brain, ids, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert np.abs(first - other_seed).max() > 1e-4
    assert np.abs(first - predict(make(name, **chain), images, brain, ids)[0]).max() > 1e-4
    alone = predict(fresh, images[2:3], brain[2:3], ids[2:3])[0]
    np.testing.assert_allclose(alone, first[2:3], rtol=0, atol=1e-5)
    plain, one = (
        predict(make(name, eta=eta, t_test=200), images, brain, ids)[0] for eta in (0, 1)
    )
    assert np.array_equal(plain, one)  # one step needs no fresh noise


def test_residuals_by_sign():
    images, brain, ids = scan()
    both, bright, dark = (
        predict(make("pddpm", residual=kind), images, brain, ids)[0]
        for kind in ("abs", "bright", "dark")
    )
    np.testing.assert_allclose(both, bright + dark, atol=1e-6)
    assert not (bright * dark).any()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("maediff", {"r": 10}, r"r=10 .* would fit"),
        ("maediff", {"p": 99}, "p=99"),
        ("maediff", {"s": 64}, "s=64"),
        ("maediff", {"size": 90}, r"size=90.* would fit"),
        (
            "maediff",
            {"r": 2},
            r"r=2 .* multiple of the feature map's d=\d pixels: r in \[\d+, .* would fit",
        ),
        (
            "maediff",
            {"unet": {"width": 3}},
            r"unet.width: unknown setting; choose one of channels, blocks, ",
        ),
        ("maediff", {"unet": {"blocks": "two"}}, "unet.blocks: .*integer[^(]*$"),
        ("pddpm", {"r": 16}, "r: unknown setting"),
        ("pddpm", {"size": 98}, r"size=98"),
        ("ddpm", {"size": 97}, r"size=97"),
        ("anoddpm", {"t_test": 1000}, r"t_test=\(1000,\)"),
        ("anoddpm", {"t_train": (5, 2)}, "t_train"),
        ("maediff", {"noise_test": -1}, "noise_test=-1"),
        ("maediff", {"noise_sd": 0}, "noise_sd=0.0 must be above 0"),
        ("maediff", {"noise_test": 0, "draws": 2}, "draws=2 would all be equal without noise"),
        ("pddpm", {"eta": 1.5}, "eta=1.5 must be from 0"),
        (
            "anoddpm",
            {"eta": 1, "noise_test": 0},
            "eta=1.0 adds noise in the chain, but noise_test=0 removes it",
        ),
        ("vae", {"latent": 0}, "latent=0"),
        ("ae", {"net": {"channels": (4,)}}, "channels=\\(4,\\)"),
        ("dae", {"noise_cells": 97}, "noise_cells=97"),
        ("fanogan", {"gan_share": 1}, "gan_share=1"),
        ("bright", {"p": 1}, "p: unknown setting"),
        ("nonsense", {}, "'nonsense' is not known"),
    ],
)
def test_wrong_settings_are_refused_and_the_message_names_them(name, settings, message):
    with pytest.raises(InputError, match=message):
        build(name, "tiny", settings)


def test_intensity_baselines_by_hand():
    x = torch.tensor([[0.0, 0.2], [0.6, 1.4]]).view(1, 1, 2, 2)
    brain = torch.tensor([[False, True], [True, True]]).view(1, 1, 2, 2)
    expected = {
        "bright": [0, 0.1, 0.3, 0.7],
        "dark": [0, 0.8, 0.4, 0],
        "median": [0, 0.4, 0, 0.4],
        "slice": [0, 0, 0, 0.4],
        # The left of the first row is no brain, so its right has no opposite side.
        "mirror": [0, 0, 0, 0.4],
        "mirror-dark": [0, 0, 0.4, 0],
    }
    for name, values in expected.items():
        anomaly = (
            build(name).predict(x, slice_ids=torch.tensor([0]), seed=0, brain=brain).anomaly_map
        )
        torch.testing.assert_close(anomaly.flatten(), torch.tensor(values), msg=name)


@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm", "ae", "fanogan"])
def test_intensities_above_1_affect_only_the_residual_and_only_with_headroom(name):
    x = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    beyond = x.clone()
    beyond[..., 40:44, 40:44] = torch.linspace(1.1, 1.9, 16).view(4, 4)
    capped = beyond.clamp_max(1)
    settings = {"residual": "bright", "recentre": False}

    def predicted(image, **more):
        method = build(name, "tiny", {**settings, **more}).eval()
        with torch.inference_mode():
            return method.predict(image, slice_ids=torch.tensor([0]), seed=0)

    plain, wanted = predicted(beyond), predicted(beyond, headroom=True)
    torch.testing.assert_close(plain.anomaly_map, predicted(capped).anomaly_map, rtol=0, atol=0)
    torch.testing.assert_close(wanted.reconstruction, plain.reconstruction, rtol=0, atol=0)
    more = (wanted.anomaly_map - plain.anomaly_map)[..., 40:44, 40:44]
    torch.testing.assert_close(
        more,
        (beyond - plain.reconstruction)[..., 40:44, 40:44].clamp(0, 1)
        - (capped - plain.reconstruction)[..., 40:44, 40:44],
    )
    assert more.max() > 0.05


def test_template_compares_with_the_nearest_mean_image():
    low, high = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    template = build("template").fit(torch.stack([low, low, high]), torch.tensor([0.0, 0.01, 1.0]))
    x = torch.full((1, 1, 4, 4), 0.9)
    result = template.predict(x, slice_ids=torch.tensor([0]), seed=0)
    torch.testing.assert_close(result.anomaly_map, torch.full_like(x, 0.1))
    with pytest.raises(ValueError, match="call fit"):
        build("template").predict(x, slice_ids=torch.tensor([0]), seed=0)


def test_time_steps_of_a_chain():
    assert DiffusionConfig(chain=1).timesteps(250) == [250]
    assert DiffusionConfig(chain=5).timesteps(250) == [250, 200, 150, 100, 50]
    assert DiffusionConfig(chain=9).timesteps(3) == [3, 2, 1, 0]


def test_dae_noise_is_coarse_differs_between_images_and_stays_in_the_foreground(monkeypatch):
    noise = coarse_noise(400, 96, 16, 0.2, torch.Generator().manual_seed(0))
    assert noise.mean().abs() < 0.005
    assert 0.1 < noise.std() < 0.17  # upsampling averages the numbers
    steps = (noise[..., 1:] - noise[..., :-1]).abs()
    assert steps.mean() < 0.4 * noise.abs().mean()  # smooth from pixel to pixel
    assert noise.std(dim=0).std() < 0.02  # equal variance everywhere: the grid is not visible
    assert (noise[0] - noise[1]).abs().mean() > 0.05
    method, (images, brain, _), entered = make("dae"), scan(), []
    monkeypatch.setattr(method, "denoise", lambda x0: entered.append(x0) or x0)
    x = torch.from_numpy(images)[:, None]
    method.loss(x, torch.Generator().manual_seed(0), x * 0.5)
    moved = entered[0] - (2 * 0.5 * x - 1)
    assert moved[torch.from_numpy(brain)[:, None]].std() > 0.1
    assert not moved[~torch.from_numpy(brain)[:, None]].any()


def test_the_target_of_a_dae_is_the_clean_slice_in_the_foreground_only(monkeypatch):
    method, (images, brain, _) = make("dae"), scan()
    x, inside = torch.from_numpy(images)[:, None], torch.from_numpy(brain)[:, None]
    monkeypatch.setattr(method, "denoise", lambda x0: torch.where(inside, 2 * x - 1 + 0.3, 7.0))
    assert method.loss(x, torch.Generator()).item() == pytest.approx(0.09, rel=1e-4)


def test_a_vae_adds_the_divergence_of_its_code_by_hand(monkeypatch):
    x = torch.rand(2, 1, 48, 48)
    method = make("vae")
    mean, variance = 0.5, 4.0
    code = torch.cat([torch.full((2, 16), mean), torch.full((2, 16), np.log(variance))], dim=1)
    monkeypatch.setattr(method.encoder, "forward", lambda x0: code)
    monkeypatch.setattr(method.decoder, "forward", lambda z: 2 * x - 1)  # reconstructs perfectly
    each = 0.5 * (mean**2 + variance - np.log(variance) - 1)
    expected = 2 * 16 * each / 48**2
    assert method.loss(x, torch.Generator().manual_seed(0)).item() == pytest.approx(
        expected, rel=1e-4
    )


def test_the_gradient_penalty_pulls_the_slope_of_the_critic_to_one():
    """C(x) = k * sum(x) has the gradient norm k * 48 everywhere."""
    method, x = make("fanogan"), torch.rand(3, 1, 48, 48)
    for slope, penalty in [(1.0, 0.0), (3.0, 40.0)]:
        method.critic = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(48 * 48, 1, bias=False)
        )
        torch.nn.init.constant_(method.critic[1].weight, slope / 48)
        loss = method.critic_loss(x, torch.Generator().manual_seed(0))
        fakes = method.generate_fakes(x, torch.Generator().manual_seed(0))
        distance = slope / 48 * (2 * x - 1 - fakes).sum(dim=(1, 2, 3)).mean()
        torch.testing.assert_close(loss, penalty - distance, rtol=1e-4, atol=1e-3)


def test_the_latents_are_bottlenecks():
    for name, preset, most in [
        ("ae", "tiny", 128),
        ("vae", "paper", 128),
        ("svae", "tiny", 16 * 36),
    ]:
        method = build(name, preset)
        with torch.no_grad():
            z = method.encoder(torch.rand(1, 1, 96, 96))[:, : method.config.latent]
        assert z.numel() == most


def test_the_mean_of_two_methods_has_the_mean_reference_and_the_residual_of_the_first():
    first, second, (images, brain, ids) = make("pddpm", residual="bright"), make("ae"), scan()
    residual, reference = predict(MeanReference([first, second]), images, brain, ids)
    mean = (predict(first, images, brain, ids)[1] + predict(second, images, brain, ids)[1]) / 2
    np.testing.assert_allclose(reference, mean, atol=1e-6)
    expected = residual_of(
        *(torch.from_numpy(part)[:, None] for part in (images, mean, brain)), first.config
    )
    np.testing.assert_allclose(residual[brain], expected[:, 0].numpy()[brain], atol=1e-5)
