"""Bytes that a training step keeps, measured on the CPU: what autograd saves in bf16, plus weights, EMA and Adam.

python scripts/training_memory.py [PRESET] [METHOD] [BATCH]

The saved activations of 1 and of 2 slices are counted and extended to the batch. Work space of kernels is not in it.
"""

import sys

import torch

from maediff.methods import build


def saved_bytes(method: torch.nn.Module, b: int) -> int:
    """Bytes of distinct storages that the backward pass of one loss needs, without the parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in method.parameters()}
    storages: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        loss = method.objectives()[0].loss(torch.rand(b, 1, 96, 96), torch.Generator().manual_seed(0))  # type: ignore[operator]
    total = sum(t.untyped_storage().nbytes() for pointer, t in storages.items() if pointer not in parameters)
    del loss
    return total


def main() -> None:
    """Print the parts and the sum."""
    given, usual = sys.argv[1:4], ["paper", "maediff", "32"]
    preset, name, batch = [*given, *usual[len(given) :]]
    method = build(name, preset)
    parameters = sum(p.numel() for p in method.parameters())
    one, two = saved_bytes(method, 1), saved_bytes(method, 2)
    activations = one + (int(batch) - 1) * (two - one)
    states = parameters * 4 * 5  # weights, gradients, two moments of Adam, EMA
    print(f"{name} {preset} at batch {batch}: {parameters / 1e6:.1f} M parameters")
    parts = f"activations {activations / 1e9:.1f} GB + states {states / 1e9:.2f} GB"
    print(f"{parts} = {(activations + states) / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
