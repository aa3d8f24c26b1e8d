"""Smooth random fields on the grid of the synthetic brains."""

import numpy as np
from jaxtyping import Float

Field = Float[np.ndarray, "x y z"]


VOXEL_MM = 2.0


def smooth_field(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    wavelength_mm: float,
    voxel_mm: float = VOXEL_MM,
) -> Field:
    """A smooth random field with mean 0 and standard deviation 1: a cubic B-spline with Gaussian coefficients.

    `wavelength_mm` is the size of a bump and the dip beside it; the spline has two knots on it.
    """
    knot = wavelength_mm / 2 / voxel_mm
    bases = []
    for n in shape:
        u = np.arange(n)[:, None] / knot + 1.5 - np.arange(int(np.ceil(n / knot)) + 4)[None]
        a = np.abs(u)
        bases.append(
            np.where(a < 1, 2 / 3 - a**2 + a**3 / 2, np.clip(2 - a, 0, None) ** 3 / 6).astype(
                np.float32
            )
        )
    values = rng.standard_normal([b.shape[1] for b in bases], dtype=np.float32)
    for axis, basis in enumerate(bases):
        values = np.moveaxis(np.tensordot(basis, values, (1, axis)), 0, axis)
    return np.ascontiguousarray(
        values / 0.479**1.5
    )  # 0.479: sum over knots of the squared cubic B-spline


def logistic(v: np.ndarray) -> np.ndarray:
    """A soft step from 0 to 1 at v = 0."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(v, -30, 30))))
