"""Charts as SVG."""

import base64
import io
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from maediff.report.slices import ACCENT, GAP, INK, MUTED, RGB


def training_curve(metrics: Mapping[str, Float[np.ndarray, " n"]]) -> str:
    """Return the training and the validation loss against the step."""
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
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return _svg(figure)


def learning_rate_chart(steps: Float[np.ndarray, " n"], rates: Float[np.ndarray, " n"]) -> str:
    """Return the learning rate against the step."""
    figure, axes = _axes(8.0, 1.9)
    axes.plot(steps, rates, color=ACCENT, marker="o", markersize=2.5)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
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
    for name, colour in assign_colours(lines, baseline).items():
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
    """Share of lesions found by volume: a mean over the runs of a method.

    Bins without a lesion are omitted.
    """
    counts = np.array(next(iter(recalls.values()))[0][1])
    bins: list[int] = np.flatnonzero(counts).tolist()
    figure, axes = _axes(5.2, 3.6)
    for name, colour in assign_colours(recalls, baseline).items():
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
    # A page shows wide charts smaller, so their text is larger.
    enlarged = max(1.0, (110 + len(columns) * (width + GAP)) / 1000)
    margin, header, size = round(110 * enlarged), round(40 * enlarged), 7.5 * enlarged
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
            x, 1 - header / 2 / shape[0], text, ha="center", va="center", fontsize=size, color=INK
        )
    for row, (text, _) in enumerate(rows):
        y = 1 - (header + row * (height + GAP) + height / 2) / shape[0]
        figure.text(
            4 / shape[1],
            y,
            "\n".join(wrap(text, 16)),
            ha="left",
            va="center",
            fontsize=size,
            color=INK,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def assign_colours(names: Mapping[str, Any], baseline: str | None) -> dict[str, Any]:
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
