"""Sidecars: content, and no path of the machine."""

import json

import numpy as np
import pytest

from helpers.brains import made_brain, save
from helpers.detection import detect_in
from maediff import __version__
from maediff.detection.bids import prepare_derivative, write_derivative
from maediff.detection.detector import load
from maediff.detection.result import IMAGES
from maediff.detection.sidecars import MNI_IMAGES, describe_image
from maediff.scans.inputs.find import find_scans


def test_every_image_has_a_sidecar(run, scan, tmp_path):
    detection = load(run, device="cpu").detect(scan[0], threshold=0.2)
    folder = detection.save(tmp_path / "patient")
    for kind in IMAGES:
        text = (folder / f"{kind}.json").read_text("utf-8")
        sidecar = json.loads(text)
        assert sidecar["Sources"] == ["sub-1_T1w.nii.gz"] and str(tmp_path) not in text
        assert sidecar["SpatialReference"] == "sub-1_T1w.nii.gz"
        assert (sidecar["Model"], sidecar["Modality"], sidecar["Threshold"]) == ("run", "T1w", 0.2)
        assert sidecar["GeneratedBy"] == [{"Name": "maediff", "Version": __version__}]
        assert sidecar["Parameters"]["postprocess"]["min_volume_mm3"] == 64.0
        assert sidecar["Parameters"]["seed"] == 0
        assert sidecar["Parameters"]["grid"]["spacing_mm"] == 2.0
    assert json.loads((folder / "anomaly_map.json").read_text("utf-8"))["Units"] == "1"
    assert json.loads((folder / "anomaly_mask.json").read_text("utf-8"))["Type"] == "Lesion"


@pytest.mark.parametrize("kind", MNI_IMAGES)
def test_images_in_mni_state_their_space(kind):
    assert describe_image(kind)["SpatialReference"] == "MNI152NLin2009aSym"
    assert "SpatialReference" not in describe_image(kind.removesuffix("_mni"))


def test_bids_derivative_with_images_in_mni(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "maediff.detection.result.align_to_atlas",
        lambda volume, brain: type("Alignment", (), {"to_atlas": np.eye(4)}),
    )
    data, _, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    root = tmp_path / "data"
    save(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz", data, affine)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    refs = find_scans([root], "T1w")
    out = tmp_path / "out"
    work = prepare_derivative(refs, out)
    assert detect_in(refs, work, run, threshold=0.2, mni=True).failures == {}
    write_derivative(refs, out)
    anat = out / "sub-01" / "anat"
    space = "sub-01_space-MNI152NLin2009aSym_desc-"
    for name in ("anomaly_T1w", "anomaly_mask", "healthy_T1w"):
        assert (anat / f"{space}{name}.nii.gz").is_file()
        sidecar = json.loads((anat / f"{space}{name}.json").read_text("utf-8"))
        assert sidecar["SpatialReference"] == "MNI152NLin2009aSym"
        assert sidecar["Sources"] == ["bids:raw:sub-01/anat/sub-01_T1w.nii.gz"]
        assert sidecar["Threshold"] == 0.2
    native = json.loads((anat / "sub-01_desc-anomaly_T1w.json").read_text("utf-8"))
    assert native["SpatialReference"] == "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"
    assert str(tmp_path) not in "".join(path.read_text("utf-8") for path in anat.glob("*.json"))
    assert not list(work.glob("*/*_mni.nii.gz"))


def test_derivative_without_images_in_mni_has_no_sidecars_for_them(run, tmp_path):
    data, _, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    root = tmp_path / "data"
    save(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz", data, affine)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    refs = find_scans([root], "T1w")
    work = prepare_derivative(refs, tmp_path / "out")
    detect_in(refs, work, run, threshold=0.2)
    write_derivative(refs, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "sub-01" / "anat").iterdir()}
    assert len(names) == 9 and not any("space-" in name for name in names)
