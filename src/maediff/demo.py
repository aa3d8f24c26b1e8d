"""The complete pipeline on synthetic brains, as `maediff demo` runs it.

    DEMO/  scans/ cohort/ run/ detect/ eval/ report.html

`run/` is a copy of a shipped model, calibrated on healthy scans of the demo.
With `train`, or without a shipped model, the demo trains the model.
"""

import shutil
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder
from maediff.core.options import RunOptions
from maediff.core.types import Modality
from maediff.detection.detect import detect
from maediff.evaluation.evaluate import evaluate
from maediff.models.calibrate import calibrate_folder
from maediff.models.catalogue import pick
from maediff.models.model import read_model
from maediff.models.reference import locate
from maediff.preparation.config import PreparationConfig
from maediff.preparation.registration import RegistrationConfig
from maediff.report import write_report
from maediff.scans.inputs.find import find_scans
from maediff.synthetic.dataset import make_phantom_dataset
from maediff.training.train import train as train_model

CONTRASTS: tuple[Modality, ...] = ("FLAIR", "T1w", "T2w")
"""Contrasts of the synthetic brains by priority: the first with a shipped model is used."""
COUNTS: dict[str, Any] = {
    "n_train": 4,
    "n_val": 1,
    "n_test": 4,
    "n_healthy_val": 1,
    "n_healthy_test": 1,
}
TRAIN_COUNTS: dict[str, Any] = {
    "n_train": 48,
    "n_val": 4,
    "n_test": 8,
    "n_healthy_val": 4,
    "n_healthy_test": 2,
}
"""Numbers of synthetic brains if the demo trains a model; COUNTS if it uses a shipped one."""
TRAIN_STEPS, TRAIN_TIME = 700, "5m"
"""Limits of the training; it ends at the first one."""
DETECTED = slice(0, 2)
"""Test scans in the report of `detect`: a healthy one and one with a lesion.

The report of `evaluate` shows all test scans.
"""
OWN_SCANS = """\
maediff preprocess HEALTHY_SCANS -o cohort --modality T1w
maediff train maediff --cohort cohort -o run --max-time 2h
maediff detect PATIENT.nii.gz -o results --model run
"""
OWN_SCANS_SHIPPED = """\
maediff detect PATIENT.nii.gz -o results --modality {contrast}

and with a model of your own scanner:

maediff preprocess HEALTHY_SCANS -o cohort --modality {contrast}
maediff train maediff --cohort cohort -o run --init {model} --max-time 30m \\
    --set train.learning_rate=2e-4
maediff detect PATIENT.nii.gz -o results --model run
"""


class Progress:
    """Progress of the demo on the screen."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start of the demo."""
        return time.monotonic() - self.start

    def write(self, text: str) -> None:
        """Write text as it is."""
        self.console.print(text, markup=False, soft_wrap=True)

    def step(self, number: int, text: str) -> None:
        """Write the beginning of one of the five steps."""
        self.write(f"[{self.seconds:4.0f} s] {number}/5 {text}")


def demo(
    out: Path,
    *,
    train: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> Path:
    """Make synthetic brains, detect lesions in some of them, score the result and write a report.

    Args:
        out: folder of the demo.
        train: train a model on healthy synthetic brains, although a shipped model is available.
        overwrite: empty an existing folder first.
        device: auto, cpu or cuda.
        seed: seed of training and detection; the brains are always the same.
        quiet: write nothing to the screen.

    Returns:
        Path of the report.

    Raises:
        InputError: `out` exists and is not empty.
    """
    device = resolve_device(device)
    fresh_folder(out, overwrite=overwrite)
    run = RunOptions(device=device, seed=seed, quiet=quiet)
    progress = Progress(quiet)
    model, contrast = (None, CONTRASTS[0]) if train else find_shipped_model()
    if model is None and not train:
        progress.write("no model is shipped with this installation, so the demo trains one")
    counts = TRAIN_COUNTS if model is None else COUNTS
    lesioned = counts["n_val"] + counts["n_test"]
    progress.step(
        1,
        f"making {sum(counts.values())} synthetic {contrast} brains, {lesioned} with a lesion",
    )
    manifest = make_phantom_dataset(out / "scans", contrast=contrast, **counts)
    cohort = _make_cohort(manifest, out / "cohort", model, contrast)
    if model is None:
        progress.step(
            2,
            f"training MAEDiff (preset tiny, {TRAIN_STEPS} steps) on {counts['n_train']} "
            "healthy brains",
        )
        train_model(
            "maediff",
            out / "cohort",
            out / "run",
            preset="tiny",
            settings={"train": {"steps": TRAIN_STEPS}},
            max_time=TRAIN_TIME,
            run=run,
        )
    else:
        n = counts["n_healthy_val"]
        progress.step(
            2,
            f"calibrating the shipped model {model} on {n} healthy synthetic brain{'s' * (n > 1)}",
        )
        shutil.copytree(locate(model), out / "run")
        calibrate_folder(out / "run", cohort, device=device, seed=seed)
    progress.step(3, "detecting anomalies in two test scans")
    test = [row.subject for row in cohort.split("test")]
    refs = [ref for ref in find_scans([manifest], contrast) if ref.subject in test]
    detect(refs[DETECTED], out / "detect", model=out / "run", run=run)
    write_report(out / "detect")
    progress.step(4, "scoring the model and the baselines on all test scans")
    evaluate(out / "run", out / "cohort", out / "eval", precision="auto", run=run)
    progress.step(5, "writing the report")
    write_report(out / "eval")
    write_report(out / "run")
    page = write_report(out)
    progress.write((out / "eval" / "table.md").read_text(encoding="utf-8"))
    progress.write(f"done in {progress.seconds:.0f} s; report: {page}\n\nWith your own scans:\n")
    progress.write(
        OWN_SCANS if model is None else OWN_SCANS_SHIPPED.format(model=model, contrast=contrast)
    )
    return page


def _make_cohort(manifest: Path, out: Path, model: str | None, contrast: Modality) -> Cohort:
    """Preprocess the synthetic brains like the scans of `model`.

    Grid and intensities keep their defaults, which the synthetic brains are made for.
    Without a model, nothing is registered: the synthetic brains are in MNI152 already.
    """
    preparation = PreparationConfig(registration=RegistrationConfig(enabled=False))
    if model is not None:
        trained = read_model(model).preparation
        preparation = PreparationConfig(bias=trained.bias, registration=trained.registration)
    quiet = RunOptions(quiet=True)
    failed = preprocess([manifest], out, modality=contrast, preparation=preparation, run=quiet)
    if failed:
        raise InputError(
            f"{out / 'qc.csv'}: {failed} synthetic brains could not be preprocessed; "
            "the file has the reasons"
        )
    return Cohort.open(out)


def find_shipped_model() -> tuple[str | None, Modality]:
    """Return name and contrast of the first shipped model; None and FLAIR if there is none."""
    for contrast in CONTRASTS:
        try:
            return pick(contrast)[0], contrast
        except InputError:
            continue
    return None, "FLAIR"
