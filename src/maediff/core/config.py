"""Settings from texts and files to frozen configs.

`unet.blocks=2` -> {"unet": {"blocks": 2}} -> UNetConfig(blocks=2)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from maediff.core.errors import InputError

C = TypeVar("C")


class SettingsError(InputError):
    """Settings that are unknown or do not fit; who read them from a file adds its name."""


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Nested settings from `key=value` texts; values are read as YAML (`[125, 250]`, `true`, `1e-3`).

    Raises:
        InputError: a text that is not of that form.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not all(key.split(".")):
            raise InputError(f"setting {pair!r} is not of the form key=value")
        *parents, leaf = key.split(".")
        nested: dict[str, Any] = {leaf: _value(value)}
        for parent in reversed(parents):
            nested = {parent: nested}
        settings = merge(settings, nested)
    return settings


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # YAML 1.1 takes 1e-3 for a text
        try:
            return float(value)
        except ValueError:
            return value
    return value


def read_settings(path: Path) -> dict[str, Any]:
    """Settings in a YAML file.

    Raises:
        InputError: no such file, or not a YAML mapping.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: cannot be read as YAML ({str(error).splitlines()[0]})"
        ) from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: must hold `key: value` lines")
    return settings


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys: {"unet": {"blocks": 2}} -> {"unet.blocks": 2}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def build_config(config_type: type[C], values: Mapping[str, Any], what: str) -> C:
    """A frozen config from nested values.

    Raises:
        SettingsError: unknown keys or values that do not fit, all of them named.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(
            f"settings of {what}: {values!r} is not a group of settings; write {what}.KEY=VALUE"
        )
    try:
        return TypeAdapter(config_type).validate_python(dict(values))
    except ValidationError as error:
        details = "; ".join(_complaint(config_type, what, problem) for problem in error.errors())
        raise SettingsError(f"settings of {what}: {details}") from None


def _complaint(config_type: type, what: str, problem: ErrorDetails) -> str:
    """One of pydantic's errors in our words: the key, what is wrong, and for an unknown key those that there are."""
    keys = [str(key) for key in problem["loc"]]
    where = ".".join(keys) or what
    if problem["type"] != "unexpected_keyword_argument":
        said = problem["msg"].removeprefix("Value error, ")
        return said if where == what else f"{where}: {said}"
    known = getattr(config_type, "__pydantic_fields__", {})
    for key in keys[:-1]:
        known = getattr(known[key].annotation, "__pydantic_fields__", {}) if key in known else {}
    return f"{where}: no such setting" + (f" (there are: {', '.join(known)})" if known else "")
