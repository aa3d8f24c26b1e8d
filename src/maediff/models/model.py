"""A trained method, read from its folder."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from maediff.core.config import merge, parse_settings
from maediff.core.errors import InputError
from maediff.methods.base import Method
from maediff.methods.mean_reference import MeanReference
from maediff.methods.registry import build
from maediff.models.card import show_terms
from maediff.models.folder import read_config
from maediff.models.reference import (
    label,
    model_and_settings,
    split_mean,
    split_reference,
    split_settings,
)
from maediff.models.weights import load_state, read_weights
from maediff.preparation.config import scans_unlike


def load_model(reference: str | Path, device: str = "cpu") -> tuple[Method, dict[str, Any]]:
    """A trained method in evaluation mode, with the moving average of its weights, and its config.json.

    Args:
        reference: a run folder, a shipped model's name or folder, or `hf:ORG/NAME`; settings that only matter at
            test may follow an @: `runs/pddpm@s=48,t_test=500`.
            `RUN_A+RUN_B+...` is the method whose reference is the mean of theirs and whose residual is RUN_A's.
            Of a run, the weights are those of the lowest validation loss, or the last where none was measured.

    Returns:
        The method, and the config with `name` (of the reference), `path` and `step` added.

    Raises:
        InputError: see `run_folder.read_config` and `read_weights`; runs of unlike scans cannot be averaged.
    """
    if len(parts := split_mean(reference)) > 1:
        return _load_mean(parts, device)
    run, changes = split_reference(reference)
    config = read_config(run)
    try:
        settings = merge(config["config"], parse_settings(split_settings(changes)))
        method = build(config["method"], settings=settings)
    except InputError as error:
        raise InputError(f"{reference}: {error}") from None
    path = _weights_of(run)
    tensors, step = read_weights(path, "ema.", config["method"])
    load_state(method, tensors, path)
    show_terms(run)
    name = label(model_and_settings(reference)[0], run) + (f"@{changes}" if changes else "")
    return method.to(device).eval(), {
        **config,
        "config": settings,
        "name": name,
        "path": str(run),
        "step": step,
    }


def _weights_of(run: Path) -> Path:
    """The file of best/, of last/ where a training was stopped that did better there, or of a shipped model."""
    best, last, own = (run / part / "model.safetensors" for part in ("best", "last", ""))
    if best.is_file() and last.is_file() and _val_loss(last) < _val_loss(best):
        return last
    return next((path for path in (best, last, own) if path.is_file()), last)


def _val_loss(path: Path) -> float:
    """NaN where the file does not say it."""
    try:
        with safe_open(path, framework="pt") as file:
            return float((file.metadata() or {}).get("val_loss", "nan"))
    except (SafetensorError, OSError, ValueError):  # damaged: said when it is read
        return float("nan")


def _load_mean(parts: list[str], device: str) -> tuple[Method, dict[str, Any]]:
    loaded = [load_model(part, device) for part in parts]
    infos = [info for _, info in loaded]
    for part, info in zip(parts, infos, strict=True):
        own, first = info["cohort"], infos[0]["cohort"]
        for key in scans_unlike(own, first):
            raise InputError(
                f"{part}: trained on another {key} ({own.get(key)}) than {parts[0]} ({first.get(key)}); their "
                "references have no mean"
            )
    changed = {
        "method": "+".join(info["method"] for info in infos),
        "name": "+".join(info["name"] for info in infos),
        "config": {str(number): info["config"] for number, info in enumerate(infos)},
    }
    return MeanReference([method for method, _ in loaded]).eval(), {**infos[0], **changed}
