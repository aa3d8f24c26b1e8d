"""Models by name, and the choice of a model for a contrast.

    NAME/model.safetensors  averaged weights, under 20 MB
    NAME/config.json        as a run's, without paths
    NAME/calibration.json   thresholds for `detect`
    NAME/card.json          the content of `Card`
    NAME/MODEL_CARD.md      the card for people

There is no list of models; every folder with a card.json is a model.
Folders are searched in this order: $MAEDIFF_MODELS, `weights/` in the package, `models/` in a
checkout.
Models under other terms than the project's are in `models/`, outside the wheel.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
SIGNS = {
    "abs": "what differs from its healthy reference, brighter or darker",
    "bright": "only what is brighter than its healthy reference",
    "dark": "only what is darker than its healthy reference",
}
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def search_folders() -> list[Path]:
    """Return the folders of models, in order of priority; some may not exist."""
    own = [Path(part) for part in os.environ.get("MAEDIFF_MODELS", "").split(os.pathsep) if part]
    in_checkout = [CHECKOUT / "models"] if (CHECKOUT / "pyproject.toml").is_file() else []
    return [*own, PACKAGED, *in_checkout]


def model_folders() -> dict[str, Path]:
    """Return the folder of each model by name; the first of two models of one name counts."""
    folders: dict[str, Path] = {}
    for parent in search_folders():
        for path in sorted(parent.glob("*/card.json")):
            folders.setdefault(path.parent.name, path.parent)
    return folders


def list_models() -> list[Card]:
    """Return the cards of all models that `maediff.load` accepts by name.

    A damaged card is logged and skipped.
    """
    return [card for _, card in models()]


def models() -> Iterator[tuple[Path, Card]]:
    """Yield folder and card of each model; a damaged card is logged and skipped.

    A model is found by the name of its folder, so its card gets this name.
    """
    for name, folder in model_folders().items():
        try:
            yield folder, replace(read_card(folder), name=name)
        except InputError as error:
            logger.warning("%s", error)


def describe(folder: Path, card: Card) -> str:
    """Return some lines about a model, for `maediff models`; arguments are in backticks."""
    megabytes = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    only_by_name = ", used only when asked for by name" if card.opt_in else ""
    lines = [
        f"{card.name}: {card.summary}",
        f"  {card.modality}, {card.method} ({card.preset}), {megabytes:.1f} MB, {card.licence}"
        f"{only_by_name}",
    ]
    if settings := _read_part(folder, "config.json").get("config"):
        lines.append(f"  detects: {describe_sign(settings)}")
    if rates := _describe_rates(folder):
        lines.append(f"  rates:   {rates}")
    sources = ", ".join(f"{source.name} ({source.licence})" for source in card.data)
    lines.append(f"  data:    {sources}")
    lines += [f"  scores:  {_format_scores(scores)}" for scores in card.scores]
    lines.append(f"  where:   {folder}")
    if card.terms:
        lines.append(f"  terms:   {card.terms}")
    return "\n".join(lines)


def _read_part(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON file of a model; a missing file is empty, and so is a damaged one (logged)."""
    if not (folder / name).is_file():
        return {}
    try:
        return dict(read_json(folder / name, remedy="install maediff again"))
    except InputError as error:
        logger.warning("%s", error)
        return {}


def _describe_rates(folder: Path) -> str:
    """Return the default threshold and the guaranteed rates of a model; empty if unknown."""
    stored = _read_part(folder, "calibration.json")
    rate, scores = stored.get("default_fpr"), stored.get("scan_scores") or []
    own = stored.get("default_threshold")
    default = f"`fpr={rate:g}` unless another is given" if isinstance(rate, float) else ""
    if isinstance(own, Mapping):
        values = {"value": "?", "chosen_on": "?", **own}
        default = f"default threshold: residual {values['value']}, chosen on {values['chosen_on']}"
    guaranteed = ""
    if scores:
        lowest = smallest_alpha(len(scores))
        guaranteed = f"`scan_fpr` from {lowest:.4g}, by {len(scores)} healthy scans"
    return "; ".join(filter(None, (default, guaranteed)))


def describe_sign(config: Mapping[str, Any]) -> str:
    """Return the sign of the anomalies that a model detects, in words.

    Args:
        config: settings of the method.
    """
    sign = config.get("residual", "abs")
    return SIGNS.get(sign, SIGNS["abs"])


def _format_scores(scores: Scores) -> str:
    """Return the scores of one evaluation as text."""
    auprc, flagged = scores.values.get("auprc"), scores.values.get("scan_fpr_healthy")
    parts = []
    if auprc:
        parts.append(f"AUPRC {_format_interval(auprc)}, {scores.n_lesion} subjects with a lesion")
        if scores.best_baseline_auprc is not None:
            parts.append(
                f"best baseline ({scores.best_baseline}) {scores.best_baseline_auprc:.2f}"
            )
    if flagged:
        share = _format_interval(flagged)
        parts.append(f"healthy scans flagged {share} of {scores.n_healthy}")
    return f"{scores.on}: {'; '.join(parts) or 'nothing measured'}"


def _format_interval(value: dict[str, float | None]) -> str:
    """Return `mean [low, high]`."""
    numbers = [
        f"{value[key]:.2f}" if value.get(key) is not None else "?"
        for key in ("mean", "low", "high")
    ]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def pick(modality: str) -> tuple[str, Card]:
    """Return name and card of the model for a contrast.

    Models that are used only by name are skipped.

    Args:
        modality: T1w, T2w or FLAIR.

    Raises:
        InputError: there is none.
    """
    fitting = [card for _, card in models() if card.modality == modality]
    for card in fitting:
        if not card.opt_in:
            return card.name, card
    choice = "`model=RUN`"
    if fitting:
        names = ", ".join(card.name for card in fitting)
        choice = f"`model=NAME` ({names} only when asked for)"
    raise InputError(
        f"no model for {modality} comes with maediff; give {choice}, a folder of `maediff train`"
    )
