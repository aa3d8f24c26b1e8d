"""Export of a trained run as a model to ship.

    NAME/model.safetensors    averaged weights only
    NAME/config.json          as the run's, without paths
    NAME/calibration.json     thresholds for `detect`
    NAME/train_subjects.json  codes of the people that the model learned from, if the run has them
    NAME/card.json            the card (see maediff.models.card)
    NAME/MODEL_CARD.md        the card for people

A person supplies what no file holds: data sets, licence, failure cases. Everything else is read
from the run and from its evaluations.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maediff import __version__
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.anomaly.thresholds import CALIBRATION_SCANS
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.core.files import hash_file, read_json, write_json, write_text
from maediff.models.calibrate import calibrate_folder, unseen_healthy
from maediff.models.calibration import is_chosen_threshold
from maediff.models.card import Card
from maediff.models.card_text import CARD_FIELDS, make_card, read_scores, render_card
from maediff.models.catalogue import MAX_BYTES, NAME
from maediff.models.folder import (
    FORMAT,
    TRAINED_ON,
    complete,
    trained_on,
    write_config,
)
from maediff.models.model import TrainedMethod, read_model
from maediff.models.reference import without_path
from maediff.models.thresholds import FPRS, is_rate
from maediff.models.weights import write_tensors

MACHINE_PATH = re.compile(
    r"(?<![\w.:/])/(?:home|root|work|tmp|mnt|media|scratch|Users|data)/\S*|\b[A-Za-z]:\\\S*"
)
HALF_FROM = 0.98
"""Share of MAX_BYTES above which weights are written as fp16."""


@dataclass(frozen=True)
class NewCalibration:
    """Calibration of an exported model on a cohort.

    Args:
        cohort: a cohort folder; the healthy scans of its val split are used.
        max_scans: scans used at most, one per person, the first by name.
        unseen: use the healthy scans of every split instead, except those of people that the run
            was trained on.
        postprocess: post-processing to calibrate with, which becomes the model's. None: the run's.
        device: `cpu`, `cuda` or `mps`.
    """

    cohort: str | Path
    max_scans: int = CALIBRATION_SCANS
    unseen: bool = False
    postprocess: PostprocessConfig | None = None
    device: str = "cpu"


def export_model(
    reference: str | Path,
    out: str | Path,
    about: Mapping[str, Any],
    *,
    evaluations: Sequence[Path] = (),
    calibration: NewCalibration | None = None,
    half: bool | None = None,
    overwrite: bool = False,
) -> Card:
    """Write the model folder `out` and return the model's card. The folder's name is the model's.

    Args:
        reference: a run; the settings in `RUN@t_test=125` become the model's.
        out: folder of the model.
        about: the fields in `CARD_FIELDS` that no file holds. `summary`, `licence`, `data` and
            `failure_cases` are required. Not for the card itself: `calibrated_on` describes the
            calibration's scans if they are not scans of the contrast (for example renderings);
            `default_fpr` is the rate that `detect` uses by default; `default_threshold` (`value`
            and `chosen_on`) overrides this rate; `cohorts` describes the scored cohorts, by the
            name of their folder.
        evaluations: summary.json of evaluations that scored this run, or their folders.
        calibration: None: the run's calibration is copied. It must be of the exported settings.
        half: write the weights as fp16. None: only if they would be too large as fp32.
        overwrite: replace an existing model.

    Raises:
        InputError: `about` is incomplete, a file would name a path of this machine, the weights
            are too large, the run does not record its training command, or `out` exists.
    """
    out = Path(out)
    _check_out(out, overwrite)
    _check_about(out.name, about)
    model = read_model(reference)
    if model.parts:
        raise InputError(f"{reference}: the mean of models cannot be exported; give one model")
    temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        _write_settings(temporary, model)
        save_weights(temporary / "model.safetensors", model, half)
        if calibration:
            _calibrate(temporary, model, calibration)
        else:
            _copy_calibration(temporary, model)
        _add_to_calibration(temporary, about)
        if people := trained_on(model.folder):
            write_json(temporary / TRAINED_ON, people)
        cohorts = about.get("cohorts", {})
        scores = [read_scores(path, model.name, cohorts) for path in evaluations]
        checksum = hash_file(temporary / "model.safetensors")
        card = make_card(out.name, model, about, scores, checksum)
        write_text(temporary / "MODEL_CARD.md", render_card(card, temporary))
        write_json(temporary / "card.json", asdict(card))
        _refuse_machine_paths(temporary, out.name)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def _check_out(out: Path, overwrite: bool) -> None:
    """Refuse a name that is not a model's, and an existing folder that may not be replaced."""
    if not NAME.fullmatch(out.name):
        raise InputError(
            f"{out}: a model's name has small letters, digits, - and _ only; rename it"
        )
    if out.exists() and not overwrite:
        raise InputError(f"{out}: exists; choose another name, or use `overwrite=True`")
    if out.exists() and not (out / "card.json").is_file():
        raise InputError(
            f"{out}: is not a model (it has no card.json), so it is not replaced; choose another "
            "name"
        )


def _check_about(name: str, about: Mapping[str, Any]) -> None:
    """Refuse unknown fields, and a default rate or threshold that `detect` could not use."""
    if unknown := about.keys() - set(CARD_FIELDS):
        raise InputError(
            f"card of {name}: unknown {', '.join(sorted(unknown))}; the fields are "
            f"{', '.join(CARD_FIELDS)}"
        )
    if "default_fpr" in about and not is_rate(about["default_fpr"]):
        raise InputError(
            f"card of {name}: default_fpr {about['default_fpr']!r}; give a number from {FPRS[0]} "
            f"to {FPRS[-1]}"
        )
    if "default_threshold" in about and not is_chosen_threshold(about["default_threshold"]):
        raise InputError(
            f"card of {name}: default_threshold {about['default_threshold']}; give value, between "
            "0 and 1, and chosen_on"
        )


def _write_settings(folder: Path, model: TrainedMethod) -> None:
    """Write config.json with the settings at test and without the path of the initial model."""
    record = model.settings.record
    settings = {key: record[key] for key in ("method", "preset", "train", "seed", "cohort")}
    initial = without_path(model.settings.init)
    write_config(folder, {**settings, "config": model.config, "init": initial})


def save_weights(path: Path, model: TrainedMethod, half: bool | None = None) -> None:
    """Write the weights of a model to one safetensors file of at most MAX_BYTES.

    Args:
        path: the file.
        model: its averaged weights are written.
        half: write fp16. None: only if fp32 would be too large.

    Raises:
        InputError: the file would be too large.
    """
    state = model.method.state_dict()
    size = sum(value.numel() * value.element_size() for value in state.values())
    if half or (half is None and size > HALF_FROM * MAX_BYTES):
        state = {
            key: value.half() if value.is_floating_point() else value
            for key, value in state.items()
        }
    metadata = {"format": FORMAT, "method": model.settings.method, "step": str(model.step)}
    tensors = {f"ema.{key}": value for key, value in state.items()}
    write_tensors(path, tensors, {**metadata, "maediff": __version__})
    if path.stat().st_size > MAX_BYTES:
        raise InputError(
            f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, and a shipped model has at most "
            f"{MAX_BYTES / 1e6:.0f} MB; write it as fp16, or train a smaller preset"
        )


def _calibrate(folder: Path, model: TrainedMethod, calibration: NewCalibration) -> None:
    """Write calibration.json from the scans of a cohort."""
    cohort = Cohort.open(Path(calibration.cohort))
    rows = unseen_healthy(cohort, model) if calibration.unseen else None
    result = calibrate_folder(
        folder,
        cohort,
        rows=rows,
        device=calibration.device,
        postprocess=calibration.postprocess or model.postprocess,
        max_scans=calibration.max_scans,
        default_fpr=model.chosen_fpr,
    )
    if not result:
        missing = (
            "healthy scan of a person that the run was not trained on"
            if calibration.unseen
            else "val scan with healthy slices"
        )
        raise InputError(
            f"{cohort.path}: has no {missing} to calibrate on; choose another `cohort`"
        )


def _copy_calibration(folder: Path, model: TrainedMethod) -> None:
    """Copy the run's calibration.json; refuse it if it is of other settings or weights."""
    path = model.folder / "calibration.json"
    remedy = "give `cohort` to calibrate again"
    stored = read_json(path, remedy=remedy) if path.is_file() else {}
    settings = stored.get("config")
    record = model.settings.record
    calibrated = complete(record, settings) if isinstance(settings, dict) else None
    if (calibrated, stored.get("step")) != (model.config, model.step):
        raise InputError(
            f"{path}: missing, or made with other settings than the exported ones; {remedy}"
        )
    write_json(folder / "calibration.json", stored)


def _add_to_calibration(folder: Path, about: Mapping[str, Any]) -> None:
    """Add the calibration's source and the model's default rate or threshold, if given."""
    given = {
        "source": about.get("calibrated_on"),
        "default_fpr": about.get("default_fpr"),
        "default_threshold": about.get("default_threshold"),
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if changes:
        path = folder / "calibration.json"
        stored = read_json(path)
        if "default_fpr" in changes:
            stored.pop("default_threshold", None)  # it would override the given rate
        write_json(path, {**stored, **changes})


def _refuse_machine_paths(folder: Path, name: str) -> None:
    """Refuse a text file that names a path of this machine."""
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            continue
        if match := MACHINE_PATH.search(path.read_text(encoding="utf-8")):
            raise InputError(
                f"{path.name} of {name}: names a path of this machine, {match[0]}; remove it"
            )
