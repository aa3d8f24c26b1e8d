"""The benchmark's keys and arithmetic; its seconds are read by people, not by tests."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from helpers.brains import made_brain
from helpers.methods import make, predict, scan
from helpers.runs import SMALL_MAEDIFF
from maediff.core.device import no_tf32
from maediff.core.errors import InputError
from maediff.detection import benchmark as module
from maediff.methods.registry import build


@pytest.fixture(autouse=True)
def small_brain(monkeypatch):
    """Measure a brain of a few thick slices, because no figure here depends on its size."""
    data, brain, affine = made_brain(shape=(60, 72, 3), spacing=(2.0, 2.0, 8.0))
    phantom = SimpleNamespace(image=data, brain=brain, affine=affine)
    monkeypatch.setattr(module, "healthy_subject", lambda *_: phantom)
    monkeypatch.setitem(module.MATRIX_SIZE, "cpu", 512)


@pytest.mark.slow
def test_benchmark_gives_every_figure():
    result = module.benchmark("maediff", preset="tiny", repeats=1, device="cpu")
    assert {
        "scans_per_minute",
        "ratio_to_reference_loop",
        "mfu",
        "peak_memory_gb",
        "stages",
    } <= result.keys()
    assert {"prepare", "predict", "postprocess", "reference_loop"} <= result["stages"].keys()
    assert all(value > 0 for value in result["stages"].values())
    assert result["slices"] == 3
    assert 0 < result["mfu"] < 1.5
    assert result["gflop_a_scan"] > 1
    assert (result["precision"], result["reference_precision"]) == ("fp32", "fp32")
    assert result["max_difference"] < 1e-5


def test_the_two_predictions_agree_in_fp32_and_differ_a_little_in_bf16(monkeypatch):
    monkeypatch.setattr(
        module, "build", lambda name, preset, seed: build(name, preset, SMALL_MAEDIFF, seed)
    )
    monkeypatch.setattr(module, "matmul_rate", lambda *_: 1e12)
    counter = nullcontext(
        SimpleNamespace(get_total_flops=lambda: 1)
    )  # the true one imports for seconds
    monkeypatch.setattr(module, "FlopCounterMode", lambda **_: counter)
    for precision, low, high in (("fp32", 0, 1e-5), ("bf16", 1e-4, 0.2)):
        result = module.benchmark(preset="tiny", precision=precision, repeats=1, device="cpu")
        assert (result["precision"], result["reference_precision"]) == (precision, "fp32")
        assert low <= result["max_difference"] < high


def test_methods_without_patches_are_refused():
    with pytest.raises(InputError, match="goes patch by patch"):
        module.benchmark("anoddpm", preset="tiny", device="cpu")


def test_unknown_precision():
    with pytest.raises(InputError, match="`precision='fp16'`: unknown precision; choose auto,"):
        module.benchmark(preset="tiny", precision="fp16", device="cpu")


def test_prediction_disables_tf32_and_restores_it(monkeypatch):
    of = (torch.backends.cuda.matmul, torch.backends.cudnn)
    seen = []
    method = make("bright")
    wrapped = method.predict

    def look(*args, **kwargs):
        seen.append([backend.allow_tf32 for backend in of])
        return wrapped(*args, **kwargs)

    monkeypatch.setattr(method, "predict", look)
    with no_tf32():  # for its end, which puts back what this session began with
        for backend in of:
            backend.allow_tf32 = True
        predict(method, *scan())
        assert seen == [[False, False]]
        with pytest.raises(ZeroDivisionError), no_tf32():
            assert not any(backend.allow_tf32 for backend in of)
            raise ZeroDivisionError
        assert all(backend.allow_tf32 for backend in of)
