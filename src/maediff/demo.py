"""The complete pipeline on synthetic brains, as `maediff demo` runs it.

    DEMO/  scans/ cohort/ run/ eval/ detect/ report.html

`run/` is a copy of a shipped model, calibrated on healthy scans of the demo and scored in `eval/`.
`detect/` is made by the shipped model itself, with its own threshold.
With `train`, or without a shipped model, the demo trains the model in `run/` and uses it.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder
from maediff.core.options import RunOptions
from maediff.core.processes.lock import hold_locks
from maediff.core.progress import Progress
from maediff.core.text import escape_lines
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
from maediff.synthetic.dataset import make_phantom_dataset, write_volume
from maediff.synthetic.sample import make_sample_brain
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
STEPS = 6
ABOUT_SCORES = """\
100 is perfect. The lesions of the test brains are difficult on purpose: bright, dark, of changed
texture, or pushing tissue aside. `maediff models` has the scores of the models on patients.\
"""
TRAIN_OWN_MODEL = """\
With a model of your own scanner:

maediff preprocess HEALTHY_SCANS -o cohort --modality {contrast}
maediff train maediff --cohort cohort -o run {options}
maediff detect PATIENT.nii.gz -o results --model run
"""
OPTIONS_OF_TRAINING = "--max-time 2h"
OPTIONS_OF_FINE_TUNING = """\
--init {model} --max-time 30m \\
    --set train.learning_rate=2e-4"""


class Stages:
    """The stages of the demo on the screen, with their times.

    Args:
        quiet: show nothing.

    Attributes:
        seconds: wall time of each finished stage, by its short name.
    """

    def __init__(self, quiet: bool) -> None:
        self.console = Console(quiet=quiet, highlight=False)
        self.start = time.monotonic()
        self.seconds: dict[str, float] = {}

    def write(self, text: str) -> None:
        """Write text, with control characters in names and paths escaped."""
        self.console.print(escape_lines(text), markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, text: str) -> Iterator[None]:
        """Announce a stage and measure its time.

        Args:
            name: short name.
            text: announcement.
        """
        began = time.monotonic()
        passed = began - self.start
        self.write(f"[{passed:4.0f} s] {len(self.seconds) + 1}/{STEPS} {text}")
        yield
        self.seconds[name] = time.monotonic() - began

    def describe(self) -> str:
        """Return the times of all stages in one line."""
        times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return f"done in {time.monotonic() - self.start:.0f} s ({times})"


@hold_locks()
def demo(
    out: Path,
    *,
    train: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> Path:
    """Make synthetic brains, score a model on them, detect anomalies in two, and write a report.

    Args:
        out: folder of the demo.
        train: train a model on healthy synthetic brains, although a shipped model is available.
        overwrite: empty an existing folder first.
        device: auto, cpu, cuda or mps.
        seed: seed of training and detection; the brains are always the same.
        quiet: write nothing to the screen.

    Returns:
        Path of the report.

    Raises:
        InputError: `out` exists and is not empty.
    """
    run = RunOptions(device=resolve_device(device), seed=seed, quiet=quiet)
    fresh_folder(out, overwrite=overwrite)
    stages = Stages(quiet)
    model, contrast = (None, CONTRASTS[0]) if train else find_shipped_model()
    if model is not None:
        stages.write(f"model: {model}, detects {read_model(model).detects}")
    elif not train:
        stages.write("no model is shipped with this installation, so the demo trains one")
    counts = TRAIN_COUNTS if model is None else COUNTS
    n_brains, n_lesions = sum(counts.values()), counts["n_val"] + counts["n_test"]
    with stages.stage(
        "brains", f"making {n_brains} synthetic {contrast} brains, {n_lesions} with a lesion"
    ):
        manifest, heads = _make_scans(out / "scans", contrast, counts, quiet)
    purpose = "" if model is None else ", too small to train on"
    with stages.stage("preparation", f"preparing the brains as a cohort{purpose}"):
        cohort = _make_cohort(manifest, out / "cohort", model, contrast, run)
    if model is None:
        text = f"training MAEDiff (preset tiny, {TRAIN_STEPS} steps) on healthy brains"
        with stages.stage("training", text):
            train_model(
                "maediff",
                out / "cohort",
                out / "run",
                preset="tiny",
                settings={"train": {"steps": TRAIN_STEPS, "recommended": False}},
                max_time=TRAIN_TIME,
                run=run,
            )
    else:
        n = counts["n_healthy_val"]
        text = f"calibrating a copy of {model} on {n} healthy synthetic brain{'s' * (n > 1)}"
        with stages.stage("calibration", text):
            shutil.copytree(locate(model), out / "run")
            calibrate_folder(out / "run", cohort, device=run.device, seed=seed, quiet=quiet)
    name = model or "the trained model"
    with stages.stage("scores", f"scoring {name} and the simple baselines on the test brains"):
        evaluate(out / "run", out / "cohort", out / "eval", precision="auto", run=run)
    text = f"detecting anomalies with {name} in a brain with a lesion and in a healthy brain"
    with stages.stage("detection", text):
        refs = find_scans(heads, contrast)
        detect(refs, out / "detect", model=model or out / "run", run=run)
    with stages.stage("report", "writing the reports"):
        page = _write_reports(out, quiet)
    stages.write(_read_first_table(out / "eval" / "table.md"))
    fine_tuning = OPTIONS_OF_FINE_TUNING.format(model=model)
    options = OPTIONS_OF_TRAINING if model is None else fine_tuning
    stages.write(TRAIN_OWN_MODEL.format(contrast=contrast, options=options))
    stages.write(stages.describe())
    stages.write(f"report: {page}")
    of_model = f"--modality {contrast}" if model else f"--model {out / 'run'}"
    stages.write(f"next:   maediff detect PATIENT.nii.gz -o results {of_model}")
    return page


def _read_first_table(path: Path) -> str:
    """Return the heading and the aligned rows of the first table of table.md."""
    heading, table, *_ = path.read_text(encoding="utf-8").strip().split("\n\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    del rows[1]  # the line of dashes
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([heading, "", *lines, "", ABOUT_SCORES, ""])


def _make_scans(
    out: Path, contrast: Modality, counts: dict[str, Any], quiet: bool
) -> tuple[Path, list[Path]]:
    """Write all synthetic scans.

    Returns:
        The manifest of the cohort, and the paths of the two scans for `detect`.
    """
    heads = {"lesion": False, "nolesion": True}
    with Progress("brains", sum(counts.values()) + len(heads), quiet=quiet) as progress:
        manifest = make_phantom_dataset(out, contrast=contrast, progress=progress, **counts)
        paths = []
        for name, healthy in heads.items():
            brain = make_sample_brain(contrast, healthy=healthy)
            paths.append(out / f"sub-{name}_{contrast}.nii.gz")
            write_volume(paths[-1], brain.image, brain.affine)
            progress.advance(paths[-1].name, detail=True)
    return manifest, paths


def _write_reports(out: Path, quiet: bool) -> Path:
    """Write the report of each folder of the demo, and return the path of the common one."""
    folders = [out / "detect", out / "eval", out / "run", out]
    with Progress("reports", len(folders), quiet=quiet) as progress:
        for folder in folders:
            page = write_report(folder)
            progress.advance(folder.name, detail=True)
    return page


def _make_cohort(
    manifest: Path, out: Path, model: str | None, contrast: Modality, run: RunOptions
) -> Cohort:
    """Preprocess the synthetic brains like the scans of `model`.

    Grid and intensities keep their defaults, which the synthetic brains are made for.
    Without a model, nothing is registered: the synthetic brains are in MNI152 already.
    """
    preparation = PreparationConfig(registration=RegistrationConfig(enabled=False))
    if model is not None:
        trained = read_model(model).preparation
        preparation = PreparationConfig(bias=trained.bias, registration=trained.registration)
    failed = preprocess([manifest], out, modality=contrast, preparation=preparation, run=run)
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
