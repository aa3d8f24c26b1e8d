"""A synthetic T1w brain with known tissues."""

import numpy as np
from scipy import ndimage

SPACING = np.array([3.0, 3.0, 3.0])
INTENSITY = {"fluid": 0.15, "grey": 0.55, "white": 0.9}


def made_t1(seed=0, bias=0.0, noise=0.02):
    """Return (T1w, brain, tissues): shells of CSF, grey and white matter around a ventricle."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(
        *[SPACING[0] * (np.arange(n) - (n - 1) / 2) for n in (48, 58, 44)], indexing="ij"
    )
    radius = np.sqrt((x / 65) ** 2 + (y / 80) ** 2 + (z / 58) ** 2)
    brain, folds = radius <= 1, 0.07 * np.sin(x / 9 + seed) * np.sin(y / 8) * np.sin(z / 10)
    labels = np.where(radius > 0.95, 0, np.where(radius + folds > 0.78, 1, 2))
    labels[np.sqrt((x / 18) ** 2 + (y / 30) ** 2 + (z / 15) ** 2) < 1] = 0
    truth = np.stack([(labels == k) & brain for k in range(3)])
    image = np.tensordot(list(INTENSITY.values()), truth, 1)
    image = ndimage.gaussian_filter(image, 0.4) * np.exp(
        bias * x / 65
    ) + noise * rng.standard_normal(x.shape)
    return (np.clip(image, 0.01, None) * 300 * brain).astype(np.float32), brain, truth
