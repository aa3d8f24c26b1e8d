"""Options of tests."""

from maediff.core.options import RunOptions

QUIET = RunOptions(quiet=True)
RESUME = RunOptions(quiet=True, resume=True)
OVERWRITE = RunOptions(quiet=True, overwrite=True)
