"""One contract for every method, and what MAEDiff and its rivals promise about noise, patches and batches."""

import numpy as np
import pytest
import torch

from maediff.benchmark import reference_loop
from maediff.errors import InputError
from maediff.methods import BASELINES, METHODS, build, predict_volume
from maediff.methods.base import DiffusionConfig
from maediff.methods.intensity import Template

TRAINED = [name for name in METHODS if name not in BASELINES]
UNET = {"channels": (8, 16), "blocks": 1, "attention": False, "stem": 2}
MAE = {"dim": 32, "encoder_blocks": 1, "decoder_blocks": 1, "heads": 4}


def make(name, *, fresh=False, **settings):
    torch.manual_seed(0)
    if name in TRAINED:
        settings = {"unet": UNET, "size": 48, **settings}
    if name in ("maediff", "pddpm"):
        settings = {"p": 24, "s": 8, **settings}
    if name == "maediff":
        settings = {"r": 8, "mae": MAE, **settings}
    method = build(name, "tiny", settings)
    for parameter in method.parameters():  # layers that start at zero would hide what stands before them
        if not fresh and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return method.eval()


def scan(n=5, size=48):
    """A scan with a disc of brain that grows and shrinks, an empty slice at either end."""
    y, x = np.mgrid[:size, :size] - size / 2
    radius = np.array([0, 8, 14, 17, 0][:n])[:, None, None]
    brain = np.hypot(y, x)[None] < radius
    images = np.where(brain, np.random.default_rng(0).uniform(0.2, 0.8, (n, size, size)), 0).astype(np.float32)
    return images, brain, np.arange(n) + 3


def predict(method, images, brain, ids, **kwargs):
    return predict_volume(method, images, brain, ids, **{"seed": 0, **kwargs})


@pytest.mark.parametrize("name", METHODS)
def test_maps_have_the_scans_shape_and_range(name):
    method, (images, brain, ids) = make(name), scan()
    if isinstance(method, Template):
        method.fit(torch.from_numpy(images).flip(2)[:, None], torch.linspace(0, 1, 5))
    residual, reference = predict(method, images, brain, ids)
    assert residual.shape == reference.shape == images.shape
    for result in (residual, reference):
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1
    assert residual[brain].max() > 0
    assert not residual[[0, -1]].any()  # slices without brain are skipped
    assert np.array_equal(reference[[0, -1]], images[[0, -1]])


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_has_a_gradient_within_two_steps(name):
    torch.manual_seed(0)
    method = make(name, fresh=True)
    optimizer = torch.optim.Adam(method.parameters(), 1e-2)
    moved = {key: False for key, _ in method.named_parameters()}
    for step in range(2):
        loss = method.objectives()[0].loss(torch.rand(4, 1, 48, 48), torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss.backward()
        for key, parameter in method.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            moved[key] |= bool(parameter.grad.any())
        optimizer.step()
    assert all(moved.values()), [key for key, did in moved.items() if not did]


@pytest.mark.parametrize("name", TRAINED)
def test_loss_is_a_function_of_weights_slices_and_generator(name):
    method, x = make(name), torch.rand(4, 1, 48, 48)
    loss = method.objectives()[0].loss
    first, again, other = (loss(x, torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1))
    assert first == again != other


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
    grid = method.grid if name == "maediff" else method.training_grid
    for image in different:
        fits = [k for k, mask in enumerate(grid.masks) if not (image[0] & ~mask).any()]
        assert len(fits) == 1  # bit-equal outside exactly one patch of the grid
        assert image[0][grid.masks[fits[0]]].float().mean() > 0.99


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
def test_loss_looks_inside_the_patch_only(name, monkeypatch):
    method, x, p = make(name, p=24, s=24, **({"s_train": 24} if name == "pddpm" else {})), torch.rand(1, 1, 48, 48), 24
    entered = []
    encode = method.unet.encode
    monkeypatch.setattr(method.unet, "encode", lambda x, t: entered.append(x) or encode(x, t))
    for outside in (0.0, 5.0):  # what is drawn outside the patch must not matter

        def draw(*args, outside=outside):
            noised = entered[-1] != 2 * x - 1
            return torch.where(noised, 0.0, outside)

        monkeypatch.setattr(method.unet, "decode", draw)
        loss = method.loss(x, torch.Generator().manual_seed(0)).item()
        inside = entered[-1] != 2 * x - 1
        assert int(inside.sum()) == p * p
        assert loss == pytest.approx(float((2 * x - 1)[inside].abs().mean()), rel=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_a_map_does_not_depend_on_batch_size_or_on_other_slices(name):
    method, (images, brain, ids) = make(name), scan()
    whole = predict(method, images, brain, ids, batch_size=16)
    for batch_size in (1, 5, 64):
        for a, b in zip(whole, predict(method, images, brain, ids, batch_size=batch_size), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    part = predict(method, images[2:4], brain[2:4], ids[2:4])
    np.testing.assert_allclose(part[0], whole[0][2:4], rtol=0, atol=1e-5)
    backwards = predict(method, images[::-1].copy(), brain[::-1].copy(), ids[::-1].copy())
    np.testing.assert_allclose(backwards[0][::-1], whole[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_same_seed_same_map_and_another_seed_another(name):
    method, (images, brain, ids) = make(name), scan()
    first, again, other = (predict(method, images, brain, ids, seed=seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


@pytest.mark.parametrize("name", ["maediff", "pddpm"])
@pytest.mark.parametrize("settings", [{}, {"s": 24}, {"t_test": (125, 250), "draws": 2}])
def test_batched_prediction_equals_the_reference_loop(name, settings):
    method, (images, brain, ids) = make(name, **settings), scan()
    _, reference = predict(method, images, brain, ids, batch_size=7)
    plain = reference_loop(method, images, ids, seed=0)
    np.testing.assert_allclose(reference[brain], plain[brain], rtol=0, atol=1e-5)


def test_a_patch_is_reconstructed_from_its_own_noise_only():
    """Two slices that are alike get different noise, because their index on the grid differs."""
    method, (images, brain, _) = make("maediff"), scan()
    twice, mask = np.stack([images[2], images[2]]), np.stack([brain[2], brain[2]])
    residual, _ = predict(method, twice, mask, np.array([4, 5]))
    assert np.abs(residual[0] - residual[1]).max() > 1e-4
    residual, _ = predict(method, twice, mask, np.array([4, 4]))
    np.testing.assert_allclose(residual[0], residual[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm"])
def test_a_chain_of_one_step_is_the_one_step_prediction_and_more_differ(name):
    images, brain, ids = scan()
    one, also_one, four = (predict(make(name, chain=n, t_test=200), images, brain, ids)[0] for n in (1, 1, 4))
    assert np.array_equal(one, also_one)
    assert np.abs(one - four).max() > 1e-4


def test_residuals_by_sign():
    images, brain, ids = scan()
    both, bright, dark = (
        predict(make("pddpm", residual=kind), images, brain, ids)[0] for kind in ("abs", "bright", "dark")
    )
    np.testing.assert_allclose(both, bright + dark, atol=1e-6)
    assert not (bright * dark).any()


def test_slices_of_another_size_are_refused():
    for name in TRAINED:
        with pytest.raises(ValueError, match=r"slices of \(40, 40\) pixels, .* 48 x 48"):
            make(name).objectives()[0].loss(torch.rand(1, 1, 40, 40), torch.Generator())


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("maediff", {"r": 10}, r"r=10 .* would fit"),
        ("maediff", {"p": 99}, "p=99"),
        ("maediff", {"s": 64}, "s=64"),
        ("maediff", {"size": 90}, r"size=90.* would fit"),
        ("maediff", {"r": 2}, "r=2 is not a multiple"),
        ("maediff", {"unet": {"width": 3}}, "unet.width"),
        ("pddpm", {"r": 16}, "r: Unexpected"),
        ("pddpm", {"size": 98}, r"size=98"),
        ("ddpm", {"size": 97}, r"size=97"),
        ("anoddpm", {"t_test": 1000}, r"t_test=\(1000,\)"),
        ("anoddpm", {"t_train": (5, 2)}, "t_train"),
        ("bright", {"p": 1}, "p: Unexpected"),
        ("nonsense", {}, "'nonsense' is not known"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(name, settings, said):
    with pytest.raises(InputError, match=said):
        build(name, "tiny", settings)


def test_intensity_baselines_by_hand():
    x = torch.tensor([[0.0, 0.2], [0.6, 1.0]]).view(1, 1, 2, 2)
    brain = torch.tensor([[False, True], [True, True]]).view(1, 1, 2, 2)
    expected = {
        "bright": [0, 0.2, 0.6, 1],
        "dark": [0, 0.8, 0.4, 0],
        "median": [0, 0.4, 0, 0.4],
        "slice": [0, 0, 0, 0.4],
    }
    for name, values in expected.items():
        anomaly = build(name).predict(x, slice_ids=torch.tensor([0]), seed=0, brain=brain).anomaly_map
        torch.testing.assert_close(anomaly.flatten(), torch.tensor(values), msg=name)


def test_template_takes_the_mean_image_that_is_nearest():
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
