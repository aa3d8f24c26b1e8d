"""Settings in text and YAML form, and the frozen configs made from them.

`unet.blocks=2` -> {"unet": {"blocks": 2}} -> UNetConfig(blocks=2)
"""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from maediff.core.errors import InputError

C = TypeVar("C")

MAX_FILE_BYTES = 100_000  # of a settings file; real ones have a few hundred
MAX_DEPTH = 20  # of nested settings; real ones have three levels
# PyYAML raises these on a value that does not fit its tag, such as the date 2020-13-45.
YAML_ERRORS = (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)


class _Loader(yaml.SafeLoader):
    """YAML without aliases, whose expansion can fill memory, deep nesting and repeated keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for name in sorted(set(names)):
            if names.count(name) > 1:
                raise yaml.YAMLError(f"the key {reprlib.repr(name)} is there twice")
        return super().construct_mapping(node, deep=deep)


def _load_yaml(text: str) -> Any:
    """Return a YAML document; mappings in it have text as keys.

    Raises:
        One of YAML_ERRORS: the text is no such document.
    """
    value = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    _check_keys(value)
    return value


def _check_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise yaml.YAMLError(f"the key {reprlib.repr(key)} is not text")
            _check_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_keys(item)


class SettingsError(InputError):
    """Unknown settings, or values that a config rejects.

    A caller that read the settings from a file adds the file's name.
    """


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """Return nested settings from `key=value` texts.

    Args:
        pairs: for example `unet.blocks=2`; each value is YAML (`[125, 250]`, `true`, `1e-3`).

    Raises:
        InputError: a text has no key or no `=`, or its key has too many parts.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not all(key.split(".")):
            raise InputError(
                f"setting {reprlib.repr(pair)}: not of the form KEY=VALUE, for example s=24"
            )
        *parents, leaf = key.split(".")
        if len(parents) >= MAX_DEPTH:
            raise InputError(
                f"setting {reprlib.repr(pair)}: its key has more than {MAX_DEPTH} parts; "
                "correct it"
            )
        nested: dict[str, Any] = {leaf: _parse_value(value)}
        for parent in reversed(parents):
            nested = {parent: nested}
        settings = merge(settings, nested)
    return settings


def _parse_value(text: str) -> Any:
    """Return `text` as YAML, or the text itself if it is no YAML."""
    try:
        value = _load_yaml(text)
    except YAML_ERRORS:
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
        if path.exists() and not path.is_file():
            raise yaml.YAMLError("it is not a regular file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise yaml.YAMLError(f"it has more than {MAX_FILE_BYTES} bytes")
        settings = _load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_ERRORS) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise InputError(
            f"{path}: cannot be read as YAML ({reason or type(error).__name__}); "
            "write one `KEY: VALUE` per line"
        ) from None
    if not isinstance(settings, dict):
        raise InputError(
            f"{path}: holds a {type(settings).__name__}, not settings; "
            "write one `KEY: VALUE` per line"
        )
    return settings


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` applied; nested mappings are merged key by key.

    A text in `base` where `changes` has a mapping is the preset of this group:

    Example:
        >>> merge({"augment": "robust"}, {"augment": {"noise": 0.1}})
        {'augment': {'preset': 'robust', 'noise': 0.1}}
    """
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(value, Mapping) and isinstance(before, str):
            before = {"preset": before}
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            merged[key] = merge(before, value)
        else:
            merged[key] = value
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


def check_group(values: Any, name: str) -> Mapping[str, Any]:
    """Return `values`, which must be a group of settings.

    Args:
        values: what a file or a caller gave.
        name: name of the group, for the error message.

    Raises:
        SettingsError: it is no mapping.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(
            f"settings of {name}: {reprlib.repr(values)} is not a group of settings; "
            f"write {name}.KEY=VALUE"
        )
    return values


def take_group(settings: dict[str, Any], name: str) -> Mapping[str, Any]:
    """Remove a group from settings and return it; empty if it is absent or has no line.

    Raises:
        SettingsError: it is no group.
    """
    group = settings.pop(name, None)
    return {} if group is None else check_group(group, name)


def build_config(config_type: type[C], values: Any, name: str) -> C:
    """Return a frozen config from nested values.

    Args:
        config_type: a pydantic dataclass.
        values: its fields; groups of fields are nested mappings.
        name: name of the config in error messages.

    Raises:
        SettingsError: names every unknown key and every value that the config rejects.
    """
    fields = dict(check_group(values, name))
    try:
        return TypeAdapter(config_type).validate_python(fields)
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
