"""Options of tests."""

from dataclasses import replace

from maediff.core.options import RunOptions
from maediff.preparation.config import PreparationConfig
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import RegistrationConfig

QUIET = RunOptions(quiet=True)
QUIET_CPU = RunOptions(device="cpu", quiet=True)
RESUME = RunOptions(quiet=True, resume=True)
OVERWRITE = RunOptions(quiet=True, overwrite=True)
# Most synthetic scans are no brains, so they cannot be registered to MNI152.
UNREGISTERED = PreparationConfig(registration=RegistrationConfig(enabled=False))
REGISTERED = PreparationConfig(registration=RegistrationConfig(enabled=True))
# Nothing is aligned to MNI152, not even for quality control.
UNALIGNED = replace(UNREGISTERED, qc=QualityConfig(align="never"))
