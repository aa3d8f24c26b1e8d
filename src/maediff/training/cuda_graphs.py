"""CUDA graphs of a network's forward and backward pass: two launches per training step.

A GPU runs each kernel of a small network in microseconds. Python needs longer to launch one, so
the GPU waits most of the time without graphs (experiments/speed).
Graphs change neither the kernels nor their order.
"""

import torch

from maediff.methods.base import Method


def graph_network(method: Method, batch_size: int, autocast: torch.dtype | None) -> bool:
    """Capture the network of `method` as CUDA graphs, which training then uses.

    Weights keep their memory, so the graphs see weights that are loaded or updated in place.
    In evaluation mode, the method runs without graphs.

    Args:
        method: a method on a CUDA device.
        batch_size: slices in each training batch. Other sizes fail in training mode.
        autocast: bf16 or fp16, the type that training casts to; None for fp32.

    Returns:
        False if the method has no network for graphs, see `Method.graphable_network`. Such a
        method is left unchanged.

    Source: https://pytorch.org/docs/stable/generated/torch.cuda.make_graphed_callables.html
    """
    network = method.graphable_network(batch_size)
    if network is None:
        return False
    # The gradients of a graph come from another stream than eager gradients.
    # torch 2.11 would warn at every first step.
    getattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch", bool)(False)
    method.train()
    # A cache of cast weights would hold the weights at the time of the capture forever.
    with torch.autocast("cuda", autocast, enabled=autocast is not None, cache_enabled=False):
        torch.cuda.make_graphed_callables(network.module, network.inputs)
    return True
