"""`maediff detect` on DICOM and BIDS: the same maps, DICOM SEG, BIDS derivatives."""

import importlib.util
import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import typer
from scipy import ndimage

from helpers.brains import ball, made_brain, oblique, save
from helpers.detection import detect_in
from helpers.dicom import SECRETS, write_series
from helpers.runs import COHORT, made_run
from maediff import cli
from maediff.core.errors import InputError
from maediff.scans.inputs.find import find_scans


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("formats") / "run")


@pytest.fixture
def scan():
    data, brain, affine = made_brain(shape=(60, 72, 8), spacing=(2.0, 2.0, 8.0))
    data = np.where(ball(data.shape, affine, (15, -10, 0), 15) & brain, 230, data)
    return np.round(data), oblique(affine)


def detect(inputs, out, run, **options):
    """Detect in T1w scans; return the names of those that failed."""
    options = {"modality": "T1w", "threshold": 0.2, **options}
    return list(detect_in(find_scans(inputs, "T1w"), out, run, **options).failures)


def load_ras(path):
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


@pytest.mark.slow
def test_dicom_and_seg(scan, run, tmp_path):
    data, affine = scan
    save(tmp_path / "nifti" / "scan_T1w.nii.gz", data, affine)
    assert detect([tmp_path / "nifti"], tmp_path / "out", run) == []
    expected = load_ras(tmp_path / "out" / "scan_T1w" / "anomaly_map.nii.gz")
    assert expected.max() > 0.2
    for plane in ("axial", "sagittal"):
        folder = tmp_path / "dicom" / f"Ä {plane}"
        write_series(folder, data, affine, plane)
        out = tmp_path / f"out {plane}"
        assert detect([folder], out, run, dicom_seg=True) == []
        results = out / folder.name
        np.testing.assert_allclose(load_ras(results / "anomaly_map.nii.gz"), expected, atol=2e-3)
        mask = load_ras(results / "anomaly_mask.nii.gz")
        seg = pydicom.dcmread(results / "anomaly_mask.dcm")
        assert seg.pixel_array.sum() == mask.sum() > 0
        texts = [path for path in out.rglob("*") if path.suffix in (".json", ".html", ".csv")]
        content = "".join(path.read_text(errors="replace") for path in texts)
        names = " ".join(str(path.relative_to(out)) for path in out.rglob("*"))
        secrets = (*SECRETS.values(), "Secret", "1.2.826")
        assert not any(secret in content + names for secret in secrets)


def test_no_seg_is_refused_early(scan, tmp_path, monkeypatch):
    data, affine = scan
    run = tmp_path / "no run"
    nifti = save(tmp_path / "scan_T1w.nii.gz", data, affine)
    with pytest.raises(InputError, match=r"scan_T1w\.nii\.gz: not DICOM"):
        detect([nifti], tmp_path / "out", run, dicom_seg=True)
    write_series(tmp_path / "in", data, affine)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "highdicom" else find_spec(name)
    )
    with pytest.raises(InputError, match=r"needs highdicom; pip install highdicom"):
        detect([tmp_path / "in"], tmp_path / "out", run, dicom_seg=True)
    assert not (tmp_path / "out").exists()


def find_centre(affine, shape):
    return affine[:3, :3] @ (np.array(shape) - 1) / 2 + affine[:3, 3]


def resample(data, matrix, shape):
    return ndimage.affine_transform(
        data, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1
    )


def test_real_scan_in_oblique_frame_and_as_dicom(shared_data, tmp_path):
    """Registration changes the map less than interpolating the scan twice does."""
    image = nib.as_closest_canonical(
        nib.load(shared_data / "ds002748" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    )
    data, affine = image.get_fdata(dtype=np.float32), image.affine
    start, end = np.argwhere(data).min(axis=0), np.argwhere(data).max(axis=0) + 1
    affine = affine @ nib.affines.from_matvec(np.eye(3), start)
    data = data[tuple(map(slice, start, end))]
    turned = oblique(np.diag([1.6, 1.6, 1.6, 1.0]))
    shape = tuple(int(1.2 * size) for size in data.shape)
    turned[:3, 3] = find_centre(affine, data.shape) - find_centre(turned, shape)
    once = resample(data, np.linalg.inv(affine) @ turned, shape)
    to_turned = np.linalg.inv(turned) @ affine
    save(tmp_path / "own" / "x.nii.gz", data, affine)
    save(tmp_path / "turned" / "x.nii.gz", once, turned)
    save(tmp_path / "twice" / "x.nii.gz", resample(once, to_turned, data.shape), affine)
    write_series(tmp_path / "dicom" / "x", data, affine, "sagittal")
    run = made_run(tmp_path / "run", cohort={**COHORT, "registration": {"enabled": True}})
    maps, brains = {}, {}
    for kind in ("own", "turned", "twice", "dicom"):
        assert detect([tmp_path / kind], tmp_path / "out" / kind, run) == []
        results = tmp_path / "out" / kind / "x"
        maps[kind] = load_ras(results / "anomaly_map.nii.gz")
        brains[kind] = load_ras(results / "brain_mask.nii.gz")
    np.testing.assert_allclose(maps["dicom"], maps["own"], atol=1e-3)
    back, brain = (resample(each["turned"], to_turned, data.shape) for each in (maps, brains))
    inside = ndimage.binary_erosion((brains["own"] > 0) & (brain > 0.5), iterations=2)
    apart = [
        np.abs(other - maps["own"])[inside].mean()
        for other in (back, maps["twice"], np.roll(back, 2, 0))
    ]
    assert apart[0] < apart[1] < apart[2]
    assert np.corrcoef(back[inside], maps["own"][inside])[0, 1] > 0.95


@pytest.fixture
def bids(scan, tmp_path):
    root = tmp_path / "Mein Datensatz é"
    data, affine = scan
    for name in (f"{ONE}T1w.nii.gz", "sub-02/anat/sub-02_desc-defaced_T1w.nii"):
        save(root / name, data, affine, "LAS")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    return root


ONE = "sub-01/ses-2/anat/sub-01_ses-2_run-1_"
TWO = "sub-02/anat/sub-02_"


def detect_derivative(bids, out, run, **options):
    options |= {"threshold": 0.2, "bids_derivative": True, "quiet": True, "device": "cpu"}
    cli.detect(out, [bids], model=str(run), **options)


@pytest.mark.slow
def test_bids_derivative(bids, run, capsys):
    out = bids / "derivatives" / "maediff"
    detect_derivative(bids, out, run)
    assert f"report: {out / 'report.html'}\n" in capsys.readouterr().out
    written = {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and ".detect" not in path.parts
    }
    images = {"desc-anomaly_T1w", "desc-anomaly_mask", "desc-healthy_T1w", "desc-brain_mask"}
    assert written == {
        ".maediff",
        ".bidsignore",
        "README.md",
        "dataset_description.json",
        "participants_findings.tsv",
        "report.html",
        *(
            f"{scan}{name}.{kind}"
            for scan in (ONE, TWO)
            for name in images
            for kind in ("nii.gz", "json")
        ),
        *(f"{scan}desc-anomaly_summary.json" for scan in (ONE, TWO)),
    }
    assert not list((out / ".detect").rglob("*.nii.gz"))
    description = json.loads((out / "dataset_description.json").read_text("utf-8"))
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "maediff"
    assert description["DatasetLinks"] == {"raw": "../.."}
    sidecar = json.loads((out / f"{ONE}desc-anomaly_mask.json").read_text("utf-8"))
    assert sidecar["Sources"] == [f"bids:raw:{ONE}T1w.nii.gz"]
    summary = json.loads((out / f"{ONE}desc-anomaly_summary.json").read_text("utf-8"))
    assert summary["subject"] == "sub-01_ses-2_run-1"
    image = nib.load(out / f"{ONE}desc-anomaly_T1w.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S") and image.get_fdata().max() > 0.2
    assert ".detect" not in (out / "report.html").read_text("utf-8")
    with pytest.raises(InputError, match="exists and is not empty"):
        detect_derivative(bids, out, run)
    before = (out / f"{ONE}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns
    detect_derivative(bids, out, run, resume=True)
    assert (out / f"{ONE}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns == before
    (out / "report.html").unlink()
    cli.report(out)
    assert "maediff</h1>" in (out / "report.html").read_text("utf-8")
    assert [ref.name for ref in find_scans([bids], "T1w")] == [
        "sub-01_ses-2_run-1",
        "sub-02_desc-defaced",
    ]


def test_incomplete_derivative_is_resumed(bids, run, tmp_path):
    out = tmp_path / "out"
    detect_derivative(bids, out, run)
    before = sorted(path.relative_to(out) for path in out.rglob("*"))
    untouched = (out / f"{TWO}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns
    shutil.rmtree(out / "sub-01")
    detect_derivative(bids, out, run, resume=True)
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == before
    assert (out / f"{TWO}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns == untouched
    (bids / f"{ONE}T1w.nii.gz").write_bytes(b"")
    with pytest.raises(typer.Exit):
        detect_derivative(bids, out, run, resume=True)
    assert not [path for path in (out / "sub-01").rglob("*") if path.is_file()]
    assert (out / f"{TWO}desc-anomaly_T1w.nii.gz").is_file()


@pytest.mark.parametrize("column", ["brain_mask", "t1"])
def test_output_that_holds_an_input(run, tmp_path, column):
    """A corrected mask of an earlier detection is not deleted."""
    data, brain, affine = made_brain(shape=(60, 72, 6), spacing=(2.0, 2.0, 12.0))
    path = save(tmp_path / "in" / "sub-1_T1w.nii.gz", data, affine)
    out = tmp_path / "out"
    detect([path], out, run)
    mine = save(out / "sub-1" / "brain_mask.nii.gz", brain, affine)
    (tmp_path / "m.csv").write_text(f"subject,image,{column}\na,{path},{mine}\n")
    command = {"model": str(run), "threshold": 0.2, "overwrite": True}
    refused = pytest.raises(InputError, match=r"out: holds the input .*brain_mask\.nii\.gz")
    with refused:
        detect([tmp_path / "m.csv"], out, run, overwrite=True)
    with refused:
        detect([path], out, run, overwrite=True, brain_mask=mine)
    with refused:
        cli.detect(out, [path], brain_mask=mine, bids_derivative=True, **command)
    with pytest.raises(InputError, match=r"out: holds the input .*sub-1"):
        cli.detect(out, [out / "sub-1"], model=str(run), threshold=0.2, resume=True)
    assert mine.is_file()
