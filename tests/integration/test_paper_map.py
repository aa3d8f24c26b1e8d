"""Every name in the paper map exists, and every default in the tables is that of the code."""

import ast
import functools
import importlib
import re
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from maediff.core.config import flatten

DOCS = Path(__file__).parents[2] / "docs" / "explanation"
MAP, METHOD, TRAINING = (
    (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for name in ("paper_map", "choices", "choices_training")
)
TEXT = "\n".join((MAP, METHOD, TRAINING))
NAMES = sorted(set(re.findall(r"`(maediff\.[\w.]+)`", TEXT)))
TABLES = METHOD.partition("## Fixed in the code")[0] + TRAINING.partition("## Presets")[0]
HEADINGS = TABLES.count("| choice | field | default |")
CHOICES = re.findall(r"^\|[^|]+\| `(maediff\.[\w.]+)` \| `([^`]+)` \|", TABLES, re.MULTILINE)
SETTINGS = {
    setting: values
    for setting, *values in re.findall(
        r"^\| `([a-z_.]+)`" + 3 * r" \| `([^`]+)`" + r" \|$", TEXT, re.MULTILINE
    )
}


def resolve(name: str) -> Any:
    """The module, class, function, attribute or dataclass field of that dotted name."""
    found: Any = importlib.import_module("maediff")
    parts = name.split(".")[1:]
    for position, part in enumerate(parts):
        if is_dataclass(found) and part in {f.name for f in fields(found)}:
            assert position == len(parts) - 1, f"{name}: {part} is a field, nothing lies below it"
            return next(f for f in fields(found) if f.name == part)
        if not hasattr(found, part):
            importlib.import_module(".".join(["maediff", *parts[: position + 1]]))
        found = getattr(found, part)
    return found


def test_map_has_its_rows() -> None:
    assert len(NAMES) > 60
    assert len(CHOICES) > 35
    rows = re.findall(r"^\| ", TABLES, re.MULTILINE)
    assert len(CHOICES) == len(rows) - HEADINGS, "a row of another form"
    assert HEADINGS == 6


@pytest.mark.parametrize("name", NAMES)
def test_name_exists(name: str) -> None:
    resolve(name)


@pytest.mark.parametrize(("name", "default"), CHOICES)
def test_choice_is_a_field_with_that_default(name: str, default: str) -> None:
    owner, _, field_name = name.rpartition(".")
    config = resolve(owner)
    assert is_dataclass(config), f"{owner} is no config"
    field = {f.name: f for f in fields(config)}[field_name]
    assert field.default is not MISSING, f"{name} has no plain default"
    actual = getattr(field.default, "default", field.default)  # pydantic wraps some defaults
    assert actual == ast.literal_eval(default)


@pytest.mark.parametrize(
    "name",
    [
        "maediff.diffusion.patches.PatchGrid.no_such",
        "maediff.no_such_module",
        "maediff.nn.mae.no_such",
    ],
)
def test_a_wrong_name_is_found(name: str) -> None:
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve(name)


@pytest.mark.parametrize(
    "name",
    [
        "maediff.methods.maediff.MAEDiffConfig",
        "maediff.nn.mae.MAEConfig",
        "maediff.nn.unet.UNetConfig",
        "maediff.diffusion.noise.SimplexConfig",
    ],
)
def test_every_field_of_the_method_is_in_the_table(name: str) -> None:
    listed = {choice.rpartition(".")[2] for choice, _ in CHOICES if choice.startswith(name + ".")}
    assert {f.name for f in fields(resolve(name))} - {"unet", "mae", "simplex"} == listed


@pytest.mark.parametrize("setting", SETTINGS)
def test_presets_match_the_table(setting: str) -> None:
    methods, train = (
        importlib.import_module("maediff.methods.registry"),
        importlib.import_module("maediff.training.config"),
    )
    group, *keys = setting.split(".")
    for preset, told in zip(("paper", "small", "tiny"), SETTINGS[setting], strict=True):
        holds = [name for name, spec in methods.METHODS.items() if group in spec.settings]
        config = (
            train.resolve_training(preset, {})
            if group == "train"
            else methods.resolve(holds[0], preset)
        )
        actual = functools.reduce(getattr, keys if group == "train" else [group, *keys], config)
        assert actual == ast.literal_eval(told), f"{preset}: {setting}"


def test_every_setting_of_a_preset_is_in_the_table() -> None:
    changed = set()
    for preset in importlib.import_module("maediff.methods.registry").PRESETS.values():
        changed |= {f"train.{key}" for key in flatten(preset.training)}
        for values in (preset.shared, preset.diffusion, preset.patchwise):
            changed |= set(flatten(values))
    assert changed == set(SETTINGS)
