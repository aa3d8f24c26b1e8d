"""The forward process, its schedule, and samplers that start from a prediction of the clean image.

    abar_t = prod_{u <= t} (1 - beta_u),    f(t) = cos^2( (t/T + s) / (1 + s) * pi/2 ),    beta_t = 1 - f(t+1)/f(t)
    x_t    = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps

Schedule: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17, s = 0.008, betas clipped at 0.999.
Forward process: Ho et al. 2020 (arXiv 2006.11239), eq. 4. Sampler: Song et al. 2021, DDIM (arXiv 2010.02502), eq. 12
and 16.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

Denoiser = Callable[[Float[Tensor, "b c h w"], Int[Tensor, " b"]], Float[Tensor, "b c h w"]]


def cosine_alpha_bar(
    steps: int = 1000, s: float = 0.008, max_beta: float = 0.999
) -> Float[Tensor, " steps"]:
    """Abar for t = 0 .. steps - 1, falling from almost 1 to almost 0, in float64 (`abar[499]` is 0.494 of 1000)."""
    f = [math.cos((t / steps + s) / (1 + s) * math.pi / 2) ** 2 for t in range(steps + 1)]
    betas = torch.tensor(
        [min(1 - f[t + 1] / f[t], max_beta) for t in range(steps)], dtype=torch.float64
    )
    return torch.cumprod(1 - betas, dim=0)


def forward_process(
    x0: Float[Tensor, "b 1 h w"], eps: Float[Tensor, "b 1 h w"], alpha_bar_t: Float[Tensor, " b"]
) -> Float[Tensor, "b 1 h w"]:
    """x_t, the image noised to abar_t. Coefficients are taken in the precision of `alpha_bar_t`, then cast."""
    signal = alpha_bar_t.sqrt().to(x0.dtype)[:, None, None, None]
    noise = (1 - alpha_bar_t).sqrt().to(x0.dtype)[:, None, None, None]
    return signal * x0 + noise * eps


def reverse_chain(
    denoise: Denoiser,
    x_t: Float[Tensor, "b 1 h w"],
    timesteps: Sequence[int],
    alpha_bar: Float[Tensor, " steps"],
    eta: float = 0.0,
    fresh: Callable[[int], Float[Tensor, "b 1 h w"]] | None = None,
) -> Float[Tensor, "b 1 h w"]:
    """x0 reached from `x_t` along `timesteps`. One time step alone is the one-step prediction.

    Args:
        denoise: predicts x0 from (x_t, t).
        timesteps: falling, the first being the noise level of `x_t`.
        eta: 0, DDIM: no noise is drawn on the way. 1, with every time step named: the chain of Ho et al. 2020, its
            variance that of q(x_{t-1} | x_t, x0) (their eq. 7). Song et al. 2021, eq. 16.
        fresh: the noise, of standard deviation 1, that comes in after each step but the last, counted from 1; needed
            where eta is above 0.

    Raises:
        ValueError: time steps that do not fall, or lie outside the schedule; an eta without noise.
    """
    if not timesteps or any(a <= b for a, b in pairwise(timesteps)):
        raise ValueError(
            f"timesteps {list(timesteps)} must fall strictly, from the noise level of x_t downwards"
        )
    if timesteps[0] >= len(alpha_bar) or timesteps[-1] < 0:
        raise ValueError(f"timesteps {list(timesteps)} must lie in 0..{len(alpha_bar) - 1}")
    if eta and fresh is None:
        raise ValueError(f"eta={eta} wants fresh noise at every step")
    x = x_t
    for step, (t, t_next) in enumerate(
        zip(timesteps, [*timesteps[1:], None], strict=True), start=1
    ):
        x0 = denoise(x, torch.full((len(x),), t, device=x.device))
        if t_next is None:
            return x0
        a, a_next = float(alpha_bar[t]), float(alpha_bar[t_next])
        eps = (x - math.sqrt(a) * x0) / math.sqrt(1 - a)
        sigma = eta * math.sqrt((1 - a_next) / (1 - a) * (1 - a / a_next))
        x = math.sqrt(a_next) * x0 + math.sqrt(1 - a_next - sigma**2) * eps
        if fresh is not None and sigma:
            x = x + sigma * fresh(step)
    raise AssertionError("unreachable: the last time step returns")
