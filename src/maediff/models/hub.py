"""A model as a repository of the Hugging Face Hub.

    save_to_hub_folder("t1", "hub/t1")     then, with an account:  hf upload ORG/NAME hub/t1
    load_from_hub("ORG/NAME")              the same as  --model hf:ORG/NAME

The repository holds model.safetensors, config.json, calibration.json, card.json and README.md
(the card). Loading needs the extra `hub`, writing does not. No pickle is written or read.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from maediff.core.errors import InputError
from maediff.core.files import write_text
from maediff.models.card import Card, read_card
from maediff.models.card_text import render_card
from maediff.models.export import export_model
from maediff.models.model import TrainedMethod, read_model
from maediff.models.reference import HUB, split_reference

HUB_LICENCES = (
    "apache-2.0",
    "mit",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-sa-4.0",
    "cc0-1.0",
)
"""Licences that the Hub knows by name (https://huggingface.co/docs/hub/repositories-licenses)."""


def save_to_hub_folder(
    reference: str | Path, folder: str | Path, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a model as a folder that can be uploaded to the Hub unchanged.

    Args:
        reference: a shipped model's name or folder, or a run.
        folder: the new folder.
        about: required for a run: `summary`, `licence`, `data` and `failure_cases`; see
            `export_model`.

    Returns:
        The folder.

    Raises:
        InputError: a run without `about`, or `folder` exists.
    """
    folder = Path(folder)
    source, changes = split_reference(reference)
    if folder.exists():
        raise InputError(f"{folder}: exists; choose another folder")
    if about is not None:
        export_model(reference, folder, about)
    elif (source / "card.json").is_file() and not changes:
        _copy_model(source, folder)
    else:
        raise InputError(
            f"{reference}: has no card; give `about` with summary, licence, data and failure_cases"
        )
    card = read_card(folder)
    text = f"---\n{front_matter(card)}---\n\n{render_card(card, folder)}"
    write_text(folder / "README.md", text)
    (folder / "MODEL_CARD.md").unlink(missing_ok=True)  # README.md holds the same text
    return folder


def _copy_model(source: Path, folder: Path) -> None:
    """Copy a model's folder without its README.md; the files get the permissions of the umask."""
    temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
    try:
        shutil.copytree(
            source,
            temporary,
            ignore=shutil.ignore_patterns("README.md", ".*"),
            copy_function=shutil.copyfile,
        )
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def front_matter(card: Card) -> str:
    """Return the YAML that the Hub reads from README.md.

    Source: https://huggingface.co/docs/hub/model-cards
    """
    licence = card.licence.lower()
    licence_fields = (
        {"license": licence}
        if licence in HUB_LICENCES
        else {"license": "other", "license_name": card.licence}
    )
    tags = ["mri", "brain", "anomaly-detection", "medical-imaging", card.modality, card.method]
    fields: dict[str, Any] = {**licence_fields, "library_name": "maediff", "tags": tags}
    return str(yaml.safe_dump(fields, sort_keys=False))


def load_from_hub(repository: str | Path, device: str = "cpu") -> TrainedMethod:
    """Return the model of a repository.

    Args:
        repository: `ORG/NAME` on the Hub, or a local folder with the same files.
        device: `cpu`, `cuda` or `mps`.

    Raises:
        InputError: the download failed, or the repository holds no model.
    """
    is_local = (Path(repository) / "config.json").is_file()
    hub_name = f"{HUB}{str(repository).removeprefix(HUB)}"
    return read_model(repository if is_local else hub_name, device)
