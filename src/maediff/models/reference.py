"""Names of models, split into their parts.

    name            example                         parts
    run folder      runs/pddpm@s=48,t_test=125      runs/pddpm, s=48,t_test=125
    shipped model   t1                              t1
    Hugging Face    hf:lab/brains                   hf:lab/brains
    mean            t1@s=24+runs/pddpm              t1@s=24, runs/pddpm

Settings that only matter at test follow an @. An @ or a + in the name of an existing folder
belongs to the name.
"""

import functools
from pathlib import Path

from maediff.core.errors import InputError
from maediff.core.reading import is_file, is_folder
from maediff.models.catalogue import model_folders

HUB = "hf:"


def _is_there(text: str) -> bool:
    return is_file(Path(text)) or is_folder(Path(text))


def split_mean(reference: str | Path) -> list[str]:
    """Return the models in `RUN_A@s=48+RUN_B`, or the reference alone.

    A + is part of a name, unless models are on both sides of it.
    """
    text = str(reference)
    if _is_there(text):
        return [text]
    for position in (i for i, letter in enumerate(text) if letter == "+"):
        parts = [text[:position], *split_mean(text[position + 1 :])]
        if all(is_folder(split_reference(part)[0]) for part in parts):
            return parts
    return [text]


def split_reference(reference: str | Path) -> tuple[Path, str]:
    """Return the folder of a model, and the settings in `RUN@key=value,...`.

    Raises:
        InputError: a model on the Hub could not be downloaded.
    """
    model, changes = model_and_settings(reference)
    return locate(model), changes


def model_and_settings(reference: str | Path) -> tuple[str, str]:
    """Return the parts before and after the @; an existing folder may have an @ in its name."""
    text = str(reference)
    if _is_there(text) or "@" not in text:
        return text, ""
    model, _, changes = text.rpartition("@")
    return model, changes


def split_settings(text: str) -> list[str]:
    """Split settings at commas outside of brackets.

    Example:
        >>> split_settings("s=48,t_test=[125,250]")
        ['s=48', 't_test=[125,250]']
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def without_path(init: str | None) -> str | None:
    """Return the name of an initial model without its folders."""
    return init if init is None or init.startswith(HUB) else Path(init).name


def locate(reference: str) -> Path:
    """Return the folder of a model without settings.

    A run folder overrides a shipped model of the same name.

    Args:
        reference: run folder, name of a model, or `hf:ORG/NAME`. Any other text is returned as a
            path; reading it fails.

    Raises:
        InputError: see `download`.
    """
    if reference.startswith(HUB):
        return download(reference.removeprefix(HUB))
    path = Path(reference)
    if is_file(path / "config.json"):
        return path
    return model_folders().get(reference, path)


def make_label(reference: str, folder: Path) -> str:
    """Return the name of a model in tables: its folder's, or its repository's on the Hub.

    (The local folder of a repository is named by a hash.)
    """
    return reference.rpartition("/")[2] if reference.startswith(HUB) else folder.resolve().name


@functools.cache
def download(repository: str) -> Path:
    """Return the local copy of a model on the Hugging Face Hub; download it if necessary.

    The Hub is asked once per process.

    Args:
        repository: ORG/NAME.

    Raises:
        InputError: huggingface_hub is not installed, or the download failed.
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
    except (OSError, ValueError) as error:  # no network, no such repository, not a valid name
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{HUB}{repository}: could not be downloaded from the Hugging Face Hub ({reason}); "
            "check the name and the network"
        ) from None
