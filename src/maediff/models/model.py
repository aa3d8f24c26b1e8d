"""A trained method as one object.

    read_model("t1")  ->  TrainedMethod    reads each JSON file of the folder once
    model.method      ->  the network      reads the weights when it is first needed

Only this module parses the name that a model was loaded by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from maediff.anomaly.postprocess import DEFAULT, PostprocessConfig, apply_changes, check_symmetry
from maediff.core.config import merge, parse_settings
from maediff.core.errors import InputError
from maediff.core.files import hash_file
from maediff.methods.base import Method
from maediff.methods.mean_reference import MeanReference
from maediff.methods.registry import build, resolve
from maediff.models.calibration import Calibration, read_calibration
from maediff.models.card import Card, read_card, show_terms
from maediff.models.catalogue import describe_sign
from maediff.models.folder import (
    complete,
    completed_config,
    first_steps,
    plain,
    read_record,
    trained_on,
)
from maediff.models.reconstruction import HealthyReconstructions
from maediff.models.reference import (
    make_label,
    model_and_settings,
    split_mean,
    split_reference,
    split_settings,
)
from maediff.models.thresholds import CALIBRATE, DEFAULT_FPR, NoThresholds, Thresholds
from maediff.models.weights import Weights, load_state, read_trained_weights, refuse_larger_network
from maediff.preparation.config import PreparationConfig


@dataclass(frozen=True)
class RunSettings:
    """Settings that a model was trained with, from config.json.

    Args:
        method: name of the method in `methods.registry`.
        preset: name of the preset in `methods.registry`.
        config: complete settings of the method, with changes at test applied.
        train: settings of the training.
        seed: seed of the training.
        cohort: preparation and hash of the training cohort.
        init: model that the training started from; None for random weights.
        record: content of config.json, with changes at test applied.
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
class Network:
    """The network of a model. The weights are read when they are first needed, and only once.

    Args:
        folder: folder of the model.
        name: name of the method in `methods.registry`.
        config: complete settings of the method.
        device: device of the network.
        sha256: SHA-256 of the file of weights, from the card; empty if unknown.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    device: str
    sha256: str = ""

    @cached_property
    def weights(self) -> Weights:
        """The averaged weights.

        Raises:
            InputError: the weights are missing, damaged or of another method.
        """
        return read_trained_weights(self.folder, self.name, self.sha256)

    @cached_property
    def method(self) -> Method:
        """The network on `device`, in evaluation mode.

        Raises:
            InputError: see `weights`, or the weights do not fit the settings.
        """
        refuse_larger_network(self.config, self.weights.tensors, self.weights.path)
        method = build(self.name, settings=self.config)
        load_state(method, self.weights.tensors, self.weights.path)
        return method.to(self.device).eval()


@dataclass(frozen=True, eq=False)
class TrainedMethod:
    """A trained method, read once from its folder.

    Args:
        name: name in tables and results, with changed settings: "t1", "a@s=24", "a+b".
        folder: folder of the model; of a mean, the folder of the first model.
        settings: settings of its training.
        preparation: preparation of its scans.
        postprocess: post-processing of its residual.
        calibration: content of its calibration.json; None without this file.
        card: model card; None for a run of `maediff train`.
        learned_from: codes of the people that it learned from (`cohort.person_code`).
        network: the network; of a mean, the network of the first model.
        device: device of the network.
        parts: models whose references are averaged; empty for a single model.
        terms: terms under which the model may be used; empty if there are none.
    """

    name: str
    folder: Path
    settings: RunSettings
    preparation: PreparationConfig
    postprocess: PostprocessConfig
    calibration: Calibration | None
    card: Card | None
    learned_from: frozenset[str]
    network: Network
    device: str = "cpu"
    parts: "tuple[TrainedMethod, ...]" = ()
    terms: str = ""

    @cached_property
    def method(self) -> Method:
        """The network on `device`, in evaluation mode, with averaged weights.

        Raises:
            InputError: the weights are missing, damaged or do not fit the settings.
        """
        if self.parts:
            return MeanReference([part.method for part in self.parts]).eval()
        return self.network.method

    @property
    def step(self) -> int:
        """Training step of the weights; of a mean, that of the first model."""
        return self.network.weights.step

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the file of weights; of a mean, those of its models, joined by "+".

        Raises:
            InputError: the weights are missing or damaged.
        """
        if self.parts:
            return "+".join(part.weights_sha256 for part in self.parts)
        return self.network.sha256 or hash_file(self.network.weights.path)

    @property
    def folders(self) -> list[Path]:
        """All folders that the model was read from."""
        return [part.folder for part in self.parts] or [self.folder]

    @property
    def config(self) -> dict[str, Any]:
        """Complete settings of the method; of a mean, {"methods": [settings of each model]}."""
        return dict(self.settings.config)

    @property
    def detects(self) -> str:
        """The sign of the anomalies that the model detects, in words."""
        return describe_sign(self.parts[0].config if self.parts else self.config)

    @property
    def default_fpr(self) -> float:
        """Voxel-wise false-positive rate that the model uses by default."""
        first = self.parts[0].calibration if self.parts else self.calibration
        return first.default_fpr if first else DEFAULT_FPR

    @property
    def chosen_fpr(self) -> float | None:
        """Default rate that a person chose; None if the healthy scans of the model give it."""
        first = self.parts[0].calibration if self.parts else self.calibration
        return first.chosen_fpr if first else None

    @property
    def thresholds(self) -> Thresholds | NoThresholds:
        """Thresholds that are valid for the model's settings and post-processing."""
        if self.parts:
            return NoThresholds(
                f"{self.name}: the mean of models is not calibrated; use `threshold` instead of a "
                "rate"
            )
        if self.calibration is None:
            return NoThresholds(
                f"{self.folder / 'calibration.json'}: absent, because the run saw no healthy val "
                "scan, or was trained with `train.calibration_scans=0`; use `threshold`, or "
                f"{CALIBRATE.format(model=self.name)}"
            )
        return self.calibration.thresholds(
            self.name, self.config, self.step, self.postprocess, self.preparation
        )

    @property
    def reconstructions(self) -> HealthyReconstructions | None:
        """Errors in healthy scans that are valid for the model's settings; None if there are none.

        The mean of models has none.
        """
        if self.parts or self.calibration is None:
            return None
        stored = self.calibration.stored.get("config")
        same = isinstance(stored, Mapping) and all(
            stored.get(key) == value for key, value in self.config.items()
        )
        return self.calibration.reconstructions if same else None

    @property
    def scale(self) -> float | None:
        """Residual at the default threshold, which is 1 in the unit of the anomaly map.

        None if no threshold is valid for the model: its anomaly map shows the residual.
        """
        return self.thresholds.scale

    def with_postprocess(self, changes: Mapping[str, Any] | None) -> "TrainedMethod":
        """Return the model with changes to its post-processing.

        Args:
            changes: values by field of `PostprocessConfig`.

        Raises:
            SettingsError: an unknown field, or a value that does not fit.
            InputError: a symmetry for a model of unregistered scans.
        """
        postprocess = apply_changes(self.postprocess, changes)
        check_symmetry(postprocess, self.preparation.registered, self.name)
        return replace(self, postprocess=postprocess)

    def record(self) -> dict[str, Any]:
        """Return the entry of summaries: config.json, name, and training step of the weights."""
        return {**self.settings.record, "name": self.name, "step": self.step}


def read_model(reference: str | Path, device: str = "cpu") -> TrainedMethod:
    """Read a trained method; the weights are read when they are first needed.

    Args:
        reference: a run folder, the name or folder of a shipped model, or `hf:ORG/NAME`.
            Settings that only matter at test may follow an @: `runs/pddpm@s=48,t_test=500`.
            `RUN_A+RUN_B+...` is the method whose reference is the mean of their references, and
            whose residual and post-processing are those of RUN_A.
        device: device of the network.

    Raises:
        InputError: no such model, a damaged file, a setting that the method does not have, or a
            mean of models of unlike scans.

    Example:
        >>> read_model("t1").preparation.modality
        'T1w'
    """
    if len(parts := split_mean(reference)) > 1:
        return _read_mean(parts, device)
    folder, changes = split_reference(reference)
    record = read_record(folder)
    moved = first_steps(record, record["config"])
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
    own_steps = {**moved, **(record.get("postprocess") or {})}
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
    label = make_label(model_and_settings(reference)[0], folder)
    try:
        preparation = PreparationConfig.from_record(record["cohort"])
    except InputError as error:
        raise InputError(f"{folder / 'config.json'}: {error}") from None
    return TrainedMethod(
        name=f"{label}@{changes}" if changes else label,
        folder=folder,
        settings=settings,
        preparation=preparation,
        postprocess=calibration.postprocess if calibration else apply_changes(DEFAULT, own_steps),
        calibration=calibration,
        card=card,
        learned_from=frozenset(trained_on(folder)),
        network=Network(
            folder, settings.method, config, device, card.weights_sha256 if card else ""
        ),
        device=device,
        terms=show_terms(folder.resolve().name, card.terms) if card else "",
    )


def _read_mean(references: list[str], device: str) -> TrainedMethod:
    """Read several models as one method, whose reference is the mean of their references.

    Raises:
        InputError: the models learned from unlike scans.
    """
    parts = tuple(read_model(reference, device) for reference in references)
    first = parts[0]
    for reference, part in zip(references, parts, strict=True):
        for key in part.preparation.differences(first.preparation):
            raise InputError(
                f"{reference}: trained on another {key} ({part.settings.cohort.get(key)}) than "
                f"{references[0]} ({first.settings.cohort.get(key)}); their references have no "
                "mean"
            )
    method = "+".join(part.settings.method for part in parts)
    configs = {str(number): part.settings.record["config"] for number, part in enumerate(parts)}
    settings = replace(
        first.settings,
        method=method,
        config={"methods": [part.config for part in parts]},
        record={**first.settings.record, "method": method, "config": configs},
    )
    return replace(
        first,
        name="+".join(part.name for part in parts),
        settings=settings,
        parts=parts,
        learned_from=frozenset().union(*(part.learned_from for part in parts)),
        terms=" ".join(filter(None, (part.terms for part in parts))),
    )
