"""Device and precision."""

import subprocess
import sys

import pytest
import torch

from maediff.core.device import (
    accumulation_dtype,
    has_bf16,
    no_tf32,
    resolve_device,
    resolve_precision,
)
from maediff.core.errors import InputError


@pytest.mark.parametrize("available", [False, True])
def test_auto_is_cuda_if_there_is_one(available, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if available else "cpu")
    if available:
        assert resolve_device("cuda") == "cuda"
    else:
        with pytest.raises(InputError, match="no CUDA device was found; use `device='cpu'`"):
            resolve_device("cuda")
    with pytest.raises(
        InputError, match="`device='gpu'`: unknown device; choose auto, cpu, cuda, mps"
    ):
        resolve_device("gpu")


def test_mps_is_refused_without_an_apple_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="`device='mps'`: no Apple GPU was found"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps") == "mps"


def test_sums_are_float64_unless_the_device_has_none():
    assert accumulation_dtype(torch.device("cpu")) == accumulation_dtype("cuda") == torch.float64
    assert accumulation_dtype(torch.device("mps")) == accumulation_dtype("mps:0") == torch.float32


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_is_bf16_if_it_is_native(native, chosen, monkeypatch):
    monkeypatch.setattr("maediff.core.device.has_bf16", lambda _: native)
    assert resolve_precision("auto", "cpu") == chosen
    assert resolve_precision("fp32", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(InputError, match="`precision='fp16'`: unknown precision; choose auto,"):
        resolve_precision("fp16", "cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx512_bf16": True}, True), ({}, False)]
)
def test_bf16_needs_a_processor_with_its_instructions(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bf16("cpu") is expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # torch 2.6
    assert not has_bf16("cpu")


def test_no_tf32_restores_setting():
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    with no_tf32():  # restores the setting of this session at the end
        for backend in backends:
            backend.allow_tf32 = True
        with pytest.raises(ZeroDivisionError), no_tf32():
            assert not any(backend.allow_tf32 for backend in backends)
            raise ZeroDivisionError
        assert all(backend.allow_tf32 for backend in backends)


@pytest.mark.parametrize(
    "setting",
    [
        "pass",
        'torch.set_float32_matmul_precision("medium")',
        "torch.backends.cuda.matmul.allow_tf32 = True",
        'torch.backends.cuda.matmul.fp32_precision = "tf32"',
        'torch.backends.fp32_precision = "tf32"',
    ],
)
def test_no_tf32_after_any_setting_of_a_program(setting):
    """Torch has two sets of settings and refuses to read a mixture of them."""
    code = f"""
import torch
from maediff.core.device import no_tf32

def state():
    parts = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    new = [part.fp32_precision for part in parts]
    try:
        return new, torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return new

{setting}
before = state()
with no_tf32():
    assert state() != before
assert state() == before, (before, state())
"""
    if not hasattr(torch.backends.cudnn, "conv"):
        pytest.skip("needs torch 2.9")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
