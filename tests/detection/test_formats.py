"""DICOM in, DICOM SEG out; BIDS in, BIDS derivative out; paths as people name them."""

import importlib.util
import json
import shutil

import nibabel as nib
import numpy as np
import pydicom
import pytest
import typer
from scipy import ndimage

from helpers.brains import ball, made_brain, made_cohort, oblique, save
from helpers.detection import detect_in
from helpers.dicom import SECRETS, write_series
from helpers.runs import COHORT, made_run
from maediff import cli
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.detection.bids import prepare_derivative, write_derivative
from maediff.scans.inputs.find import find_scans
from maediff.training.train import train

TINY = {
    "unet": {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2},
    "mae": {"dim": 16, "encoder_blocks": 1, "decoder_blocks": 1, "heads": 2},
    "s": 48,
    "train": {"steps": 1, "batch_size": 2, "checkpoint_every": 1},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    train(
        "maediff",
        made_cohort(folder),
        folder / "run",
        preset="tiny",
        settings=TINY,
        run=RunOptions(quiet=True, device="cpu"),
    )
    return folder / "run"


@pytest.fixture
def scan():
    data, brain, affine = made_brain(shape=(60, 72, 8), spacing=(2.0, 2.0, 8.0))
    data = np.where(ball(data.shape, affine, (15, -10, 0), 15) & brain, 230, data)
    return np.round(data), oblique(affine)


def go(inputs, out, run, **kwargs):
    """Number of scans that failed."""
    refs = find_scans(inputs, "T1w")
    return len(detect_in(refs, out, run, modality="T1w", threshold=0.2, **kwargs).failures)


def in_ras(path):
    return nib.as_closest_canonical(nib.load(path)).get_fdata()


@pytest.mark.slow
def test_the_same_scan_as_dicom_gives_the_same_map_and_a_seg_on_its_frames(scan, run, tmp_path):
    data, affine = scan
    save(tmp_path / "nifti" / "scan_T1w.nii.gz", data, affine)
    assert go([tmp_path / "nifti"], tmp_path / "out", run) == 0
    expected = in_ras(tmp_path / "out" / "scan_T1w" / "anomaly_map.nii.gz")
    assert expected.max() > 0.2
    for plane in ("axial", "sagittal"):
        folder = tmp_path / "dicom" / f"Ä {plane}"
        write_series(folder, data, affine, plane)
        out = tmp_path / f"out {plane}"
        assert go([folder], out, run, dicom_seg=True) == 0
        np.testing.assert_allclose(
            in_ras(out / folder.name / "anomaly_map.nii.gz"), expected, atol=2e-3
        )
        mask = in_ras(out / folder.name / "anomaly_mask.nii.gz")
        assert (
            pydicom.dcmread(out / folder.name / "anomaly_mask.dcm").pixel_array.sum()
            == mask.sum()
            > 0
        )
        texts = "".join(
            p.read_text(errors="replace")
            for p in out.rglob("*")
            if p.suffix in (".json", ".html", ".csv")
        )
        names = " ".join(str(p.relative_to(out)) for p in out.rglob("*"))
        assert not any(
            secret in texts + names for secret in (*SECRETS.values(), "Secret", "1.2.826")
        )


def test_one_real_scan_in_an_oblique_frame_and_as_dicom_gives_the_same_map(shared_data, tmp_path):
    """What registration leaves is less than what interpolating the scan twice, on its own grid, does to the map."""
    image = nib.as_closest_canonical(
        nib.load(shared_data / "ds002748" / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    )
    data, affine = image.get_fdata(dtype=np.float32), image.affine
    start, end = np.argwhere(data).min(axis=0), np.argwhere(data).max(axis=0) + 1
    affine = affine @ nib.affines.from_matvec(np.eye(3), start)
    data = data[tuple(map(slice, start, end))]
    turned = oblique(np.diag([1.6, 1.6, 1.6, 1.0]))
    shape = tuple(int(1.2 * size) for size in data.shape)
    turned[:3, 3] = centre(affine, data.shape) - centre(turned, shape)
    resampled = resample(data, np.linalg.inv(affine) @ turned, shape)
    save(tmp_path / "own" / "x.nii.gz", data, affine)
    save(tmp_path / "turned" / "x.nii.gz", resampled, turned)
    save(
        tmp_path / "twice" / "x.nii.gz",
        resample(resampled, np.linalg.inv(turned) @ affine, data.shape),
        affine,
    )
    write_series(tmp_path / "dicom" / "x", data, affine, "sagittal")
    run = made_run(tmp_path / "run", cohort={**COHORT, "registration": {"enabled": True}})
    maps, brains = {}, {}
    for kind in ("own", "turned", "twice", "dicom"):
        assert go([tmp_path / kind], tmp_path / "out" / kind, run) == 0
        maps[kind], brains[kind] = (
            in_ras(tmp_path / "out" / kind / "x" / f"{name}.nii.gz")
            for name in ("anomaly_map", "brain_mask")
        )
    np.testing.assert_allclose(maps["dicom"], maps["own"], atol=1e-3)
    there = np.linalg.inv(turned) @ affine
    back, brain = (resample(one["turned"], there, data.shape) for one in (maps, brains))
    inside = ndimage.binary_erosion((brains["own"] > 0) & (brain > 0.5), iterations=2)
    apart = [
        np.abs(one - maps["own"])[inside].mean()
        for one in (back, maps["twice"], np.roll(back, 2, 0))
    ]
    assert apart[0] < apart[1] < apart[2]
    assert np.corrcoef(back[inside], maps["own"][inside])[0, 1] > 0.95


def centre(affine, shape):
    return affine[:3, :3] @ (np.array(shape) - 1) / 2 + affine[:3, 3]


def resample(data, matrix, shape):
    return ndimage.affine_transform(
        data, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=1
    )


def test_what_cannot_give_a_seg_is_refused_before_any_work(scan, tmp_path, monkeypatch):
    data, affine = scan
    run = tmp_path / "no run"
    nifti = save(tmp_path / "scan_T1w.nii.gz", data, affine)
    with pytest.raises(InputError, match=r"scan_T1w\.nii\.gz: not DICOM"):
        go([nifti], tmp_path / "out", run, dicom_seg=True)
    write_series(tmp_path / "in", data, affine)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "highdicom" else found(name)
    )
    with pytest.raises(InputError, match=r"needs highdicom; pip install highdicom"):
        go([tmp_path / "in"], tmp_path / "out", run, dicom_seg=True)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def bids(scan, tmp_path):
    root = tmp_path / "Mein Datensatz é"
    data, affine = scan
    for name in (
        "sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_desc-defaced_T1w.nii",
    ):
        save(root / name, data, affine, "LAS")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    return root


ONE = "sub-01/ses-2/anat/sub-01_ses-2_run-1_"
TWO = "sub-02/anat/sub-02_"


@pytest.mark.slow
def test_a_bids_dataset_gives_a_derivative_and_is_resumed(bids, run, capsys):
    out = bids / "derivatives" / "maediff"

    def command(**flags):
        cli.detect(
            out,
            [bids],
            model=str(run),
            threshold=0.2,
            bids_derivative=True,
            quiet=True,
            device="cpu",
            **flags,
        )

    command()
    assert f"report: {out / 'report.html'}\n" in capsys.readouterr().out
    seen = {
        p.relative_to(out).as_posix()
        for p in out.rglob("*")
        if p.is_file() and ".detect" not in p.parts
    }
    images = {"desc-anomaly_T1w", "desc-anomaly_mask", "desc-healthy_T1w", "desc-brain_mask"}
    assert seen == {
        ".maediff",
        ".bidsignore",
        "README.md",
        "dataset_description.json",
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
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative" and about["GeneratedBy"][0]["Name"] == "maediff"
    assert about["DatasetLinks"] == {"raw": "../.."}
    assert json.loads((out / f"{ONE}desc-anomaly_mask.json").read_text())["Sources"] == [
        f"bids:raw:{ONE}T1w.nii.gz"
    ]
    assert (
        json.loads((out / f"{ONE}desc-anomaly_summary.json").read_text())["subject"]
        == "sub-01_ses-2_run-1"
    )
    image = nib.load(out / f"{ONE}desc-anomaly_T1w.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "A", "S") and image.get_fdata().max() > 0.2
    assert ".detect" not in (out / "report.html").read_text()
    with pytest.raises(InputError, match="exists and is not empty"):
        command()
    before = (out / f"{ONE}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns
    command(resume=True)
    assert (out / f"{ONE}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns == before
    (out / "report.html").unlink()
    cli.report(out)
    assert "maediff</h1>" in (out / "report.html").read_text()
    assert [ref.name for ref in find_scans([bids], "T1w")] == [
        "sub-01_ses-2_run-1",
        "sub-02_desc-defaced",
    ]


def test_a_derivative_that_lost_its_images_is_made_again(bids, run, tmp_path):
    out = tmp_path / "out"

    def command(**flags):
        cli.detect(
            out,
            [bids],
            model=str(run),
            threshold=0.2,
            bids_derivative=True,
            quiet=True,
            device="cpu",
            **flags,
        )

    command()
    before = sorted(path.relative_to(out) for path in out.rglob("*"))
    untouched = (out / f"{TWO}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns
    shutil.rmtree(out / "sub-01")
    command(resume=True)
    assert sorted(path.relative_to(out) for path in out.rglob("*")) == before
    assert (out / f"{TWO}desc-anomaly_T1w.nii.gz").stat().st_mtime_ns == untouched
    (bids / f"{ONE}T1w.nii.gz").write_bytes(b"")
    with pytest.raises(typer.Exit):
        command(resume=True)
    assert not [path for path in (out / "sub-01").rglob("*") if path.is_file()]
    assert (out / f"{TWO}desc-anomaly_T1w.nii.gz").is_file()


def test_overwriting_a_derivative_takes_old_subjects_away_only_when_the_new_are_there(
    bids, tmp_path
):
    refs = find_scans([bids], "T1w")
    out = tmp_path / "out"
    work = prepare_derivative(refs, out)
    assert work == out / ".detect"
    old = save(
        out / "sub-99" / "anat" / "sub-99_desc-brain_mask.nii.gz", np.ones((2, 2, 2)), np.eye(4)
    )
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_derivative(refs, out)
    assert prepare_derivative(refs, out, overwrite=True) == work
    assert old.exists()
    (work / refs[0].name).mkdir(parents=True)
    (work / refs[0].name / "summary.json").write_text("{}")
    write_derivative(refs, out, overwrite=True)
    assert [p.name for p in sorted(out.glob("sub-*"))] == ["sub-01"]  # the other one failed


def test_what_is_no_bids_scan_has_no_bids_name(bids, tmp_path, scan):
    alone = save(tmp_path / "sub-1_T1w.nii.gz", *scan)
    with pytest.raises(InputError, match=r"sub-1_T1w\.nii\.gz: not a scan of a BIDS dataset"):
        prepare_derivative(find_scans([alone]), tmp_path / "out")
    second = tmp_path / "second"
    save(second / "sub-5" / "anat" / "sub-5_T1w.nii", *scan)
    (second / "dataset_description.json").write_text("{}")
    with pytest.raises(InputError, match="in another BIDS dataset"):
        prepare_derivative(find_scans([bids, second], "T1w"), tmp_path / "out")
    save(bids / "sub-02" / "anat" / "sub-02_T1w.nii", *scan)
    with pytest.raises(InputError, match="under one BIDS name"):
        prepare_derivative(find_scans([bids], "T1w"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
