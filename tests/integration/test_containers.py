"""Container recipes: files that they copy, and commands that they run."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"])
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
APPTAINER = (ROOT / "apptainer.def").read_text("utf-8")


def copied_by_docker():
    copies = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return {name for line in copies for name in line.split()[:-1]}


def copied_by_apptainer():
    (section,) = re.findall(r"^%files\n((?: +.+\n)+)", APPTAINER, re.MULTILINE)
    return {line.split()[0] for line in section.splitlines()}


@pytest.mark.parametrize("copied", [copied_by_docker, copied_by_apptainer])
def test_copied_files_exist(copied):
    assert copied() == {
        "constraints.txt",
        "pyproject.toml",
        "PACKAGE.md",
        "LICENSE",
        "CITATION.cff",
        "src",
    }
    assert not [name for name in copied() if not (ROOT / name).exists()]


def test_dockerignore_admits_exactly_what_is_copied():
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied_by_docker()
    assert "*" in lines


def test_files_of_the_build_are_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = {project["project"]["readme"], *project["project"]["license-files"], "src"}
    assert needed <= copied_by_docker() & copied_by_apptainer()


def test_commands_are_installed_and_the_user_is_not_root():
    (entry,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', DOCKERFILE, re.MULTILINE)
    run = re.findall(r"^ +exec (\S+)", APPTAINER, re.MULTILINE)
    assert {entry, *run} <= COMMANDS and len(run) == 2
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 1000:1000$", last_stage, re.MULTILINE)


def test_arguments_of_apptainer_have_a_value():
    """Apptainer ignores a default that is empty, and refuses an empty `--build-arg`."""
    (section,) = re.findall(r"^%arguments\n((?: +.+\n)+)", APPTAINER, re.MULTILINE)
    assert all(re.fullmatch(r" +\w+=\S+", line) for line in section.splitlines())
    workflow = (ROOT / ".github/workflows/containers.yml").read_text("utf-8")
    assert "torch_index=\"${{ vars.TORCH_INDEX || 'default' }}\"" in workflow
    assert 'if [ "$torch_index" = default ]; then torch_index=; fi' in APPTAINER
