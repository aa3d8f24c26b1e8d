"""report.html: one self-contained page from a folder of results.

pages                                       the kind of folder -> its page
cohort, training, detection, evaluation     files of the folder -> sections of the page
comparison                                  methods of an evaluation side by side
elements                                    sections, tables and montages
slices, charts, viewer                      pictures
templates/                                  HTML, CSS and JavaScript
"""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.core.errors import InputError
from maediff.core.files import write_text

logger = logging.getLogger(__name__)
SHARE = 0.02  # of the time, at most, that is spent on writing the report


def write_report(folder: Path, title: str | None = None) -> Path:
    """Write `folder/report.html` and return its path.

    The page shows everything without another file and without a network.

    Args:
        folder: results of detect (also as a BIDS derivative), evaluate, compare, train,
            preprocess or demo.
        title: title of the page; None for the name of the folder.

    Raises:
        InputError: not a folder that maediff wrote, or its files are damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from maediff.report.elements import hide_page_folders

    out = Path(folder)
    environment = Environment(
        loader=PackageLoader("maediff.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _mark_code
    style = Markup(environment.get_template("style.css").render())  # noqa: S704 - our own file
    for path, page in _make_pages(out, title):  # one at a time: a page has about 1 MB
        hide_page_folders(page)
        scripts, colours = _scripts(page, environment)
        html = environment.get_template("report.html").render(
            page=page,
            style=style,
            scripts=scripts,
            colours=colours,
            version=__version__,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
        write_text(path, html)
    return out / "report.html"


def _make_pages(out: Path, title: str | None) -> Iterator[tuple[Path, Any]]:
    """Yield the report of a folder, then the page of each scan that has a page of its own.

    Args:
        out: the folder.
        title: see `write_report`.
    """
    from maediff.detection.bids import WORK
    from maediff.report.detection import scan_address, scan_page, scans_with_own_page
    from maediff.report.pages import make_page
    from maediff.report.session import is_session_folder, session_page

    source = out / WORK if (out / WORK).is_dir() else out  # WORK: of a BIDS derivative
    page = make_page(source)
    if source != out:
        page.title = out.resolve().name
    page.title = title or page.title
    yield out / "report.html", page
    if (source / "detect.json").is_file():
        own_page = session_page if is_session_folder(source) else scan_page
        for name in scans_with_own_page(source):
            yield out / scan_address(source, name), own_page(source, name)


def _mark_code(text: str) -> Any:
    """Return a text as HTML, with the parts between backticks as code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:  # a single backtick is text
        return escape(text)
    parts[1::2] = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup("").join(parts)


def _scripts(page: Any, environment: Any) -> tuple[list[str], str]:
    """Return the scripts of a page, and the colour table of its viewers.

    The colour table is empty if the page has no viewer.
    """
    from markupsafe import Markup

    from maediff.report.viewer import colour_table

    names = []
    if any(table.sortable for section in page.sections for table in section.tables):
        names.append("table.js")
    has_viewer = any(part.viewer for section in page.sections for part in section.montages)
    if has_viewer:
        names.append("viewer.js")
    # Our own files: Markup keeps their quotes and signs.
    sources = [environment.loader.get_source(environment, name)[0] for name in names]
    scripts: list[str] = [Markup(source) for source in sources]  # noqa: S704
    return scripts, colour_table() if has_viewer else ""


class LiveReport:
    """Writes the report of a folder when it is called, unless it was just written.

    A report is written if writing it takes less than `SHARE` of the time since the last one. The
    caller continues if no report can be written; the reason is logged once.

    Example:
        ```python
        train("maediff", "cohort", "run", on_checkpoint=LiveReport())
        ```
    """

    def __init__(self) -> None:
        self.due = 0.0
        self.failed = False

    def __call__(self, folder: Path) -> None:
        """Write `folder/report.html` if it is due."""
        began = time.monotonic()
        if self.failed or began < self.due:
            return
        try:
            write_report(folder)
        except ModuleNotFoundError as error:
            self.failed = True
            logger.info("no report while training, because %s is not installed", error.name)
        except (InputError, OSError) as error:
            self.failed = True
            logger.warning("no report while training: %s", error)
        ended = time.monotonic()
        self.due = ended + (ended - began) / SHARE
