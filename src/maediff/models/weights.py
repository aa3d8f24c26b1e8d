"""Files of weights, and of the optimiser state that training needs besides them.

    RUN/best/model.safetensors       `weights.*` and `ema.*` of the regular checkpoint with the
                                     lowest validation loss
    RUN/last/model.safetensors       the same at the last step; metadata: step, validation loss
    RUN/last/optimizer-<step>.pt     optimiser state of that step, read with weights_only=True
    NAME/model.safetensors           `ema.*` only: a shipped model, which cannot be resumed

A file's metadata holds a SHA-256 of its `weights.*` and one of its `ema.*`, and a shipped model's
card holds the SHA-256 of the whole file. So damaged weights are refused, even if they are finite.
Files and cards of older versions have no SHA-256 and are read without this check.

The optimiser's file is written first, and its name holds its step.
The model's file names the step that counts.
So if a run is killed at any time, the model's file and its optimiser state belong together.
"""

import hashlib
import json
import os
import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from maediff import __version__
from maediff.core.errors import InputError
from maediff.core.files import atomic_path
from maediff.core.reading import describe_pointer, read_content
from maediff.methods.base import Method
from maediff.models.folder import FORMAT, PICKLES

RESTORE = "restore the run's files, or train the model again"
HARMLESS_SIZE = 256
"""Width of layers, and number of blocks, for which a wrong network still fits into memory."""
RETRAIN = "train again with `overwrite=True`"
PREFIXES = ("weights.", "ema.")


@dataclass(frozen=True, eq=False)
class Weights:
    """The averaged weights of a trained method.

    Args:
        tensors: by name of the parameter.
        step: training step.
        path: the file.
    """

    tensors: dict[str, Tensor]
    step: int
    path: Path


@dataclass(frozen=True, eq=False)
class _File:
    """Content of a safetensors file.

    Args:
        metadata: text by key.
        tensors: by name.
    """

    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def save_model(
    path: Path,
    method: Method,
    ema: Method,
    *,
    name: str,
    step: int,
    val_loss: float = float("nan"),
) -> None:
    """Write weights and their moving average to one safetensors file, atomically.

    Args:
        path: the file.
        method: the weights.
        ema: their moving average.
        name: the method's name in `methods.registry`.
        step: training step.
        val_loss: validation loss at this step.
    """
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
    """Write a safetensors file atomically, with permissions from the umask.

    (`safetensors.save_file` creates files as 0600.)

    Args:
        path: the file.
        tensors: by name; each name starts with one of PREFIXES.
        metadata: texts by key; the SHA-256 of the tensors of each prefix is added.
    """
    stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    hashes = {
        f"sha256.{prefix}": hash_tensors(part)
        for prefix in PREFIXES
        if (part := select_prefix(stored, prefix))
    }
    data = save(stored, {**metadata, **hashes})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name starts with `prefix`, by name without it."""
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of names, types, shapes and values; the order does not count."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_weights(path: Path, prefix: str, method: str) -> tuple[dict[str, Tensor], int]:
    """Read tensors from a file of weights.

    Args:
        path: the file.
        prefix: "weights." or "ema."; other tensors are ignored.
        method: name of the method that the file must hold.

    Returns:
        The tensors by name without `prefix`, and their training step.

    Raises:
        InputError: no such file, not a safetensors file (a pickle is never unpickled), a file of
            another method or of another version of the format, or damaged values.
    """
    return _read_tensors(_open(path), path, prefix, method)


def read_trained_weights(folder: Path, method: str, sha256: str = "") -> Weights:
    """Read the averaged weights of a model; each file is opened once.

    A run's weights are those in best/, or those in last/ if a stopped training did better there.

    Args:
        folder: run folder, or folder of a shipped model.
        method: name of the method.
        sha256: SHA-256 of a shipped model's file, from its card; empty if the card has none.

    Raises:
        InputError: see `read_weights`; or the weights of a shipped model are not those of its
            card.
    """
    best, last, shipped = (folder / part / "model.safetensors" for part in ("best", "last", ""))
    path = next((path for path in (best, last, shipped) if path.is_file()), last)
    file = None
    if path == best and last.is_file():
        losses, files = {}, {}
        for candidate in (best, last):
            try:
                files[candidate] = _open(candidate)
                losses[candidate] = _read_val_loss(files[candidate])
            except InputError:  # a damaged file is refused below, if it is the one to use
                losses[candidate] = float("nan")
        path = last if losses[last] < losses[best] else best
        file = files.get(path)
    file = file or _open(path, sha256 if path == shipped else "")
    tensors, step = _read_tensors(file, path, "ema.", method)
    return Weights(tensors, step, path)


def _open(path: Path, sha256: str = "") -> _File:
    """Read a safetensors file, and check its SHA-256 if one is given."""
    if not path.is_file() and os.path.lexists(path):
        raise InputError(f"{path}: a link that leads nowhere, or not a regular file; {RESTORE}")
    if not path.is_file():
        raise InputError(
            f"{path}: no weights there; resume the training with `maediff train --resume`, or "
            "give another run"
        )
    if path.suffix in PICKLES:
        raise InputError(
            f"{path}: looks like a pickle, which could run code; only safetensors weights are read"
        )
    try:
        data = read_content(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {RESTORE}") from None
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(
            f"{path}: damaged or replaced (its SHA-256 is not the one in card.json); install "
            "maediff again, or restore the model's files"
        )
    if pointer := describe_pointer(data[:1024]):
        raise InputError(f"{path}: {pointer}")
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")  # the format: length of the header, header
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is not a safetensors file ({error}), so it was not read any further; "
            f"{RESTORE}"
        ) from None
    return _File(metadata, tensors)


def _read_val_loss(file: _File) -> float:
    """Return the validation loss in a file's metadata; NaN if there is none."""
    try:
        return float(file.metadata.get("val_loss", "nan"))
    except ValueError:
        return float("nan")


def _read_tensors(
    file: _File, path: Path, prefix: str, method: str
) -> tuple[dict[str, Tensor], int]:
    """Check the metadata of an open file, and read the tensors under `prefix`."""
    metadata = file.metadata
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{path}: format {metadata.get('format')!r}, and this version reads {FORMAT!r}; "
            f"{RESTORE}"
        )
    if metadata.get("method") != method:
        raise InputError(
            f"{path}: weights of {metadata.get('method')!r}, but config.json names {method!r}; "
            f"{RESTORE}"
        )
    if not metadata.get("step", "").isdecimal():
        raise InputError(f"{path}: damaged, it names no step of training; {RESTORE}")
    tensors = select_prefix(file.tensors, prefix)
    expected = metadata.get(f"sha256.{prefix}")
    if expected is not None and hash_tensors(tensors) != expected:
        raise InputError(
            f"{path}: damaged weights (their SHA-256 is not the one in the file); {RESTORE}"
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.float()).all():
            raise InputError(f"{path}: damaged weights (NaN or infinity in {name}); {RESTORE}")
    return tensors, int(metadata["step"])


def refuse_larger_network(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Refuse settings of a network that is much larger than its weights, before it is built.

    Every width of a layer is a dimension of a tensor, and every block has tensors.

    Args:
        config: settings of the method; its groups describe networks.
        tensors: weights of the network.
        path: their file, for the error message.

    Raises:
        InputError: a number in a group is over `HARMLESS_SIZE`, and larger than every dimension
            and than the number of tensors.
    """
    largest = max((size for tensor in tensors.values() for size in tensor.shape), default=0)
    largest = max(largest, len(tensors), HARMLESS_SIZE)
    for group, settings in config.items():
        for name, value in settings.items() if isinstance(settings, Mapping) else ():
            for number in value if isinstance(value, list | tuple) else (value,):
                if isinstance(number, int) and number > largest:
                    raise InputError(
                        f"{path}: weights do not fit the network's settings ({group}.{name} is "
                        f"{number}, larger than every dimension of the weights); {RESTORE}"
                    )


def load_state(
    method: Method, tensors: dict[str, Tensor], path: Path, remedy: str = RESTORE
) -> None:
    """Load weights into a method.

    Args:
        method: the method.
        tensors: its weights.
        path: their file, for the error message.
        remedy: end of the error message.

    Raises:
        InputError: the weights do not fit; the message names the first that do not.
    """
    # torch would convert another type without a message: fractions become 0 as integers.
    for name, parameter in method.state_dict().items():
        stored = tensors.get(name)
        if stored is not None and stored.is_floating_point() != parameter.is_floating_point():
            raise InputError(
                f"{path}: weights of the wrong type ({name} is {stored.dtype}, expected "
                f"{parameter.dtype}); {remedy}"
            )
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        reason = "; ".join(textwrap.shorten(line, 120) for line in str(error).splitlines()[1:3])
        raise InputError(
            f"{path}: weights do not fit the network's settings ({reason}); {remedy}"
        ) from None


def save_optimizer(folder: Path, state: dict[str, Any], step: int) -> None:
    """Write the state that training needs besides the weights, in a file named by its step.

    Args:
        folder: folder of the weights.
        state: values that `torch.save` can store.
        step: training step.
    """
    with atomic_path(folder / f"optimizer-{step}.pt") as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # torch: "[enforce fail at inline_container.cc ..."
            raise OSError("no space left on device, most likely") from error


def load_optimizer(folder: Path, step: int) -> dict[str, Any]:
    """Read the state that `save_optimizer` wrote at `step`.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / f"optimizer-{step}.pt"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on a file that is refused below
            state = torch.load(path, weights_only=True, map_location="cpu")
    except UnpicklingError:  # torch's own message explains how to run the file's code
        raise InputError(
            f"{path}: damaged, or more than tensors and numbers, so it was not read any further; "
            f"{RETRAIN}"
        ) from None
    except (OSError, RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: missing or damaged ({reason}); {RETRAIN}") from None
    if not isinstance(state, dict):
        raise InputError(
            f"{path}: not the optimizer's state but a {type(state).__name__}; {RETRAIN}"
        )
    return state


def prune(run: Path, keep: int) -> None:
    """Remove optimiser states of steps other than `keep`, and unfinished files of a killed run."""
    for path in (*run.glob("best/.*.tmp-*"), *run.glob("last/.*.tmp-*")):
        path.unlink(missing_ok=True)
    for path in run.glob("last/optimizer-*.pt"):
        if path.name != f"optimizer-{keep}.pt":
            path.unlink(missing_ok=True)
