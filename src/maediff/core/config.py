"""Settings in text and YAML form, and the frozen configs made from them.

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
    """Unknown settings, or values that a config rejects.

    A caller that read the settings from a file adds the file's name.
    """


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Return nested settings from `key=value` texts.

    Args:
        pairs: for example `unet.blocks=2`; each value is YAML (`[125, 250]`, `true`, `1e-3`).

    Raises:
        InputError: a text has no key or no `=`.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not all(key.split(".")):
            raise InputError(f"setting {pair!r}: not of the form KEY=VALUE, for example s=24")
        *parents, leaf = key.split(".")
        nested: dict[str, Any] = {leaf: _parse_value(value)}
        for parent in reversed(parents):
            nested = {parent: nested}
        settings = merge(settings, nested)
    return settings


def _parse_value(text: str) -> Any:
    """Return `text` as YAML, or the text itself if it is no YAML."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):  # in YAML 1.1, 1e-3 is a string
        try:
            return float(value)
        except ValueError:
            return value
    return value


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML file.

    Raises:
        InputError: the file cannot be read, or is no YAML mapping.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: cannot be read as YAML ({str(error).splitlines()[0]}); "
            "write one `KEY: VALUE` per line"
        ) from None
    if not isinstance(settings, dict):
        raise InputError(
            f"{path}: holds a {type(settings).__name__}, not settings; "
            "write one `KEY: VALUE` per line"
        )
    return settings


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` applied; nested mappings are merged key by key."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings with dotted keys: {"unet": {"blocks": 2}} -> {"unet.blocks": 2}."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{key}": value}
        )
    return flat


def build_config(config_type: type[C], values: Any, name: str) -> C:
    """Return a frozen config from nested values.

    Args:
        config_type: a pydantic dataclass.
        values: its fields; groups of fields are nested mappings.
        name: name of the config in error messages.

    Raises:
        SettingsError: names every unknown key and every value that the config rejects.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(
            f"settings of {name}: {values!r} is not a group of settings; write {name}.KEY=VALUE"
        )
    try:
        return TypeAdapter(config_type).validate_python(dict(values))
    except ValidationError as error:
        problems = "; ".join(
            _describe_problem(config_type, name, problem) for problem in error.errors()
        )
        raise SettingsError(f"settings of {name}: {problems}") from None


def _describe_problem(config_type: type, name: str, problem: ErrorDetails) -> str:
    """Return one pydantic error as text: the key, the problem and, if it is unknown, all keys."""
    keys = [str(key) for key in problem["loc"]]
    where = ".".join(keys) or name
    if problem["type"] != "unexpected_keyword_argument":
        message = problem["msg"].removeprefix("Value error, ")
        return message if where == name else f"{where}: {message}"
    fields = getattr(config_type, "__pydantic_fields__", {})
    for key in keys[:-1]:
        nested = fields[key].annotation if key in fields else None
        fields = getattr(nested, "__pydantic_fields__", {})
    message = f"{where}: unknown setting"
    return f"{message}; choose one of {', '.join(fields)}" if fields else message
