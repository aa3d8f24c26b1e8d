"""Report that is written again while the folder grows, at a small share of the time."""

import logging
import time
from pathlib import Path

from maediff.core.errors import InputError
from maediff.report import write_report

logger = logging.getLogger(__name__)
SHARE = 0.02  # of the time, at most, that is spent on writing the report


class LiveReport:
    """Writes the report of a folder when it is called, unless it was just written.

    A report is written if writing it takes less than `SHARE` of the time since the last one. The
    caller goes on if no report can be written; the reason is logged once.

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
