"""Detection: its files, its summary, its picture."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.brains import save
from maediff.anomaly.snapshots import load_slices
from maediff.core.errors import InputError
from maediff.detection.detector import load
from maediff.detection.result import IMAGES


@pytest.fixture(scope="module")
def detector(run):
    return load(run, device="cpu")


@pytest.fixture
def detection(detector, scan):
    path, data, _, affine = scan
    save(path, data, affine, "LPS")
    return detector.detect(path, threshold=0.2)


def test_arrays_are_on_the_grid_of_the_scan(detection, scan):
    _, data, _, affine = scan
    for name in IMAGES:
        assert getattr(detection, name).shape == data.shape
    np.testing.assert_allclose(detection.affine, affine, atol=1e-5)
    assert detection.anomaly_map.dtype == np.float32
    assert not detection.anomaly_map[~detection.brain_mask].any()
    assert detection.anomaly_mask.any() == bool(detection.regions)
    assert detection.volume_ml == pytest.approx(sum(r.volume_ml for r in detection.regions))
    volumes = [region.volume_ml for region in detection.regions]
    assert volumes == sorted(volumes, reverse=True)
    # The weights of the run are random, and its calibration shows it.
    assert detection.quality.codes == ("brain-volume", "model-untrained")
    assert detection.quality.flags[0] == "brain volume out of 800 to 2200 ml"
    assert (detection.model, detection.modality, detection.name) == ("run", "T1w", "sub-1")
    grid = detection.on_model_grid
    assert grid.images.shape == grid.anomaly_map.shape == grid.mask.shape
    assert len(grid.slice_heights_mm) == len(grid.images)


def test_save_writes_images_in_the_orientation_of_the_file(detection, tmp_path):
    folder = detection.save(tmp_path / "new" / "patient")
    assert folder == tmp_path / "new" / "patient"
    for name in IMAGES:
        image = nib.load(folder / f"{name}.nii.gz")
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")  # the file's own orientation
        in_ras = nib.as_closest_canonical(image).get_fdata()
        np.testing.assert_array_equal(in_ras, getattr(detection, name).astype(np.float32))
    assert {path.name for path in folder.iterdir()} == {
        *(f"{name}.nii.gz" for name in IMAGES),
        *(f"{name}.json" for name in IMAGES),
        "summary.json",
        "regions.tsv",
        "slices.npz",
        "volumes.npz",
        "qc.png",
    }
    summary = json.loads((folder / "summary.json").read_text("utf-8"))
    assert summary == json.loads(json.dumps(detection.summary()))
    assert summary["threshold"] == 0.2 and summary["subject"] == "sub-1"
    assert summary["qc"]["flags"] == list(detection.quality.flags)
    assert summary["qc"]["flag_codes"] == list(detection.quality.codes)
    assert list(summary)[:2] == ["subject", "qc"] and next(iter(summary["qc"])) == "flags"
    assert load_slices(folder / "slices.npz").mask.any() == detection.anomaly_mask.any()


def test_further_files_and_entries(detection, tmp_path):
    folder = detection.save(
        tmp_path / "patient",
        summary={"made_from": "x"},
        also=lambda folder: (folder / "extra.txt").write_text("x"),
    )
    assert (folder / "extra.txt").is_file()
    assert json.loads((folder / "summary.json").read_text("utf-8"))["made_from"] == "x"


def test_save_replaces_only_results(detection, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="mine: exists and is no result of a detection"):
        detection.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text("utf-8") == "years of work"
    for name in ("summary.json", "scores.csv"):  # as `evaluate` writes
        (tmp_path / "mine" / name).touch()
    with pytest.raises(InputError, match=r"is no result of a detection \(no regions\.tsv\)"):
        detection.save(tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: is a file"):
        detection.save(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    detection.save(tmp_path / "empty")
    (tmp_path / "empty" / "old.txt").touch()
    assert detection.save(str(tmp_path / "empty")) == tmp_path / "empty"
    assert not (tmp_path / "empty" / "old.txt").exists()


def test_save_follows_a_link_and_refuses_the_current_folder(detection, tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert detection.save(tmp_path / "link") == tmp_path / "link"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "summary.json").is_file()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="holds the current folder"):
        detection.save(".")
    assert detection.save("x") == Path("x") and Path("x/summary.json").is_file()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    detection.save(tmp_path / "y")
    monkeypatch.chdir(tmp_path)


def test_failed_save_leaves_nothing(detection, tmp_path):
    def fail(folder):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        detection.save(tmp_path / "patient", also=fail)
    assert list(tmp_path.glob("*patient*")) == []


def test_plot_shows_three_planes_through_the_highest_value(detection):
    figure = detection.plot()
    assert len(figure.axes) == 9
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == ["Scan", "Healthy reference", "Anomaly map"]
    assert all(axes.images for axes in figure.axes)
    # The planes pass through the highest value of the map.
    centre = np.unravel_index(detection.anomaly_map.argmax(), detection.anomaly_map.shape)
    axial = np.asarray(figure.axes[2].images[0].get_array())
    np.testing.assert_array_equal(axial, detection.volume.data[:, :, centre[2]].T)
    figure.canvas.draw()


def test_plot_at_a_point(detection):
    voxel = (20, 40, 5)
    at_mm = tuple(float(mm) for mm in (detection.affine @ [*voxel, 1])[:3])
    figure = detection.plot(at_mm)
    sagittal = np.asarray(figure.axes[0].images[0].get_array())
    np.testing.assert_array_equal(sagittal, detection.volume.data[20].T)
    outside = detection.plot((1e4, 1e4, 1e4))
    corner = np.asarray(outside.axes[0].images[0].get_array())
    np.testing.assert_array_equal(corner, detection.volume.data[-1].T)
