"""What README.md promises: its Python runs as it stands, its commands and flags exist, its links lead somewhere."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from helpers.brains import oblique, save
from helpers.heads import fake_deepbet, made_head, true_brain
from helpers.runs import COHORT, made_run
from maediff.detection.detect import detect
from maediff.preparation.registration import Alignment
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_nifti

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_gives_the_map_that_detect_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A raw scan, a model of registered scans and post-processing of its own: nothing of that is left out."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 8, (
        "the README's example is short"
    )
    run = made_run(tmp_path / "run", cohort={**COHORT, "registration": {"enabled": True}})
    calibration = json.loads((run / "calibration.json").read_text())
    calibration["postprocess"] |= {"median_size": 1, "smooth_mm": [4.0]}
    (run / "calibration.json").write_text(json.dumps(calibration))
    fake_deepbet(monkeypatch, true_brain)
    to_atlas = np.linalg.inv(oblique(np.diag([1.1, 1.05, 1.0, 1.0])))
    monkeypatch.setattr(
        "maediff.preparation.steps.align_to_atlas",
        lambda volume, brain, quick: Alignment(to_atlas, -0.5),
    )
    monkeypatch.setattr("maediff.preparation.steps.check_against_atlas", lambda *_: ({}, []))
    head, _, affine = made_head((60, 72, 12), (2.0, 2.0, 7.0))
    path = save(tmp_path / "patient.nii.gz", head, affine, "PSR")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(example, found)
    assert (
        detect(
            find_scans([path]), Path("out"), model="run", modality="T1w", quiet=True, device="cpu"
        )
        == 0
    )
    for name in ("anomaly_map", "healthy_reference", "brain_mask"):
        written = read_nifti(Path("out/patient") / f"{name}.nii.gz")
        np.testing.assert_array_equal(getattr(found["found"], name), written.data)
    saved = read_nifti(Path("anomaly_map.nii.gz"))
    np.testing.assert_array_equal(saved.native_affine, written.native_affine)
    np.testing.assert_array_equal(saved.data, found["found"].anomaly_map)
    assert saved.data.max() > 0
    assert found["found"].stepped.to_atlas is to_atlas


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
