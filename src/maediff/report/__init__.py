"""report.html: one self-contained page from the files of a DETECT, EVAL, RUN, COHORT or DEMO folder.

pages.py picks the page for a folder; cohort, training, detection and evaluation read its files and lay out the page
from the elements in elements.py; slices.py and charts.py draw; templates/ holds the page itself.
"""

from datetime import UTC, datetime
from pathlib import Path

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
    from maediff.report.pages import make_page

    folder = Path(folder)
    if (folder / WORK).is_dir():  # a BIDS derivative
        page_path = write_report(folder / WORK, title or folder.resolve().name)
        return page_path.replace(folder / "report.html")
    page = make_page(folder)
    page.title = title or page.title
    environment = Environment(
        loader=PackageLoader("maediff.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html").render(
        page=page,
        style=Markup(environment.get_template("style.css").render()),  # noqa: S704 - our own file
        version=__version__,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(folder / "report.html", html)
    return folder / "report.html"
