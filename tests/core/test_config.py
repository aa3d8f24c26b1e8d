"""Settings in text and YAML form."""

import pytest
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from maediff.core.config import (
    SettingsError,
    build_config,
    flatten,
    merge,
    parse_settings,
    read_settings,
)
from maediff.core.errors import InputError


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Inner:
    blocks: int = 1


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Outer:
    inner: Inner = Inner()
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ValueError(f"rate {self.rate} is above 1")


def test_parse_settings():
    parsed = parse_settings(["inner.blocks=2", "rate=1e-3", "times=[125, 250]", "inner.on=true"])
    assert parsed == {"inner": {"blocks": 2, "on": True}, "rate": 1e-3, "times": [125, 250]}
    assert parse_settings(["name=a: b: c"]) == {"name": "a: b: c"}  # no YAML


@pytest.mark.parametrize("text", ["rate", "=1", "inner..blocks=2", ".rate=1"])
def test_parse_settings_without_key(text):
    with pytest.raises(InputError, match="not of the form KEY=VALUE"):
        parse_settings([text])


def test_read_settings(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("inner: {blocks: 2}\n")
    assert read_settings(path) == {"inner": {"blocks": 2}}
    path.write_text("- 1\n")
    with pytest.raises(InputError, match=r"a\.yaml: holds a list, not settings"):
        read_settings(path)
    path.write_text("a: [1\n")
    with pytest.raises(InputError, match=r"a\.yaml: cannot be read as YAML"):
        read_settings(path)
    with pytest.raises(InputError, match=r"b\.yaml: cannot be read as YAML"):
        read_settings(tmp_path / "b.yaml")


def test_merge_and_flatten():
    base = {"inner": {"blocks": 1, "heads": 2}, "rate": 0.5}
    merged = merge(base, {"inner": {"blocks": 3}})
    assert merged == {"inner": {"blocks": 3, "heads": 2}, "rate": 0.5}
    assert base["inner"]["blocks"] == 1
    assert flatten(merged) == {"inner.blocks": 3, "inner.heads": 2, "rate": 0.5}


def test_build_config():
    assert build_config(Outer, {"inner": {"blocks": 3}}, "outer") == Outer(Inner(3))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1}, "settings of outer: rat: unknown setting; choose one of inner, rate"),
        ({"inner": {"b": 1}}, "inner.b: unknown setting; choose one of blocks"),
        ({"inner": {"blocks": "x"}, "a": 1}, "inner.blocks: .*integer.*; a: unknown setting"),
        ({"rate": 2}, "settings of outer: rate 2.0 is above 1"),
        (3, "3 is not a group of settings; write outer.KEY=VALUE"),
    ],
)
def test_build_config_names_problems(values, message):
    with pytest.raises(SettingsError, match=message):
        build_config(Outer, values, "outer")
