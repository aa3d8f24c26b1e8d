"""A scan as an array with its affine, and its slices."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import Float, Shaped

from maediff.core.errors import InputError


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


def volume_from_array(
    data: Shaped[np.ndarray, "x y z"], affine: Shaped[np.ndarray, "4 4"], name: str = "array"
) -> Volume:
    """Wrap an array as a scan, with its axes flipped and swapped to RAS+ where they are not.

    Args:
        data: intensities, three dimensions.
        affine: from voxels of `data` to mm in RAS+.
        name: stands for the file name in messages and results.

    Raises:
        InputError: not three dimensions, values that are not finite, or an affine that is singular.
    """
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    affine = np.asarray(affine, dtype=float)
    if data.ndim != 3:
        raise InputError(f"{name}: {data.ndim} dimensions; give an array (x, y, z)")
    if not np.isfinite(data).all():
        raise InputError(f"{name}: holds NaN or infinity; replace them, for example by 0")
    if affine.shape != (4, 4) or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{name}: the affine is not an invertible 4 x 4 matrix")
    to_ras = io_orientation(affine)
    return Volume(
        data=apply_orientation(data, to_ras).astype(np.float32),
        affine=affine @ inv_ornt_aff(to_ras, data.shape),
        source=Path(name),
        native_shape=data.shape,
        native_affine=affine,
    )
