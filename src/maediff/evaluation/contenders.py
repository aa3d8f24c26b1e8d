"""Predictions for an evaluation: trained models, and the baselines without training."""

from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from maediff.cohort.cohort import Cohort, SubjectSlices
from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.core.options import RunOptions
from maediff.core.reading import DAMAGED_NPZ
from maediff.core.types import Map
from maediff.evaluation.scoring import Contender, Predict
from maediff.methods.base import Method
from maediff.methods.baselines import Template
from maediff.methods.registry import BASELINES, build
from maediff.methods.volume import predict_volume
from maediff.models.model import read_model
from maediff.preparation.config import PreparationConfig

WITH_REFERENCE = ("template",)
"""Baselines with a healthy reference; the reconstruction scores of the others mean nothing."""
REGISTERED_ONLY = ("mirror", "mirror-dark")
"""Baselines that compare left and right: the midline must be in the middle of the slices."""
Loader = Callable[[], Method]
Precision = Literal["fp32", "bf16"]


class Predictor:
    """Prediction with a method that is loaded when the first scan is predicted.

    Args:
        load: returns the method.
        run: device, seed of the noise and batch size.
        precision: type of the network's computations.
        has_reference: False omits the healthy reference.
        name: name of the model, for error messages.
    """

    def __init__(
        self,
        load: Loader,
        run: RunOptions,
        *,
        precision: Precision = "fp32",
        has_reference: bool = True,
        name: str = "the model",
    ) -> None:
        self.load, self.run = load, run
        self.precision, self.has_reference, self.name = precision, has_reference, name
        self.method: Method | None = None

    def __call__(self, scan: SubjectSlices) -> tuple[Map, Map | None]:
        """Return residual and healthy reference of a scan."""
        self.method = self.method or self.load()
        residual, reference = predict_volume(
            self.method,
            scan.images,
            scan.brain,
            scan.slice_ids,
            seed=self.run.seed,
            batch_size=self.run.batch_size,
            device=self.run.device,
            precision=self.precision,
            name=f"{self.name}, scan {scan.name}",
        )
        return residual, reference if self.has_reference else None


class StoredPredictions:
    """Predictions of one contender as files, which shards write and the merge reads.

    Args:
        folder: folder with a file `SCAN.npz` for each scan.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, scan: SubjectSlices, predict: Predict) -> None:
        """Predict a scan and write the result, unless the file exists and can be read."""
        try:
            self(scan)
        except InputError:
            residual, reference = predict(scan)
            arrays: dict[str, Any] = {"residual": residual}
            if reference is not None:
                arrays["reference"] = reference
            with atomic_path(self._path(scan)) as temporary:
                np.savez_compressed(temporary, **arrays)

    def __call__(self, scan: SubjectSlices) -> tuple[Map, Map | None]:
        """Return residual and healthy reference of a scan.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = self._path(scan)
        try:
            # np.load leaves a damaged file open if it opens the path itself.
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                residual = arrays["residual"]
                return residual, arrays.get("reference", None)
        except DAMAGED_NPZ as error:
            raise InputError(
                f"{path}: missing or damaged ({error}); run the shard of this scan again with "
                "`resume=True`"
            ) from None

    def _path(self, scan: SubjectSlices) -> Path:
        return self.folder / f"{scan.name}.npz"


def load_method(reference: str | Path, device: str) -> Method:
    """Return the network of a model.

    Each worker process calls this function, so no network is sent to a process.

    Args:
        reference: a model, as `read_model` accepts it.
        device: "cpu" or "cuda".
    """
    return read_model(reference, device).method


def _return_method(method: Method) -> Method:
    """Return a method that needs no loading; a named function, which processes can receive."""
    return method


def make_baselines(cohort: Cohort, run: RunOptions) -> tuple[list[Contender], list[str]]:
    """Return the baselines, and a note for each baseline that is impossible on the cohort.

    Args:
        cohort: the template baseline learns its images from the train split.
        run: device, seed and batch size.
    """
    contenders, notes = [], []
    registered = PreparationConfig.from_record(cohort.meta).registered
    for name in BASELINES:
        if name in REGISTERED_ONLY and not registered:
            notes.append(
                f"No {name} baseline: the scans are not registered, so the midline is not in the "
                "middle of the slices."
            )
            continue
        method = build(name)
        if isinstance(method, Template) and not _fit_template(method, cohort):
            notes.append(
                f"No {name} baseline: the cohort's train split has no healthy slice to average."
            )
            continue
        predict = Predictor(
            partial(_return_method, method),
            run,
            has_reference=name in WITH_REFERENCE,
            name=name,
        )
        contenders.append(Contender(name=name, group=name, predict=predict, trained=False))
    return contenders, notes


def _fit_template(template: Template, cohort: Cohort) -> bool:
    """Fit the mean healthy images to the lesion-free slices of the train split.

    Returns:
        False if there is no such slice.
    """
    images, heights = [], []
    for row in cohort.split("train"):
        scan = cohort.load(row)
        is_used = scan.brain.any(axis=(1, 2)) & scan.lesion_free
        images.append(scan.images[is_used].clip(0, 1))
        heights.append(np.linspace(0, 1, len(is_used), dtype=np.float32)[is_used])
    if not sum(len(part) for part in images):
        return False
    template.fit(
        torch.from_numpy(np.concatenate(images))[:, None],
        torch.from_numpy(np.concatenate(heights)),
    )
    return True
