"""Device and precision: `auto` to what the machine has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from maediff.core.errors import InputError


def resolve_device(device: str) -> str:
    """`auto` -> cuda if there is one, else cpu.

    Raises:
        InputError: an unknown device, or cuda where there is none.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device!r}: one of auto, cpu, cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device was found; use --device cpu")
    return device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16(device: str) -> bool:
    """Whether bf16 arithmetic is native on the device."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in torch 2.6
    return bool(capabilities.get("avx512_bf16", False))


def resolve_precision(precision: str, device: str) -> Literal["fp32", "bf16"]:
    """`auto` -> bf16 where the device has it, else fp32.

    Raises:
        InputError: an unknown precision.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"--precision {precision!r}: one of auto, fp32, bf16")
    return "bf16" if precision == "bf16" or (precision == "auto" and has_bf16(device)) else "fp32"


@contextmanager
def no_tf32() -> Iterator[None]:
    """What is called fp32 is fp32 on CUDA, too, where cuDNN's convolutions take TF32 unless told not to.

    Source: https://pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    import torch

    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
