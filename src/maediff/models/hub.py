"""A model as a repository of the Hugging Face Hub: model.safetensors, config.json, README.md (the card), and our JSON.

    save_to_hub_folder("t1", Path("hub/t1"))     then, with an account:  hf upload ORG/NAME hub/t1
    load_from_hub("ORG/NAME")                    the same as  --model hf:ORG/NAME

Loading needs the extra `hub`; writing a folder does not. No pickle is written or read.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from maediff.core.errors import InputError
from maediff.core.files import write_text
from maediff.methods import Method
from maediff.models.card import Card, read_card
from maediff.models.card_text import render_card
from maediff.models.export import export_model
from maediff.models.model import load_model
from maediff.models.reference import HUB, split_reference


def save_to_hub_folder(
    reference: str | Path, folder: Path, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a model as a folder that can be uploaded to the Hub as it is; returns the folder.

    Args:
        reference: a shipped model's name or folder, or a run.
        about: for a run: summary, licence, data and failure cases, as `export.export_model` takes them.

    Raises:
        InputError: a run without `about`, or a folder that exists.
    """
    source, changes = split_reference(reference)
    if folder.exists():
        raise InputError(f"{folder}: exists; choose another one")
    if about is not None:
        export_model(reference, folder, about)
    elif (source / "card.json").is_file() and not changes:
        temporary = folder.with_name(f".{folder.name}.tmp-{os.getpid()}")
        try:  # files with the umask's mode, not the source's
            shutil.copytree(
                source,
                temporary,
                ignore=shutil.ignore_patterns("README.md"),
                copy_function=shutil.copyfile,
            )
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    else:
        raise InputError(
            f"{reference}: has no card; give `about` with summary, licence, data and failure_cases"
        )
    card = read_card(folder)
    write_text(
        folder / "README.md", f"---\n{front_matter(card)}---\n\n{render_card(card, folder)}"
    )
    (folder / "MODEL_CARD.md").unlink(
        missing_ok=True
    )  # README.md is the same, with what the Hub reads on top
    return folder


def front_matter(card: Card) -> str:
    """The YAML that the Hub reads from a card (https://huggingface.co/docs/hub/model-cards)."""
    licence = card.licence.lower()
    known = licence in (
        "apache-2.0",
        "mit",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-sa-4.0",
        "cc0-1.0",
    )
    facts: dict[str, Any] = (
        {"license": licence} if known else {"license": "other", "license_name": card.licence}
    )
    facts |= {
        "library_name": "maediff",
        "tags": [
            "mri",
            "brain",
            "anomaly-detection",
            "medical-imaging",
            card.modality,
            card.method,
        ],
    }
    return str(yaml.safe_dump(facts, sort_keys=False))


def load_from_hub(repository: str | Path, device: str = "cpu") -> tuple[Method, dict[str, Any]]:
    """The model of a repository `ORG/NAME`, or of a local folder of that form, as `checkpoint.load_model` returns it.

    Raises:
        InputError: it could not be had, or holds no model.
    """
    local = (Path(repository) / "config.json").is_file()
    return load_model(repository if local else f"{HUB}{str(repository).removeprefix(HUB)}", device)
