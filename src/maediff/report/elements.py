"""Elements of a page, and functions that fill them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maediff.core.text import hide_folders
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
    below: list[tuple[str, str, str]] = field(default_factory=list)
    """Rows of other views, below the names of the slices."""
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
    """Rows of text, with a title above and a caption below; a cell may link to an anchor."""

    head: list[str]
    rows: list[list[str]]
    title: str = ""
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
class Tile:
    """A small picture of one scan in a gallery.

    Args:
        title: name of the scan.
        note: facts about the scan, in one line.
        image: the picture; empty if there is none.
        flag: reason to look at the scan; empty without one.
    """

    title: str
    note: str
    image: str
    flag: str = ""


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
    gallery: list[Tile] = field(default_factory=list)
    facts: Facts = field(default_factory=list)
    """Facts that a click shows."""
    open_facts: Facts = field(default_factory=list)
    """Facts that are always shown."""
    scale_last: bool = False
    """True shows colour scale and legend below the montages."""
    command: str = ""
    """Command line that made the results."""


@dataclass
class Page:
    """A whole report."""

    kind: str
    title: str
    lead: str
    facts: Facts
    sections: list[Section]


def hide_page_folders(page: Page) -> None:
    """Reduce absolute paths in all texts of a page to their last part.

    A page is given to other people, and folder names may identify a person or a machine.
    Pictures are left alone.
    """
    page.lead = hide_folders(page.lead)
    page.facts = _hide_facts(page.facts)
    for section in page.sections:
        section.text = [hide_folders(text) for text in section.text]
        section.command = hide_folders(section.command)
        section.facts = _hide_facts(section.facts)
        section.open_facts = _hide_facts(section.open_facts)
        for table in section.tables:
            _hide_cells(table)
        for tile in section.gallery:
            tile.note, tile.flag = hide_folders(tile.note), hide_folders(tile.flag)
        for montage in section.montages:
            montage.facts = _hide_facts(montage.facts)
            montage.flags = [hide_folders(flag) for flag in montage.flags]
            montage.sentence = hide_folders(montage.sentence)
            for table in (*montage.tables, *([montage.table] if montage.table else [])):
                _hide_cells(table)


def _hide_facts(facts: Facts) -> Facts:
    return [(name, hide_folders(value)) for name, value in facts]


def _hide_cells(table: Table) -> None:
    table.rows = [[hide_folders(cell) for cell in row] for row in table.rows]


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
