"""What predicts when a cohort is scored: a trained method, loaded when its turn comes, and the untrained baselines."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.types import Map
from maediff.evaluation.scoring import Contender
from maediff.methods.base import Method
from maediff.methods.baselines import Template
from maediff.methods.registry import BASELINES, build
from maediff.methods.volume import predict_volume
from maediff.models.model import read_model
from maediff.preparation.config import PreparationConfig

DRAW_HEALTHY_IMAGES = (
    "template",
)  # of the baselines; l1, PSNR and SSIM mean nothing for the others
COMPARE_SIDES = (
    "mirror",
    "mirror-dark",
)  # so the midsagittal plane has to be the picture's middle
Loader = Callable[[], Method]


class Predictor:
    """Predicts with a method that is loaded when its first subject comes."""

    def __init__(
        self,
        load: Loader,
        seed: int,
        batch_size: int,
        device: str,
        bf16: bool = False,
        draws: bool = True,
    ) -> None:
        self.load, self.seed, self.batch_size, self.device = load, seed, batch_size, device
        self.bf16, self.draws = bf16, draws
        self.method: Method | None = None

    def __call__(self, s: SubjectSlices) -> tuple[Map, Map | None]:
        self.method = self.method or self.load()
        residual, reference = predict_volume(
            self.method,
            s.images,
            s.brain,
            s.slice_ids,
            seed=self.seed,
            batch_size=self.batch_size,
            device=self.device,
            precision="bf16" if self.bf16 else "fp32",
        )
        return residual, reference if self.draws else None


def load_method(reference: str | Path, device: str) -> Method:
    """Return the network of a model; a function, because another process loads the model itself."""
    return read_model(reference, device).method


def _itself(method: Method) -> Method:
    return method


def untrained(
    cohort: Cohort, seed: int, batch_size: int, device: str
) -> tuple[list[Contender], list[str]]:
    """The untrained contenders, and a note for each that cannot be had."""
    contenders, notes = [], []
    registered = PreparationConfig.from_record(cohort.meta).registered
    for name in BASELINES:
        method = build(name)
        if isinstance(method, Template) and not _fit(method, cohort):
            notes.append(
                f"No {name} baseline: the cohort's train split has no healthy slice to average."
            )
            continue
        if name in COMPARE_SIDES and not registered:
            notes.append(
                f"No {name} baseline: the scans are not registered, so the brain's middle is not the picture's."
            )
            continue
        predict = Predictor(
            partial(_itself, method), seed, batch_size, device, draws=name in DRAW_HEALTHY_IMAGES
        )
        contenders.append(Contender(name, name, predict, trained=False))
    return contenders, notes


def _fit(template: Template, cohort: Cohort) -> bool:
    """Fit the mean healthy images on the train split's lesion-free slices; False where there are none."""
    images, heights = [], []
    for row in cohort.split("train"):
        s = cohort.load(row)
        keep = s.brain.any(axis=(1, 2)) & s.lesion_free
        images.append(s.images[keep].clip(0, 1))
        heights.append(np.linspace(0, 1, len(keep), dtype=np.float32)[keep])
    if not sum(len(part) for part in images):
        return False
    template.fit(
        torch.from_numpy(np.concatenate(images))[:, None],
        torch.from_numpy(np.concatenate(heights)),
    )
    return True
