"""report.html: one self-contained page from a folder of results.

pages                                       the kind of folder -> its page
cohort, training, detection, evaluation     files of the folder -> sections of the page
comparison                                  methods of an evaluation side by side
elements                                    sections, tables and montages
slices, charts, viewer                      pictures
templates/                                  HTML, CSS and JavaScript
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.core.files import write_text


def write_report(folder: Path, title: str | None = None) -> Path:
    """Write `folder/report.html` and return its path.

    The page shows everything without another file and without a network.

    Args:
        folder: results of detect (also as a BIDS derivative), evaluate, train, preprocess or demo.
        title: title of the page; None for the name of the folder.

    Raises:
        InputError: not a folder that maediff wrote, or its files are damaged.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from maediff.detection.bids import WORK
    from maediff.report.detection import scan_page, scans_with_own_page
    from maediff.report.pages import make_page
    from maediff.report.session import is_session_folder, session_page

    folder = Path(folder)
    if (folder / WORK).is_dir():  # a BIDS derivative
        page_path = write_report(folder / WORK, title or folder.resolve().name)
        return page_path.replace(folder / "report.html")
    pages = {folder / "report.html": make_page(folder)}
    main_page = pages[folder / "report.html"]
    main_page.title = title or main_page.title
    if (folder / "detect.json").is_file():
        own_page = session_page if is_session_folder(folder) else scan_page
        for name in scans_with_own_page(folder):
            pages[folder / name / "report.html"] = own_page(folder, name)
    environment = Environment(
        loader=PackageLoader("maediff.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(environment.get_template("style.css").render())  # noqa: S704 - our own file
    for path, page in pages.items():
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
    return folder / "report.html"


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
    return [Markup(source) for source in sources], colour_table() if has_viewer else ""  # noqa: S704
