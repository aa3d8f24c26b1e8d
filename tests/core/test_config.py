"""Settings in text and YAML form."""

import os
import time

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
    take_group,
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


@pytest.mark.parametrize(
    "value",
    [
        "2020-13-45",
        "0b_",
        "!!float abc",
        "!!int abc",
        "!!timestamp foo",
        "{1: 2}",
        "*x",
        "[" * 9999,
    ],
)
def test_value_that_is_no_yaml_is_text(value):
    assert parse_settings([f"tool={value}"]) == {"tool": value}


def test_key_with_too_many_parts_is_refused():
    with pytest.raises(InputError, match="its key has more than 20 parts"):
        parse_settings(["a." * 5000 + "a=1"])


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1: 2", "the key 1 is not text"),
        ("a: {true: 2}", "the key True is not text"),
        ("a: [{b: {null: 2}}]", "the key None is not text"),
        ("a: " + "[" * 50000, "nested more than 20 levels deep"),
        ("a: " + "{b: " * 9999, "nested more than 20 levels deep"),
        ("".join(f"{' ' * i}a:\n" for i in range(200)), "nested more than 20 levels deep"),
        (LAUGHS, "aliases .* are not allowed"),
        ("a: &a [*a]", "aliases .* are not allowed"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("a: !!timestamp foo", "cannot be read as YAML"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: 1\nb: 2\na: 1", "the key 'a' is there twice"),
        ("a: {b: {c: 1, c: 2}}", "the key 'c' is there twice"),
        ("a: 1\n" * 50000, "more than 100000 bytes"),
        ("a: \x00", "cannot be read as YAML"),
    ],
)
def test_odd_settings_file_is_refused_at_once_with_the_reason(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    start = time.monotonic()
    with pytest.raises(InputError, match=message) as caught:
        read_settings(path)
    assert time.monotonic() - start < 5
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 400


def test_settings_file_that_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name, message in (
        ("pipe", "not a regular file"),
        ("folder", "not a regular file"),
        ("loop", "Too many levels of symbolic links"),
    ):
        with pytest.raises(InputError, match=message):
            read_settings(tmp_path / f"{name}.yaml")


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


def test_a_group_of_settings_is_taken():
    settings = {"postprocess": {"extent": 0.4}, "evaluate": None, "train": 5, "s": 48}
    assert take_group(settings, "postprocess") == {"extent": 0.4}
    assert take_group(settings, "evaluate") == take_group(settings, "absent") == {}
    with pytest.raises(SettingsError, match=r"train: 5 is not a group .*; write train\.KEY=VALUE"):
        take_group(settings, "train")
    assert settings == {"s": 48}
