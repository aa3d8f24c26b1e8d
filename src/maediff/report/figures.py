"""Pictures as data URIs: rows of slices on one fixed colour scale, and a few quiet charts.

The anomaly colour scale runs from 0 to twice the run's threshold (0.5 where there is none): the same for every subject,
never stretched to an image's own maximum, so a healthy scan stays dark and what is flagged is brighter than the middle.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.image import imsave
from scipy import ndimage

from maediff.anomaly.snapshots import Snapshot
from maediff.core.types import Map, Mask

ZOOM = 2  # pixels of the picture per pixel of the model's grid
MARGIN = 3
GAP = 4
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


def scan_tile(snapshot: Snapshot, at: int) -> RGB:
    """One slice of the scan."""
    one = _one(snapshot, at)
    return _strip(one, _grey(one.image))


def truth_tile(snapshot: Snapshot, at: int) -> RGB:
    """One slice of the scan with what the reader drew, filled and outlined."""
    one = _one(snapshot, at)
    return _strip(
        one, _grey(one.image), fill=None if one.lesion is None else (one.lesion, TRUTH_COLOUR)
    )


def reference_tile(snapshot: Snapshot, at: int) -> RGB:
    """One slice of the healthy reference, zero outside the brain."""
    one = _one(snapshot, at)
    assert one.reference is not None
    return _strip(one, _grey(np.where(one.brain, one.reference, 0)))


def anomaly_tile(snapshot: Snapshot, at: int, vmax: float) -> RGB:
    """One slice of the anomaly map, from 0 to `vmax`."""
    one = _one(snapshot, at)
    return _strip(one, _heat(one, vmax))


def _one(snapshot: Snapshot, at: int) -> Snapshot:
    cut = slice(at, at + 1)
    arrays: dict[str, Any] = {
        key: value[cut] for key, value in vars(snapshot).items() if isinstance(value, np.ndarray)
    }
    return replace(snapshot, **arrays)


def colour_bar() -> str:
    """The anomaly colour scale as a strip, left 0, right vmax."""
    strip = np.round(255 * colormaps["inferno"](np.linspace(0, 1, 256))[None, :, :3]).astype(
        np.uint8
    )
    return _png(np.repeat(strip, 8, axis=0))


def file_uri(path: Path) -> str:
    """A PNG file as it is."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _grey(image: Map) -> UInt8[np.ndarray, "n h w 3"]:
    return np.repeat(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)


def _heat(snapshot: Snapshot, vmax: float) -> UInt8[np.ndarray, "n h w 3"]:
    colours = colormaps["inferno"](np.clip(snapshot.anomaly_map / vmax, 0, 1))[..., :3]
    heat: UInt8[np.ndarray, "n h w 3"] = np.where(
        snapshot.brain[..., None], np.round(255 * colours), 0
    ).astype(np.uint8)
    return heat


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
    """The slices side by side, cropped to one box around the brain, enlarged, with the patient's left as L."""
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
        tiles += [tile.astype(np.uint8), np.full((tile.shape[0], GAP, 3), 255, dtype=np.uint8)]
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
    buffer = io.BytesIO()
    imsave(buffer, picture, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


# ---- charts


def training_curve(metrics: Mapping[str, Float[np.ndarray, " n"]]) -> str:
    """Loss against step, training and validation."""
    figure, axes = _axes(8.0, 3.0)
    for column, label, colour in (
        ("train_loss", "training", "#9db4cf"),
        ("val_loss", "validation", ACCENT),
    ):
        values = metrics.get(column)
        if values is not None and np.isfinite(values).any():
            known = np.isfinite(values)
            axes.plot(
                metrics["step"][known],
                values[known],
                color=colour,
                label=label,
                marker="o",
                markersize=2.5,
            )
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _svg(figure)


def score_chart(
    values: Mapping[str, Sequence[float]], means: Mapping[str, Any], baselines: Sequence[str]
) -> str:
    """AUPRC by method: a dot per subject, the mean and its interval; best at the top."""
    names = sorted((name for name in means if means[name]), key=lambda name: means[name]["mean"])
    figure, axes = _axes(8.0, 0.9 + 0.36 * len(names))
    for row, name in enumerate(names):
        colour = MUTED if name in baselines else ACCENT
        found = np.array([v for v in values[name] if np.isfinite(v)])
        shift = np.random.default_rng(0).uniform(
            -0.16, 0.16, len(found)
        )  # so that dots do not hide each other
        axes.scatter(found, row + shift, s=11, color=colour, alpha=0.45, linewidths=0)
        mean = means[name]
        if mean["low"] is not None:
            axes.plot([mean["low"], mean["high"]], [row, row], color=colour, linewidth=2.2)
        axes.scatter([mean["mean"]], [row], s=34, color=colour, zorder=3)
    best = [means[name]["mean"] for name in names if name in baselines]
    if best:
        axes.axvline(max(best), color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("AUPRC: a dot per subject, mean and 95 % interval; dashed: the best baseline")
    return _svg(figure)


Line = tuple[Sequence[float], Sequence[float]]


def line_chart(
    lines: Mapping[str, Sequence[Line]],
    baseline: str | None,
    x_label: str,
    y_label: str,
    *,
    marks: Mapping[str, Sequence[float]] | None = None,
    x_limits: tuple[float, float] | None = None,
) -> str:
    """A colour for each method, a thin line for each of its runs; the baseline dashed.

    Args:
        marks: by method, for each of its runs an x at which the line gets a dot.
    """
    figure, axes = _axes(5.2, 3.6)
    for name, colour in _colours(lines, baseline).items():
        for number, (x, y) in enumerate(lines[name]):
            style = (0, (4, 2)) if name == baseline else "-"
            axes.plot(
                x,
                y,
                color=colour,
                linestyle=style,
                linewidth=1.4,
                label=name if number == 0 else None,
            )
        for (x, y), at in zip(lines[name], (marks or {}).get(name, []), strict=False):
            axes.scatter([at], [np.interp(at, x, y)], s=22, color=colour, zorder=3)
    if x_limits:
        axes.set_xlim(*x_limits)
    axes.set_ylim(0, 1)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def volume_chart(
    recalls: Mapping[str, Sequence[tuple[Sequence[float], Sequence[int]]]],
    baseline: str | None,
    edges_ml: Sequence[float],
) -> str:
    """Share of lesions found in each bin of volume that holds any, mean over the runs of a method."""
    counts = np.array(next(iter(recalls.values()))[0][1])
    bins: list[int] = np.flatnonzero(counts).tolist()
    figure, axes = _axes(5.2, 3.6)
    for name, colour in _colours(recalls, baseline).items():
        shares = np.array([share for share, _ in recalls[name]])[:, bins].mean(axis=0)
        style = (0, (4, 2)) if name == baseline else "-"
        axes.plot(
            range(len(bins)),
            shares,
            color=colour,
            linestyle=style,
            marker="o",
            markersize=4,
            label=name,
        )
    labels = []
    for i in bins:
        low, high = edges_ml[i], edges_ml[i + 1]
        text = f"over {low:g}" if high == float("inf") else f"{low:g} to {high:g}"
        labels.append(f"{text}\nn = {counts[i]}")
    axes.set_xticks(range(len(bins)), labels)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(-0.3, len(bins) - 0.7)
    axes.set_xlabel("volume of the lesion in ml")
    axes.set_ylabel("lesion recall")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def tile_chart(rows: Sequence[tuple[str, Sequence[RGB]]], columns: Sequence[str]) -> str:
    """Rows of pictures under common headings, each row named at its left."""
    height = max(tile.shape[0] for _, tiles in rows for tile in tiles)
    width = max(tile.shape[1] for _, tiles in rows for tile in tiles)
    margin, header = 110, 40
    shape = (header + len(rows) * (height + GAP), margin + len(columns) * (width + GAP))
    canvas = np.full((*shape, 3), 255, dtype=np.uint8)
    for row, (_, tiles) in enumerate(rows):
        for column, tile in enumerate(tiles):
            top, left = header + row * (height + GAP), margin + column * (width + GAP)
            canvas[top : top + height, left : left + width] = 0
            y, x = top + (height - tile.shape[0]) // 2, left + (width - tile.shape[1]) // 2
            canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    figure = Figure(figsize=(shape[1] / 100, shape[0] / 100), dpi=100)
    figure.figimage(canvas)
    for column, text in enumerate(columns):
        x = (margin + column * (width + GAP) + width / 2) / shape[1]
        figure.text(
            x, 1 - header / 2 / shape[0], text, ha="center", va="center", fontsize=7.5, color=INK
        )
    for row, (text, _) in enumerate(rows):
        y = 1 - (header + row * (height + GAP) + height / 2) / shape[0]
        figure.text(
            4 / shape[1],
            y,
            "\n".join(wrap(text, 16)),
            ha="left",
            va="center",
            fontsize=7.5,
            color=INK,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _colours(names: Mapping[str, Any], baseline: str | None) -> dict[str, Any]:
    dark_and_light = colormaps["tab20"].colors  # type: ignore[attr-defined]
    wheel = [
        colour
        for start in (0, 1)
        for hue, colour in enumerate(dark_and_light[start::2])
        if hue != 7
    ]  # no grey
    others = [name for name in names if name != baseline]
    colours = {name: wheel[index % len(wheel)] for index, name in enumerate(others)}
    return colours | ({baseline: MUTED} if baseline and baseline in names else {})


def _axes(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#c9d1da")
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.xaxis.label.set(color=MUTED, size=9)
    axes.yaxis.label.set(color=MUTED, size=9)
    axes.grid(axis="x", color="#eef1f4")
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
