"""Simulated atrophy: ventricles and sulci widened by a smooth warp.

    C      = share of CSF around a pixel: a soft mask of the CSF's grey levels, blurred
    x'(p)  = x(p + d s(p) grad C(p) / g)        g: the gradient of C at a straight edge

The gradient points towards CSF, so each pixel near CSF takes the value of a pixel nearer to it:
the CSF grows by d pixels at its edge, and tissue beside it is pushed away and thinned. s is a
smooth random field, which makes the atrophy uneven.

Wide ventricles are healthy in old age. Without such slices, a model that learned from young adults
detects them as anomalies. The warp and its sizes are our choice. This augmentation needs no scan
of an old person.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

BLUR_PX = 2.0
"""Standard deviation of the blur of the CSF mask: the warp reaches about twice as far."""
SOFTNESS = 0.04
"""Width of the soft threshold of grey levels."""
CELLS = 6
"""Rows and columns of the coarse random field s."""


def widen_csf(
    x: Float[Tensor, "b 1 h w"],
    brain: Bool[Tensor, "b 1 h w"],
    widening_px: float,
    csf: tuple[float, float],
    generator: torch.Generator,
) -> Float[Tensor, "b 1 h w"]:
    """Return slices with wider CSF spaces.

    Args:
        x: slices in [0, 1], 0 outside the brain.
        brain: brain masks.
        widening_px: the edge of the CSF moves by up to u pixels, u uniform in [0, widening_px].
        csf: lowest and highest grey level of CSF.
        generator: a CPU generator.

    Returns:
        Slices in [0, 1] with the same brain masks.
    """
    b, _, h, w = x.shape
    most = widening_px * torch.rand(b, 1, 1, 1, generator=generator)
    field = torch.randn(b, 1, CELLS, CELLS, generator=generator)
    uneven = functional.interpolate(field, (h, w), mode="bicubic", align_corners=False)
    shift = (most * (1 + 0.3 * uneven).clamp(0.2, 1.8)).to(x.device)
    soft = torch.sigmoid((x - csf[0]) / SOFTNESS) if csf[0] > 0 else torch.ones_like(x)
    soft = soft * torch.sigmoid((csf[1] - x) / SOFTNESS) if csf[1] < 1 else soft
    coverage = _blur(brain.to(x.dtype))
    share = _blur(soft * brain) / coverage.clamp(min=1e-3)
    down = functional.pad(share[:, :, 2:] - share[:, :, :-2], (0, 0, 1, 1)) / 2
    right = functional.pad(share[:, :, :, 2:] - share[:, :, :, :-2], (1, 1)) / 2
    # The gradient of a straight edge blurred with standard deviation s is 1 / (s sqrt(2 pi)).
    # Nothing moves at the edge of the brain, where half of the neighbourhood is background.
    per_gradient = BLUR_PX * math.sqrt(2 * math.pi) * shift * (2 * coverage - 1).clamp(min=0)
    rows = torch.arange(h, device=x.device)[:, None] + (per_gradient * down)[:, 0]
    columns = torch.arange(w, device=x.device) + (per_gradient * right)[:, 0]
    grid = torch.stack([2 * columns / (w - 1) - 1, 2 * rows / (h - 1) - 1], -1)
    return functional.grid_sample(x, grid, align_corners=True) * brain


def _blur(x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return `x` blurred with a Gaussian of `BLUR_PX` pixels, zero beyond the edges."""
    reach = math.ceil(3 * BLUR_PX)
    offset = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (offset / BLUR_PX) ** 2)
    weights = weights / weights.sum()
    x = functional.conv2d(x, weights[None, None, :, None], padding=(reach, 0))
    return functional.conv2d(x, weights[None, None, None, :], padding=(0, reach))
