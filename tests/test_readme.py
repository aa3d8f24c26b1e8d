"""What README.md promises: its Python runs as it stands, its commands and flags exist, its links lead somewhere."""

import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from maediff import checkpoint
from maediff.methods import build
from maediff.scans import write_volume

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 8, "the README promises eight lines"
    method = build("maediff", "tiny")
    config = {"method": "maediff", "preset": "tiny", "config": checkpoint.config_of(method)}
    cohort = {"modality": "T1w", "grid": {}, "normalise": {}}
    checkpoint.write_config(tmp_path / "run", config | {"train": {}, "seed": 0, "cohort": cohort})
    checkpoint.save_model(tmp_path / "run/best/model.safetensors", method, deepcopy(method), name="maediff", step=1)
    x, y, z = np.meshgrid(np.linspace(-1, 1, 80), np.linspace(-1, 1, 96), [0, 1], indexing="ij")
    brain = (x**2 + y**2 < 0.8) & (z >= 0)
    image = np.where(brain, 100 + np.random.default_rng(0).normal(size=brain.shape), 0).astype(np.float32)
    write_volume(tmp_path / "patient.nii.gz", image, np.diag([2.0, 2.0, 5.0, 1.0]))
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(example, found)
    assert found["anomaly_map"].shape == found["reference"].shape == (2, 96, 96)
    assert found["anomaly_map"].max() > 0
    assert found["info"]["method"] == "maediff"


def test_commands_and_flags_exist() -> None:
    import typer

    from maediff.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    told = set(re.findall(r"^\| `maediff ([a-z]+)", README, re.MULTILINE))
    assert told == set(commands)
    commanded = re.findall(
        r"^(?:maediff |\| `maediff )((?:demo|preprocess|train|detect|evaluate|report|benchmark) .*)$",
        README,
        re.MULTILINE,
    )
    for line in commanded:
        flags = {flag for parameter in commands[line.split()[0].strip("`")].params for flag in parameter.opts}
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)) <= flags, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
