"""Smooth random fields on the grid of the synthetic brains."""

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "x y z"]
"""A number for each voxel."""

VOXEL_MM = 2.0
"""Voxel size of the grid on which synthetic brains are built."""
SPLINE_NORM = 0.479
"""Mean over positions of the sum over knots of the squared cubic B-spline."""


def smooth_field(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    wavelength_mm: float,
    voxel_mm: float = VOXEL_MM,
) -> Field:
    """Return a smooth random field with mean 0 and standard deviation 1.

    The field is a cubic B-spline with Gaussian coefficients and two knots per wavelength.

    Args:
        rng: source of the coefficients.
        shape: shape of the field in voxels.
        wavelength_mm: size of a bump and the dip beside it.
        voxel_mm: voxel size.
    """
    knot = wavelength_mm / 2 / voxel_mm
    bases = []
    for n in shape:
        u = np.arange(n)[:, None] / knot + 1.5 - np.arange(int(np.ceil(n / knot)) + 4)[None]
        a = np.abs(u)
        spline = np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.clip(2 - a, 0, None) ** 3 / 6)
        bases.append(spline.astype(np.float32))
    values = rng.standard_normal([b.shape[1] for b in bases], dtype=np.float32)
    for axis, basis in enumerate(bases):
        values = np.moveaxis(np.tensordot(basis, values, (1, axis)), 0, axis)
    return np.ascontiguousarray(values / SPLINE_NORM**1.5)


def logistic(v: np.ndarray) -> np.ndarray:
    """Return the logistic function 1 / (1 + exp(-v)): a soft step from 0 to 1 at v = 0."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(v, -30, 30))))
