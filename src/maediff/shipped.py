"""Where a model lies that is meant by a name, and which one fits a contrast.

    NAME/  model.safetensors  averaged weights only, under 20 MB     config.json       as a run's, without paths
           calibration.json   thresholds for `detect --fpr`          card.json         what `Card` holds
           MODEL_CARD.md      card.json for people

The folders are the registry; there is no list beside them. They are looked for in the folders of $MAEDIFF_MODELS, then
in the package (`weights/`), then in `models/` of a checkout, where those stay whose terms keep them out of the wheel.
"""

import functools
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from maediff.anomaly.thresholds import smallest_alpha
from maediff.core.errors import InputError
from maediff.core.files import read_json

logger = logging.getLogger(__name__)
PACKAGED = Path(__file__).parent / "weights"
CHECKOUT = Path(__file__).parents[2]
HUB = "hf:"
MAX_BYTES = 20_000_000
MARKS = {
    "abs": "what differs from its healthy reference, brighter or darker",
    "bright": "only what is brighter than its healthy reference",
    "dark": "only what is darker than its healthy reference",
}
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


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


def search_folders() -> list[Path]:
    """Folders whose subfolders are models, those that win first; some may not exist."""
    own = [Path(part) for part in os.environ.get("MAEDIFF_MODELS", "").split(os.pathsep) if part]
    return [
        *own,
        PACKAGED,
        *([CHECKOUT / "models"] if (CHECKOUT / "pyproject.toml").is_file() else []),
    ]


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


def model_folders() -> dict[str, Path]:
    """Folder of every model by name; the first of two of a name counts."""
    found: dict[str, Path] = {}
    for parent in search_folders():
        for path in sorted(parent.glob("*/card.json")):
            found.setdefault(path.parent.name, path.parent)
    return found


def models() -> Iterator[tuple[Path, Card]]:
    """Folder and card of every model; a damaged one is named in the log and left out."""
    for folder in model_folders().values():
        try:
            yield folder, read_card(folder)
        except InputError as error:
            logger.warning("%s", error)


def describe(folder: Path, card: Card) -> str:
    """A few lines about a model, for `maediff models`."""
    megabytes = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    lines = [
        f"{card.name}: {card.summary}",
        f"  {card.modality}, {card.method} ({card.preset}), {megabytes:.1f} MB, {card.licence}"
        + (", used only when asked for by name" if card.opt_in else ""),
        *(
            [f"  marks:  {marks(settings)}"]
            if (settings := _part(folder, "config.json").get("config"))
            else []
        ),
        *([f"  rates:  {rates}"] if (rates := _rates(folder)) else []),
        f"  data:   {', '.join(f'{source.name} ({source.licence})' for source in card.data)}",
        *(f"  scores: {_one_line(scores)}" for scores in card.scores),
        f"  where:  {folder}",
        *([f"  terms:  {card.terms}"] if card.terms else []),
    ]
    return "\n".join(lines)


def _part(folder: Path, name: str) -> dict[str, Any]:
    """What a file of a model holds; empty without one, and, with a word in the log, where it is damaged."""
    try:
        return (
            dict(read_json(folder / name, remedy="install maediff again"))
            if (folder / name).is_file()
            else {}
        )
    except InputError as error:
        logger.warning("%s", error)
        return {}


def _rates(folder: Path) -> str:
    """Which rates its calibration can promise; empty without one."""
    stored = _part(folder, "calibration.json")
    rate, scores = stored.get("default_fpr"), stored.get("scan_scores") or []
    own = stored.get("default_threshold")
    default = f"--fpr {rate:g} unless another is given" if isinstance(rate, float) else ""
    if isinstance(own, Mapping):
        default = "--threshold {value} unless another or a rate is given, chosen on {chosen_on}".format_map(
            {"value": "?", "chosen_on": "?", **own}
        )
    promised = (
        f"--scan-fpr from {smallest_alpha(len(scores)):.4g}, by {len(scores)} healthy scans"
        if scores
        else ""
    )
    return "; ".join(filter(None, (default, promised)))


def marks(config: Mapping[str, Any]) -> str:
    """What a model with these settings counts as unlike its healthy reference, in words."""
    sign = config.get("residual", "abs")
    return MARKS.get(sign, MARKS["abs"])


def _one_line(scores: Scores) -> str:
    auprc, flagged = scores.values.get("auprc"), scores.values.get("scan_fpr_healthy")
    parts = []
    if auprc:
        parts.append(f"AUPRC {_interval(auprc)}, {scores.n_lesion} subjects with a lesion")
        if scores.best_baseline_auprc is not None:
            parts.append(
                f"best baseline ({scores.best_baseline}) {scores.best_baseline_auprc:.2f}"
            )
    if flagged:
        parts.append(f"healthy scans flagged {_interval(flagged)} of {scores.n_healthy}")
    return f"{scores.on}: {'; '.join(parts) or 'nothing measured'}"


def _interval(value: dict[str, float | None]) -> str:
    numbers = [
        f"{value[key]:.2f}" if value.get(key) is not None else "?"
        for key in ("mean", "low", "high")
    ]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def locate(reference: str) -> Path:
    """The folder meant by `hf:ORG/NAME`, by the path of a run, or by a model's name; a run folder of that name wins.

    What is none of these is returned as the path that it would be, for whoever reads it to refuse.

    Raises:
        InputError: see `download`.
    """
    if reference.startswith(HUB):
        return download(reference.removeprefix(HUB))
    path = Path(reference)
    if (path / "config.json").is_file():
        return path
    return model_folders().get(reference, path)


def pick(modality: str) -> tuple[str, Card]:
    """Name and card of the model for a contrast: the first that need not be asked for by name.

    Raises:
        InputError: there is none.
    """
    fitting = [card for _, card in models() if card.modality == modality]
    for card in fitting:
        if not card.opt_in:
            return card.name, card
    asked = (
        f" NAME ({', '.join(card.name for card in fitting)} only when asked for)"
        if fitting
        else " RUN"
    )
    raise InputError(
        f"no model for {modality} comes with maediff; give --model{asked}, a folder of `maediff train`"
    )


def label(reference: str, folder: Path) -> str:
    """A model's name in tables: its folder's, or the repository's on the Hub, whose folder is named by a hash."""
    return reference.rpartition("/")[2] if reference.startswith(HUB) else folder.resolve().name


@functools.cache
def show_terms(folder: Path) -> str:
    """The terms of a model, empty if it has none; the first time, they go to the log, too."""
    terms = read_card(folder).terms if (folder / "card.json").is_file() else ""
    if terms:
        logger.warning("%s: %s", folder.resolve().name, terms)
    return terms


@functools.cache
def download(repository: str) -> Path:
    """The local copy of a model on the Hugging Face Hub, downloaded if need be; asked for once in a process.

    Raises:
        InputError: huggingface_hub is not installed, or it could not get the repository.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"{HUB}{repository}: needs huggingface_hub; pip install huggingface_hub"
        ) from None
    try:
        return Path(
            snapshot_download(repository, allow_patterns=["*.json", "*.safetensors", "*.md"])
        )
    except (OSError, ValueError) as error:  # of the network, of the Hub, of a name that is none
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{HUB}{repository}: could not be had from the Hugging Face Hub ({reason})"
        ) from None
