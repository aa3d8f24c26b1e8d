"""`detect`: results on the scan's own grid, choice of model, failures, resuming."""

import json
import logging
import os
import shutil
from dataclasses import asdict, replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest

from helpers.brains import made_brain, oblique, save
from helpers.detection import detect_in
from helpers.heads import fake_extraction, made_head, true_brain
from helpers.runs import ABOUT, made_run
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.anomaly.snapshots import load_slices
from maediff.cohort.cohort import Cohort
from maediff.core.errors import InputError
from maediff.core.files import hash_file, write_json
from maediff.detection import detector as detector_module
from maediff.detection import result as result_module
from maediff.detection.detect import (
    read_kept_failures,
    read_kept_summaries,
    without_origins,
)
from maediff.detection.result import IMAGES
from maediff.detection.session.detect import _list_summaries
from maediff.models import catalogue
from maediff.models.calibrate import calibrate_folder
from maediff.models.export import export_model
from maediff.models.model import read_model
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import Alignment
from maediff.preparation.steps import Tools
from maediff.report import write_report
from maediff.scans.inputs.find import find_scans

UNALIGNED = QualityConfig(align="never")


def detect(inputs, out, run, **options):
    """Detect in T1w scans; return the names of those that failed."""
    return list(detect_in(inputs, out, run, **{"modality": "T1w", **options}).failures)


def load(out, name, subject="sub-1"):
    return nib.load(out / subject / f"{name}.nii.gz")


def load_ras(out, name, subject="sub-1"):
    return nib.as_closest_canonical(load(out, name, subject)).get_fdata()


def read_shared(out):
    return json.loads((out / "detect.json").read_text("utf-8"))


def read_summary(out, subject="sub-1"):
    return json.loads((out / subject / "summary.json").read_text("utf-8"))


def change_cohort(run, **changes):
    """Change the preparation that a run records."""
    config = json.loads((run / "config.json").read_text("utf-8"))
    config["cohort"] |= changes
    (run / "config.json").write_text(json.dumps(config))


def test_images_on_own_grid(scan, run, tmp_path):
    path, data, brain, affine = scan
    out = tmp_path / "out"
    assert detect([path], out, run, threshold=0.2) == []
    assert {file.name.removesuffix(".nii.gz") for file in (out / "sub-1").glob("*.nii.gz")} == {
        *IMAGES
    }
    for name in IMAGES:
        image = load(out, name)
        assert image.shape == data.shape
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    anomaly = load(out, "anomaly_map").get_fdata()
    mask = load(out, "brain_mask").get_fdata() > 0
    assert load(out, "anomaly_map").get_data_dtype() == np.float32
    scale = read_summary(out)["scale"]
    assert anomaly.min() >= 0 and 0 < anomaly.max() * scale <= 1 + 1e-6
    assert not anomaly[~mask].any()
    assert 2 * (mask & brain).sum() / (mask.sum() + brain.sum()) > 0.97
    reference = load(out, "healthy_reference").get_fdata()
    assert 30 < np.median(reference[brain]) < 220  # in the scan's own intensities


def test_summary_has_the_finding_and_its_settings(scan, run, tmp_path):
    report = detect_in([scan[0]], tmp_path / "out", run, modality="T1w", threshold=0.1)
    summary = read_summary(tmp_path / "out")
    assert report.summaries == [summary]
    assert report.flagged == ["sub-1"]  # the brain is small
    keys = "subject model modality score threshold volume_ml regions qc versions"
    assert {*keys.split()} <= summary.keys()
    assert (summary["subject"], summary["model"], summary["threshold"]) == ("sub-1", "run", 0.1)
    assert summary["model_from"] == read_shared(tmp_path / "out")["model_from"]
    assert summary["model_from"] == "given"
    mask = load(tmp_path / "out", "anomaly_mask")
    on_scan_ml = mask.get_fdata().sum() * np.prod(mask.header.get_zooms()) / 1000
    assert summary["volume_ml"] == pytest.approx(on_scan_ml, rel=0.02, abs=0.1)
    regions_ml = sum(region["volume_ml"] for region in summary["regions"])
    assert summary["volume_ml"] == pytest.approx(regions_ml, rel=1e-6)
    slices = load_slices(tmp_path / "out" / "sub-1" / "slices.npz")
    heights = load(tmp_path / "out", "brain_mask").affine[2, 3] + 7.0 * np.arange(12)
    assert (np.abs(heights[:, None] - slices.z_mm).min(axis=0) < 1e-3).all()


def test_frame_and_name_do_not_matter(scan, run, tmp_path):
    path, data, _, affine = scan
    detect([path], tmp_path / "ras", run, threshold=0.2)
    expected = load_ras(tmp_path / "ras", "anomaly_map")
    for axes in ("LAS", "PSR", "LPI"):
        other = save(tmp_path / axes / f"sub-{axes}_T1w.nii.gz", data, affine, axes)
        detect([other], tmp_path / f"out-{axes}", run, threshold=0.2)
        result = load(tmp_path / f"out-{axes}", "anomaly_map", f"sub-{axes}")
        assert nib.aff2axcodes(result.affine) == tuple(axes)
        in_ras = load_ras(tmp_path / f"out-{axes}", "anomaly_map", f"sub-{axes}")
        np.testing.assert_allclose(in_ras, expected, atol=1e-4)
    turned = save(tmp_path / "oblique" / "sub-1_T1w.nii.gz", data, oblique(affine))
    detect([turned], tmp_path / "out-oblique", run, threshold=0.2)
    result = load(tmp_path / "out-oblique", "anomaly_map")
    np.testing.assert_allclose(result.affine, oblique(affine), atol=1e-4)
    np.testing.assert_allclose(result.get_fdata(), expected, atol=1e-4)


def test_order_and_batch_size_do_not_matter(scan, run, tmp_path):
    path, data, _, affine = scan
    other = save(tmp_path / "in" / "sub-2_T1w.nii.gz", data[::-1].copy(), affine)
    detect([path, other], tmp_path / "a", run, threshold=0.2)
    detect([other, path], tmp_path / "b", run, threshold=0.2, batch_size=3)
    for subject in ("sub-1", "sub-2"):
        a, b = (load(tmp_path / out, "anomaly_map", subject).get_fdata() for out in "ab")
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_failed_scan(scan, run, tmp_path, caplog):
    path, data, _, affine = scan
    save(path.parent / "sub-0_T1w.nii.gz", np.full_like(data, np.nan), affine)
    out = tmp_path / "out"
    report = detect_in([path.parent], out, run, modality="T1w", threshold=0.2)
    assert list(report.failures) == ["sub-0"] and "NaN" in report.failures["sub-0"]
    assert [summary["subject"] for summary in report.summaries] == ["sub-1"]
    assert "sub-0 failed" in caplog.text and "NaN" in caplog.text
    assert sorted(folder.name for folder in out.iterdir() if folder.is_dir()) == ["sub-1"]
    page = write_report(out).read_text("utf-8")
    assert "1 failed." in page and "Failed" in page and "sub-0_T1w.nii.gz: holds NaN" in page
    # The log names the folder; files that are given to other people do not.
    assert str(path).replace("sub-1", "sub-0") in caplog.text
    for name in ("detect.json", "report.html", "sub-1/summary.json"):
        assert str(tmp_path) not in (out / name).read_text("utf-8"), name


@pytest.mark.parametrize("threshold", [-0.1, float("inf"), float("nan")])
def test_impossible_threshold(scan, run, tmp_path, threshold):
    with pytest.raises(InputError, match=f"`threshold={threshold}`: give a number of 0 or more"):
        detect([scan[0]], tmp_path / "out", run, threshold=threshold)
    assert not (tmp_path / "out").exists()


def test_other_contrast(scan, run, tmp_path, caplog):
    path, data, _, affine = scan
    flair = save(tmp_path / "sub-9_FLAIR.nii.gz", data, affine)
    with pytest.raises(
        InputError, match=r"FLAIR by its name.*use `modality='T1w'` if the name is wrong"
    ):
        detect_in([flair], tmp_path / "out", run, threshold=0.2)
    assert not (tmp_path / "out").exists()
    refs = [*find_scans([path]), *find_scans([flair])]
    report = detect_in(refs, tmp_path / "out", run, threshold=0.2)
    assert list(report.failures) == ["sub-9"]
    assert [summary["subject"] for summary in report.summaries] == ["sub-1"]
    assert "FLAIR by its name" in caplog.text
    with pytest.raises(InputError, match="run: a model for T1w, but `modality='FLAIR'`"):
        detect([path], tmp_path / "out2", run, modality="FLAIR")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Folder of the only models: t1 and flair, with the threshold 0.1 for a rate of 1 %."""
    for name, modality in (("t1", "T1w"), ("flair", "FLAIR")):
        run = made_run(tmp_path / "runs" / name, modality)
        export_model(run, tmp_path / "models" / name, ABOUT)
    monkeypatch.setattr(catalogue, "PACKAGED", tmp_path / "none")
    monkeypatch.setattr(catalogue, "CHECKOUT", tmp_path / "none")
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_choice_of_model(models, scan, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maediff")
    path, *_ = scan
    assert not detect_in([path], tmp_path / "out").failures
    assert "model: t1, chosen for the contrast in the file names, T1w" in caplog.text
    assert "t1 detects what differs from its healthy reference, brighter or darker" in caplog.text
    summary = read_summary(tmp_path / "out")
    assert (summary["model"], summary["threshold"], summary["scale"]) == ("t1", 1, 0.1)
    assert summary["model_from"] == "chosen for the contrast in the file names, T1w"
    plain = path.rename(path.with_name("patient.nii.gz"))
    with pytest.raises(
        InputError, match=r"patient\.nii\.gz: the file name states no contrast; .* `model`"
    ):
        detect_in([plain], tmp_path / "out2")
    two = [shutil.copy(plain, plain.with_name(f"{name}.nii.gz")) for name in ("a_FLAIR", "b_T1w")]
    with pytest.raises(InputError, match="the scans are FLAIR and T1w; give `modality`"):
        detect_in(two, tmp_path / "out2")
    assert not (tmp_path / "out2").exists()
    assert not detect_in([plain], tmp_path / "out2", modality="FLAIR").failures
    shared = read_shared(tmp_path / "out2")
    assert shared["model"] == "flair"
    assert shared["model_from"] == "chosen for the given contrast, FLAIR"
    assert "model: flair, chosen for the given contrast, FLAIR" in caplog.text


def test_no_model(models, scan, tmp_path, monkeypatch):
    monkeypatch.setenv("MAEDIFF_MODELS", "")
    with pytest.raises(InputError, match=r"no model for T1w comes with maediff; give `model=RUN`"):
        detect_in([scan[0]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_resume_repeats_only_missing_scans(scan, run, tmp_path):
    path, data, _, affine = scan
    save(tmp_path / "in" / "sub-2_T1w.nii.gz", data, affine)
    out = tmp_path / "out"
    detect([path.parent], out, run, threshold=0.2)
    shutil.rmtree(out / "sub-2")
    kept = (out / "sub-1" / "summary.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="exists and is not empty"):
        detect([path.parent], out, run, threshold=0.2)
    detect([path.parent], out, run, threshold=0.2, resume=True)
    assert (out / "sub-1" / "summary.json").stat().st_mtime_ns == kept
    assert (out / "sub-2" / "summary.json").exists()
    with pytest.raises(InputError, match="was made with another threshold"):
        detect([path.parent], out, run, threshold=0.3, resume=True)


def test_resume_with_changes(scan, run, tmp_path):
    path, data, brain, affine = scan
    out, half = tmp_path / "out", brain.copy()
    half[:30] = False
    save(tmp_path / "mask.nii.gz", brain, affine)
    save(tmp_path / "in" / "sub-2_T1w.nii.gz", data, affine)
    lines = ["subject,image,brain_mask", f"sub-1,{path},mask.nii.gz", "sub-2,in/sub-2_T1w.nii.gz,"]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    manifest = [tmp_path / "m.csv"]

    def resume(**options):
        """Return whether each scan was computed again, and the map of the first."""
        kept = [out / f"sub-{number}" / "kept" for number in (1, 2)]
        for file in kept:
            file.touch()
        assert detect(manifest, out, run, threshold=0.2, resume=True, **options) == []
        return [not file.exists() for file in kept], load(out, "anomaly_map").get_fdata()

    detect(manifest, out, run, threshold=0.2)
    again, first = resume()
    assert again == [False, False]
    save(tmp_path / "mask.nii.gz", half, affine)
    again, second = resume()
    assert again == [True, False] and first[~half].any() and not second[~half].any()
    save(path, data[::-1].copy(), affine)
    again, third = resume()
    assert again == [True, False] and not np.array_equal(second, third)
    (out / "sub-2" / "healthy_reference.nii.gz").unlink()
    assert resume()[0] == [False, True]
    (out / "sub-2" / "summary.json").write_text("{")
    assert resume()[0] == [False, True]
    assert read_shared(out)["qc"]["align"] == "auto"
    with pytest.raises(InputError, match="was made with another qc"):
        resume(qc=UNALIGNED)
    path.write_bytes(b"")
    assert detect(manifest, out, run, threshold=0.2, resume=True) == ["sub-1"]
    assert not (out / "sub-1").exists()  # no results of a scan that is gone


def test_resume_in_damaged_folder(scan, run, tmp_path):
    detect([scan[0]], tmp_path / "out", run, threshold=0.2)
    for content in ("[]", '{"model": '):
        (tmp_path / "out" / "detect.json").write_text(content)
        with pytest.raises(
            InputError,
            match=r"detect\.json: .*damaged .*; delete it and resume the command",
        ):
            detect([scan[0]], tmp_path / "out", run, threshold=0.2, resume=True)


def test_no_part_of_a_scan_is_left(scan, run, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise InputError("disk full")

    monkeypatch.setattr(result_module, "save_slices", full)
    out = tmp_path / "out"
    assert detect([scan[0]], out, run, threshold=0.2) == ["sub-1"]
    assert [folder for folder in out.iterdir() if folder.is_dir()] == []


def test_own_postprocessing(scan, run, cohort, tmp_path):
    own = PostprocessConfig(median_size=1, smooth_mm=(4.0,))
    copied = shutil.copytree(run, tmp_path / "run")
    calibrate_folder(copied, cohort, postprocess=own)
    detect([scan[0]], tmp_path / "out", copied)
    assert read_shared(tmp_path / "out")["postprocess"] == json.loads(json.dumps(asdict(own)))
    changes = {"postprocess": {"median_size": 3}, "threshold": 0.2}
    detect([scan[0]], tmp_path / "other", copied, **changes)
    expected = asdict(replace(own, median_size=3))
    assert read_shared(tmp_path / "other")["postprocess"] == json.loads(json.dumps(expected))


def test_detect_json_records_value_and_origin_of_each_threshold(scan, run, tmp_path):
    model = shutil.copytree(run, tmp_path / "model")
    stored = json.loads((model / "calibration.json").read_text("utf-8"))
    own = {"value": 0.3, "chosen_on": "9 patients"}
    (model / "calibration.json").write_text(json.dumps(stored | {"default_threshold": own}))
    shared = {}
    for name, choice in (
        ("own", {}),
        ("rate", {"fpr": 0.01}),
        ("given", {"threshold": 0.2}),
        ("scans", {"scan_fpr": 0.5}),
        ("low", {"sensitivity": "low"}),
    ):
        assert detect([scan[0]], tmp_path / name, model, **choice) == []
        shared[name] = read_shared(tmp_path / name)
    n_marked = sum(score > 0.3 for score in stored["scan_scores"])
    assert (shared["own"]["threshold"], shared["own"]["scale"]) == (1, 0.3)
    origin = shared["own"]["threshold_from"]
    assert origin["chosen_on"] == "9 patients"
    assert (origin["n_marked"], origin["n_scores"], origin["share_flagged"]) == (
        n_marked,
        1,
        n_marked,
    )
    assert (origin["healthy_ml_median"] > 0) == bool(n_marked)
    assert shared["rate"]["threshold_from"]["fpr"] == 0.01
    assert shared["given"]["threshold"] == 0.2 and shared["given"]["threshold_from"]["given"]
    assert shared["low"]["threshold_from"]["sensitivity"] == "low"
    assert shared["low"]["threshold"] == max(0.3, *stored["scan_scores"]) / 0.3
    assert shared["scans"]["threshold"] == stored["scan_scores"][0] / 0.3
    summary = read_summary(tmp_path / "scans")
    assert bool(summary["regions"]) == (summary["score"] > summary["threshold"])
    page = write_report(tmp_path / "own").read_text("utf-8")
    assert "default of the model, chosen on 9 patients" in page


def test_impossible_rates(scan, run, tmp_path):
    path, out = scan[0], tmp_path / "out"
    with pytest.raises(InputError, match="other settings of t_test"):
        detect([path], out, f"{run}@t_test=60")
    with pytest.raises(InputError, match=r"calibrated rates are 1e-05 to 0\.5; choose one"):
        detect([path], out, run, fpr=0.9)
    with pytest.raises(InputError, match=r"`scan_fpr=0\.1`: 1 healthy scan cannot .* 0\.5"):
        detect([path], out, run, scan_fpr=0.1)
    for choice in ({"fpr": 0.1, "threshold": 0.1}, {"fpr": 0.1, "scan_fpr": 0.5}):
        with pytest.raises(InputError, match="use only one of them"):
            detect([path], out, run, **choice)
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "calibration.json").unlink()
    with pytest.raises(InputError, match=r"calibration\.json: absent"):
        detect([path], out, copy)
    assert not out.exists()


def test_mean_of_two_models(scan, run, tmp_path):
    other = made_run(tmp_path / "other+run")
    first, second = f"{run}@t_test=[60,125]", f"{other}@residual=bright"
    references = {}
    for name, model in (("both", f"{first}+{second}"), ("first", first), ("second", second)):
        assert detect([scan[0]], tmp_path / name, model, threshold=0.2) == []
        references[name] = load(tmp_path / name, "healthy_reference").get_fdata()
    mean = (references["first"] + references["second"]) / 2
    np.testing.assert_allclose(references["both"], mean, atol=0.02 * mean.max())
    assert (
        read_shared(tmp_path / "both")["model"] == "run@t_test=[60,125]+other+run@residual=bright"
    )


def test_given_mask(scan, run, tmp_path):
    path, data, brain, affine = scan
    half = brain.copy()
    half[:30] = False
    mask = save(tmp_path / "mask.nii.gz", half, affine)
    assert detect([path], tmp_path / "out", run, threshold=0.2, brain_mask=mask) == []
    anomaly = load(tmp_path / "out", "anomaly_map").get_fdata()
    assert anomaly[half].any() and not anomaly[~half].any()
    wrong = save(tmp_path / "wrong.nii.gz", half[:, :, :-1], affine)
    assert detect([path], tmp_path / "out2", run, threshold=0.2, brain_mask=wrong) == ["sub-1"]
    with pytest.raises(InputError, match=r"`brain_mask=.*none\.nii`: no such file"):
        detect([path], tmp_path / "out3", run, brain_mask=tmp_path / "none.nii")
    save(path.parent / "sub-2_T1w.nii.gz", data, affine)
    with pytest.raises(InputError, match=r"`brain_mask=.*`: for one scan, but 2 were found"):
        detect([path.parent], tmp_path / "out3", run, threshold=0.2, brain_mask=mask)


def test_progress_on_error_stream(scan, run, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    caplog.set_level("INFO")
    report = detect_in([scan[0]], tmp_path / "out", run, threshold=0.2, quiet=False)
    assert not report.failures
    captured = capsys.readouterr()
    assert captured.out == "" and "detect" in captured.err
    assert "sub-1: " in caplog.text


@pytest.mark.slow
def test_several_processes(scan, run, tmp_path, caplog):
    path, data, _, affine = scan
    save(path.parent / "sub-0_T1w.nii.gz", np.full_like(data, np.nan), affine)
    save(path.parent / "sub-2_T1w.nii.gz", data[::-1].copy(), affine)
    outs = {workers: tmp_path / f"out{workers}" for workers in (1, 2)}
    for workers, out in outs.items():
        failed = detect([path.parent], out, run, threshold=0.2, workers=workers)
        assert failed == ["sub-0"]
        assert "sub-0 failed" in caplog.text and "NaN" in caplog.text
        caplog.clear()
    for subject in ("sub-1", "sub-2"):
        for name in IMAGES:
            a, b = (load(out, name, subject).get_fdata() for out in outs.values())
            np.testing.assert_allclose(a, b, atol=1e-5)
        texts = [(out / subject / "summary.json").read_text("utf-8") for out in outs.values()]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("thickness", [2.0, 6.0])
def test_single_slice(run, tmp_path, thickness):
    data, brain, affine = made_brain(shape=(60, 72, 1), spacing=(2.0, 2.0, thickness))
    path = save(tmp_path / "sub-1_T1w.nii.gz", data, affine)
    assert detect([path], tmp_path / "out", run, threshold=0.2) == []
    for name in IMAGES:
        assert load(tmp_path / "out", name).shape == data.shape
    anomaly = load(tmp_path / "out", "anomaly_map").get_fdata()
    assert anomaly[brain].any() and not anomaly[~brain].any()
    assert "<html" in write_report(tmp_path / "out").read_text("utf-8")


def test_raw_scan(run, tmp_path):
    tools, _ = fake_extraction(true_brain)
    head, brain, affine = made_head((60, 72, 12), (2.0, 2.0, 7.0))
    path = save(tmp_path / "sub-1_T1w.nii.gz", head, oblique(affine), "PSR")
    out = tmp_path / "out"
    assert detect([path], out, run, threshold=0.2, qc=UNALIGNED, tools=tools) == []
    original = nib.load(path)
    for name in IMAGES:
        image = load(out, name)
        assert image.shape == original.shape
        np.testing.assert_allclose(image.affine, original.affine, atol=1e-4)
    mask = load_ras(out, "brain_mask") > 0
    assert 2 * (mask & brain).sum() / (mask.sum() + brain.sum()) > 0.98
    assert read_summary(out)["qc"]["brain_mask"] == "deepbet"
    assert (out / "sub-1" / "qc.png").is_file()
    assert "Brain outline" in write_report(out).read_text("utf-8")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"registration": {"enabled": True}},
        {"registration": {"enabled": True}, "bias": {"enabled": True}},
    ],
    ids=["plain", "registered", "registered and corrected"],
)
def test_scans_are_prepared_like_the_models(run, tmp_path, changes):
    """Registration gives a known matrix, and N4 a field of 2 everywhere."""
    data, brain, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    to_atlas = np.linalg.inv(oblique(np.diag([1.1, 1.05, 1.0, 1.0])))
    field = np.full(data.shape, 2.0, dtype=np.float32)
    tools = Tools(
        align=lambda volume, brain, quick: Alignment(to_atlas, -0.5),
        check_alignment=lambda *_: ({}, []),
        correct_bias=lambda volume, *_: (volume, field),
    )
    model = shutil.copytree(run, tmp_path / "model")
    change_cohort(model, **changes)
    results = {}
    for axes in ("RAS", "PSR"):
        path = save(tmp_path / axes / "sub-1_T1w.nii.gz", data, affine, axes)
        out = tmp_path / f"out-{axes}"
        assert detect([path], out, model, threshold=0.2, tools=tools) == []
        results[axes] = {name: load_ras(out, name) for name in IMAGES}
        assert results[axes]["anomaly_map"].shape == data.shape
        assert not results[axes]["anomaly_map"][~brain].any()
        written = load(out, "anomaly_map")
        np.testing.assert_allclose(written.affine, nib.load(path).affine, atol=1e-4)
    maps = [results[axes]["anomaly_map"] for axes in ("RAS", "PSR")]
    np.testing.assert_allclose(*maps, atol=1e-4)
    np.testing.assert_array_equal(results["RAS"]["brain_mask"] > 0, brain)
    record = read_summary(tmp_path / "out-RAS")["qc"]
    assert ("to_atlas" in record) == bool(changes)
    if "bias" in changes:
        uncorrected = shutil.copytree(run, tmp_path / "uncorrected")
        change_cohort(uncorrected, registration={"enabled": True})
        path, out = tmp_path / "RAS" / "sub-1_T1w.nii.gz", tmp_path / "out"
        detect([path], out, uncorrected, threshold=0.2, tools=tools)
        expected = 2 * load(out, "healthy_reference").get_fdata()
        np.testing.assert_allclose(results["RAS"]["healthy_reference"], expected, rtol=1e-4)


def test_symmetry_needs_registration(scan, run, cohort, tmp_path):
    with pytest.raises(InputError, match=r"postprocess\.symmetry"):
        detect([scan[0]], tmp_path / "out", run, threshold=0.2, postprocess={"symmetry": 0.5})
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"postprocess\.symmetry"):
        calibrate_folder(
            run, Cohort.open(cohort.path), postprocess=PostprocessConfig(symmetry=0.5)
        )


def test_region_between_thick_slices(run, tmp_path, monkeypatch):
    """Slices are at -3.5 and 3.5 mm, and the lesion reaches from -3 to 3 mm."""
    data, _, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    path = save(tmp_path / "sub-1_T1w.nii.gz", data, affine)
    tools = Tools(
        align=lambda volume, brain, quick: Alignment(np.eye(4), -0.5),
        check_alignment=lambda *_: ({}, []),
    )

    def predict(method, images, *_args, **_kwargs):
        residual = np.zeros_like(images)
        residual[35:38, 46:49, 46:49] = 0.5
        return residual, images

    monkeypatch.setattr(detector_module, "predict_volume", predict)
    model = shutil.copytree(run, tmp_path / "model")
    change_cohort(model, registration={"enabled": True})
    options = {"threshold": 0.2, "tools": tools, "postprocess": {"median_size": 1}}
    assert detect([path], tmp_path / "out", model, **options) == []
    regions = read_summary(tmp_path / "out")["regions"]
    assert [region["volume_ml"] for region in regions] == [0.216]
    mask = load(tmp_path / "out", "anomaly_mask").get_fdata()
    np.testing.assert_array_equal(np.flatnonzero(mask.any(axis=(0, 1))), [5, 6])
    assert mask[..., 5].sum() == mask[..., 6].sum() == mask.sum() / 2 == 9


def test_another_scan_of_the_same_name_is_not_replaced(scan, run, tmp_path):
    path, out = scan[0], tmp_path / "out"
    other = tmp_path / "other" / path.name
    other.parent.mkdir()
    moved = other.with_name("moved") / path.name
    shutil.copy(path, other)  # another time of change
    assert detect([path], out, run, threshold=0.2) == []
    before = (out / "sub-1" / "anomaly_map.nii.gz").stat().st_mtime_ns
    assert detect([other], out, run, threshold=0.2, resume=True) == ["sub-1"]
    assert "holds results of another scan named sub-1" in read_shared(out)["failures"]["sub-1"]
    assert (out / "sub-1" / "anomaly_map.nii.gz").stat().st_mtime_ns == before
    # The same file, changed or moved, is no other scan.
    os.utime(path, (1, 1))
    assert detect([path], out, run, threshold=0.2, resume=True) == []
    moved.parent.mkdir()
    shutil.move(path, moved)
    assert detect([moved], out, run, threshold=0.2, resume=True) == []


def test_resume_keeps_the_results_of_other_scans(scan, run, tmp_path):
    path, *_ = scan
    second = path.with_name("sub-2_T1w.nii.gz")
    shutil.copy(path, second)
    broken = path.with_name("sub-3_T1w.nii.gz")
    broken.write_bytes(b"")
    out = tmp_path / "out"
    assert detect([path, broken], out, run, threshold=0.2) == ["sub-3"]
    assert detect([second], out, run, threshold=0.2, resume=True) == []
    table = (out / "participants_findings.tsv").read_text("utf-8").splitlines()
    assert [line.split("\t")[:2] for line in table[1:]] == [
        ["sub-1", "flagged"],
        ["sub-2", "flagged"],
        ["sub-3", "failed"],
    ]
    assert list(read_shared(out)["failures"]) == ["sub-3"]
    # A summary that is damaged later does not stop a call on other scans.
    (out / "sub-1" / "summary.json").write_text("{")
    assert read_kept_summaries(out, {"sub-2"}, lambda folder: [folder / "summary.json"]) == []
    assert list(read_kept_failures(out, {"sub-2"})) == ["sub-3"]
    (out / "detect.json").write_text('{"failures": {"pat FLAIR": "x", "pat": "y"}}')
    assert read_kept_failures(out, {"pat FLAIR"}) == {"pat": "y"}  # a scan, not a contrast
    assert read_kept_failures(out, {"pat"}) == {}


def test_failures_of_contrasts_belong_to_their_session(tmp_path):
    failures = {"p T2w": "x", "p 1": "y", "q": "z"}
    write_json(tmp_path / "detect.json", {"failures": failures})
    for name in ("p", "q", "r"):
        for contrast in ("T1w", "FLAIR"):
            summary = {"subject": name, "modality": contrast}
            write_json(tmp_path / name / contrast / "summary.json", summary)
    list_all = partial(_list_summaries, combined=True)
    assert list(read_kept_failures(tmp_path, {"p"})) == ["p 1", "q"]
    kept = read_kept_summaries(tmp_path, {"p"}, list_all)
    found = [(each["subject"], each["modality"]) for each in kept]
    assert found == [(name, contrast) for name in "qr" for contrast in ("T1w", "FLAIR")]


def test_resume_with_other_weights_is_refused(scan, run, tmp_path):
    out = tmp_path / "out"
    detect([scan[0]], out, run, threshold=0.2)
    shared = read_shared(out)
    assert shared["weights_sha256"] == hash_file(read_model(run).network.weights.path)
    write_json(out / "detect.json", shared | {"weights_sha256": "those of another training"})
    with pytest.raises(InputError, match="was made with another weights_sha256"):
        detect([scan[0]], out, run, threshold=0.2, resume=True)


def test_the_reason_for_a_model_does_not_refuse_a_resumed_run():
    shared = {"model": "t1", "model_from": "given", "contrasts": {"T1w": {"model_from": "x"}}}
    assert without_origins(shared) == {"contrasts": {"T1w": {}}}
    assert without_origins({"model": "t1", "model_from": "given"}) == {"model": "t1"}


def test_results_stay_while_the_content_of_a_scan_is_absent(scan, run, tmp_path):
    """Get, process, drop is a usual order with DataLad."""
    path, out = scan[0], tmp_path / "out"
    content = path.with_name("content.nii.gz")
    path.rename(content)
    path.symlink_to(content)
    second = path.with_name("sub-2_T1w.nii.gz")
    shutil.copy(content, second)
    detect([path, second], out, run, threshold=0.2)
    content.rename(content.with_name("elsewhere"))
    assert detect([path, second], out, run, threshold=0.2, resume=True) == ["sub-1"]
    path.unlink()
    path.write_text("/annex/objects/MD5E-s1--0.nii.gz\n")  # an unlocked file of git-annex
    assert detect([path, second], out, run, threshold=0.2, resume=True) == ["sub-1"]
    assert "datalad get" in read_shared(out)["failures"]["sub-1"]
    third = path.with_name("sub-3_T1w.nii.gz")
    shutil.copy(second, third)
    assert detect([third], out, run, threshold=0.2, resume=True) == []
    table = (out / "participants_findings.tsv").read_text("utf-8").splitlines()
    assert [line.split("\t")[1] for line in table[1:]] == ["failed", "flagged", "flagged"]
    assert (out / "sub-1" / "anomaly_map.nii.gz").is_file()
