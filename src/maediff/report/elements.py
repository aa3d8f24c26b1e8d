"""Elements of a page, and functions that fill them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maediff.report import slices

Facts = list[tuple[str, str]]


@dataclass
class Montage:
    """Rows of slices of one subject, each with a label and a note.

    `slices` names the columns; `axis` names what they are.
    """

    title: str
    anchor: str
    facts: Facts
    rows: list[tuple[str, str, str]]
    slices: list[str] = field(default_factory=list)
    axis: str = "slice"
    table: "Table | None" = None
    tables: "list[Table]" = field(default_factory=list)
    """Further tables, above the viewer."""
    flags: list[str] = field(default_factory=list)
    sentence: str = ""
    """The finding, in one sentence."""
    viewer: "Viewer | None" = None
    """The slice viewer; None if the folder holds no volumes for it."""
    page: str | None = None
    """Address of another page about the scan."""


@dataclass
class Viewer:
    """A slice viewer of one scan (templates/viewer.js).

    Args:
        info: description of the volumes, as JSON.
        volumes: the volumes, gzip and base64.
    """

    info: str
    volumes: str


@dataclass
class Table:
    """Rows of text; a cell may link to an anchor."""

    head: list[str]
    rows: list[list[str]]
    caption: str = ""
    links: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    """Picture of each row as a data URI; empty for no picture."""
    marked: list[int] = field(default_factory=list)
    anchor: str = ""
    """Identifier of the table, for the viewer that fills it."""
    sortable: bool = False
    """A click on a column's heading sorts the rows, and a text field filters them."""


@dataclass
class Chart:
    """A picture with its caption.

    If `wide` is not 0, the picture has a line of its own and scrolls in narrower windows.
    """

    image: str
    caption: str
    wide: int = 0


@dataclass
class Section:
    """A part of the page, in the order of its fields."""

    title: str
    text: list[str] = field(default_factory=list)
    figure: str | None = None
    figure_alt: str = ""
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    scale: tuple[str, list[tuple[float, str]]] | None = None
    legend: list[tuple[str, str]] = field(default_factory=list)
    montages: list[Montage] = field(default_factory=list)
    facts: Facts = field(default_factory=list)


@dataclass
class Page:
    """A whole report."""

    kind: str
    title: str
    lead: str
    facts: Facts
    sections: list[Section]


def colour_scale(
    vmax: float | None, threshold: float | None
) -> tuple[str, list[tuple[float, str]]]:
    if vmax is None:
        return slices.colour_bar(), [
            (0.0, "0"),
            (50.0, "threshold"),
            (100.0, "twice the threshold"),
        ]
    ticks = [(0.0, "0"), (100.0, f"{vmax:.2f}")]
    if threshold and threshold < vmax:
        ticks.insert(1, (100 * threshold / vmax, f"threshold {threshold:.3g}"))
    return slices.colour_bar(), ticks


def flat(values: Mapping[str, Any], prefix: str = "") -> Facts:
    facts: Facts = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            facts += flat(value, f"{prefix}{key}.")
        else:
            items = value if isinstance(value, list) else [value]
            text = ", ".join(
                f"{item:.5g}" if isinstance(item, float) else str(item) for item in items
            )
            facts.append((f"{prefix}{key}", text))
    return facts
