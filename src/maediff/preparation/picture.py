"""Pictures of brain outlines, for quality control."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from maediff.core.files import atomic_path
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume

TILE_MM = 2.0
TILE = 120  # pixels of a view along each side: 240 mm
OUTLINE = (255, 140, 26)


def render_picture(volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return three axial, a coronal and a sagittal view of the scan with the brain's outline.

    A pixel is 2 mm.
    In axial and coronal views, the left of the head is on the left.
    The front is at the top of axial views, and on the right of the sagittal view.

    Args:
        volume: the scan.
        brain: its brain mask; if it is empty, the views pass through the middle of the scan.
    """
    indices = np.nonzero(brain) if brain.any() else np.nonzero(np.ones_like(brain))
    centre = [float(along.mean()) for along in indices]
    middle = (volume.affine @ [*centre, 1.0])[:3]
    low, high = np.percentile(volume.data[::2, ::2, ::2], [1, 99.5])
    tiles = []
    for axis, shift_mm in ((2, -25.0), (2, 0.0), (2, 25.0), (1, 0.0), (0, 0.0)):
        shape = tuple(1 if k == axis else TILE for k in range(3))
        target = np.diag([TILE_MM] * 3 + [1.0])
        target[:3, 3] = [
            mm + shift_mm if k == axis else mm - (TILE - 1) * TILE_MM / 2
            for k, mm in enumerate(middle)
        ]
        to_scan = np.linalg.inv(volume.affine) @ target
        data, inside = (
            resample(values, to_scan, shape, "nearest").squeeze(axis).T[::-1]
            for values in (volume.data, brain)
        )
        scaled = np.clip((data - low) / max(float(high - low), 1e-6), 0, 1)
        tile = np.repeat(np.round(255 * scaled).astype(np.uint8)[..., None], 3, axis=2)
        tile[inside & ~ndimage.binary_erosion(inside)] = OUTLINE
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def write_picture(path: Path, volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> None:
    """Write `render_picture` as a PNG.

    Args:
        path: the PNG file.
        volume: the scan.
        brain: its brain mask.
    """
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(render_picture(volume, brain)).save(temporary, format="PNG")
