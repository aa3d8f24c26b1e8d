"""Choice of the page that fits a folder, and the report of a DEMO folder."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from maediff.core.errors import InputError
from maediff.report.elements import Page
from maediff.report.session import is_session_folder

PAGES = {
    "detect.json": "detection.detection_page",
    "compare.json": "evaluation.compare_page",
    "scores.csv": "evaluation.evaluation_page",
    "config.json": "training.run_page",
    "cohort.json": "cohort.cohort_page",
}
"""The function of `maediff.report` that makes the page of a folder, by a file in the folder.

Only the module of this page is imported. The other modules import matplotlib.
"""


def make_page(folder: Path) -> Page:
    """Return the page for a folder, by the files that are in it.

    Raises:
        InputError: maediff did not write the folder, or its main file is damaged.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give one that detect, evaluate or train wrote"
        )
    for name, function in PAGES.items():
        if name == "detect.json" and is_session_folder(folder):
            function = "session.sessions_page"
        if (folder / name).is_file():
            module, _, attribute = function.partition(".")
            make = getattr(import_module(f"maediff.report.{module}"), attribute)
            try:
                return make(folder)  # type: ignore[no-any-return]
            except InputError:
                raise
            except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
                raise InputError(
                    f"{folder}: its files are not as this version writes them ({error!r}); "
                    "run the command that made it again"
                ) from error
    parts = [folder / name for name in ("detect", "eval", "run") if (folder / name).is_dir()]
    if parts:
        return _demo(folder, parts)
    raise InputError(
        f"{folder}: holds neither detect.json, scores.csv, config.json, cohort.json nor "
        "compare.json; give a folder that detect, evaluate, train, preprocess or compare wrote"
    )


def _demo(folder: Path, parts: Sequence[Path]) -> Page:
    pages = [make_page(part) for part in parts]
    sections = []
    for page in pages:
        for section in page.sections:
            section.title = f"{page.kind}: {section.title}" if len(pages) > 1 else section.title
            sections.append(section)
    return Page(
        "Demo",
        folder.resolve().name,
        " ".join(page.lead for page in pages if page.kind != "Training run"),
        pages[0].facts,
        sections,
    )
