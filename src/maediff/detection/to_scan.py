"""From the model's grid back to the scan's own grid, and to MNI152.

cell of the grid  --grid.affine-->  mm of the scan  --to_mni-->  mm of MNI152
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from maediff.anomaly.components import CONNECTIVITY
from maediff.core.types import Map, Mask
from maediff.preparation.atlas.template import load_atlas
from maediff.preparation.background import ZERO_BACKGROUND
from maediff.preparation.grid import Grid
from maediff.preparation.intensities import NormaliseConfig, standardise
from maediff.preparation.prepare import PreparedScan
from maediff.preparation.resample import Order, resample
from maediff.scans.volume import (
    Volume,
    slices_to_volume,
    volume_from_array,
    volume_to_slices,
)

MNI_SPACE = "MNI152NLin2009aSym"
"""BIDS name of the space of nilearn's template (ICBM 2009a nonlinear symmetric)."""
MNI_CODE = 4  # NIfTI-1: coordinates of MNI152
BORDER = 1e-6  # cells: a voxel this near to the border of two cells is on it


def from_grid(
    data: Shaped[np.ndarray, "gx gy gz"], grid: Grid, volume: Volume, order: Order
) -> Shaped[np.ndarray, "x y z"]:
    """Resample an array from the model's grid to the RAS+ grid of a scan; 0 outside the grid.

    Args:
        data: array on the model's grid.
        grid: the model's grid.
        volume: the scan.
        order: see `resample.resample`.
    """
    return resample(data, np.linalg.inv(grid.affine) @ volume.affine, volume.data.shape, order)


def reference_to_scan(
    reference: Map, prepared: PreparedScan, volume: Volume, config: NormaliseConfig
) -> Float[np.ndarray, "x y z"]:
    """Return a healthy reference on the scan's grid, in the scan's own intensities.

    Standardisation, normalisation and bias correction are undone.

    Args:
        reference: slices of the model's grid, 1 at the 99th percentile of the brain.
        prepared: the scan on both grids.
        volume: the scan.
        config: the intensity scale of the model.
    """
    on_grid, bias_field = prepared.on_grid, prepared.on_scan.bias_field
    low, high = on_grid.record["intensity_range"]
    linear = standardise(reference, on_grid.record.get("deciles", []), config, back=True)
    masked = (low + (high - low) * linear) * volume_to_slices(on_grid.brain)
    healthy = from_grid(slices_to_volume(masked), on_grid.grid, volume, "linear")
    return healthy if bias_field is None else healthy * bias_field


def brain_to_scan(prepared: PreparedScan, volume: Volume) -> Bool[np.ndarray, "x y z"]:
    """Return the brain mask that bounds the anomaly map, on the scan's grid.

    The mask of an unregistered stripped scan comes from the model's grid. Every other mask is
    that of the preparation.

    Args:
        prepared: the scan on both grids.
        volume: the scan.
    """
    on_grid, on_scan = prepared.on_grid, prepared.on_scan
    if on_scan.brain_from == ZERO_BACKGROUND and on_scan.to_atlas is None:
        return from_grid(on_grid.brain, on_grid.grid, volume, "nearest")
    return on_scan.brain


def mask_from_grid(
    mask: Bool[np.ndarray, "gx gy gz"], grid: Grid, volume: Volume
) -> Bool[np.ndarray, "x y z"]:
    """Resample a mask from the model's grid to the RAS+ grid of a scan; keep each component.

    A voxel is set if its centre is in a cell of the mask.
    A component between the centres of thick slices would lose more than half of its volume in
    this way. Such a component sets every voxel that contains the centre of one of its cells, or
    of a part of a cell if voxels are smaller than cells.

        centres of 6 mm slices   -3          3          9
        cells of 2 mm                     2..4..6          ->  the slice at 3, by its centre
        cells of 2 mm               -2..0..2               ->  the slices at -3 and 3

    Args:
        mask: mask on the model's grid.
        grid: the model's grid.
        volume: the scan.
    """
    labels, count = ndimage.label(mask, CONNECTIVITY)
    # Voxels on the border of two cells belong to the upper one, despite rounding errors.
    shift = np.eye(4)
    shift[:3, 3] = -BORDER
    lowered = replace(grid, affine=grid.affine @ shift)
    nearest = from_grid(labels.astype(np.float32), lowered, volume, "nearest").astype(int)
    result: Bool[np.ndarray, "x y z"] = nearest > 0
    to_scan = np.linalg.inv(volume.affine) @ grid.affine
    cell_size = abs(np.linalg.det(to_scan[:3, :3]))  # in voxels of the scan
    size = np.bincount(labels.ravel()) * cell_size
    lost = np.bincount(nearest.ravel(), minlength=count + 1) < size / 2
    if lost[1:].any():
        # Parts of a cell along each of its axes, none larger than a voxel.
        parts = np.ceil(np.abs(to_scan[:3, :3]).max(axis=0) - 1e-6).astype(int)
        centres = [(np.arange(n) + 0.5) / n - 0.5 for n in parts]
        within = np.stack(np.meshgrid(*centres, indexing="ij"), axis=-1).reshape(-1, 3)
        points = (np.argwhere(mask & lost[labels])[:, None] + within).reshape(-1, 3)
        in_scan = points @ to_scan[:3, :3].T + to_scan[:3, 3]
        # A point on the edge of two voxels belongs to the upper one, despite rounding errors.
        voxels = np.floor(in_scan + 0.5 + 1e-6).astype(int)
        inside = ((voxels >= 0) & (voxels < result.shape)).all(axis=1)
        result[tuple(voxels[inside].T)] = True
    return result


def load_mni_template() -> Volume:
    """Return the MNI152 template of nilearn: skull-stripped T1w, 1 mm, (197, 233, 189)."""
    atlas = load_atlas()
    template = volume_from_array(atlas.t1, atlas.affine, MNI_SPACE)
    return replace(template, space_code=MNI_CODE)


def move_grid(grid: Grid, to_mni: Float[np.ndarray, "4 4"]) -> Grid:
    """Return the model's grid with its affine to mm of MNI152 instead of mm of the scan.

    Args:
        grid: the model's grid of a scan.
        to_mni: mm of the scan -> mm of MNI152.
    """
    return replace(grid, affine=to_mni @ grid.affine)


def grid_to_mni(
    anomaly_map: Map, mask: Mask, grid: Grid, to_mni: Float[np.ndarray, "4 4"]
) -> dict[str, np.ndarray]:
    """Return map and mask of a model's grid in MNI152, by the names of their files.

    Args:
        anomaly_map: anomaly map, in slices of the model's grid.
        mask: anomaly mask, in the same slices; each of its components is kept.
        grid: the model's grid of a scan.
        to_mni: mm of the scan -> mm of MNI152.
    """
    moved, template = move_grid(grid, to_mni), load_mni_template()
    return {
        "anomaly_map_mni": from_grid(slices_to_volume(anomaly_map), moved, template, "linear"),
        "anomaly_mask_mni": mask_from_grid(slices_to_volume(mask), moved, template),
    }


def scan_to_mni(
    data: Float[np.ndarray, "x y z"],
    volume: Volume,
    to_mni: Float[np.ndarray, "4 4"],
    template: Volume,
) -> Float[np.ndarray, "mx my mz"]:
    """Resample an image from the scan's grid to the grid of the template; 0 outside the scan.

    Args:
        data: image on the RAS+ grid of `volume`.
        volume: the scan.
        to_mni: mm of the scan -> mm of MNI152.
        template: the MNI152 template.
    """
    to_voxel = np.linalg.inv(to_mni @ volume.affine) @ template.affine
    return resample(data, to_voxel, template.data.shape, "linear")
