"""A scan as an array with its affine, and its slices."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import Float, Shaped


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in RAS+, with what is needed to write results on the file's own grid.

    Args:
        affine: voxel of `data` -> mm in RAS+.
        native_shape: the file's own shape, before reorienting.
        native_affine: the file's own affine.
        space_code: the file's NIfTI code for its frame (1 scanner, 2 aligned, 3 Talairach, 4 MNI).
    """

    data: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    source: Path
    native_shape: tuple[int, int, int]
    native_affine: Float[np.ndarray, "4 4"]
    space_code: int = 1

    @property
    def spacing_mm(self) -> Float[np.ndarray, " 3"]:
        """Voxel size along X, Y and Z."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))


def volume_to_slices(volume: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "z y x"]:
    """Axial slices from the lowest up, as one looks at them: front at the top, X from left to right."""
    return np.ascontiguousarray(rearrange(volume[:, ::-1], "x y z -> z y x"))


def slices_to_volume(slices: Shaped[np.ndarray, "z y x"]) -> Shaped[np.ndarray, "x y z"]:
    """The exact inverse of `volume_to_slices`."""
    return np.ascontiguousarray(rearrange(slices[:, ::-1], "z y x -> x y z"))
