"""Small scans with known lesions, contenders and run folders for tests of scores."""

import copy
from pathlib import Path

import numpy as np

from maediff.cohort.cohort import SubjectSlices
from maediff.evaluation.scoring import Contender
from maediff.methods.registry import build
from maediff.models.folder import config_of, write_config
from maediff.models.weights import save_model

SPACING = (2.0, 2.0, 4.0)
SMALL_UNET = {"channels": (8, 16), "blocks": 1, "attention": False, "stem": 2}


def made_scan(name, *, healthy, seed, kind="", at=(3, 20, 20), person=None):
    """Return six slices of noise; a bright box is the lesion of a scan that is not healthy."""
    rng = np.random.default_rng(seed)
    brain = np.zeros((6, 40, 40), dtype=bool)
    brain[:, 4:36, 6:34] = True
    lesion = np.zeros_like(brain)
    if not healthy:
        z, y, x = at
        lesion[z : z + 2, y : y + 8, x : x + 7] = True
    images = np.where(brain, 0.3 + 0.2 * rng.random(brain.shape) + 0.3 * lesion, 0)
    return SubjectSlices(
        name=name,
        person=person or name,
        images=images.astype(np.float32),
        brain=brain,
        lesion=lesion,
        lesion_free=~lesion.any(axis=(1, 2)),
        slice_ids=np.arange(6, dtype=np.int64),
        affine=np.eye(4),
        affine_to_scan=np.diag((1.5, 1.5, 4.0, 1.0)),  # smaller than on the grid, as in MNI152
        spacing_mm=SPACING,
        healthy=healthy,
        extra={"lesion_kind": kind} if kind else {},
    )


def predict_image(scan):
    """Return the image as the residual, without a reference."""
    return scan.images, None


def predict_noisy(level, seed):
    """Return a prediction: the image with noise, and a reference that is 0.1 brighter."""

    def predict(scan):
        rng = np.random.default_rng([seed, len(scan.name), ord(scan.name[0])])
        residual = scan.images + level * rng.standard_normal(scan.images.shape)
        return np.abs(residual).astype(np.float32), np.clip(scan.images + 0.1, 0, 1)

    return predict


BRIGHT = Contender(name="bright", group="bright", predict=predict_image, trained=False)
CONTENDERS = [
    BRIGHT,
    Contender(name="dark", group="dark", predict=lambda s: (1 - s.images, None), trained=False),
    Contender(name="net-0", group="net", predict=predict_noisy(0.2, 0), seed=0),
    Contender(name="net-1", group="net", predict=predict_noisy(0.2, 1), seed=1),
    Contender(name="poor-0", group="poor", predict=predict_noisy(2.0, 0), seed=0),
]


def made_small_run(path: Path, method="ddpm", seed=0, modality="FLAIR") -> Path:
    """Write the run folder of a tiny network with random weights."""
    model = build(method, "tiny", {"unet": SMALL_UNET})
    config = {
        "method": method,
        "preset": "tiny",
        "config": config_of(model),
        "train": {"steps": 1},
        "seed": seed,
        "init": None,
        "cohort": {"hash": "0", "modality": modality, "grid": {}, "normalise": {}},
    }
    write_config(path, config)
    save_model(
        path / "best" / "model.safetensors", model, copy.deepcopy(model), name=method, step=1
    )
    return path
