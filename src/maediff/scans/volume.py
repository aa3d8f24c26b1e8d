"""A scan as an array with its affine, and conversion between volumes and axial slices.

slice k = volume[:, ::-1, k] transposed
row 0 = anterior (largest Y), column 0 = left (smallest X)
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange
from jaxtyping import Float, Shaped
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from maediff.core.errors import InputError

SHEAR_TOLERANCE = 1e-6  # relative; headers hold single precision


@dataclass(frozen=True, eq=False)
class NiftiForms:
    """Orientation fields of a NIfTI header, as the file states them.

    Results get the same fields, so that scan and result coincide in every viewer, whether the
    viewer uses the sform or the qform.

    Args:
        sform_code: code of the coordinate frame of the sform; 0 if it is not stated.
        qform_code: the same of the qform.
        srow: first three rows of the sform.
        quaternion: b, c and d of the qform.
        offset_mm: translation of the qform.
        pixdim: handedness of the qform (-1 or 1), and its voxel sizes in mm.
    """

    sform_code: int
    qform_code: int
    srow: Float[np.ndarray, "3 4"]
    quaternion: Float[np.ndarray, " 3"]
    offset_mm: Float[np.ndarray, " 3"]
    pixdim: Float[np.ndarray, " 4"]


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in RAS+, with everything needed to write results on the grid of its file.

    Args:
        data: intensities, indexed (X, Y, Z): X to the right, Y to the front, Z up.
        affine: maps voxel indices of `data` to mm in RAS+.
        source: file or DICOM folder of the scan.
        native_shape: shape of the array in the file, before reorienting.
        native_affine: affine of the file.
        space_code: NIfTI code of the file's coordinate frame (1 scanner, 2 aligned, 3 Talairach,
            4 MNI152).
        forms: orientation fields of the file if it is NIfTI (or DICOM, converted to NIfTI).
    """

    data: Float[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    source: Path
    native_shape: tuple[int, int, int]
    native_affine: Float[np.ndarray, "4 4"]
    space_code: int = 1
    forms: NiftiForms | None = None

    @property
    def spacing_mm(self) -> Float[np.ndarray, " 3"]:
        """Voxel size along X, Y and Z."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel: the determinant of the affine, also where axes are not orthogonal."""
        return float(np.prod(slice_spacing_mm(self.affine)))


def slice_spacing_mm(affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, " 3"]:
    """Return the voxel size of axial slices: along X and Y, and from slice to slice.

    The product is the volume of a voxel, the determinant of the affine. In a sheared volume, the
    edge of a voxel along Z is longer than the distance of the slices.

    Args:
        affine: maps voxel indices to mm.
    """
    edges = np.asarray(np.linalg.norm(affine[:3, :3], axis=0))
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    if not np.isclose(voxel_mm3, np.prod(edges), rtol=SHEAR_TOLERANCE, atol=0):
        edges[2] = voxel_mm3 / (edges[0] * edges[1])
    return edges


def volume_to_slices(volume: Shaped[np.ndarray, "x y z"]) -> Shaped[np.ndarray, "z y x"]:
    """Return the axial slices, lowest first: row 0 is anterior, column 0 is the left end of X."""
    return np.ascontiguousarray(rearrange(volume[:, ::-1], "x y z -> z y x"))


def slices_to_volume(slices: Shaped[np.ndarray, "z y x"]) -> Shaped[np.ndarray, "x y z"]:
    """Return the volume of axial slices: the exact inverse of `volume_to_slices`."""
    return np.ascontiguousarray(rearrange(slices[:, ::-1], "z y x -> x y z"))


def volume_from_array(
    data: Shaped[np.ndarray, "x y z"], affine: Shaped[np.ndarray, "4 4"], name: str = "array"
) -> Volume:
    """Make a scan from an array, with its axes flipped and swapped to RAS+ if necessary.

    Args:
        data: intensities.
        affine: maps voxel indices of `data` to mm in RAS+.
        name: replaces the file name in messages and results.

    Raises:
        InputError: `data` is not 3-D or holds NaN or infinity, or the affine is singular
            or not finite.
    """
    affine = np.asarray(affine, dtype=float)
    if data.ndim != 3:
        raise InputError(f"{name}: {data.ndim} dimensions; give an array (x, y, z)")
    if not np.isfinite(data).all():
        raise InputError(f"{name}: holds NaN or infinity; replace them, for example by 0")
    if (
        affine.shape != (4, 4)
        or not np.isfinite(affine).all()
        or abs(np.linalg.det(affine[:3, :3])) < 1e-9
    ):
        raise InputError(f"{name}: the affine is not an invertible 4 x 4 matrix; correct it")
    to_ras = io_orientation(affine)
    return Volume(
        data=apply_orientation(data, to_ras).astype(np.float32),
        affine=affine @ inv_ornt_aff(to_ras, data.shape),
        source=Path(name),
        native_shape=data.shape,
        native_affine=affine,
    )


def orient_like(
    data: Shaped[np.ndarray, "a b c"], volume: Volume, *, native: bool
) -> Shaped[np.ndarray, "x y z"]:
    """Return an array on the scan's grid with the axes of `volume.data` (RAS+).

    Args:
        data: values on the scan's grid.
        volume: the scan.
        native: True if `data` has the voxel order of the scan's file, False if it is RAS+ already.

    Raises:
        ValueError: another number of voxels along an axis than the scan.
    """
    expected = tuple(volume.native_shape if native else volume.data.shape)
    if data.shape != expected:
        raise ValueError(f"{data.shape} voxels, but the scan has {expected}")
    if not native:
        return data
    return np.asarray(apply_orientation(data, io_orientation(volume.native_affine)))
