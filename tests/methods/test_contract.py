"""The contract of every method: shapes, gradients, seeds, batches, saving and loading."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.methods import SMALL_METHODS, make, predict, scan
from maediff.core.errors import InputError
from maediff.methods.registry import METHODS, TRAINED, build
from maediff.models.folder import config_of, write_config
from maediff.models.model import read_model
from maediff.models.weights import save_model

STOCHASTIC_AT_TEST = ("maediff", "pddpm", "ddpm", "anoddpm")
NOTHING_DRAWN_IN_TRAINING = ("ae",)


def rng(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", METHODS)
def test_maps_have_the_scans_shape_and_range(name):
    method, (images, brain, ids) = make(name), scan()
    residual, reference = predict(method, images, brain, ids)
    assert residual.shape == reference.shape == images.shape
    for result in (residual, reference):
        assert np.isfinite(result).all()
        assert result.min() >= 0
        assert result.max() <= 1
    assert residual[brain].max() > 0
    assert not residual[[0, -1]].any()  # slices without brain are skipped
    assert np.array_equal(reference[[0, -1]], images[[0, -1]])


@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm", "dae"])
def test_an_infinite_prediction_is_refused(name):
    method, (images, brain, ids) = make(name), scan()
    output = next(m for m in reversed(list(method.modules())) if isinstance(m, torch.nn.Conv2d))
    if name != "dae":
        output = method.unet.head
    with torch.no_grad():
        output.bias.fill_(torch.inf)
    with pytest.raises(InputError, match="computes NaN or infinity"):
        predict(method, images, brain, ids)


@pytest.mark.parametrize(
    ("name", "mae"),
    [
        *((name, {}) for name in TRAINED),
        *(("maediff", {"fusion": fusion}) for fusion in ("concat", "add", "replace", "map_only")),
        ("maediff", {"up": "unpatchify"}),
    ],
)
def test_every_parameter_has_a_gradient_within_two_steps_of_its_objective(name, mae):
    settings = {"mae": SMALL_METHODS["mae"] | mae} if mae else {}
    method, x = make(name, fresh=True, **settings).train(), torch.rand(4, 1, 48, 48)
    names = {parameter: key for key, parameter in method.named_parameters()}
    moved = set()
    for objective in method.objectives():
        optimizer = torch.optim.Adam(objective.parameters, 1e-2)
        for step in range(2):
            loss = objective.loss(x, rng(step), None)
            assert loss.shape == ()
            optimizer.zero_grad()
            loss.backward()
            for parameter in objective.parameters:
                assert parameter.grad is not None, names[parameter]
                assert parameter.grad.isfinite().all(), names[parameter]
                if parameter.grad.any():
                    moved.add(names[parameter])
            optimizer.step()
    assert moved == set(names.values())  # each parameter belongs to an objective


@pytest.mark.parametrize("name", TRAINED)
def test_a_loss_is_a_function_of_weights_slices_and_generator(name):
    method, x = make(name), torch.rand(4, 1, 48, 48)
    drawn = False
    for objective in method.objectives():
        first, again, other = (objective.loss(x, rng(seed), None).item() for seed in (0, 0, 1))
        assert first == again
        drawn |= first != other
    assert drawn == (name not in NOTHING_DRAWN_IN_TRAINING)


@pytest.mark.parametrize("name", TRAINED)
def test_the_network_gets_seen_and_the_target_is_the_slice(name):
    """With a synthetic lesion in `seen`, the loss differs from the loss of either slice alone."""
    method, x = make(name), torch.rand(2, 1, 48, 48)
    lesioned = (x + 0.3).clamp(0, 1)
    loss = method.objectives()[-1].loss
    healthy, same, given, both = (
        loss(*slices).item()
        for slices in (
            (x, rng(0), None),
            (x, rng(0), x),
            (x, rng(0), lesioned),
            (lesioned, rng(0), lesioned),
        )
    )
    assert healthy == same
    assert len({healthy, given, both}) == 3


@pytest.mark.parametrize("name", METHODS)
def test_a_map_does_not_depend_on_batch_size_or_on_other_slices(name):
    method, (images, brain, ids) = make(name), scan()
    whole = predict(method, images, brain, ids, batch_size=16)
    for batch_size in (1, 5, 64):
        for a, b in zip(
            whole, predict(method, images, brain, ids, batch_size=batch_size), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
    if name == "median":
        return  # the median of the whole scan depends on the other slices
    part = predict(method, images[2:4], brain[2:4], ids[2:4])
    np.testing.assert_allclose(part[0], whole[0][2:4], rtol=0, atol=1e-5)
    backwards = predict(method, images[::-1].copy(), brain[::-1].copy(), ids[::-1].copy())
    np.testing.assert_allclose(backwards[0][::-1], whole[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_only_the_seed_determines_fresh_weights_and_torchs_state_is_kept(name):
    before = torch.random.get_rng_state()
    first, again, other = (build(name, "tiny", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_same_map(name):
    method, (images, brain, ids) = make(name), scan()
    first, again, other = (predict(method, images, brain, ids, seed=seed)[0] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert (np.abs(first - other).max() > 1e-4) == (name in STOCHASTIC_AT_TEST)


@pytest.mark.parametrize("name", TRAINED)
def test_a_saved_method_is_loaded_unchanged(name, tmp_path):
    method, (images, brain, ids) = make(name), scan()
    config = {"method": name, "preset": "tiny", "config": config_of(method)}
    cohort = {"modality": "T1w", "grid": {}, "normalise": {}}
    write_config(tmp_path / "run", config | {"seed": 0, "cohort": cohort, "train": {}})
    save_model(
        tmp_path / "run" / "last" / "model.safetensors",
        method,
        deepcopy(method),
        name=name,
        step=1,
    )
    model = read_model(tmp_path / "run")
    loaded = model.method
    assert loaded.config == method.config
    assert model.step == 1
    for a, b in zip(
        predict(loaded, images, brain, ids), predict(method, images, brain, ids), strict=True
    ):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("name", TRAINED)
def test_a_wrong_size_is_refused_and_the_message_names_sizes_that_fit(name):
    for size in (50, 98):
        with pytest.raises(InputError, match=rf"size={size} .* would fit") as refusal:
            make(name, size=size)
        suggested = (
            str(refusal.value).partition("pixels: size=")[2].partition(" would")[0].split(" or ")
        )
        assert len(suggested) == 2
        for fits in suggested:
            make(name, size=int(fits))
    for objective in make(name).objectives():
        with pytest.raises(ValueError, match=r"slices of \(40, 40\) pixels, .* 48 x 48"):
            objective.loss(torch.rand(1, 1, 40, 40), rng(0), None)


@pytest.fixture(scope="module")
def phantom_slices():
    """Return ten slices of a synthetic brain."""
    from maediff.preparation.onto_grid import prepare_scan
    from maediff.scans.volume import Volume, volume_to_slices
    from maediff.synthetic.dataset import healthy_subject

    phantom = healthy_subject("train", 0)
    volume = Volume(
        phantom.image, phantom.affine, Path("phantom"), phantom.image.shape, phantom.affine
    )
    images = volume_to_slices(prepare_scan(volume, phantom.brain).image)
    middle = len(images) // 2
    slices = torch.from_numpy(images[middle - 5 : middle + 5].astype(np.float32))[:, None]
    return torch.nn.functional.avg_pool2d(slices, 2)  # 48 x 48, the size of `make`


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_the_loss_falls_by_half_on_ten_phantom_slices(name, phantom_slices):
    """Train like the trainer, each objective in its phase; measure the validation objective."""
    # kappa=0: the critic trains too, so losses on its features are not comparable over time.
    quick = {"fanogan": {"critic_steps": 2, "kappa": 0}}
    method = make(name, fresh=True, **quick.get(name, {})).train()
    steps = 200 if name == "fanogan" else 60
    objectives = method.objectives()
    optimizers = [
        torch.optim.Adam(objective.parameters, 3e-3, objective.betas) for objective in objectives
    ]

    @torch.no_grad()
    def measure():
        return np.mean(
            [objectives[-1].loss(phantom_slices, rng(seed), None).item() for seed in range(4)]
        )

    before = measure()
    for step in range(steps):
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            if objective.is_due(step, steps):
                method.zero_grad()
                objective.loss(phantom_slices, rng(100 + step), None).backward()
                optimizer.step()
    assert measure() < 0.5 * before
