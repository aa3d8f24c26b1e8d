"""`maediff demo`: the whole way on phantoms, and the commands to go it with one's own scans.

DEMO/  scans/ cohort/ run/ detect/ eval/ report.html
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from maediff.cohort import Cohort
from maediff.detect import detect
from maediff.errors import InputError
from maediff.evaluate import evaluate
from maediff.files import fresh_folder
from maediff.inputs import find_scans
from maediff.phantom import make_phantom_dataset
from maediff.preprocess import preprocess
from maediff.report import write_report
from maediff.train import train

STEPS, MAX_TIME = 700, "5m"
COUNTS: dict[str, Any] = {"n_train": 48, "n_val": 4, "n_test": 8, "n_healthy_val": 4, "n_healthy_test": 2}


def demo(out: Path, *, overwrite: bool = False, device: str = "auto", seed: int = 0, quiet: bool = False) -> Path:
    """Make phantoms, train on the healthy ones, find lesions in the others, score that; returns the report's path.

    Raises:
        InputError: the output folder exists.
    """
    say = partial(Console(quiet=quiet, highlight=False).print, markup=False, soft_wrap=True)
    began = time.monotonic()
    fresh_folder(out, overwrite=overwrite)

    def step(number: int, text: str) -> None:
        say(f"[{time.monotonic() - began:4.0f} s] {number}/5 {text}")

    lesioned = COUNTS["n_val"] + COUNTS["n_test"]
    step(1, f"making {sum(COUNTS.values())} synthetic FLAIR-like brains, {lesioned} with a lesion")
    manifest = make_phantom_dataset(out / "scans", contrast="FLAIR", **COUNTS)
    failed = preprocess([manifest], out / "cohort", modality="FLAIR", quiet=True)
    if failed:
        raise InputError(f"{out / 'cohort' / 'qc.csv'}: {failed} phantoms could not be preprocessed; see there")
    step(2, f"training MAEDiff (preset tiny, {STEPS} steps) on {COUNTS['n_train']} healthy brains")
    train("maediff", out / "cohort", out / "run", preset="tiny", settings={"train": {"steps": STEPS}},
          max_time=MAX_TIME, seed=seed, device=device, quiet=quiet)  # fmt: skip
    step(3, "redrawing the test scans as if healthy")
    test = [row.subject for row in Cohort.open(out / "cohort").split("test")]
    refs = [ref for ref in find_scans([manifest], "FLAIR") if ref.subject in test]
    detect(refs[:4], out / "detect", model=str(out / "run"), device=device, seed=seed, quiet=quiet)
    write_report(out / "detect")
    step(4, "scoring it, and the simple baselines beside it")
    evaluate([out / "run"], out / "cohort", out / "eval", device=device, seed=seed, precision="auto", workers=2,
             quiet=quiet)  # fmt: skip
    step(5, "writing the report")
    write_report(out / "eval")
    write_report(out / "run")
    page = write_report(out)
    say((out / "eval" / "table.md").read_text(encoding="utf-8"))
    say(f"done in {time.monotonic() - began:.0f} s; the report: {page}\n\nWith your own scans:\n\n{OWN_SCANS}")
    return page


OWN_SCANS = """\
maediff preprocess HEALTHY_SCANS -o cohort --modality T1w
maediff train maediff --cohort cohort -o run --preset small --max-time 2h
maediff detect PATIENT.nii.gz -o results --model run
"""
