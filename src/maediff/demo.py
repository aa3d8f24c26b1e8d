"""`maediff demo`: the whole way on phantoms, and the commands to go it with one's own scans.

DEMO/  scans/ cohort/ run/ detect/ eval/ report.html

`run/` is a copy of a shipped model, calibrated on the demo's own healthy scans; with `train`, it is trained there.
"""

import shutil
import time
from functools import partial
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
"""Of the phantoms: that of the first for which a model is shipped."""
COUNTS: dict[str, Any] = {
    "n_train": 4,
    "n_val": 1,
    "n_test": 4,
    "n_healthy_val": 1,
    "n_healthy_test": 1,
}
STEPS, MAX_TIME = 700, "5m"
TRAIN_COUNTS: dict[str, Any] = {
    "n_train": 48,
    "n_val": 4,
    "n_test": 8,
    "n_healthy_val": 4,
    "n_healthy_test": 2,
}
SHOWN = slice(
    0, 2
)  # of the test scans: one healthy, one with a lesion; all are in the evaluation's report


def demo(
    out: Path,
    *,
    train: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    seed: int = 0,
    quiet: bool = False,
) -> Path:
    """Make phantoms, find the lesions in some of them, score that; returns the report's path.

    Args:
        train: train a model on healthy phantoms, as is done, too, where no model is shipped.

    Raises:
        InputError: the output folder exists.
    """
    say = partial(Console(quiet=quiet, highlight=False).print, markup=False, soft_wrap=True)
    began = time.monotonic()
    device = resolve_device(device)
    fresh_folder(out, overwrite=overwrite)

    def step(number: int, text: str) -> None:
        say(f"[{time.monotonic() - began:4.0f} s] {number}/5 {text}")

    model, contrast = (None, CONTRASTS[0]) if train else shipped_model()
    if model is None and not train:
        say("no model is shipped with this installation, so one is trained first, as with --train")
    counts = TRAIN_COUNTS if model is None else COUNTS
    lesioned = counts["n_val"] + counts["n_test"]
    step(
        1,
        f"making {sum(counts.values())} synthetic {contrast}-like brains, {lesioned} with a lesion",
    )
    manifest = make_phantom_dataset(out / "scans", contrast=contrast, **counts)
    preparation = PreparationConfig(registration=RegistrationConfig(enabled=False))
    if model is not None:  # grid and intensities stay the defaults, as phantoms are made for them
        known = read_model(model).preparation
        preparation = PreparationConfig(bias=known.bias, registration=known.registration)
    failed = preprocess(
        [manifest], out / "cohort", modality=contrast, preparation=preparation, quiet=True
    )
    if failed:
        raise InputError(
            f"{out / 'cohort' / 'qc.csv'}: {failed} phantoms could not be preprocessed; see there"
        )
    cohort = Cohort.open(out / "cohort")
    if model is None:
        step(
            2,
            f"training MAEDiff (preset tiny, {STEPS} steps) on {counts['n_train']} healthy brains",
        )
        train_model(
            "maediff",
            out / "cohort",
            out / "run",
            preset="tiny",
            settings={"train": {"steps": STEPS}},
            max_time=MAX_TIME,
            seed=seed,
            device=device,
            quiet=quiet,
        )
    else:
        n = counts["n_healthy_val"]
        step(
            2,
            f"the shipped model {model}: its threshold, from {n} healthy synthetic brain{'s' * (n > 1)}",
        )
        shutil.copytree(locate(model), out / "run")
        calibrate_folder(out / "run", cohort, device=device, seed=seed)
    step(3, "redrawing test scans as if healthy")
    test = [row.subject for row in cohort.split("test")]
    refs = [ref for ref in find_scans([manifest], contrast) if ref.subject in test]
    run = RunOptions(device=device, seed=seed, quiet=quiet)
    detect(refs[SHOWN], out / "detect", model=out / "run", run=run)
    write_report(out / "detect")
    step(4, "scoring it, and the simple baselines beside it")
    evaluate(
        [out / "run"],
        out / "cohort",
        out / "eval",
        device=device,
        seed=seed,
        precision="auto",
        quiet=quiet,
    )
    step(5, "writing the report")
    write_report(out / "eval")
    write_report(out / "run")
    page = write_report(out)
    say((out / "eval" / "table.md").read_text(encoding="utf-8"))
    say(f"done in {time.monotonic() - began:.0f} s; the report: {page}\n\nWith your own scans:\n")
    say(OWN_SCANS if model is None else OWN_SCANS_SHIPPED.format(model=model, contrast=contrast))
    return page


def shipped_model() -> tuple[str | None, Modality]:
    """Name and contrast of the model that the demo shows; None and FLAIR where none is shipped."""
    for contrast in CONTRASTS:
        try:
            return pick(contrast)[0], contrast
        except InputError:
            continue
    return None, "FLAIR"


OWN_SCANS = """\
maediff preprocess HEALTHY_SCANS -o cohort --modality T1w
maediff train maediff --cohort cohort -o run --max-time 2h
maediff detect PATIENT.nii.gz -o results --model run
"""
OWN_SCANS_SHIPPED = """\
maediff detect PATIENT.nii.gz -o results --modality {contrast}

and with a model of your own scanner:

maediff preprocess HEALTHY_SCANS -o cohort --modality {contrast}
maediff train maediff --cohort cohort -o run --init {model} --max-time 30m --set train.learning_rate=2e-4
maediff detect PATIENT.nii.gz -o results --model run
"""
