"""What names a model, taken apart: `RUN`, `NAME`, `hf:ORG/NAME`, with settings after an @, means of several with a +.

    runs/pddpm@s=48,t_test=[125,250]   ->   runs/pddpm   s=48  t_test=[125,250]
    t1@s=24+runs/pddpm                 ->   t1@s=24   and   runs/pddpm

Where the whole is a folder, an @ or a + in its name divides nothing.
"""

from pathlib import Path

from maediff.shipped import HUB, locate


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
