"""Device and floating-point precision of this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from maediff.core.errors import InputError

DEVICES = ("cpu", "cuda", "mps")
"""Devices that networks run on; mps is the GPU of a Mac."""


def resolve_device(device: str) -> str:
    """Return "cuda", "mps" or "cpu"; "auto" is "cuda" if a CUDA device is available, else "cpu".

    Raises:
        InputError: unknown device, or a device that this machine lacks.
    """
    import torch

    if device not in ("auto", *DEVICES):
        raise InputError(f"`device={device!r}`: unknown device; choose auto, {', '.join(DEVICES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("`device='cuda'`: no CUDA device was found; use `device='cpu'`")
    if device == "mps" and not torch.backends.mps.is_available():
        raise InputError(
            "`device='mps'`: no Apple GPU was found, or torch was built without MPS; "
            "use `device='cpu'`"
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def accumulation_dtype(device: Any) -> Any:
    """Return the torch dtype of sums: float64, but float32 on "mps", which has no float64.

    Args:
        device: name of the device, or a `torch.device`.
    """
    import torch

    return torch.float32 if str(device).startswith("mps") else torch.float64


def has_bf16(device: str) -> bool:
    """Return True if the device has native bf16 arithmetic."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    get_capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)  # not in torch 2.6
    return bool(get_capabilities().get("avx512_bf16", False))


def resolve_precision(precision: str, device: str) -> Literal["fp32", "bf16"]:
    """Return "bf16" or "fp32"; "auto" is "bf16" if the device has native bf16 arithmetic.

    Raises:
        InputError: an unknown precision.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(
            f"`precision={precision!r}`: unknown precision; choose auto, fp32 or bf16"
        )
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return "bf16" if precision == "bf16" else "fp32"


@contextmanager
def no_tf32() -> Iterator[None]:
    """Disable TF32 on CUDA inside the block, so that fp32 has its full precision.

    By default, cuDNN convolutions use TF32 (10 bits of mantissa instead of 23).
    Source: https://pytorch.org/docs/stable/notes/cuda.html, section "TensorFloat-32 (TF32)".
    """
    import torch

    try:
        matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:  # the program has set `fp32_precision`, which must not be mixed with them
        with _ieee_precision():
            yield
        return
    lowers = matmul != "highest"  # setting the default again would change what it inherits
    try:
        if lowers:
            torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        if lowers:
            torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def _ieee_precision() -> Iterator[None]:
    """Do the same as `no_tf32` with the settings that torch has since version 2.9."""
    import torch

    parts: list[Any] = [
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.cudnn.rnn,  # type: ignore[attr-defined]
    ]
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
