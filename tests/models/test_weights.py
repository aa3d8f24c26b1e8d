"""Files of weights: the ones that predict, and files that cannot be read."""

import pickle
from copy import deepcopy
from dataclasses import asdict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_save

from helpers.methods import make
from maediff.core.errors import InputError
from maediff.models.weights import (
    hash_tensors,
    load_optimizer,
    load_state,
    prune,
    read_trained_weights,
    read_weights,
    refuse_larger_network,
    save_model,
    save_optimizer,
    write_tensors,
)


def save(folder, part="best", *, step=3, val_loss=0.5, shift=0.0):
    """Write a file of weights whose average differs by `shift`; return its path."""
    method = make("ae")
    ema = deepcopy(method)
    with torch.no_grad():
        for parameter in ema.parameters():
            parameter += shift
    path = folder / part / "model.safetensors"
    save_model(path, method, ema, name="ae", step=step, val_loss=val_loss)
    return path


def test_average_and_weights(tmp_path):
    path = save(tmp_path, shift=1.0)
    weights, step = read_weights(path, "weights.", "ae")
    average, _ = read_weights(path, "ema.", "ae")
    assert step == 3 and weights.keys() == average.keys()
    for name, parameter in make("ae").named_parameters():
        assert torch.equal(weights[name], parameter)
        torch.testing.assert_close(average[name], parameter + 1.0)


@pytest.mark.parametrize(
    ("best", "last", "expected"),
    [(0.5, 0.4, "last"), (0.5, 0.5, "best"), (0.5, float("nan"), "best"), (0.3, 0.4, "best")],
)
def test_best_or_last(tmp_path, best, last, expected):
    paths = {
        "best": save(tmp_path, "best", step=2, val_loss=best),
        "last": save(tmp_path, "last", step=4, val_loss=last),
    }
    weights = read_trained_weights(tmp_path, "ae")
    assert weights.path == paths[expected]
    assert weights.step == {"best": 2, "last": 4}[expected]


@pytest.mark.parametrize("part", ["best", "last", ""])
def test_only_file(tmp_path, part):
    path = save(tmp_path, part)
    assert read_trained_weights(tmp_path, "ae").path == path


def test_damaged_last(tmp_path):
    """A damaged file is refused only if it is the one to use."""
    best = save(tmp_path, "best", val_loss=0.5)
    last = save(tmp_path, "last", val_loss=0.4)
    content = last.read_bytes()
    last.write_bytes(b"damaged")
    assert read_trained_weights(tmp_path, "ae").path == best
    last.write_bytes(content)
    best.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"best/model\.safetensors: is not a safetensors file"):
        read_trained_weights(tmp_path, "ae")


def test_no_weights(tmp_path):
    with pytest.raises(InputError, match=r"last/model\.safetensors: no weights there; resume"):
        read_trained_weights(tmp_path, "ae")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, r"format None, and this version reads 'maediff-1'"),
        ({"format": "maediff-1", "method": "vae"}, "weights of 'vae', but config.json names 'ae'"),
        ({"format": "maediff-1", "method": "ae"}, "damaged, it names no step of"),
        ({"format": "maediff-1", "method": "ae", "step": "x"}, "damaged, it names no step"),
    ],
)
def test_wrong_metadata(tmp_path, metadata, message):
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"ema.x": torch.zeros(2)}, metadata)
    with pytest.raises(InputError, match=rf"model\.safetensors: {message}.*; restore the run"):
        read_weights(path, "ema.", "ae")


def test_pointer_in_the_place_of_weights(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(InputError, match=r"model\.safetensors: a Git LFS pointer, .*git lfs pull"):
        read_weights(path, "ema.", "ae")


def test_weights_of_other_settings(tmp_path):
    tensors, _ = read_weights(save(tmp_path), "ema.", "ae")
    with pytest.raises(InputError, match=r"best: weights do not fit .*; choose another"):
        load_state(make("ae", latent=8), tensors, tmp_path / "best", "choose another")


@pytest.mark.parametrize("settings", [{"channels": [16, 9000]}, {"blocks": 5000}])
def test_network_that_is_much_larger_than_its_weights(tmp_path, settings):
    method = make("ae")
    tensors, _ = read_weights(save(tmp_path), "ema.", "ae")
    config = asdict(method.config)
    refuse_larger_network(config, tensors, tmp_path / "best")
    (group,) = [name for name, value in config.items() if isinstance(value, dict)]
    config[group] |= settings
    with pytest.raises(InputError, match=rf"{group}\.{next(iter(settings))} is \d000, larger"):
        refuse_larger_network(config, tensors, tmp_path / "best")


def test_optimizer_state(tmp_path):
    save_optimizer(tmp_path, {"seconds": 3.5}, 4)
    save_optimizer(tmp_path, {"seconds": 4.5}, 5)
    assert load_optimizer(tmp_path, 5) == {"seconds": 4.5}
    path = tmp_path / "optimizer-5.pt"
    for content in (b"", b"damaged", pickle.dumps(print), pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"optimizer-5\.pt: .*train again with `overwrite=T"):
            load_optimizer(tmp_path, 5)
    torch.save([1.0], path)
    with pytest.raises(InputError, match=r"optimizer-5\.pt: not the optimizer's state but a list"):
        load_optimizer(tmp_path, 5)


def test_prune_keeps_the_optimiser_of_one_step(tmp_path):
    last = tmp_path / "last"
    for step in (4, 5):
        save_optimizer(last, {}, step)
    unfinished = last / ".model.safetensors.tmp-1"
    unfinished.touch()
    prune(tmp_path, 5)
    assert [path.name for path in last.iterdir()] == ["optimizer-5.pt"]


def rewrite(path, change, *, keep_hash=False):
    """Change the tensors of a file with `change`; by default, as a file without a SHA-256."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: change(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    if not keep_hash:
        metadata = {key: text for key, text in metadata.items() if "sha256" not in key}
    path.write_bytes(safetensors_save(tensors, metadata))


def with_value(value):
    """Return a change that sets the first number of each tensor."""

    def change(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[0] = value
        return tensor

    return change


@pytest.mark.parametrize("part", ["best", ""])
@pytest.mark.parametrize("offset", [-1, -3000])
def test_flipped_bit(tmp_path, part, offset):
    """One flipped bit gives another finite number, which only the SHA-256 shows."""
    path = save(tmp_path, part)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors: damaged weights \(their SHA-256"):
        for prefix in ("weights.", "ema."):
            read_weights(path, prefix, "ae")


def test_exchanged_tensors(tmp_path):
    """The SHA-256 covers the names: two tensors of one shape cannot be exchanged."""
    first, second = torch.zeros(3), torch.ones(3)
    assert hash_tensors({"a": first, "b": second}) != hash_tensors({"a": second, "b": first})
    assert hash_tensors({"a": first, "b": second}) == hash_tensors({"b": second, "a": first})
    assert hash_tensors({"a": first}) != hash_tensors({"a": first.view(3, 1)})
    assert hash_tensors({"a": first}) != hash_tensors({"a": first.view(torch.int32)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(tmp_path, value):
    path = save(tmp_path)
    rewrite(path, with_value(value))
    with pytest.raises(InputError, match=r"best/model\.safetensors: damaged weights \(NaN or inf"):
        read_trained_weights(tmp_path, "ae")


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_weights_that_are_not_fractions(tmp_path, dtype):
    """torch converts integers without a message, so all fractions would become 0."""
    path = save(tmp_path)
    rewrite(path, lambda tensor: tensor.to(dtype))
    weights = read_trained_weights(tmp_path, "ae")
    with pytest.raises(InputError, match=r"weights of the wrong type \(\S+ is torch\.\w+, expect"):
        load_state(make("ae"), weights.tensors, weights.path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.float32])
def test_other_floating_types(tmp_path, dtype):
    """A shipped model may hold fp16; a file of an older version has no SHA-256."""
    path = save(tmp_path)
    rewrite(path, lambda tensor: tensor.to(dtype))
    method = make("ae")
    weights = read_trained_weights(tmp_path, "ae")
    load_state(method, weights.tensors, weights.path)
    assert all(value.dtype == torch.float32 for value in method.state_dict().values())


def test_changed_type_with_hash(tmp_path):
    path = save(tmp_path)
    rewrite(path, lambda tensor: tensor.half(), keep_hash=True)
    with pytest.raises(InputError, match="SHA-256"):
        read_trained_weights(tmp_path, "ae")
