"""Files of weights: the ones that predict, and files that cannot be read."""

import pickle
from copy import deepcopy

import pytest
import torch

from helpers.methods import make
from maediff.core.errors import InputError
from maediff.models.weights import (
    load_optimizer,
    load_state,
    prune,
    read_trained_weights,
    read_weights,
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


def test_weights_of_other_settings(tmp_path):
    tensors, _ = read_weights(save(tmp_path), "ema.", "ae")
    with pytest.raises(InputError, match=r"best: weights do not fit .*; choose another"):
        load_state(make("ae", latent=8), tensors, tmp_path / "best", "choose another")


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


def test_prune(tmp_path):
    last = tmp_path / "last"
    for step in (4, 5):
        save_optimizer(last, {}, step)
    unfinished = last / ".model.safetensors.tmp-1"
    unfinished.touch()
    prune(tmp_path, 5)
    assert [path.name for path in last.iterdir()] == ["optimizer-5.pt"]
