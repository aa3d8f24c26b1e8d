"""The mathematics of diffusion: forward and reverse process, noise, patches."""

from maediff.diffusion.noise import NoiseKind, SimplexConfig, draw_noise
from maediff.diffusion.patches import PatchGrid, PatchMerger
from maediff.diffusion.process import cosine_alpha_bar, forward_process, reverse_chain

__all__ = [
    "NoiseKind",
    "PatchGrid",
    "PatchMerger",
    "SimplexConfig",
    "cosine_alpha_bar",
    "draw_noise",
    "forward_process",
    "reverse_chain",
]
