"""Run folders with random weights, in the form that `train` writes."""

import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch

from maediff.anomaly.postprocess import DEFAULT
from maediff.core.files import write_json
from maediff.methods.registry import build
from maediff.models.folder import config_of, write_config
from maediff.models.weights import save_model
from maediff.training.command import training_command

SMALL_MAEDIFF = {
    "unet": {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2},
    "mae": {"dim": 16, "encoder_blocks": 1, "decoder_blocks": 1, "heads": 2},
    "s": 48,
}
COHORT = {
    "hash": "0" * 64,
    "modality": "T1w",
    "grid": {"size": 96, "spacing_mm": 2.0, "thick_slice_mm": 3.0, "max_brain_mm": 190.0},
    "normalise": {"low_percentile": 1.0, "high_percentile": 99.0},
}
ABOUT = {
    "summary": "A model for tests.",
    "licence": "Apache-2.0",
    "data": [{"name": "made", "licence": "CC0", "what": "ellipsoids"}],
    "failure_cases": ["Finds nothing."],
}


def made_run(folder: Path, modality: str = "T1w", **more) -> Path:
    """Write a run folder without training; `more` are further keys of config.json."""
    method = build("maediff", "tiny", SMALL_MAEDIFF)
    config = {
        "method": "maediff",
        "preset": "tiny",
        "config": config_of(method),
        "train": {"steps": 2},
        "seed": 3,
        "init": None,
        "cohort": {**COHORT, "modality": modality},
        **more,
    }
    write_config(folder, config)
    ema = deepcopy(method)
    with torch.no_grad():
        ema.unet.head.bias += 0.25
    for which in ("best", "last"):
        save_model(folder / which / "model.safetensors", method, ema, name="maediff", step=2)
    write_json(
        folder / "calibration.json",
        {
            "source": "healthy scans",
            "n_scans": 1,
            "n_voxels": 9,
            "config": config_of(method),
            "postprocess": asdict(DEFAULT),
            "step": 2,
            "fprs": [1e-4, 0.01, 0.5],
            "thresholds": [0.9, 0.1, 0.05],
        },
    )
    write_json(
        folder / "provenance.json",
        {
            "maediff": "0.1.0",
            "step": 2,
            "parameters": 12345,
            "versions": {"torch": "2"},
            "command": training_command(config),
        },
    )
    return folder


def change_calibration(run: Path, **changes) -> None:
    """Change keys of a run's calibration.json."""
    stored = json.loads((run / "calibration.json").read_text("utf-8"))
    (run / "calibration.json").write_text(json.dumps(stored | changes))


def run_with_thresholds(folder: Path) -> Path:
    """Write a run with the thresholds 0.9, 0.1 and 0.05 for the rates 1e-4, 0.01 and 0.5."""
    run = made_run(folder)
    change_calibration(run, scan_scores=[0.5, 0.1, 0.3])
    return run
