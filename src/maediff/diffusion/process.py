"""The forward process with its noise schedule, and the reverse process from predictions of x0.

    alpha_bar_t = prod over u <= t of (1 - beta_u),   beta_u = min(1 - f(u + 1) / f(u), 0.999)
    f(u)        = cos^2( (u / T + s) / (1 + s) * pi / 2 ),   s = 0.008
    x_t         = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps

- Schedule: Nichol and Dhariwal 2021, eq. 17 (https://arxiv.org/abs/2102.09672).
- Forward process: Ho et al. 2020, eq. 4 (https://arxiv.org/abs/2006.11239).
- Reverse process: Song et al. 2021, DDIM, eq. 12 and 16 (https://arxiv.org/abs/2010.02502).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

Denoiser = Callable[[Float[Tensor, "b c h w"], Int[Tensor, " b"]], Float[Tensor, "b c h w"]]
"""Prediction of x0 from x_t and t."""


def cosine_alpha_bar(
    steps: int = 1000, s: float = 0.008, max_beta: float = 0.999
) -> Float[Tensor, " steps"]:
    """Return the cosine schedule: alpha_bar for t = 0 .. steps - 1, in float64.

    Args:
        steps: T, the number of time steps.
        s: offset that keeps the first betas above zero.
        max_beta: largest beta; it limits the last steps, where the closed form reaches 1.

    Returns:
        Values that fall from almost 1 to almost 0.

    Example:
        >>> round(float(cosine_alpha_bar(1000)[499]), 3)
        0.494
    """
    f = [math.cos((t / steps + s) / (1 + s) * math.pi / 2) ** 2 for t in range(steps + 1)]
    betas = [min(1 - f[t + 1] / f[t], max_beta) for t in range(steps)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0)


def forward_process(
    x0: Float[Tensor, "b 1 h w"], eps: Float[Tensor, "b 1 h w"], alpha_bar_t: Float[Tensor, " b"]
) -> Float[Tensor, "b 1 h w"]:
    """Noise `x0` to the level of `alpha_bar_t` and return x_t (Ho et al. 2020, eq. 4).

    Args:
        x0: clean images, in [-1, 1].
        eps: noise. The schedule assumes unit variance.
        alpha_bar_t: value of the schedule for each image. The coefficients are computed in its
            precision and on its device, then moved to those of `x0`.
    """
    level: Tensor = rearrange(alpha_bar_t, "b -> b 1 1 1")
    return level.sqrt().to(x0) * x0 + (1 - level).sqrt().to(x0) * eps


def reverse_chain(
    denoise: Denoiser,
    x_t: Float[Tensor, "b 1 h w"],
    timesteps: Sequence[int],
    alpha_bar: Float[Tensor, " steps"],
    eta: float = 0.0,
    fresh: Callable[[int], Float[Tensor, "b 1 h w"]] | None = None,
) -> Float[Tensor, "b 1 h w"]:
    """Run the reverse process from `x_t` along `timesteps` and return the last prediction of x0.

    A single time step gives the one-step prediction of x0.

    Args:
        denoise: predicts x0 from (x_t, t).
        x_t: noised images.
        timesteps: strictly falling; the first is the noise level of `x_t`.
        alpha_bar: the schedule.
        eta: share of fresh noise in each step, from 0 to 1 (Song et al. 2021, eq. 16). 0 is the
            deterministic DDIM. 1, with every time step listed, is the chain of Ho et al. 2020,
            whose variance is that of q(x_{t-1} | x_t, x0) (their eq. 7).
        fresh: returns noise of standard deviation 1 for step 1, 2, ... of the chain.
            The chain calls `fresh` after each step except the last. Required if `eta` is above 0.

    Raises:
        ValueError: the time steps do not fall strictly or are outside the schedule, or `eta` is
            above 0 without `fresh`.
    """
    if not timesteps or any(a <= b for a, b in pairwise(timesteps)):
        raise ValueError(
            f"timesteps {list(timesteps)} must fall strictly, starting at the noise level of x_t"
        )
    if timesteps[0] >= len(alpha_bar) or timesteps[-1] < 0:
        raise ValueError(f"timesteps {list(timesteps)} must be in 0..{len(alpha_bar) - 1}")
    if eta and fresh is None:
        raise ValueError(f"eta={eta} needs `fresh`, the noise of each step; or use eta=0")
    x = x_t
    for step, (t, t_next) in enumerate(pairwise(timesteps), start=1):
        x0 = denoise(x, torch.full((len(x),), t, device=x.device))
        a, a_next = float(alpha_bar[t]), float(alpha_bar[t_next])
        eps = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
        sigma = eta * math.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))
        x = math.sqrt(a_next) * x0 + math.sqrt(1 - a_next - sigma**2) * eps
        if fresh is not None and sigma:
            x = x + sigma * fresh(step)
    return denoise(x, torch.full((len(x),), timesteps[-1], device=x.device))
