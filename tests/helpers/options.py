"""Options of tests."""

from maediff.core.options import RunOptions
from maediff.preparation.config import PreparationConfig
from maediff.preparation.registration import RegistrationConfig

QUIET = RunOptions(quiet=True)
QUIET_CPU = RunOptions(device="cpu", quiet=True)
RESUME = RunOptions(quiet=True, resume=True)
OVERWRITE = RunOptions(quiet=True, overwrite=True)
# Most synthetic scans are no brains, so they cannot be registered to MNI152.
UNREGISTERED = PreparationConfig(registration=RegistrationConfig(enabled=False))
