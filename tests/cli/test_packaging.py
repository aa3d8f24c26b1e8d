"""One version number, and what the wheel promises."""

import json
import re
import tomllib
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import yaml

import maediff

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == maediff.__version__
    assert PROJECT["project"]["dynamic"] == ["version"]
    source = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{maediff.__version__}"' in source.read_text(encoding="utf-8")


def test_the_wheel_that_the_documentation_installs_has_this_version():
    text = (ROOT / "docs/getting_started/installation.md").read_text(encoding="utf-8")
    wheels = set(re.findall(r"maediff-\S+\.whl", text))
    assert wheels == {f"maediff-{maediff.__version__}-py3-none-any.whl"}


def test_the_documentation_names_the_allowed_versions_of_torch():
    (torch,) = [name for name in PROJECT["project"]["dependencies"] if name.startswith("torch")]
    for page in ("docs/getting_started/installation.md", "PACKAGE.md"):
        assert f'"{torch}"' in (ROOT / page).read_text(encoding="utf-8")


def test_type_hints_are_declared():
    assert (files("maediff") / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]


def test_commands_exist():
    for target in PROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(import_module(module), function))


def test_citation_files_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    for key in ("title", "license", "keywords"):
        assert zenodo[key] == citation[key]
    assert zenodo["creators"] == citation["authors"]
    (paper,) = zenodo["related_identifiers"]
    assert paper["identifier"] == citation["references"][0]["identifiers"][0]["value"]
    assert citation["license"] == PROJECT["project"]["license"]


def test_workflows_and_issue_templates_are_valid():
    texts = sorted((ROOT / ".github").rglob("*.yml"))
    assert len(texts) == 6
    parsed = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in texts}
    matrix = parsed["tests.yml"]["jobs"]["test"]["strategy"]["matrix"]
    assert len(matrix["os"]) == len(matrix["python"]) == 3
    assert parsed["publish.yml"]["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    for name in ("bug_report.yml", "feature_request.yml"):
        assert {"name", "description", "body"} <= set(parsed[name])
