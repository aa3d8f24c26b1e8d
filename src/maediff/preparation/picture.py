"""Pictures of brain outlines, for quality control."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from maediff.core.files import atomic_path
from maediff.preparation.resample import resample
from maediff.scans.volume import Volume

TILE_MM, TILE = 2.0, 120  # a view of the picture: 240 mm


OUTLINE = (255, 140, 26)


def picture(volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "h w 3"]:
    """Three axial, a coronal and a sagittal view of the scan, 2 mm a pixel, with the brain's outline.

    Axial and coronal views show the left of the head on the left; the front is on top, or on the right.
    """
    where = np.nonzero(brain) if brain.any() else np.nonzero(np.ones_like(brain))
    centre = [float(along.mean()) for along in where]
    middle = (volume.affine @ [*centre, 1.0])[:3]
    low, high = np.percentile(volume.data[::2, ::2, ::2], [1, 99.5])
    tiles = []
    for axis, shift_mm in ((2, -25.0), (2, 0.0), (2, 25.0), (1, 0.0), (0, 0.0)):
        shape = tuple(1 if k == axis else TILE for k in range(3))
        target = np.diag([TILE_MM] * 3 + [1.0])
        target[:3, 3] = [
            m + shift_mm if k == axis else m - (TILE - 1) * TILE_MM / 2
            for k, m in enumerate(middle)
        ]
        to_scan = np.linalg.inv(volume.affine) @ target
        data, inside = (
            resample(values, to_scan, shape, "nearest").squeeze(axis).T[::-1]
            for values in (volume.data, brain)
        )
        grey = np.round(255 * np.clip((data - low) / max(float(high - low), 1e-6), 0, 1)).astype(
            np.uint8
        )
        tile = np.repeat(grey[..., None], 3, axis=2)
        tile[inside & ~ndimage.binary_erosion(inside)] = OUTLINE
        tiles.append(tile)
    return np.concatenate(tiles, axis=1)


def write_picture(path: Path, volume: Volume, brain: Bool[np.ndarray, "x y z"]) -> None:
    """Write `picture` as a PNG."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(picture(volume, brain)).save(temporary, format="PNG")
