"""A trained model as the starting point of a new run (the argument `init` of `train`)."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maediff.anomaly.postprocess import PostprocessConfig
from maediff.cohort.cohort import Cohort
from maediff.core.config import merge
from maediff.core.errors import InputError
from maediff.models.model import TrainedMethod
from maediff.preparation.config import PreparationConfig

logger = logging.getLogger(__name__)


def adopt_settings(
    model: TrainedMethod, method: str, preset: str | None, settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return preset and settings of a run that starts from a model.

    The run keeps the model's preset and method settings, and also `train.augment` and
    `train.fabricate`. `settings` override them. The other training settings are the preset's. If
    another preset is asked for, nothing is kept.

    Args:
        model: the model to start from.
        method: the method to train.
        preset: the preset asked for. None: the model's.
        settings: settings asked for; training settings are under `train`.

    Raises:
        InputError: the model belongs to another method.
    """
    trained = model.settings
    if trained.method != method:
        raise InputError(
            f"`init={model.name}`: a model of {trained.method!r} cannot start a run of "
            f"{method!r}; leave out `init`, or train {trained.method!r}"
        )
    if preset not in (None, trained.preset):
        return str(preset), dict(settings)
    logger.info(
        "`init=%s`: the run keeps this model's preset (%s) and settings, unless others are given",
        model.name,
        trained.preset,
    )
    kept = {key: trained.train[key] for key in ("augment", "fabricate") if key in trained.train}
    augment = (settings.get("train") or {}).get("augment")
    if isinstance(augment, Mapping) and "preset" in augment:
        kept.pop("augment", None)  # a preset replaces all settings of the model
    return trained.preset, merge({**model.config, "train": kept}, settings)


def warn_about_scans(model: TrainedMethod, cohort: Cohort) -> None:
    """Log a warning if the scans of `cohort` differ from those that the model was trained on."""
    preparation = PreparationConfig.from_record(cohort.meta)
    differing = model.preparation.differences(preparation)
    if "modality" in differing:
        logger.warning(
            "%s is a model for %s, but %s holds %s",
            model.name,
            model.preparation.modality,
            cohort.path,
            preparation.modality,
        )
        differing.remove("modality")
    if differing:
        logger.warning(
            "%s was trained on scans with another %s than %s has; preprocess with `like=%s`",
            model.name,
            ", ".join(differing),
            cohort.path,
            model.name,
        )


def postprocess_for(model: TrainedMethod, cohort: Cohort) -> PostprocessConfig:
    """Return the model's post-processing, without symmetry if the scans are not registered."""
    post = model.postprocess
    if not post.symmetry or PreparationConfig.from_record(cohort.meta).registered:
        return post
    logger.warning(
        "%s compares left and right (postprocess.symmetry %g), but the scans of %s are not "
        "registered to MNI152; the run is calibrated without symmetry",
        model.name,
        post.symmetry,
        cohort.path,
    )
    return replace(post, symmetry=0.0)
