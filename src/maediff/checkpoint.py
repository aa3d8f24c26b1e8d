"""Weights, and what training needs beside them, <-> a run folder; and a trained method from both (`load_model`).

    RUN/best/model.safetensors       `weights.*` and `ema.*` of the regular checkpoint with the lowest validation loss
    RUN/last/model.safetensors       the same at the last step, with the step and its loss in its metadata
    RUN/last/optimizer-<step>.pt     optimiser state of that very step, read with weights_only=True
    NAME/model.safetensors           `ema.*` only: a shipped model (shipped.py), which trains no further

The optimiser's file is written first, under a name that holds its step; the model's file names the step that counts.
So whenever a run is killed, the model's file and its optimiser belong together.
"""

import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from maediff import __version__
from maediff.core.config import merge, parse_settings
from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.methods.base import Method
from maediff.methods.mean_reference import MeanReference
from maediff.methods.registry import build
from maediff.preparation.config import scans_unlike
from maediff.references import model_and_settings, split_mean, split_reference, split_settings
from maediff.run_folder import FORMAT, PICKLES, read_config
from maediff.shipped import label, show_terms

AGAIN = "restore the run's files, or train the model again"


def save_model(
    path: Path,
    method: Method,
    ema: Method,
    *,
    name: str,
    step: int,
    val_loss: float = float("nan"),
) -> None:
    """Write weights and their moving average to one safetensors file, atomically."""
    tensors = {f"weights.{key}": value for key, value in method.state_dict().items()}
    tensors |= {f"ema.{key}": value for key, value in ema.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "method": name,
        "step": str(step),
        "val_loss": str(val_loss),
        "maediff": __version__,
    }
    write_tensors(path, tensors, metadata)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write one safetensors file, atomically, and readable for whom the umask says (`save_file`'s is ours alone)."""
    data = save(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, metadata
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_weights(path: Path, prefix: str, method: str) -> tuple[dict[str, Tensor], int]:
    """The tensors under `prefix` ("weights." or "ema.") and the step that they were saved at.

    Raises:
        InputError: no file, not a safetensors file (a pickle, say, which is never unpickled), of another method
            or of another version of the format.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no weights there; go on with `maediff train --resume`, or give another run"
        )
    if path.suffix in PICKLES:
        raise InputError(
            f"{path}: looks like a pickle, which could run code; only safetensors weights are read"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {
                k.removeprefix(prefix): file.get_tensor(k)
                for k in file.keys()
                if k.startswith(prefix)
            }  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: is not a safetensors file ({error}), so it was not read any further; {AGAIN}"
        ) from None
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {metadata.get('format')!r}, and this version reads {FORMAT!r}; {AGAIN}"
        )
    if metadata.get("method") != method:
        raise InputError(
            f"{path}: weights of {metadata.get('method')!r}, but config.json says {method!r}; {AGAIN}"
        )
    if not metadata.get("step", "").isdecimal():
        raise InputError(f"{path}: damaged, it names no step of training; {AGAIN}")
    return tensors, int(metadata["step"])


def load_state(
    method: Method, tensors: dict[str, Tensor], path: Path, remedy: str = AGAIN
) -> None:
    """Load `tensors` into `method`; an InputError names the first tensors that do not fit, and ends with `remedy`."""
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        reason = "; ".join(textwrap.shorten(line, 120) for line in str(error).splitlines()[1:3])
        raise InputError(
            f"{path}: weights do not fit the network's settings ({reason}); {remedy}"
        ) from None


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


def save_optimizer(folder: Path, state: dict[str, Any], step: int) -> None:
    """Write what training needs beside the weights, under a name that holds the step."""
    with atomic_path(folder / f"optimizer-{step}.pt") as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch's zip writer wraps a full disk in "[enforce fail at inline_container.cc"
            raise OSError("no space left on device, most likely") from error


def load_optimizer(folder: Path, step: int) -> dict[str, Any]:
    """What `save_optimizer` wrote at `step`.

    Raises:
        InputError: missing or damaged.
    """
    path = folder / f"optimizer-{step}.pt"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on a file that is refused below
            state = torch.load(path, weights_only=True, map_location="cpu")
    except UnpicklingError:  # torch's words tell how to run what it holds
        raise InputError(
            f"{path}: damaged, or more than tensors and numbers, so it was not read any further; train again with "
            "--overwrite"
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: missing or damaged ({reason}); train again with --overwrite"
        ) from None
    if not isinstance(state, dict):
        raise InputError(
            f"{path}: not the optimizer's state but a {type(state).__name__}; train again with --overwrite"
        )
    return state


def prune(run: Path, keep: int) -> None:
    """Remove the optimiser states of other steps than `keep`, and what a killed run left half-written."""
    for path in (*run.glob("best/.*.tmp-*"), *run.glob("last/.*.tmp-*")):
        path.unlink(missing_ok=True)
    for path in run.glob("last/optimizer-*.pt"):
        if path.name != f"optimizer-{keep}.pt":
            path.unlink(missing_ok=True)
