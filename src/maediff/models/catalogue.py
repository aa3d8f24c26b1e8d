"""Where a model lies that is meant by a name, and which one fits a contrast.

    NAME/  model.safetensors  averaged weights only, under 20 MB     config.json       as a run's, without paths
           calibration.json   thresholds for `detect --fpr`          card.json         what `Card` holds
           MODEL_CARD.md      card.json for people

The folders are the registry; there is no list beside them. They are looked for in the folders of $MAEDIFF_MODELS, then
in the package (`weights/`), then in `models/` of a checkout, where those stay whose terms keep them out of the wheel.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maediff.anomaly.thresholds import smallest_alpha
from maediff.core.errors import InputError
from maediff.core.files import read_json
from maediff.models.card import Card, Scores, read_card

logger = logging.getLogger(__name__)
PACKAGED = Path(__file__).parents[1] / "weights"
CHECKOUT = Path(__file__).parents[3]
MAX_BYTES = 20_000_000
MARKS = {
    "abs": "what differs from its healthy reference, brighter or darker",
    "bright": "only what is brighter than its healthy reference",
    "dark": "only what is darker than its healthy reference",
}
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def search_folders() -> list[Path]:
    """Folders whose subfolders are models, those that win first; some may not exist."""
    own = [Path(part) for part in os.environ.get("MAEDIFF_MODELS", "").split(os.pathsep) if part]
    return [
        *own,
        PACKAGED,
        *([CHECKOUT / "models"] if (CHECKOUT / "pyproject.toml").is_file() else []),
    ]


def model_folders() -> dict[str, Path]:
    """Folder of every model by name; the first of two of a name counts."""
    found: dict[str, Path] = {}
    for parent in search_folders():
        for path in sorted(parent.glob("*/card.json")):
            found.setdefault(path.parent.name, path.parent)
    return found


def list_models() -> list[Card]:
    """Return the cards of all models that `maediff.load` accepts by name; a damaged one is logged and skipped."""
    return [card for _, card in models()]


def models() -> Iterator[tuple[Path, Card]]:
    """Yield folder and card of every model; a damaged one is logged and skipped."""
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


def pick(modality: str) -> tuple[str, Card]:
    """Name and card of the model for a contrast: the first that need not be asked for by name.

    Raises:
        InputError: there is none.
    """
    fitting = [card for _, card in models() if card.modality == modality]
    for card in fitting:
        if not card.opt_in:
            return card.name, card
    choice = (
        f"`model=NAME` ({', '.join(card.name for card in fitting)} only when asked for)"
        if fitting
        else "`model=RUN`"
    )
    raise InputError(
        f"no model for {modality} comes with maediff; give {choice}, a folder of `maediff train`"
    )
