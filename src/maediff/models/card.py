"""Model cards: data, licence, scores and terms of a model."""

import functools
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from maediff.core.errors import InputError
from maediff.core.reading import read_content

logger = logging.getLogger(__name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Source:
    """A data set that a model was trained on.

    Args:
        name: name of the data set.
        licence: its licence.
        what: its scans, in words.
    """

    name: str
    licence: str
    what: str = ""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Scores:
    """Scores of a model in one evaluation.

    Args:
        on: cohort, split and contrast, in words.
        n_subjects: subjects scored.
        n_lesion: subjects with a lesion.
        n_healthy: healthy subjects.
        values: mean, low and high of each score, as fractions; keys as in EVAL/summary.json.
        best_baseline: name of the best baseline.
        best_baseline_auprc: its mean AUPRC, as a fraction.
    """

    on: str
    n_subjects: int
    n_lesion: int
    n_healthy: int
    values: dict[str, dict[str, float | None]]
    best_baseline: str | None = None
    best_baseline_auprc: float | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Card:
    """Everything that a user should know about a model before using it; content of card.json.

    Args:
        name: name of the model, and of its folder.
        modality: contrast of its scans.
        method: name of its method.
        preset: preset of the method's settings.
        summary: one sentence.
        licence: licence of the weights.
        data: data sets that it was trained on.
        preprocessing: preparation of its scans, in words.
        command: command that trained it.
        seeds: seeds of its training.
        failure_cases: known failures, in words.
        intended_use: one paragraph.
        provenance: versions and machine of its training.
        scores: scores in evaluations.
        opt_in: use only by name: never chosen for a contrast, and not part of the wheel.
        terms: terms that are shown whenever the model is used.
        weights_sha256: SHA-256 of model.safetensors; empty in cards of older versions, whose
            weights are not checked.
    """

    name: str
    modality: str
    method: str
    preset: str
    summary: str
    licence: str
    data: tuple[Source, ...]
    preprocessing: str
    command: str
    seeds: tuple[int, ...]
    failure_cases: Annotated[tuple[str, ...], Field(min_length=1)]
    intended_use: str
    provenance: dict[str, Any]
    scores: tuple[Scores, ...] = ()
    opt_in: bool = False
    terms: str = ""
    weights_sha256: str = ""


def read_card(folder: Path) -> Card:
    """Read FOLDER/card.json.

    Raises:
        InputError: the file is missing, damaged or of another version.
    """
    path = folder / "card.json"
    try:
        return TypeAdapter(Card).validate_json(read_content(path))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); install maediff again"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path}: damaged or of another version ({where}: {first['msg']}); install maediff "
            "again"
        ) from None


@functools.cache
def show_terms(name: str, terms: str) -> str:
    """Log the terms of a model, once per process, and return them; empty terms are not logged."""
    if terms:
        logger.warning("%s: %s", name, terms)
    return terms
