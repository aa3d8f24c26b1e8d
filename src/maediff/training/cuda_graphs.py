"""The network's forward and backward pass as CUDA graphs: two launches in a training step instead of a thousand.

A small network's kernels take a GPU microseconds each, and Python takes longer than that to launch one: without graphs
the GPU waits most of the time ("Speed and size" in docs/results.md). The kernels and their order stay the same.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maediff.methods import Method
from maediff.methods.maediff import MAEDiff


class _Denoiser(nn.Module):
    """`MAEDiff.denoise` as a module, which is what a graph with gradients is made of."""

    def __init__(self, method: MAEDiff) -> None:
        super().__init__()
        self.method = method

    def forward(
        self,
        perturbed: Float[Tensor, "b 1 h w"],
        t: Int[Tensor, " b"],
        corners: Int[Tensor, "b 2"],
    ) -> Float[Tensor, "b 1 h w"]:
        return MAEDiff.denoise(self.method, perturbed, t, corners)


def graph_network(method: Method, batch_size: int, autocast: torch.dtype | None) -> bool:
    """Make `method`, on a CUDA device, train through graphs of its network; batches must have `batch_size` slices.

    Weights stay where they are: loading and updating them in place is seen. In `eval` mode nothing changes.

    Args:
        autocast: bf16 or fp16, the type that training casts to; None for fp32.

    Returns:
        False for methods without a U-Net, which are left as they are.

    Source: https://pytorch.org/docs/stable/generated/torch.cuda.make_graphed_callables.html
    """
    unet = getattr(method, "unet", None)
    if not isinstance(unet, nn.Module):
        return False
    config: Any = method.config
    device, size = next(method.parameters()).device, config.size
    inputs: tuple[Tensor, ...] = (
        torch.zeros(batch_size, 1, size, size, device=device),
        torch.zeros(batch_size, dtype=torch.long, device=device),
    )
    # A graph's gradients come from another stream than eager ones; torch 2.11 warns of it at every first step.
    getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", bool)(False)
    method.train()
    # Weights that autocast has cast and kept would be those of the capture for ever.
    with torch.autocast("cuda", autocast, enabled=autocast is not None, cache_enabled=False):
        if isinstance(method, MAEDiff):
            corners = torch.zeros(batch_size, 2, dtype=torch.long, device=device)
            graphed: Any = torch.cuda.make_graphed_callables(_Denoiser(method), (*inputs, corners))

            def denoise(perturbed: Tensor, t: Tensor, corners: Tensor) -> Tensor:
                given = perturbed, t, corners
                return graphed(*given) if method.training else MAEDiff.denoise(method, *given)

            object.__setattr__(
                method, "denoise", denoise
            )  # past nn.Module: the method would be a part of itself
        else:
            torch.cuda.make_graphed_callables(unet, inputs)
    return True
