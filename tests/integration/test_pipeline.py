"""All commands in a row, in folders with spaces and letters beyond ASCII."""

import json

import pytest

from helpers.brains import made_dataset
from helpers.cli import call_maediff, maediff
from maediff.methods.registry import BASELINES

SMALL = (
    "unet.channels=[8, 16]",
    "unet.blocks=1",
    "mae.dim=16",
    "mae.encoder_blocks=1",
    "mae.heads=2",
    "s=48",
    "train.steps=4",
    "train.batch_size=2",
    "train.checkpoint_every=4",
)


@pytest.mark.slow
def test_preprocess_train_detect_evaluate_report(tmp_path):
    home = tmp_path / "Müller's scans"
    manifest = made_dataset(home / "in")
    header, *rows = manifest.read_text("utf-8").splitlines()
    tested = manifest.with_name("tested scans.csv")
    tested.write_text("\n".join([header, *rows[-2:]]))
    cohort, run = home / "cohort", home / "run"
    settings = [text for setting in SMALL for text in ("--set", setting)]
    train = ["train", "maediff", "--cohort", cohort, "-o", run, "--preset", "tiny", *settings]
    detect = ["detect", "-i", tested, "-o", home / "detect", "--model", run]
    detect += ["--modality", "T1w", "--quiet"]
    for arguments in (
        ["preprocess", manifest, "-o", cohort, "--modality", "T1w", "--quiet"],
        [*train, "--quiet"],
        detect,
        ["evaluate", run, "--cohort", cohort, "-o", home / "eval", "--quiet"],
        ["report", run],
    ):
        run_command = maediff if arguments is detect else call_maediff
        result = run_command(*arguments)
        assert result.returncode == 0, (arguments[0], result.stderr)
    for folder in ("detect", "eval", "run"):
        assert "<html" in (home / folder / "report.html").read_text(encoding="utf-8")
    summary = json.loads((home / "eval" / "summary.json").read_text(encoding="utf-8"))
    assert set(summary["methods"]) <= {"run", *BASELINES}
    assert {"run", "bright", "dark", "median", "slice", "template"} <= set(summary["methods"])
    for method in summary["methods"].values():
        assert 0 <= method["auprc"]["mean"] <= 1
    assert len(list((home / "detect").glob("*/anomaly_map.nii.gz"))) == 2
    again = call_maediff(*detect)
    assert again.returncode == 2
    assert "exists and is not empty" in again.stderr
