"""README.md: its Python example runs, its commands and flags exist, and links have a target."""

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.brains import oblique, save
from maediff import cli
from maediff.detection.result import IMAGES
from maediff.preparation.registration import load_atlas
from maediff.scans.nifti import read_nifti

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_example_equals_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the example with the shipped model on the brain of MNI152."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 8, "the example is short"
    atlas = load_atlas()
    data = np.where(atlas.brain, 100 * atlas.t1.clip(0.02, 1), 0)[::3, ::3, ::8]
    affine = oblique(atlas.affine @ np.diag([3.0, 3.0, 8.0, 1.0]))
    save(tmp_path / "patient_T1w.nii.gz", data.astype(np.float32), affine, "PSR")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    cli.detect(Path("out"), [Path("patient_T1w.nii.gz")], model="t1", device="cpu", quiet=True)
    command, python = Path("out/patient_T1w"), Path("results/patient")
    assert {path.name for path in python.iterdir()} == {path.name for path in command.iterdir()}
    for name in IMAGES:
        file = f"{name}.nii.gz"
        first, second = (gzip.decompress((path / file).read_bytes()) for path in (python, command))
        assert first == second, name
        written = read_nifti(command / file)
        array = getattr(names["result"], name)
        np.testing.assert_array_equal(array.astype(np.float32), written.data)
    assert names["result"].anomaly_map.max() > 0
    assert names["result"].prepared.on_scan.to_atlas is not None


def test_commands_and_flags_exist() -> None:
    import typer

    from maediff.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    listed = set(re.findall(r"^\| `maediff ([a-z]+)", README, re.MULTILINE))
    assert listed == set(commands)
    names = "demo|preprocess|train|detect|evaluate|report|benchmark"
    commanded = re.findall(rf"^(?:maediff |\| `maediff )((?:{names}) .*)$", README, re.MULTILINE)
    for line in commanded:
        flags = {
            flag
            for parameter in commands[line.split()[0].strip("`")].params
            for flag in parameter.opts
        }
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)) <= flags, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), (
            f"{page.name}: {target}"
        )
