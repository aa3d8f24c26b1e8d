"""A trained method as one object: weights, settings, preparation, post-processing, thresholds, card.

    read_model("t1")  ->  TrainedMethod    the folder's JSON files, each read once
    model.method      ->  the network with its weights, built when it is first needed

The name that a model was loaded by is parsed here and nowhere else.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, apply_changes, check_symmetry
from maediff.core.config import merge, parse_settings
from maediff.core.errors import InputError
from maediff.methods.base import Method
from maediff.methods.mean_reference import MeanReference
from maediff.methods.registry import build, resolve
from maediff.models.card import Card, read_card, show_terms
from maediff.models.catalogue import marks
from maediff.models.folder import (
    complete,
    completed_config,
    first_steps,
    plain,
    read_record,
    trained_on,
)
from maediff.models.reference import (
    label,
    model_and_settings,
    split_mean,
    split_reference,
    split_settings,
)
from maediff.models.thresholds import (
    CALIBRATE,
    DEFAULT_FPR,
    Calibration,
    NoThresholds,
    Thresholds,
    read_calibration,
)
from maediff.models.weights import load_state, read_weights
from maediff.preparation.config import PreparationConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunSettings:
    """The settings that a model was trained with, from config.json.

    Args:
        method, preset: names in `methods.registry`.
        config: the method's settings, complete, with changes at test applied.
        train: the training settings.
        seed: the training seed.
        cohort: how the training cohort was prepared, and its hash.
        init: the model that the training started from; None if from random weights.
        record: config.json as it was read.
    """

    method: str
    preset: str
    config: Mapping[str, Any]
    train: Mapping[str, Any]
    seed: int
    cohort: Mapping[str, Any]
    init: str | None
    record: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TrainedMethod:
    """A trained method, read once from its folder.

    Args:
        name: name in tables and results, with changed settings: "t1", "a@s=24", "a+b".
        folder: the model's folder; of a mean, the first model's.
        settings: how it was trained.
        preparation: how its scans were prepared.
        postprocess: the post-processing of its residual.
        calibration: its calibration.json; None without one.
        card: its model card; None for a run of `maediff train`.
        learned_from: codes of the people that it learned from (`cohort.person_code`).
        device: device of the network.
        parts: the models whose references are averaged; empty for a single model.
    """

    name: str
    folder: Path
    settings: RunSettings
    preparation: PreparationConfig
    postprocess: PostprocessConfig
    calibration: Calibration | None
    card: Card | None
    learned_from: frozenset[str]
    device: str = "cpu"
    parts: "tuple[TrainedMethod, ...]" = ()
    terms: str = ""

    @cached_property
    def _weights(self) -> tuple[dict[str, Any], int, Path]:
        path = weights_file(self.folder)
        tensors, step = read_weights(path, "ema.", self.settings.method)
        return tensors, step, path

    @cached_property
    def method(self) -> Method:
        """The network in evaluation mode on `device`, with the moving average of its weights.

        Raises:
            InputError: the weights are missing, damaged or of other settings.
        """
        if self.parts:
            return MeanReference([part.method for part in self.parts]).eval()
        method = build(self.settings.method, settings=self.settings.config)
        tensors, _, path = self._weights
        load_state(method, tensors, path)
        return method.to(self.device).eval()

    @property
    def step(self) -> int:
        """Training step of the weights; of a mean, the first model's."""
        return self.parts[0].step if self.parts else self._weights[1]

    @property
    def folders(self) -> list[Path]:
        """Every folder that the model is read from."""
        return [part.folder for part in self.parts] or [self.folder]

    @property
    def config(self) -> dict[str, Any]:
        """The method's complete settings as plain values; of a mean, {"methods": [settings of each model]}."""
        return dict(self.settings.config)

    @property
    def detects(self) -> str:
        """The sign of the anomalies that the model detects, in words."""
        return marks(self.parts[0].config if self.parts else self.config)

    @property
    def default_fpr(self) -> float:
        """The voxel-wise false-positive rate that the model uses by default."""
        first = self.parts[0].calibration if self.parts else self.calibration
        return first.default_fpr if first else DEFAULT_FPR

    @property
    def thresholds(self) -> Thresholds | NoThresholds:
        """The thresholds that are valid for the model's settings and post-processing."""
        if self.parts:
            return NoThresholds(
                f"{self.name}: the mean of models is not calibrated; use `threshold` instead of a rate"
            )
        if self.calibration is None:
            return NoThresholds(
                f"{self.folder / 'calibration.json'}: absent, because the run saw no healthy val scan, or was "
                f"trained with `train.calibration_scans=0`; use `threshold`, or {CALIBRATE.format(model=self.name)}"
            )
        return self.calibration.thresholds(self.name, self.config, self.step, self.postprocess)

    def with_postprocess(self, changes: Mapping[str, Any] | None) -> "TrainedMethod":
        """Return the model with some fields of its post-processing changed.

        Raises:
            SettingsError: an unknown field, or a value that does not fit.
            InputError: a symmetry for a model whose scans are not registered.
        """
        postprocess = apply_changes(self.postprocess, changes)
        check_symmetry(postprocess, self.preparation.registered, self.name)
        return replace(self, postprocess=postprocess)

    def record(self) -> dict[str, Any]:
        """Return what summaries store of a model: config.json, its name and the step of its weights."""
        return {**self.settings.record, "name": self.name, "step": self.step}


def read_model(reference: str | Path, device: str = "cpu") -> TrainedMethod:
    """Read a trained method; its network is built when it is first used.

    Args:
        reference: a run folder, the name or folder of a shipped model, or `hf:ORG/NAME`. Settings that only matter at
            test may follow an @: `runs/pddpm@s=48,t_test=500`. `RUN_A+RUN_B+...` is the method whose reference is the
            mean of theirs and whose residual is RUN_A's.
        device: device of the network.

    Raises:
        InputError: see `read_config` and `read_calibration`; settings that do not fit the method; unlike models cannot
            be averaged.
    """
    if len(parts := split_mean(reference)) > 1:
        return _read_mean(parts, device)
    folder, changes = split_reference(reference)
    record = read_record(folder)
    first = first_steps(record, record["config"])
    record["config"] = completed_config(folder, record)
    try:
        record["config"] = merge(record["config"], parse_settings(split_settings(changes)))
        config = plain(resolve(record["method"], settings=record["config"]))
    except InputError as error:
        raise InputError(f"{reference}: {error}") from None
    calibration = read_calibration(folder)
    if calibration is not None and isinstance(calibration.stored.get("config"), Mapping):
        stored = calibration.stored["config"]
        calibration = calibration.completed(complete(record, stored), first_steps(record, stored))
    card = read_card(folder) if (folder / "card.json").is_file() else None
    settings = RunSettings(
        method=record["method"],
        preset=record["preset"],
        config=config,
        train=record["train"],
        seed=record["seed"],
        cohort=record["cohort"],
        init=record.get("init"),
        record=record,
    )
    return TrainedMethod(
        name=label(model_and_settings(reference)[0], folder) + (f"@{changes}" if changes else ""),
        folder=folder,
        settings=settings,
        preparation=PreparationConfig.from_record(record["cohort"]),
        postprocess=calibration.postprocess if calibration else apply_changes(DEFAULT, first),
        calibration=calibration,
        card=card,
        learned_from=frozenset(trained_on(folder)),
        device=device,
        terms=show_terms(folder.resolve().name, card.terms) if card else "",
    )


def weights_file(folder: Path) -> Path:
    """Return the weights that predict: best/, or last/ if a stopped training did better there, or a shipped model's."""
    best, last, shipped = (folder / part / "model.safetensors" for part in ("best", "last", ""))
    if best.is_file() and last.is_file() and _val_loss(last) < _val_loss(best):
        return last
    return next((path for path in (best, last, shipped) if path.is_file()), last)


def _val_loss(path: Path) -> float:
    """Return the validation loss in a file's metadata; NaN if the file does not hold it."""
    try:
        with safe_open(path, framework="pt") as file:
            return float((file.metadata() or {}).get("val_loss", "nan"))
    except (SafetensorError, OSError, ValueError):  # damaged: refused when the weights are read
        return float("nan")


def _read_mean(references: list[str], device: str) -> TrainedMethod:
    """Read several models as one method, whose reference is the mean of theirs.

    Raises:
        InputError: the models learned from unlike scans.
    """
    parts = tuple(read_model(reference, device) for reference in references)
    first = parts[0]
    for reference, part in zip(references, parts, strict=True):
        for key in part.preparation.differences(first.preparation):
            theirs, ours = part.settings.cohort.get(key), first.settings.cohort.get(key)
            raise InputError(
                f"{reference}: trained on another {key} ({theirs}) than {references[0]} ({ours}); their references "
                "have no mean"
            )
    method = "+".join(part.settings.method for part in parts)
    configs = {str(number): part.settings.record["config"] for number, part in enumerate(parts)}
    settings = replace(
        first.settings,
        method=method,
        config={"methods": [part.config for part in parts]},
        record={**first.settings.record, "method": method, "config": configs},
    )
    own = {part.postprocess for part in parts}
    return replace(
        first,
        name="+".join(part.name for part in parts),
        settings=settings,
        postprocess=own.pop() if len(own) == 1 else DEFAULT,
        parts=parts,
        learned_from=frozenset().union(*(part.learned_from for part in parts)),
        terms=" ".join(filter(None, (part.terms for part in parts))),
    )


def load_model(reference: str | Path, device: str = "cpu") -> tuple[Method, dict[str, Any]]:
    """Return the network of a model and its record. Deprecated: use `read_model`."""
    model = read_model(reference, device)
    return model.method, {**model.record(), "path": str(model.folder)}
