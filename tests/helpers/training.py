"""Short trainings of a small MAEDiff, and their weights."""

import torch
from safetensors.torch import load_file

from maediff.core.options import RunOptions
from maediff.models.model import read_model
from maediff.training.train import train

FAST = {
    "unet": {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2},
    "mae": {"dim": 16, "encoder_blocks": 1, "decoder_blocks": 1, "heads": 2},
    "train": {
        "steps": 6,
        "batch_size": 2,
        "checkpoint_every": 2,
        "precision": "fp32",
        "validation_slices": 4,
    },
}


def run(cohort, out, *, seed=0, resume=False, **kwargs):
    """Train a small MAEDiff for six steps on the CPU."""
    return train(
        "maediff",
        cohort,
        out,
        **{"preset": "tiny", "settings": FAST, **kwargs},
        run=RunOptions(device="cpu", quiet=True, seed=seed, resume=resume),
    )


def load_network(path):
    """Load the weights of a run; `read_model` alone reads only its JSON files."""
    return read_model(path).method


def weights(out, which="last"):
    return load_file(out / which / "model.safetensors")


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key
