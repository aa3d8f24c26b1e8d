"""Pictures as data URIs: rows of slices on one fixed colour scale.

`anomaly.snapshots.display_maximum` gives the upper end of the anomaly colour scale.
The scale is the same for every subject and never stretched to the maximum of an image. A healthy
scan therefore stays dark.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from maediff.anomaly.snapshots import Snapshot
from maediff.core.errors import InputError
from maediff.core.types import Map, Mask
from maediff.report.colours import COLOURS, colour_values

ZOOM = 2  # pixels of the picture per pixel of the model's grid
MARGIN = 3
THUMBNAIL_QUALITY = 75  # of JPEG, 0 to 95; about 4 KB a picture
GAP, GAP_COLOUR = 4, (84, 96, 108)  # between slices; visible on a light and on a dark page
MASK_COLOUR = (255, 140, 26)
TRUTH_COLOUR = (64, 214, 255)
OUTLINE_COLOUR = (255, 255, 255)  # of the mask on the anomaly map, whose own colours hold orange
LETTER_COLOUR = (170, 178, 188)
L = (
    np.array([[*row] for row in ("#....", "#....", "#....", "#....", "#....", "#....", "#####")])
    == "#"
)
R = (
    np.array([[*row] for row in ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#")])
    == "#"
)
INK, MUTED, ACCENT = "#1d2733", "#6b7787", "#1f5fa8"
RGB = UInt8[np.ndarray, "_ _ 3"]


def scan_row(snapshot: Snapshot, *, truth: bool = False) -> str:
    """The scan, grey, 0 to 1; with the reader's outline if asked for."""
    return _row(
        snapshot,
        _grey(snapshot.image),
        outlines=[(snapshot.lesion, TRUTH_COLOUR)] if truth else [],
    )


def reference_row(snapshot: Snapshot) -> str | None:
    """The healthy reference on the scan's grey scale, zero outside the brain."""
    if snapshot.reference is None:
        return None
    return _row(snapshot, _grey(np.where(snapshot.brain, snapshot.reference, 0)))


def anomaly_row(snapshot: Snapshot, vmax: float, *, mask: bool = False) -> str:
    """The anomaly map from 0 (black) to `vmax` (bright); with the mask's outline if asked for."""
    return _row(
        snapshot, _heat(snapshot, vmax), outlines=[(snapshot.mask, OUTLINE_COLOUR)] if mask else []
    )


def mask_row(snapshot: Snapshot) -> str:
    """The scan with the mask filled, and the reader's outline where there is one."""
    return _row(
        snapshot,
        _grey(snapshot.image),
        fill=(snapshot.mask, MASK_COLOUR),
        outlines=[(snapshot.lesion, TRUTH_COLOUR)],
    )


def thumbnail(snapshot: Snapshot) -> str:
    """Return the slice with the highest anomaly, with the mask filled, as a small JPEG."""
    at = int(snapshot.anomaly_map.max(axis=(1, 2)).argmax())
    cut = _cut_slice(snapshot, at)
    picture = _strip(cut, _grey(cut.image), fill=(cut.mask, MASK_COLOUR))
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=THUMBNAIL_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def scan_tile(snapshot: Snapshot, at: int) -> RGB:
    """One slice of the scan."""
    cut = _cut_slice(snapshot, at)
    return _strip(cut, _grey(cut.image))


def truth_tile(snapshot: Snapshot, at: int) -> RGB:
    """One slice of the scan with the lesion mask, filled and outlined."""
    cut = _cut_slice(snapshot, at)
    return _strip(
        cut, _grey(cut.image), fill=None if cut.lesion is None else (cut.lesion, TRUTH_COLOUR)
    )


def reference_tile(snapshot: Snapshot, at: int) -> RGB:
    """One slice of the healthy reference, zero outside the brain."""
    cut = _cut_slice(snapshot, at)
    assert cut.reference is not None
    return _strip(cut, _grey(np.where(cut.brain, cut.reference, 0)))


def anomaly_tile(snapshot: Snapshot, at: int, vmax: float) -> RGB:
    """One slice of the anomaly map, from 0 to `vmax`."""
    cut = _cut_slice(snapshot, at)
    return _strip(cut, _heat(cut, vmax))


def _cut_slice(snapshot: Snapshot, at: int) -> Snapshot:
    cut = slice(at, at + 1)
    arrays: dict[str, Any] = {
        key: value[cut] for key, value in vars(snapshot).items() if isinstance(value, np.ndarray)
    }
    return replace(snapshot, **arrays)


def colour_bar() -> str:
    """The anomaly colour scale as a strip, left 0, right vmax."""
    return _png(np.repeat(COLOURS[None], 8, axis=0))


def file_uri(path: Path) -> str:
    """A PNG file as it is."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def small_uri(picture: RGB, quality: int = 80) -> str:
    """Return a picture as JPEG, for pages with hundreds of pictures."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def read_picture(path: Path) -> RGB:
    """Return the pixels of a PNG file.

    Raises:
        InputError: the file is missing or damaged.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); preprocess again"
        ) from None


def _grey(image: Map) -> UInt8[np.ndarray, "n h w 3"]:
    return np.repeat(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)


def _heat(snapshot: Snapshot, vmax: float) -> UInt8[np.ndarray, "n h w 3"]:
    colours = colour_values(snapshot.anomaly_map / vmax)
    return np.where(snapshot.brain[..., None], colours, np.uint8(0))


def _row(
    snapshot: Snapshot,
    pictures: UInt8[np.ndarray, "n h w 3"],
    fill: tuple[Mask, tuple[int, int, int]] | None = None,
    outlines: Sequence[tuple[Mask | None, tuple[int, int, int]]] = (),
) -> str:
    return _png(_strip(snapshot, pictures, fill, outlines))


def _strip(
    snapshot: Snapshot,
    pictures: UInt8[np.ndarray, "n h w 3"],
    fill: tuple[Mask, tuple[int, int, int]] | None = None,
    outlines: Sequence[tuple[Mask | None, tuple[int, int, int]]] = (),
) -> RGB:
    """Return the slices side by side, cropped to the brain, enlarged, with the letters L and R."""
    rows, columns = (np.flatnonzero(snapshot.brain.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    height, width = snapshot.brain.shape[1:]
    y0, y1 = (
        max(0, rows.min(initial=height) - MARGIN),
        min(height, rows.max(initial=0) + MARGIN + 1),
    )
    x0, x1 = (
        max(0, columns.min(initial=width) - MARGIN),
        min(width, columns.max(initial=0) + MARGIN + 1),
    )
    if y0 >= y1 or x0 >= x1:  # no brain in these slices
        y0, y1, x0, x1 = 0, height, 0, width
    tiles = []
    gap = np.full((ZOOM * (y1 - y0), GAP, 3), GAP_COLOUR, dtype=np.uint8)
    for index, picture in enumerate(pictures[:, y0:y1, x0:x1]):
        tile = ndimage.zoom(
            picture.astype(np.float32), (ZOOM, ZOOM, 1), order=1, grid_mode=True, mode="nearest"
        )
        tile = np.clip(np.round(tile), 0, 255)
        if fill is not None:
            inside = _enlarge(fill[0][index, y0:y1, x0:x1])
            tile[inside] = 0.5 * tile[inside] + 0.5 * np.array(fill[1])
            tile[_outline(inside)] = fill[1]
        for mask, colour in outlines:
            if mask is not None:
                tile[_outline(_enlarge(mask[index, y0:y1, x0:x1]))] = colour
        _letter(tile, _enlarge(L))
        _letter(tile[:, ::-1], _enlarge(R)[:, ::-1])
        tiles += [tile.astype(np.uint8), gap]
    return np.concatenate(tiles[:-1], axis=1)


def _letter(tile: Float[np.ndarray, "h w 3"], letter: Bool[np.ndarray, "a b"]) -> None:
    """Draw a letter into the lower left corner, where no brain is, if there is room."""
    height, width = letter.shape
    if tile.shape[0] >= 2 * height and tile.shape[1] >= 3 * width:
        tile[-height - 2 : -2, 2 : width + 2][letter] = LETTER_COLOUR


def _enlarge(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "a b"]:
    return mask.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


def _outline(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    edge: Bool[np.ndarray, "h w"] = ndimage.binary_dilation(mask) & ~mask
    return edge


def _png(picture: RGB) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
