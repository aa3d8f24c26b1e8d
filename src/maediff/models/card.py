"""The card of a model: data, licence, scores, terms."""

import functools
import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from maediff.core.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Source:
    """A data set that a model was trained on."""

    name: str
    licence: str
    what: str = ""


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Scores:
    """What an evaluation measured: for each number of EVAL/summary.json a mean and its interval, as fractions."""

    on: str
    n_subjects: int
    n_lesion: int
    n_healthy: int
    values: dict[str, dict[str, float | None]]
    best_baseline: str | None = None
    best_baseline_auprc: float | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Card:
    """What a user should know of a model before using it; the content of card.json."""

    name: str
    modality: str
    method: str
    preset: str
    summary: str
    """One sentence."""
    licence: str
    """Of the weights."""
    data: tuple[Source, ...]
    preprocessing: str
    command: str
    """That trained it."""
    seeds: tuple[int, ...]
    failure_cases: Annotated[tuple[str, ...], Field(min_length=1)]
    intended_use: str
    provenance: dict[str, Any]
    scores: tuple[Scores, ...] = ()
    opt_in: bool = False
    """Used when asked for by name only, never picked for a contrast, and kept out of the wheel."""
    terms: str = ""
    """Shown whenever the model is used."""


def read_card(folder: Path) -> Card:
    """FOLDER/card.json.

    Raises:
        InputError: missing, damaged or of another version.
    """
    path = folder / "card.json"
    try:
        return TypeAdapter(Card).validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); install maediff again"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"{path}: damaged or of another version ({where}: {first['msg']})"
        ) from None


@functools.cache
def show_terms(name: str, terms: str) -> str:
    """Log the terms of a model, once per process, and return them; empty terms are not logged."""
    if terms:
        logger.warning("%s: %s", name, terms)
    return terms
