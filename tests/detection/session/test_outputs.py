"""Outputs of a session that options add: images in MNI152, DICOM objects, and sidecars."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from helpers.brains import save
from helpers.dicom import write_series
from helpers.options import QUIET_CPU
from helpers.sessions import inverted, made_scan, made_session
from maediff.cli import app
from maediff.core.errors import InputError
from maediff.detection.detect import DetectOptions
from maediff.detection.result import IMAGES
from maediff.detection.session.detect import detect_sessions
from maediff.detection.session.detector import load_session_detector
from maediff.detection.session.result import COMBINED_MNI_IMAGES
from maediff.detection.sidecars import MNI_IMAGES
from maediff.preparation.atlas.template import load_atlas
from maediff.scans.inputs.sessions import find_sessions

TO_MNI = np.array([[0.95, 0, 0, 3.0], [0, 1.05, 0, -18.0], [0, 0, 1.0, 10.0], [0, 0, 0, 1]])
"""mm of the T1w -> mm of MNI152, in place of a registration."""
MOVED = np.array([[1, 0, 0, 7.0], [0, 1, 0, -4.0], [0, 0, 1, 5.0], [0, 0, 0, 1.0]])
"""mm of the T1w -> mm of the FLAIR."""


@pytest.fixture
def registered(monkeypatch):
    """Replace the registration of the first scan; the one of any other scan is an error."""

    def align(volume, brain):
        assert "T1" in volume.source.name
        return type("Alignment", (), {"to_atlas": TO_MNI})

    monkeypatch.setattr("maediff.detection.result.align_to_atlas", align)


def detect(folder, out, models, *, rule=True, resume=False, **options):
    chosen = {} if rule else {"rule": None}
    return detect_sessions(
        find_sessions([folder]),
        out,
        models=models,
        options=DetectOptions(**options),
        run=replace(QUIET_CPU, resume=resume),
        **chosen,
    )


def find_centre_mm(mask, affine):
    return affine[:3, :3] @ np.argwhere(mask).mean(axis=0) + affine[:3, 3]


def load_mask(path):
    image = nib.load(path)
    return np.asarray(image.dataobj) > 0, image.affine


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_images_in_mni_are_at_their_place(tmp_path, models, registered):
    """The FLAIR is moved by MOVED, so its lesion has the MNI152 position that the T1w gives."""
    data, _, affine = made_scan()
    folder = tmp_path / "in"
    save(folder / "T1.nii.gz", data, affine)
    save(folder / "FLAIR.nii.gz", inverted(data), MOVED @ affine)
    detector = replace(
        load_session_detector(models, device="cpu"), register=lambda fixed, moving: inverse(fixed)
    )
    scans = {"T1w": folder / "T1.nii.gz", "FLAIR": folder / "FLAIR.nii.gz"}
    result = detector.detect(scans, name="p1")
    out = result.save(tmp_path / "out", mni=True)
    places = {".": TO_MNI, "T1w": TO_MNI, "FLAIR": TO_MNI @ np.linalg.inv(MOVED)}
    for name, to_mni in places.items():
        own, own_affine = load_mask(out / name / "anomaly_mask.nii.gz")
        moved, moved_affine = load_mask(out / name / "anomaly_mask_mni.nii.gz")
        assert own.any()
        expected = to_mni @ [*find_centre_mm(own, own_affine), 1.0]
        assert np.linalg.norm(find_centre_mm(moved, moved_affine) - expected[:3]) < 1
        ml = {
            key: mask.sum() * abs(np.linalg.det(matrix[:3, :3])) / 1000
            for key, mask, matrix in (("own", own, own_affine), ("moved", moved, moved_affine))
        }
        assert ml["moved"] == pytest.approx(ml["own"] * np.linalg.det(to_mni), rel=0.05)


def inverse(fixed):
    """Return the registration of the scan that is not `fixed`."""
    return np.linalg.inv(MOVED) if "FLAIR" in fixed.source.name else MOVED


def test_files_in_mni(folder, models, tmp_path, registered):
    out = tmp_path / "out"
    assert not detect(folder, out, models, mni=True).failures
    atlas = load_atlas()
    names = [f"{contrast}/{kind}" for contrast in ("T1w", "FLAIR") for kind in MNI_IMAGES]
    for name in (*names, *COMBINED_MNI_IMAGES):
        image = nib.load(out / "p1" / f"{name}.nii.gz")
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 4)
        assert image.shape == atlas.t1.shape
        np.testing.assert_array_equal(image.affine, atlas.affine)
        assert read(out / "p1" / f"{name}.json")["SpatialReference"] == "MNI152NLin2009aSym"
    assert read(out / "detect.json")["mni"] is True
    present = out / "p1" / "anomaly_mask_mni.nii.gz"
    before = present.stat().st_mtime_ns
    detect(folder, out, models, mni=True, resume=True)
    assert present.stat().st_mtime_ns == before
    present.unlink()
    detect(folder, out, models, mni=True, resume=True)
    assert present.is_file()
    with pytest.raises(InputError, match="was made with another mni;"):
        detect(folder, out, models, resume=True)


def test_contrasts_alone_are_registered_one_by_one(folder, models, tmp_path, monkeypatch):
    names = []

    def align(volume, brain):
        names.append(volume.source.name)
        return type("Alignment", (), {"to_atlas": TO_MNI})

    monkeypatch.setattr("maediff.detection.result.align_to_atlas", align)
    detect(folder, tmp_path / "out", models, rule=False, mni=True)
    assert names == ["T1.nii.gz", "FLAIR.nii.gz"]
    assert (tmp_path / "out" / "p1" / "FLAIR" / "anomaly_mask_mni.nii.gz").is_file()
    assert not (tmp_path / "out" / "p1" / "anomaly_mask_mni.nii.gz").exists()


def test_head_that_cannot_be_registered(folder, models, tmp_path, monkeypatch):
    def fail(volume, brain):
        raise InputError(f"{volume.source}: the brain is too thin; make another cohort")

    monkeypatch.setattr("maediff.detection.result.align_to_atlas", fail)
    report = detect(folder, tmp_path / "out", models, mni=True)
    assert report.failures["p1"].endswith("the brain is too thin; leave out `mni`")
    assert not (tmp_path / "out" / "p1").exists()


def test_sidecars_of_combined_images(folder, models, tmp_path):
    out = tmp_path / "out"
    detect(folder, out, models)
    images = {path.name.removesuffix(".nii.gz") for path in (out / "p1").glob("*.nii.gz")}
    sidecars = {name: read(out / "p1" / f"{name}.json") for name in images}
    assert len(images) == 6
    for name, sidecar in sidecars.items():
        assert sidecar["SpatialReference"] == "T1.nii.gz", name
        assert sidecar["Description"]
    combined = sidecars["anomaly_map"]
    assert combined["Sources"] == ["T1.nii.gz", "FLAIR.nii.gz"]
    assert combined["Description"].startswith("Combined anomaly map")
    summary = read(out / "p1" / "summary.json")
    assert combined["Threshold"] == summary["threshold"]
    assert combined["Parameters"]["rule"] == summary["rule"]
    assert sidecars["anomaly_mask"]["Type"] == "Lesion"
    contrast = sidecars["FLAIR_anomaly_map"]
    assert (contrast["Sources"], contrast["Model"]) == (["FLAIR.nii.gz"], "FLAIR")
    assert contrast["Threshold"] == 1
    assert contrast["DividedBy"] == summary["contrasts"]["FLAIR"]["threshold"]
    assert "Model" not in sidecars["FLAIR_scan"]


def test_bids_names_in_mni(models, tmp_path, monkeypatch, registered):
    monkeypatch.setattr(
        "maediff.detection.session.detect.pick", lambda contrast: (models[contrast], None)
    )
    root, out = tmp_path / "ds", tmp_path / "out"
    anat = made_session(root / "sub-01" / "anat")
    (anat / "T1.nii.gz").rename(anat / "sub-01_T1w.nii.gz")
    (anat / "FLAIR.nii.gz").rename(anat / "sub-01_FLAIR.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    command = ["detect", str(root), "-o", str(out), "--bids-derivative", "--mni"]
    result = CliRunner().invoke(app, [*command, "--device", "cpu", "-q"])
    assert result.exit_code == 0, result.output
    space = "sub-01_space-MNI152NLin2009aSym_desc-"
    derived = out / "sub-01" / "anat"
    assert {path.name.removeprefix(space) for path in derived.glob(f"{space}*.nii.gz")} == {
        "anomalyFLAIR_mask.nii.gz",
        "anomalyT1w_mask.nii.gz",
        "anomaly_FLAIR.nii.gz",
        "anomaly_T1w.nii.gz",
        "healthy_FLAIR.nii.gz",
        "healthy_T1w.nii.gz",
        "session_T1w.nii.gz",
        "session_mask.nii.gz",
    }
    sidecar = read(derived / f"{space}session_mask.json")
    assert sidecar["SpatialReference"] == "MNI152NLin2009aSym"
    assert len(sidecar["Sources"]) == 2 and sidecar["Threshold"] > 0
    image = derived / f"{space}session_mask.nii.gz"
    before = image.stat().st_mtime_ns
    again = CliRunner().invoke(app, [*command, "--resume", "--device", "cpu", "-q"])
    assert again.exit_code == 0, again.output
    assert image.stat().st_mtime_ns == before


def test_dicom_session(models, tmp_path):
    """Each series of a study gets its mask as DICOM objects."""
    data, _, affine = made_scan()
    study = tmp_path / "in" / "p1"
    header = {"StudyInstanceUID": "1.2.3.4.5", "FrameOfReferenceUID": "1.2.3.4.6"}
    series = {"t1_mprage": data, "t2_flair": inverted(data)}
    for number, (text, image) in enumerate(series.items()):
        whole = np.round(image).astype(np.uint16)
        folder = study / f"s{number}"
        write_series(folder, whole, affine, SeriesNumber=number, SeriesDescription=text, **header)
    out = tmp_path / "out"
    report = detect(tmp_path / "in", out, models, dicom_seg=True, dicom_sc=True)
    assert not report.failures
    (summary,) = report.summaries
    assert list(summary["contrasts"]) == ["T1w", "FLAIR"]
    for contrast, text in (("T1w", "t1_mprage"), ("FLAIR", "t2_flair")):
        folder = out / "p1" / contrast
        segmentation = pydicom.dcmread(folder / "anomaly_mask.dcm")
        assert segmentation.StudyInstanceUID == header["StudyInstanceUID"]
        captures = sorted((folder / "secondary_capture").glob("*.dcm"))
        assert len(captures) == 12
        assert pydicom.dcmread(captures[0]).StudyInstanceUID == header["StudyInstanceUID"]
        assert {f"{kind}.nii.gz" for kind in IMAGES} <= {path.name for path in folder.iterdir()}
        source = segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID
        files = (study / ("s0" if contrast == "T1w" else "s1")).iterdir()
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        assert {header.SeriesInstanceUID for header in headers} == {source}
        assert {header.SeriesDescription for header in headers} == {text}
    capture = out / "p1" / "FLAIR" / "secondary_capture" / "0001.dcm"
    capture.unlink()
    detect(tmp_path / "in", out, models, dicom_seg=True, dicom_sc=True, resume=True)
    assert capture.is_file()
