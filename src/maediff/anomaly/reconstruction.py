"""Error of a reconstruction as a whole, beside that of a blurred copy of the scan.

    reconstruction_error    median |x - x0| in the inner brain; x the scan, x0 the reference
    blur_error              the same for a blurred copy of x instead of x0

A lesion moves a median little; noise, motion, another contrast or an untrained network move it.
A network that reconstructs healthy brains worse than a blur does has not learned them.
"""

import numpy as np
from scipy import ndimage

from maediff.core.types import Map, Mask

BLUR_PIXELS = 4.0
INNER_PIXELS = 3


def reconstruction_error(images: Map, reference: Map, brain: Mask) -> float:
    """Return the median absolute error of a reference; NaN if the inner brain is empty.

    Args:
        images: slices of the scan, 1 at the brain's 99th percentile; higher values count as 1,
            as networks see them.
        reference: the healthy reference.
        brain: brain mask.

    Example:
        >>> x = np.ones((1, 9, 9), dtype=np.float32)
        >>> reconstruction_error(x, x - 0.25, x > 0)
        0.25
    """
    inner = _find_inner(brain)
    if not inner.any():
        return float("nan")
    return float(np.median(np.abs(np.clip(images[inner], 0, 1) - reference[inner])))


def blur_error(images: Map, brain: Mask) -> float:
    """Return the median absolute error of a copy that is blurred in the slice, inside the brain.

    Args:
        images: see `reconstruction_error`.
        brain: brain mask.
    """
    images = np.clip(images, 0, 1)
    sigma = (0, BLUR_PIXELS, BLUR_PIXELS)
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma)
    blurred = ndimage.gaussian_filter(images * brain, sigma) / np.maximum(weight, 1e-3)
    return reconstruction_error(images, blurred, brain)


def _find_inner(brain: Mask) -> Mask:
    """Return the brain without `INNER_PIXELS` at its edge in each slice; the image edge is one."""
    in_slice = ndimage.generate_binary_structure(2, 1)[None]
    return np.asarray(ndimage.binary_erosion(brain, in_slice, iterations=INNER_PIXELS))
