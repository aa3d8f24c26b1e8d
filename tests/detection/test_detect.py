"""Detection on the scan's own grid: the same map whatever the file's frame or name, a clear word where it cannot be."""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest

from helpers.brains import ball, made_brain, made_cohort, oblique, save
from helpers.detection import detect_in
from helpers.heads import fake_extraction, made_head, true_brain
from helpers.runs import made_run
from maediff import cli
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.anomaly.snapshots import load_slices
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.detection.detector import Detector, make_detector
from maediff.models.calibrate import calibrate, calibrate_folder
from maediff.models.model import read_model
from maediff.models.thresholds import FPRS
from maediff.preparation.config import PreparationConfig
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import Alignment, RegistrationConfig
from maediff.preparation.steps import Tools
from maediff.report import write_report
from maediff.scans.inputs.find import find_scans
from maediff.training.train import train

TINY = {
    "unet": {"channels": [8, 16], "blocks": 1, "attention": False, "stem": 2},
    "mae": {"dim": 16, "encoder_blocks": 1, "decoder_blocks": 1, "heads": 2},
    "s": 48,
    "train": {"steps": 4, "batch_size": 2, "checkpoint_every": 4},
}
FILES = {"anomaly_map", "anomaly_mask", "healthy_reference", "brain_mask"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect")
    train(
        "maediff",
        made_cohort(folder),
        folder / "run",
        preset="tiny",
        settings=TINY,
        run=CPU,
    )
    return folder / "run"


@pytest.fixture
def scan(tmp_path):
    data, brain, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    data = np.where(ball(data.shape, affine, (15, -10, 0), 15) & brain, 230, data).astype(
        np.float32
    )
    return save(tmp_path / "in" / "sub-1_T1w.nii.gz", data, affine), data, brain, affine


def go(inputs, out, run, **kwargs):
    """Number of scans that failed."""
    return len(detect_in(inputs, out, run, **{"modality": "T1w", **kwargs}).failures)


CPU = RunOptions(device="cpu", quiet=True)


def load(out, name, subject="sub-1"):
    return nib.load(out / subject / f"{name}.nii.gz")


def test_results_lie_on_the_scans_own_grid(scan, run, tmp_path):
    path, data, brain, affine = scan
    out = tmp_path / "out"
    assert go([path], out, run, threshold=0.2) == 0
    assert {p.name.removesuffix(".nii.gz") for p in (out / "sub-1").glob("*.nii.gz")} == FILES
    for name in FILES:
        image = load(out, name)
        assert image.shape == data.shape
        np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    anomaly = load(out, "anomaly_map").get_fdata()
    found = load(out, "brain_mask").get_fdata() > 0
    assert load(out, "anomaly_map").get_data_dtype() == np.float32
    assert anomaly.min() >= 0
    assert 0 < anomaly.max() <= 1
    assert not anomaly[~found].any()
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.97
    reference = load(out, "healthy_reference").get_fdata()
    assert 30 < np.median(reference[brain]) < 220  # in the scan's own intensities


def test_the_summary_says_what_was_found(scan, run, tmp_path):
    path, *_ = scan
    go([path], tmp_path / "out", run, threshold=0.1)
    summary = json.loads((tmp_path / "out" / "sub-1" / "summary.json").read_text())
    keys = {
        "subject",
        "model",
        "modality",
        "score",
        "threshold",
        "volume_ml",
        "regions",
        "qc",
        "versions",
    }
    assert keys <= summary.keys()
    assert (summary["subject"], summary["model"], summary["threshold"]) == ("sub-1", "run", 0.1)
    mask = load(tmp_path / "out", "anomaly_mask")
    on_scan = mask.get_fdata().sum() * np.prod(mask.header.get_zooms()) / 1000
    assert summary["volume_ml"] == pytest.approx(on_scan, rel=0.02, abs=0.1)
    assert summary["volume_ml"] == pytest.approx(
        sum(r["volume_ml"] for r in summary["regions"]), rel=1e-6
    )
    shown = load_slices(tmp_path / "out" / "sub-1" / "slices.npz")
    heights = load(tmp_path / "out", "brain_mask").affine[2, 3] + 7.0 * np.arange(
        12
    )  # of the file's own slices
    assert (np.abs(heights[:, None] - shown.z_mm).min(axis=0) < 1e-3).all()


def test_the_frame_and_the_name_of_the_file_change_nothing(scan, run, tmp_path):
    path, data, _, affine = scan
    go([path], tmp_path / "ras", run, threshold=0.2)
    expected = nib.as_closest_canonical(load(tmp_path / "ras", "anomaly_map")).get_fdata()
    for axes in ("LAS", "PSR", "LPI"):
        other = save(tmp_path / axes / f"sub-{axes}_T1w.nii.gz", data, affine, axes)
        go([other], tmp_path / f"out-{axes}", run, threshold=0.2)
        result = load(tmp_path / f"out-{axes}", "anomaly_map", f"sub-{axes}")
        assert nib.aff2axcodes(result.affine) == tuple(axes)
        np.testing.assert_allclose(
            nib.as_closest_canonical(result).get_fdata(), expected, atol=1e-4
        )
    turned = save(tmp_path / "oblique" / "sub-1_T1w.nii.gz", data, oblique(affine))
    go([turned], tmp_path / "out-oblique", run, threshold=0.2)
    result = load(tmp_path / "out-oblique", "anomaly_map")
    np.testing.assert_allclose(result.affine, oblique(affine), atol=1e-4)
    np.testing.assert_allclose(result.get_fdata(), expected, atol=1e-4)


def test_order_of_subjects_and_batch_size_change_nothing(scan, run, tmp_path):
    path, data, _, affine = scan
    other = save(tmp_path / "in" / "sub-2_T1w.nii.gz", data[::-1].copy(), affine)
    go([path, other], tmp_path / "a", run, threshold=0.2)
    go([other, path], tmp_path / "b", run, threshold=0.2, batch_size=3)
    for subject in ("sub-1", "sub-2"):
        a, b = (load(tmp_path / out, "anomaly_map", subject).get_fdata() for out in "ab")
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_scan_that_fails_is_named_and_the_rest_is_done(scan, run, tmp_path, caplog):
    path, data, _, affine = scan
    save(path.parent / "sub-0_T1w.nii.gz", np.full_like(data, np.nan), affine)
    assert go([path.parent], tmp_path / "out", run, threshold=0.2) == 1
    assert "sub-0 failed" in caplog.text
    assert "NaN" in caplog.text
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["sub-1"]
    page = write_report(tmp_path / "out").read_text()
    assert "1 failed." in page and "Failed" in page and "sub-0_T1w.nii.gz: holds NaN" in page
    assert str(path) in caplog.text.replace("sub-0", "sub-1")
    for name in (
        "detect.json",
        "report.html",
        "sub-1/summary.json",
    ):  # these go to others, the log does not
        assert str(tmp_path) not in (tmp_path / "out" / name).read_text(), name


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_no_map_can_have_is_refused(scan, run, tmp_path, threshold):
    with pytest.raises(InputError, match=f"`threshold={threshold}`: give a number from 0 to 1"):
        go([scan[0]], tmp_path / "out", run, threshold=threshold)
    assert not (tmp_path / "out").exists()


def test_another_contrast_is_refused_by_name(scan, run, tmp_path, caplog, monkeypatch):
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
    refs = refs[1:]
    with pytest.raises(InputError, match="a model for T1w"):
        go([path], tmp_path / "out2", run, modality="FLAIR")
    monkeypatch.setattr("maediff.models.catalogue.search_folders", list)
    with pytest.raises(InputError, match=r"no model for FLAIR .* `model=RUN`"):
        detect_in(refs, tmp_path / "out3")


def test_stopped_detection_is_resumed(scan, run, tmp_path, monkeypatch):
    path, data, _, affine = scan
    save(tmp_path / "in" / "sub-2_T1w.nii.gz", data, affine)
    out = tmp_path / "out"
    go([path.parent], out, run, threshold=0.2)
    shutil.rmtree(out / "sub-2")
    kept = (out / "sub-1" / "summary.json").stat().st_mtime_ns
    with pytest.raises(InputError, match="exists and is not empty"):
        go([path.parent], out, run, threshold=0.2)
    go([path.parent], out, run, threshold=0.2, resume=True)
    assert (out / "sub-1" / "summary.json").stat().st_mtime_ns == kept
    assert (out / "sub-2" / "summary.json").exists()
    with pytest.raises(InputError, match="threshold"):
        go([path.parent], out, run, threshold=0.3, resume=True)


def test_a_resumed_detection_redoes_what_is_no_longer_so(scan, run, tmp_path):
    path, data, brain, affine = scan
    out, half = tmp_path / "out", brain.copy()
    half[:30] = False
    save(tmp_path / "mask.nii.gz", brain, affine)
    save(tmp_path / "in" / "sub-2_T1w.nii.gz", data, affine)
    lines = ["subject,image,brain_mask", f"sub-1,{path},mask.nii.gz", "sub-2,in/sub-2_T1w.nii.gz,"]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")

    def redone(**kwargs):
        """Which of the two were made anew, and the map of the first."""
        kept = [out / f"sub-{number}" / "kept" for number in (1, 2)]
        for file in kept:
            file.touch()
        assert go([tmp_path / "m.csv"], out, run, threshold=0.2, resume=True, **kwargs) == 0
        return [not file.exists() for file in kept], load(out, "anomaly_map").get_fdata()

    go([tmp_path / "m.csv"], out, run, threshold=0.2)
    which, first = redone()
    assert which == [False, False]
    save(tmp_path / "mask.nii.gz", half, affine)
    which, second = redone()
    assert which == [True, False] and first[~half].any() and not second[~half].any()
    save(path, data[::-1].copy(), affine)
    which, third = redone()
    assert which == [True, False] and not np.array_equal(second, third)
    (out / "sub-2" / "healthy_reference.nii.gz").unlink()
    assert redone()[0] == [False, True]
    (out / "sub-2" / "summary.json").write_text("{")
    assert redone()[0] == [False, True]
    assert json.loads((out / "detect.json").read_text())["qc"]["align"] == "auto"
    with pytest.raises(InputError, match="was made with another qc"):
        redone(qc=UNSEEN.qc)
    path.write_bytes(b"")
    assert go([tmp_path / "m.csv"], out, run, threshold=0.2, resume=True) == 1
    assert not (out / "sub-1").exists()  # no results of a scan that is gone


def test_half_a_subject_is_never_left(scan, run, tmp_path, monkeypatch):
    path, *_ = scan

    def full(*_args, **_kwargs):
        raise InputError("disk full")

    monkeypatch.setattr("maediff.detection.result.save_slices", full)
    assert go([path], tmp_path / "out", run, threshold=0.2) == 1
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_dir()] == []


def test_the_post_processing_that_a_model_was_calibrated_with_is_its_own(scan, run, tmp_path):
    own = PostprocessConfig(median_size=1, smooth_mm=(4.0,))
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    calibrate_folder(copied, Cohort.open(run.parent / "cohort"), postprocess=own)
    assert read_model(copied).postprocess == own
    assert read_model(run).postprocess == PostprocessConfig()
    go([tmp_path / "in"], tmp_path / "out", copied)
    shared = json.loads((tmp_path / "out" / "detect.json").read_text())
    assert shared["postprocess"] == json.loads(json.dumps(asdict(own)))
    go(
        [tmp_path / "in"],
        tmp_path / "other",
        copied,
        postprocess={"median_size": 3},
        threshold=0.2,
    )
    shared = json.loads((tmp_path / "other" / "detect.json").read_text())
    assert shared["postprocess"] == json.loads(json.dumps(asdict(replace(own, median_size=3))))
    for damaged in ["{", '{"postprocess": {"median_size": "wide"}}', "{}"]:
        (copied / "calibration.json").write_text(damaged)
        with pytest.raises(InputError, match=r"calibration.json: .*delete it"):
            read_model(copied)
    (copied / "calibration.json").unlink()
    assert read_model(copied).postprocess == PostprocessConfig()


def test_calibration_is_monotone_and_serves_the_wanted_rate(run):
    cohort = Cohort.open(run.parent / "cohort")
    stored = calibrate_folder(run, cohort)
    assert stored["source"] == "healthy scans"
    assert stored["n_scans"] == 1
    assert (np.diff(stored["thresholds"]) <= 0).all()
    chosen = read_model(run).thresholds.at_fpr(0.01)
    threshold, about = chosen.value, chosen.origin
    assert about["fpr"] == max(rate for rate in FPRS if rate <= 0.01)
    assert (
        about["n_marked"]
        == sum(score > threshold for score in stored["scan_scores"])
        <= about["n_scores"]
        == 1
    )
    assert stored["thresholds"][-1] < threshold <= stored["thresholds"][0]
    assert about["fpr"] == 0.01  # what is asked for, and what `evaluate` takes
    assert (FPRS[0], FPRS[-1]) == (1e-5, 0.5)


def test_a_models_own_rate_is_what_detect_takes_and_what_a_new_calibration_keeps(
    run, scan, tmp_path, caplog
):
    model = shutil.copytree(run, tmp_path / "model")
    assert read_model(model).default_fpr == 0.01
    stored = calibrate_folder(model, Cohort.open(run.parent / "cohort"))
    (model / "calibration.json").write_text(json.dumps(stored | {"default_fpr": 1e-4}))
    assert read_model(model).default_fpr == 1e-4
    assert (
        go([scan[0]], tmp_path / "own", model) == 0
        and go([scan[0]], tmp_path / "told", model, fpr=0.01) == 0
    )
    rates = [
        json.loads((tmp_path / out / "detect.json").read_text())["threshold_from"]["fpr"]
        for out in ("own", "told")
    ]
    assert rates == [1e-4, max(rate for rate in FPRS if rate <= 0.01)]
    (
        model / "train_subjects.json"
    ).unlink()  # the site's people have the names of those trained on
    calibrate(model, run.parent / "cohort", tmp_path / "site", run=CPU)
    assert read_model(tmp_path / "site").default_fpr == 1e-4
    settings = {"train": TINY["train"]}
    where = {"settings": settings, "init": str(model), "run": CPU}
    train("maediff", run.parent / "cohort", tmp_path / "tuned", **where)
    assert read_model(tmp_path / "tuned").default_fpr == 1e-4
    one_sided = stored | {"postprocess": stored["postprocess"] | {"symmetry": 0.5}}
    (model / "calibration.json").write_text(json.dumps(one_sided))
    train("maediff", run.parent / "cohort", tmp_path / "as-they-lie", **where)
    assert "are not registered to MNI152; the run is calibrated without symmetry" in caplog.text
    assert read_model(tmp_path / "as-they-lie").postprocess.symmetry == 0
    for wrong in (0.9, "much", None):
        (model / "calibration.json").write_text(json.dumps(stored | {"default_fpr": wrong}))
        with pytest.raises(
            InputError, match=rf"calibration\.json: damaged \(default_fpr {wrong}\)"
        ):
            read_model(model)


def test_a_models_own_threshold_stands_before_its_rate_until_it_is_calibrated_anew(
    run, scan, tmp_path
):
    model = shutil.copytree(run, tmp_path / "model")
    stored = calibrate_folder(model, Cohort.open(run.parent / "cohort"))
    own = {"value": 0.3, "chosen_on": "9 patients"}
    (model / "calibration.json").write_text(json.dumps(stored | {"default_threshold": own}))
    said = {}
    for name, how in (("own", {}), ("rate", {"fpr": 0.01}), ("given", {"threshold": 0.2})):
        assert go([scan[0]], tmp_path / name, model, **how) == 0
        said[name] = json.loads((tmp_path / name / "detect.json").read_text())
    assert said["own"]["threshold"] == 0.3
    marked = sum(score > 0.3 for score in stored["scan_scores"])
    assert said["own"]["threshold_from"] == {
        "chosen_on": "9 patients",
        "n_marked": marked,
        "n_scores": 1,
    }
    assert said["rate"]["threshold_from"]["fpr"] == 0.01 and said["given"]["threshold"] == 0.2
    assert (
        "the model&#39;s own, chosen on 9 patients" in write_report(tmp_path / "own").read_text()
    )
    (
        model / "train_subjects.json"
    ).unlink()  # the site's people have the names of those trained on
    calibrate(model, run.parent / "cohort", tmp_path / "site", run=CPU)
    assert go([scan[0]], tmp_path / "at-site", tmp_path / "site") == 0
    assert (
        json.loads((tmp_path / "at-site" / "detect.json").read_text())["threshold_from"]["fpr"]
        == 0.01
    )
    for wrong in (0.3, {"value": 0, "chosen_on": ""}, {"value": 0.3}):
        (model / "calibration.json").write_text(json.dumps(stored | {"default_threshold": wrong}))
        with pytest.raises(InputError, match=r"calibration\.json: damaged \(default_threshold"):
            go([scan[0]], tmp_path / "wrong", model)


def test_a_model_is_calibrated_on_a_sites_own_healthy_scans(run, scan, tmp_path):
    cohort = made_cohort(tmp_path / "site")
    (run / "train_subjects.json").replace(
        tmp_path / "kept"
    )  # the site's people have the names of those trained on
    try:
        found = calibrate(
            f"{run}@t_test=60", cohort, tmp_path / "out", postprocess={"median_size": 3}, run=CPU
        )
        unseen = calibrate(run, cohort, tmp_path / "again", max_scans=2, run=CPU)
    finally:
        (tmp_path / "kept").replace(run / "train_subjects.json")
    healthy = {row.subject for row in Cohort.open(cohort).rows if row.healthy}
    assert found["n_scans"] == len(found["scan_scores"]) == len(healthy) > unseen["n_scans"] == 2
    model = read_model(tmp_path / "out")
    assert model.method.config.t_test == (60,)
    assert model.postprocess.median_size == 3
    assert 0 < model.thresholds.at_fpr(0.01).value < 1
    assert go([scan[0]], tmp_path / "found", tmp_path / "out") == 0  # no --threshold is needed
    assert not list((tmp_path / "out").rglob("optimizer*"))
    with pytest.raises(
        InputError, match=r"no healthy scan of a person that .* was not trained on"
    ):
        everyone = [person_code(row.dataset, row.subject) for row in Cohort.open(cohort).rows]
        seen = shutil.copytree(run, tmp_path / "seen")
        (seen / "train_subjects.json").write_text(json.dumps(everyone))
        calibrate(seen, cohort, tmp_path / "none", run=CPU)
    with pytest.raises(
        InputError,
        match=r"has another bias than the scans of .*; preprocess the scans with `like=.*run'`",
    ):
        meta = json.loads((cohort / "cohort.json").read_text())
        (cohort / "cohort.json").write_text(json.dumps({**meta, "bias": {"enabled": True}}))
        calibrate(run, cohort, tmp_path / "none", run=CPU)
    assert not (tmp_path / "none").exists()


def test_no_threshold_is_taken_where_erosion_leaves_no_brain(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    before = (copied / "calibration.json").read_text()
    assert (
        calibrate_folder(
            copied,
            Cohort.open(run.parent / "cohort"),
            postprocess=PostprocessConfig(erosion_iterations=60),
        )
        is None
    )
    assert (copied / "calibration.json").read_text() == before


def test_the_mean_reference_of_two_runs(scan, run, tmp_path):
    path, *_ = scan
    other = tmp_path / "other+run"
    settings = {"net": {"channels": [8, 8], "blocks": 1, "stem": 4}, "train": TINY["train"]}
    train(
        "ae",
        run.parent / "cohort",
        other,
        preset="tiny",
        settings=settings,
        run=CPU,
    )
    both = f"{run}@t_test=[60,125]+{other}@residual=bright"
    model = read_model(both)
    assert (model.name, model.settings.method) == (
        "run@t_test=[60,125]+other+run@residual=bright",
        "maediff+ae",
    )
    assert [config.residual for config in model.method.config.methods] == ["abs", "bright"]
    with pytest.raises(InputError, match="the mean of models is not calibrated; use `threshold`"):
        go([path], tmp_path / "out", both)
    references = {}
    for name, model in (("both", both), ("one", f"{run}@t_test=[60,125]"), ("two", other)):
        assert go([path], tmp_path / name, model, threshold=0.2) == 0
        references[name] = load(tmp_path / name, "healthy_reference").get_fdata()
    mean = (references["one"] + references["two"]) / 2
    np.testing.assert_allclose(references["both"], mean, atol=0.02 * mean.max())
    config = json.loads((other / "config.json").read_text())
    config["cohort"]["bias"] = {"enabled": True}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"other\+run.*another bias"):
        read_model(both)
    config["cohort"]["modality"] = "T2w"
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"other\+run.*another modality \(T2w\)"):
        read_model(both)
    with pytest.raises(InputError, match=r"run\+absent.*is not a run folder"):
        read_model(f"{run}+absent")


def test_calibration_of_other_settings_or_none_is_not_used(run, scan, tmp_path):
    path, *_ = scan
    with pytest.raises(InputError, match="other settings of t_test"):
        go([path], tmp_path / "out", f"{run}@t_test=60")
    with pytest.raises(
        InputError, match=r"calibrated rates are 1e-05 to 0\.5; choose one of them"
    ):
        go([path], tmp_path / "out", run, fpr=0.9)
    with pytest.raises(InputError, match="use only one of them"):
        go([path], tmp_path / "out", run, fpr=0.1, threshold=0.1)
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "calibration.json").unlink()
    with pytest.raises(InputError, match=r"calibration\.json: absent"):
        go([path], tmp_path / "out", copy)
    assert not (tmp_path / "out").exists()
    assert go([path], tmp_path / "out", run) == 0  # 1 % by default
    threshold = json.loads((tmp_path / "out" / "detect.json").read_text())["threshold"]
    model = read_model(run)
    assert threshold == model.thresholds.at_fpr(0.01).value
    assert model.method.config.s == 48


def test_damaged_json_is_said_with_its_file(scan, tmp_path):
    run = made_run(tmp_path / "run")
    path = run / "calibration.json"
    good = json.loads(path.read_text()) | {"scan_scores": [0.1, 0.2]}
    assert read_model(run).thresholds.at_fpr(0.01).value == 0.1
    for content in ([], "text"):
        path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"calibration\.json: damaged .*; delete it"):
            read_model(run)
    changes = (
        {"config": [1]},
        {"config": "x"},
        {"fprs": "x"},
        {"thresholds": [None] * 3},
        {"thresholds": []},
        {"step": None, "config": None},
    )
    damaged = r"calibration\.json: damaged .*; use `threshold`, or calibrate the model again"
    for change in changes:
        path.write_text(json.dumps(good | change))
        thresholds = read_model(run).thresholds
        for request in (thresholds.default, partial(thresholds.at_fpr, 0.01)):
            with pytest.raises(InputError, match=damaged):
                request()
    for scores in (["x", 0.1], [None]):
        path.write_text(json.dumps(good | {"scan_scores": scores}))
        with pytest.raises(
            InputError, match=r"calibration\.json: damaged \(its scan_scores are no numbers\)"
        ):
            read_model(run).thresholds.at_scan_fpr(0.5)
    path.write_text(json.dumps(good))
    go([scan[0]], tmp_path / "out", run)
    for content in ("[]", '{"model": '):
        (tmp_path / "out" / "detect.json").write_text(content)
        with pytest.raises(
            InputError,
            match=r"detect\.json: .*damaged .*; choose another folder, or use `overwrite=True`",
        ):
            go([scan[0]], tmp_path / "out", run, resume=True)


def test_scan_wise_calibration_promises_only_what_it_can(run, scan, tmp_path):
    path, *_ = scan
    stored = json.loads((run / "calibration.json").read_text())
    assert len(stored["scan_scores"]) == stored["n_scans"] == 1
    with pytest.raises(
        InputError, match=r"`scan_fpr=0\.1`: .* from 1 healthy scans: .* 0\.5, .* 9 scans"
    ):
        go([path], tmp_path / "out", run, scan_fpr=0.1)
    assert go([path], tmp_path / "out", run, scan_fpr=0.5) == 0
    shared = json.loads((tmp_path / "out" / "detect.json").read_text())
    assert shared["threshold"] == stored["scan_scores"][0]
    assert shared["threshold_from"] == {"scan_fpr": 0.5, "source": "healthy scans", "n_scans": 1}
    summary = json.loads((tmp_path / "out" / "sub-1" / "summary.json").read_text())
    assert bool(summary["regions"]) == (summary["score"] > summary["threshold"])
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for scores, said in [([0.5, 0.1, 0.3], "0.1"), ([], "no scores of healthy scans")]:
        (copy / "calibration.json").write_text(json.dumps(stored | {"scan_scores": scores}))
        if scores:
            assert read_model(copy).thresholds.at_scan_fpr(0.75).value == float(said)
        else:
            with pytest.raises(InputError, match=said):
                go([path], tmp_path / "out2", copy, scan_fpr=0.5)
    with pytest.raises(InputError, match="use only one of them"):
        go([path], tmp_path / "out2", run, scan_fpr=0.5, fpr=0.1)


def test_a_given_brain_mask_is_used_and_must_fit(scan, run, tmp_path):
    path, data, brain, affine = scan
    half = brain.copy()
    half[:30] = False
    mask = save(tmp_path / "mask.nii.gz", half, affine)
    assert go([path], tmp_path / "out", run, threshold=0.2, brain_mask=mask) == 0
    anomaly = load(tmp_path / "out", "anomaly_map").get_fdata()
    assert not anomaly[~half].any()
    assert anomaly[half].any()
    wrong = save(tmp_path / "wrong.nii.gz", half[:, :, :-1], affine)
    assert go([path], tmp_path / "out2", run, threshold=0.2, brain_mask=wrong) == 1
    with pytest.raises(InputError, match="for one scan"):
        save(path.parent / "sub-2_T1w.nii.gz", data, affine)
        go([path.parent], tmp_path / "out3", run, threshold=0.2, brain_mask=mask)


@pytest.mark.parametrize("column", ["brain_mask", "t1"])
def test_an_output_folder_that_holds_a_mask_or_the_t1_is_not_touched(scan, run, tmp_path, column):
    """A mask of an earlier detection, corrected where it lay."""
    path, _, brain, affine = scan
    out = tmp_path / "out"
    go([path], out, run, threshold=0.2)
    mine = save(out / "sub-1" / "brain_mask.nii.gz", brain, affine)
    (tmp_path / "m.csv").write_text(f"subject,image,{column}\na,{path},{mine}\n")
    refused = pytest.raises(InputError, match=r"out: holds the input .*brain_mask\.nii\.gz")
    with refused:
        go([tmp_path / "m.csv"], out, run, threshold=0.2, overwrite=True)
    with refused:
        go([path], out, run, threshold=0.2, overwrite=True, brain_mask=mine)
    with refused:
        cli.detect(
            out,
            [path],
            model=str(run),
            threshold=0.2,
            brain_mask=mine,
            overwrite=True,
            bids_derivative=True,
        )
    with pytest.raises(InputError, match=r"out: holds the input .*sub-1"):
        cli.detect(out, [out / "sub-1"], model=str(run), threshold=0.2, resume=True)
    assert mine.is_file()


def test_progress_goes_to_the_error_stream(scan, run, tmp_path, capsys):
    path, data, _, affine = scan
    save(path.parent / "sub-2_T1w.nii.gz", data, affine)
    report = detect_in([path.parent], tmp_path / "out", run, threshold=0.2, quiet=False)
    assert not report.failures
    captured = capsys.readouterr()
    assert captured.out == "" and "detect" in captured.err


@pytest.mark.slow
def test_several_processes_give_the_same_results_and_a_failure_stops_no_other(
    scan, run, tmp_path, caplog
):
    path, data, _, affine = scan
    save(path.parent / "sub-0_T1w.nii.gz", np.full_like(data, np.nan), affine)
    save(path.parent / "sub-2_T1w.nii.gz", data[::-1].copy(), affine)
    for workers in (1, 2):
        assert (
            go([path.parent], tmp_path / f"out{workers}", run, threshold=0.2, workers=workers) == 1
        )
        assert "sub-0 failed" in caplog.text and "NaN" in caplog.text
        caplog.clear()
    for subject in ("sub-1", "sub-2"):
        for name in FILES:
            a, b = (load(tmp_path / out, name, subject).get_fdata() for out in ("out1", "out2"))
            np.testing.assert_allclose(a, b, atol=1e-5)
        texts = [
            (tmp_path / out / subject / "summary.json").read_text() for out in ("out1", "out2")
        ]
        assert texts[0] == texts[1]


@pytest.mark.parametrize("thickness", [2.0, 6.0])
def test_one_slice_gives_results_on_one_slice(run, tmp_path, thickness):
    data, brain, affine = made_brain(shape=(60, 72, 1), spacing=(2.0, 2.0, thickness))
    path = save(tmp_path / "sub-1_T1w.nii.gz", data, affine)
    assert go([path], tmp_path / "out", run, threshold=0.2) == 0
    for name in FILES:
        assert load(tmp_path / "out", name).shape == data.shape
    anomaly = load(tmp_path / "out", "anomaly_map").get_fdata()
    assert anomaly[brain].any() and not anomaly[~brain].any()
    assert "<html" in write_report(tmp_path / "out").read_text()


UNSEEN = PreparationConfig(qc=QualityConfig(align="never"))


def test_a_raw_scan_gives_results_on_its_own_grid_with_a_picture(run, tmp_path):
    tools, _ = fake_extraction(true_brain)
    head, brain, affine = made_head((60, 72, 12), (2.0, 2.0, 7.0))
    path = save(tmp_path / "sub-1_T1w.nii.gz", head, oblique(affine), "PSR")
    assert go([path], tmp_path / "out", run, threshold=0.2, qc=UNSEEN.qc, tools=tools) == 0
    own = nib.load(path)
    for name in FILES:
        image = load(tmp_path / "out", name)
        assert image.shape == own.shape
        np.testing.assert_allclose(image.affine, own.affine, atol=1e-4)
    found = nib.as_closest_canonical(load(tmp_path / "out", "brain_mask")).get_fdata() > 0
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.98
    summary = json.loads((tmp_path / "out" / "sub-1" / "summary.json").read_text())
    assert summary["qc"]["brain_mask"] == "deepbet"
    assert (tmp_path / "out" / "sub-1" / "qc.png").is_file()
    assert "Brain outline" in write_report(tmp_path / "out").read_text()


def test_a_model_of_registered_and_corrected_scans_has_new_ones_treated_alike(run, tmp_path):
    """Both steps stood in for: a known matrix and a known field, so that what comes back can be told."""
    data, brain, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    to_atlas = np.linalg.inv(oblique(np.diag([1.1, 1.05, 1.0, 1.0])))
    tools = Tools(
        align=lambda volume, brain, quick: Alignment(to_atlas, -0.5),
        check_alignment=lambda *_: ({}, []),
        correct_bias=lambda volume, *_: (
            volume,
            np.full(volume.data.shape, 2.0, dtype=np.float32),
        ),
    )
    maps = {}
    for kind, changes in {
        "plain": {},
        "turned": {"registration": {"enabled": True}},
        "both": {"registration": {"enabled": True}, "bias": {"enabled": True}},
    }.items():
        model = tmp_path / f"run-{kind}"
        shutil.copytree(run, model)
        config = json.loads((model / "config.json").read_text())
        config["cohort"] |= changes
        (model / "config.json").write_text(json.dumps(config))
        for axes in ("RAS", "PSR"):
            path = save(tmp_path / axes / "sub-1_T1w.nii.gz", data, affine, axes)
            out = tmp_path / f"out-{kind}-{axes}"
            assert go([path], out, model, threshold=0.2, tools=tools) == 0
            image = {name: nib.as_closest_canonical(load(out, name)).get_fdata() for name in FILES}
            maps[kind, axes] = image
            assert (
                image["anomaly_map"].shape == data.shape and not image["anomaly_map"][~brain].any()
            )
            np.testing.assert_allclose(
                load(out, "anomaly_map").affine, nib.load(path).affine, atol=1e-4
            )
        np.testing.assert_allclose(
            maps[kind, "PSR"]["anomaly_map"], maps[kind, "RAS"]["anomaly_map"], atol=1e-4
        )
        np.testing.assert_array_equal(maps[kind, "RAS"]["brain_mask"] > 0, brain)
    np.testing.assert_allclose(
        maps["both", "RAS"]["healthy_reference"],
        2 * maps["turned", "RAS"]["healthy_reference"],
        rtol=1e-4,
    )


def test_left_and_right_are_not_compared_in_a_scan_that_lies_as_it_came(scan, run, tmp_path):
    with pytest.raises(InputError, match=r"postprocess\.symmetry 0\.5"):
        go([scan[0]], tmp_path / "out", run, threshold=0.2, postprocess={"symmetry": 0.5})
    assert not (tmp_path / "out").exists()
    model = read_model(run)
    with pytest.raises(InputError, match=r"run: postprocess\.symmetry 0\.5"):
        make_detector(model).with_postprocess({"symmetry": 0.5})
    symmetric = replace(model, postprocess=PostprocessConfig(symmetry=0.5))
    with pytest.raises(InputError, match=r"run: postprocess\.symmetry 0\.5"):
        make_detector(symmetric)
    registered = replace(symmetric.preparation, registration=RegistrationConfig(enabled=True))
    assert make_detector(replace(symmetric, preparation=registered))
    with pytest.raises(InputError, match=r"run: .*registration"):  # by what is done to the scan
        Detector(replace(symmetric, preparation=registered), symmetric.preparation)
    with pytest.raises(InputError, match=r"postprocess\.symmetry"):
        calibrate_folder(
            run, Cohort.open(run.parent / "cohort"), postprocess=PostprocessConfig(symmetry=0.5)
        )


def test_a_region_between_two_thick_slices_is_marked_on_the_scan(run, tmp_path, monkeypatch):
    """The slices at -3.5 and 3.5 mm, a lesion from -3 to 3: no slice's centre lies in it."""
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

    monkeypatch.setattr("maediff.detection.detector.predict_volume", predict)
    model = tmp_path / "run"
    shutil.copytree(run, model)
    config = json.loads((model / "config.json").read_text())
    config["cohort"]["registration"] = {"enabled": True}
    (model / "config.json").write_text(json.dumps(config))
    assert (
        go(
            [path],
            tmp_path / "out",
            model,
            threshold=0.2,
            tools=tools,
            postprocess={"median_size": 1},
        )
        == 0
    )
    summary = json.loads((tmp_path / "out" / "sub-1" / "summary.json").read_text())
    assert [region["volume_ml"] for region in summary["regions"]] == [0.216]
    mask = load(tmp_path / "out", "anomaly_mask").get_fdata()
    np.testing.assert_array_equal(np.flatnonzero(mask.any(axis=(0, 1))), [5, 6])
    assert 2 * mask[..., 5].sum() == 2 * mask[..., 6].sum() == mask.sum() == 18
