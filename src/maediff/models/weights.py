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
from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.methods.base import Method
from maediff.models.folder import FORMAT, PICKLES

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
                key.removeprefix(prefix): file.get_tensor(key)
                for key in file.keys()  # noqa: SIM118
                if key.startswith(prefix)
            }
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
