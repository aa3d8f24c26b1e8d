"""CUDA graphs in training: the network that they capture; on a GPU, the same losses as without."""

import copy

import pytest
import torch

from maediff.core.device import no_tf32
from maediff.methods.registry import build
from maediff.training.cuda_graphs import graph_network
from maediff.training.slices.batches import stream

SMALL = {
    "unet": {"channels": (16, 32), "blocks": 1, "attention": False, "stem": 4, "resample": "conv"}
}
WITH_MAE = SMALL | {"mae": {"dim": 32, "encoder_blocks": 1, "decoder_blocks": 1, "heads": 2}}


def make(name):
    torch.manual_seed(0)
    method = build(name, "tiny", WITH_MAE if name == "maediff" else SMALL)
    for parameter in method.parameters():  # zeros would hide a difference
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return method


def loss(method, x):
    return method.objectives()[0].loss(x, stream(0, 0, 0), None)


@pytest.fixture
def launches(monkeypatch):
    """Replace the capture by a fake: the module runs as before; training launches are recorded.

    Like torch's function, the fake falls back to the original forward in evaluation mode.
    """
    recorded = []

    def make_graphed_callables(module, example_inputs):
        assert module.training
        original_forward = module.forward

        def forward(*inputs):
            if not module.training:
                return original_forward(*inputs)
            shapes = [(x.shape, x.dtype, x.device) for x in inputs]
            assert shapes == [(x.shape, x.dtype, x.device) for x in example_inputs]
            recorded.append(module)
            return original_forward(*inputs)

        module.forward = forward
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", make_graphed_callables)
    return recorded


@pytest.mark.parametrize("name", ["maediff", "pddpm", "ddpm", "anoddpm", "dae"])
def test_a_training_step_launches_one_graph_with_every_parameter(name, launches):
    method, x = make(name), torch.rand(4, 1, 96, 96)
    expected = loss(method, x).detach()
    assert graph_network(method, 4, None)
    assert list(method.state_dict()) == list(make(name).state_dict())
    graphed = loss(method.train(), x)
    assert torch.equal(graphed.detach(), expected)
    assert len(launches) == 1
    assert {id(p) for p in launches[0].parameters()} == {id(p) for p in method.parameters()}


@pytest.mark.parametrize("name", ["maediff", "pddpm", "ddpm", "dae"])
def test_a_prediction_launches_no_graph(name, launches):
    method, x = make(name), torch.rand(3, 1, 96, 96)
    ids = torch.arange(3)
    expected = copy.deepcopy(method).eval().predict(x, slice_ids=ids, seed=0)
    graph_network(method, 4, None)
    prediction = method.eval().predict(x, slice_ids=ids, seed=0)
    assert torch.equal(prediction.reconstruction, expected.reconstruction)
    assert not launches


@pytest.mark.parametrize("name", ["ae", "fanogan"])
def test_methods_without_a_unet_stay_unchanged(name, launches):
    assert not graph_network(build(name, "tiny"), 4, None)
    assert not launches


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["maediff", "pddpm", "anoddpm", "dae"])
def test_on_a_gpu_graphs_do_not_change_the_losses(name):
    plain, x = make(name).cuda().train(), torch.rand(4, 1, 96, 96, device="cuda")
    graphed = copy.deepcopy(plain)
    with no_tf32():
        assert graph_network(graphed, 4, None)
        for _ in range(4):
            for method in (plain, graphed):
                method.zero_grad()
                loss(method, x).backward()
                with torch.no_grad():
                    for parameter in method.parameters():
                        parameter -= 0.01 * parameter.grad
            torch.testing.assert_close(loss(plain, x), loss(graphed, x), rtol=1e-4, atol=0)
