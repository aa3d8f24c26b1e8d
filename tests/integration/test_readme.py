"""The Python example of README.md gives the files of `maediff detect`.

test_docs.py checks its commands and links.
"""

import gzip
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.brains import oblique, save
from maediff import cli
from maediff.detection.result import IMAGES
from maediff.preparation.atlas.template import load_atlas
from maediff.scans.nifti import read_nifti

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_python_example_equals_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the example with the shipped model on the atlas's brain, and register it for real."""
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
