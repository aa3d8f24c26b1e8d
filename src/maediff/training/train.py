"""`maediff train`: what is asked for is resolved and checked, then the loop of `training` runs in a run folder."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from maediff.anomaly.postprocess import PostprocessConfig
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.config import flatten, merge
from maediff.core.device import resolve_device
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output, write_json
from maediff.methods.registry import PRESETS, build
from maediff.models.calibrate import calibrate_folder
from maediff.models.folder import (
    TRAINED_ON,
    complete,
    config_of,
    plain,
    read_config,
    trained_on,
    write_config,
)
from maediff.models.model import load_model
from maediff.models.operating_point import DEFAULT_FPR, own_fpr, own_postprocess
from maediff.models.reference import split_reference
from maediff.models.weights import load_state
from maediff.preparation.config import PREPARED, is_registered, prepared_unlike
from maediff.training.config import (
    parse_duration,
    resolve_training,
    training_precision,
)
from maediff.training.loop import TrainingRun

logger = logging.getLogger(__name__)
COHORT_KEYS = ("modality", *PREPARED)  # what a scan needs to look like the cohort's


def adopt(
    info: dict[str, Any], name: str, preset: str | None, settings: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Preset and settings with which the weights of a model fit: its own wherever none are given.

    So is what it was shown in training (`train.augment`, `train.fabricate`); steps and learning rate are the preset's.

    Args:
        info: of the model, as `load_model` returns it.

    Raises:
        InputError: a model of another method.
    """
    if info["method"] != name:
        raise InputError(
            f"--init {info['name']}: a model of {info['method']!r} cannot start one of {name!r}"
        )
    if preset not in (None, info["preset"]):
        return str(preset), settings
    logger.info(
        "--init %s: its preset (%s) and settings stand where none are given",
        info["name"],
        info["preset"],
    )
    shown = {key: info["train"][key] for key in ("augment", "fabricate") if key in info["train"]}
    return info["preset"], merge({**complete(info, info["config"]), "train": shown}, settings)


def _has_healthy_slices(cohort: Cohort, split: str) -> bool:
    return any(cohort.load(row).lesion_free.any() for row in cohort.split(split))


def train(
    name: str,
    cohort_path: Path,
    out: Path,
    *,
    preset: str | None = None,
    settings: dict[str, Any] | None = None,
    max_time: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    init: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a method on the train split of a cohort, into the run folder `out`.

    Args:
        preset: None takes that of `init`, or else `small`.
        settings: fields of the method's config, and under `train` those of TrainConfig.
        max_time: wall time of this call after which it stops and saves, as `parse_duration` reads it.
        resume: go on from `out/last`, exactly where it stopped.
        init: a run or a shipped model whose averaged weights to start from. Its config stands wherever `settings`
            are silent, unless another preset is asked for.

    Returns:
        Steps done, wall time, best validation loss.

    Raises:
        InputError: nothing to train, no subject, settings that do not fit, a folder that exists.
    """
    settings = dict(settings or {})
    if init:
        source, info = load_model(init)
        preset, settings = adopt(info, name, preset, settings)
    if preset is None and resolve_device(device) == "cpu":
        logger.warning(
            "preset small, the default, is for a GPU: without one --preset tiny learns more in the same time"
        )
    preset = preset or "small"
    train_config = resolve_training(
        preset if preset in PRESETS else "paper", settings.pop("train", {})
    )
    method = build(name, preset, settings, seed)  # checked before anything is read or written
    if not method.objectives():
        raise InputError(
            f"method {name!r} has nothing to train; `maediff evaluate` runs it as it is"
        )
    limit, device = parse_duration(max_time), resolve_device(device)
    cohort = Cohort.open(cohort_path)
    slices = cohort.training_slices("train")
    validation = cohort.training_slices("val") if _has_healthy_slices(cohort, "val") else None
    size = slices.images.shape[-1]
    if getattr(method.config, "size", size) != size:
        raise InputError(
            f"{cohort_path}: slices of {size} pixels, but the method's size is {method.config.size}; leave size "
            f"out, or preprocess with grid.size={method.config.size}"
        )
    config = {
        "method": name,
        "preset": preset,
        "config": config_of(method),
        "train": plain(train_config),
        "seed": seed,
        "init": init,
        "cohort": {
            "hash": cohort.hash,
            **{key: cohort.meta[key] for key in COHORT_KEYS if key in cohort.meta},
        },
    }
    post: PostprocessConfig | None = None
    rate = DEFAULT_FPR
    people = {person_code(row.dataset, row.subject) for row in cohort.split("train")}
    if init:
        known, given, folder = info["cohort"], cohort.meta, split_reference(init)[0]
        people.update(trained_on(folder))
        if known["modality"] != given["modality"]:
            logger.warning(
                "%s is a model for %s, and %s holds %s",
                init,
                known["modality"],
                cohort_path,
                given["modality"],
            )
        if unlike := prepared_unlike(known, given):
            logger.warning(
                "%s learned from scans with other settings of %s than %s has; preprocess with --like %s",
                init,
                ", ".join(unlike),
                cohort_path,
                init,
            )
        post, rate = own_postprocess(init), own_fpr(init)
        if post.symmetry and not is_registered(given):
            logger.warning(
                "%s compares left and right (postprocess.symmetry %g), which %s cannot: its scans are not "
                "registered; the run goes without",
                init,
                post.symmetry,
                cohort_path,
            )
            post = replace(post, symmetry=0.0)
        remedy = "leave out --preset and the network's settings, or --init"
        load_state(method, source.state_dict(), folder, remedy)
        refuse_inputs_inside_output(out, [folder])
    refuse_inputs_inside_output(out, [cohort_path])
    precision = training_precision(train_config.precision, device)
    fresh_folder(out, overwrite=overwrite, resume=resume)
    resuming = (out / "config.json").is_file()
    if resuming:
        saved = read_config(out)
        saved["train"] = plain(
            resolve_training(saved["preset"], saved["train"])
        )  # with younger fields
        _check_same(saved, config, out)
    else:
        write_json(out / TRAINED_ON, sorted(people))  # so that nobody is scored who was trained on
        write_config(out, config)  # the last, because it is what marks a run
    run = TrainingRun(method, slices, validation, train_config, out, config, device, precision)
    if resuming:
        run.restore()
    result = run.train(limit, quiet)
    if (out / "last" / "model.safetensors").is_file():
        calibrate_folder(
            out,
            cohort,
            device=device,
            postprocess=post,
            max_scans=train_config.calibration_scans,
            default_fpr=rate,
        )
    return result


def _check_same(saved: dict[str, Any], config: dict[str, Any], out: Path) -> None:
    was, now = flatten(saved), flatten(config)
    for key in sorted({*was, *now} - {"format"}):
        if was.get(key) != now.get(key):
            raise InputError(
                f"{out}: {key} is {was.get(key)} there and {now.get(key)} in this command; a run is resumed with the "
                "settings it was started with"
            )
