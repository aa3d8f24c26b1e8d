"""maediff: unsupervised anomaly detection in brain MRI.

    model = maediff.load("t1")
    result = model.detect("patient_T1w.nii.gz")
    result.save("results/patient")

Names are imported when they are first used (SPEC 1), so `maediff --help` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maediff.cohort.preprocess import preprocess
    from maediff.core.errors import InputError
    from maediff.core.options import RunOptions
    from maediff.detection.detector import Detector, load
    from maediff.detection.result import Detection
    from maediff.detection.session.detector import detect_session
    from maediff.evaluation.evaluate import evaluate
    from maediff.models.calibrate import calibrate
    from maediff.models.catalogue import list_models
    from maediff.scans.inputs.find import find_scans
    from maediff.scans.read import read_scan
    from maediff.scans.volume import Volume
    from maediff.training.fit import fit
    from maediff.training.train import train

__version__ = "0.2.0"
__all__ = [
    "Detection",
    "Detector",
    "InputError",
    "RunOptions",
    "Volume",
    "__version__",
    "calibrate",
    "detect_session",
    "evaluate",
    "find_scans",
    "fit",
    "list_models",
    "load",
    "preprocess",
    "read_scan",
    "train",
]
_HOMES = {
    "Detection": "detection.result",
    "Detector": "detection.detector",
    "InputError": "core.errors",
    "RunOptions": "core.options",
    "Volume": "scans.volume",
    "calibrate": "models.calibrate",
    "detect_session": "detection.session.detector",
    "evaluate": "evaluation.evaluate",
    "find_scans": "scans.inputs.find",
    "fit": "training.fit",
    "list_models": "models.catalogue",
    "load": "detection.detector",
    "preprocess": "cohort.preprocess",
    "read_scan": "scans.read",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
