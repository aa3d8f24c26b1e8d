"""What names a model, taken apart: `RUN`, `NAME`, `hf:ORG/NAME`, with settings after an @, means of several with a +.

    runs/pddpm@s=48,t_test=[125,250]   ->   runs/pddpm   s=48  t_test=[125,250]
    t1@s=24+runs/pddpm                 ->   t1@s=24   and   runs/pddpm

Where the whole is a folder, an @ or a + in its name divides nothing.
"""

import functools
from pathlib import Path

from maediff.core.errors import InputError
from maediff.models.catalogue import model_folders


def split_mean(reference: str | Path) -> list[str]:
    """The runs in `RUN_A@s=48+RUN_B`; a + that no folder follows belongs to what stands before it."""
    text = str(reference)
    if Path(text).exists():
        return [text]
    for position in (i for i, letter in enumerate(text) if letter == "+"):
        parts = [text[:position], *split_mean(text[position + 1 :])]
        if all(split_reference(part)[0].is_dir() for part in parts):
            return parts
    return [text]


def run_folders(reference: str | Path) -> list[Path]:
    """The folders that a reference reads."""
    return [split_reference(part)[0] for part in split_mean(reference)]


def split_reference(reference: str | Path) -> tuple[Path, str]:
    """The folder of the model and the settings in `RUN@key=value,...`; see `shipped.locate` for names."""
    model, changes = model_and_settings(reference)
    return locate(model), changes


def model_and_settings(reference: str | Path) -> tuple[str, str]:
    """What stands before and after the @; a folder may have an @ in its own name."""
    text = str(reference)
    if Path(text).exists() or "@" not in text:
        return text, ""
    model, _, changes = text.rpartition("@")
    return model, changes


def split_settings(text: str) -> list[str]:
    """`s=48,t_test=[125,250]` -> ["s=48", "t_test=[125,250]"]: commas inside brackets belong to the value."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def without_path(init: str | None) -> str | None:
    return init if init is None or init.startswith(HUB) else Path(init).name


HUB = "hf:"


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


def label(reference: str, folder: Path) -> str:
    """A model's name in tables: its folder's, or the repository's on the Hub, whose folder is named by a hash."""
    return reference.rpartition("/")[2] if reference.startswith(HUB) else folder.resolve().name


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
