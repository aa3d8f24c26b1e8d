"""Detector: inputs of every kind give the same result, and wrong arguments are refused."""

import json
import shutil
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.brains import made_brain, save
from helpers.dicom import write_series
from helpers.heads import fake_extraction, made_head, true_brain
from helpers.options import UNALIGNED
from helpers.runs import made_run
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.core.errors import InputError
from maediff.detection.detector import Detector, load, make_detector
from maediff.models.model import read_model
from maediff.models.thresholds import Threshold
from maediff.preparation.brain_extraction import BrainConfig
from maediff.preparation.quality import QualityConfig
from maediff.preparation.registration import Alignment, RegistrationConfig
from maediff.preparation.steps import Tools
from maediff.scans.inputs.find import find_scans
from maediff.scans.read import read_scan

ARRAYS = ("anomaly_map", "anomaly_mask", "healthy_reference", "brain_mask")


@pytest.fixture(scope="module")
def detector(run):
    return load(run, device="cpu")


@pytest.fixture
def brain():
    """(data, mask, affine); the mask is not symmetric, so a mirrored one is noticed."""
    data, mask, affine = made_brain(shape=(60, 72, 6), spacing=(2.0, 2.0, 12.0))
    mask = mask.copy()
    mask[:25] = False
    return data, mask, affine


def flip(array, affine, axes=(0,)):
    """Return an array and its affine with reversed axes, for example LAS instead of RAS."""
    turn = np.eye(4)
    for axis in axes:
        turn[axis, axis], turn[axis, 3] = -1, array.shape[axis] - 1
    return np.flip(array, axes).copy(), affine @ turn


def assert_equal(first, second):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    assert first.regions == second.regions and first.score == second.score
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-5)


def test_path_volume_and_array(detector, scan):
    path, data, _, affine = scan
    expected = detector.detect(path, threshold=0.2)
    assert expected.name == "sub-1"
    for given in (str(path), find_scans([path])[0], read_scan(path), path.parent):
        assert_equal(detector.detect(given, threshold=0.2), expected)
    from_array = detector.detect(data, affine=affine, threshold=0.2)
    assert_equal(from_array, expected)
    assert from_array.name == "array"
    assert detector.detect(read_scan(path), threshold=0.2).name == "sub-1_T1w"


@pytest.mark.parametrize("axes", [(0,), (0, 1), (2,)], ids=["LAS", "LPS", "RAI"])
def test_array_in_any_orientation(detector, brain, axes):
    data, mask, affine = brain
    expected = detector.detect(data, affine=affine, brain_mask=mask, threshold=0.2)
    np.testing.assert_array_equal(expected.brain_mask, mask)
    flipped, flipped_affine = flip(data, affine, axes)
    result = detector.detect(
        flipped, affine=flipped_affine, brain_mask=flip(mask, affine, axes)[0], threshold=0.2
    )
    assert_equal(result, expected)


def test_dicom_folder(detector, tmp_path):
    data, _, affine = made_brain(shape=(60, 72, 6), spacing=(2.0, 2.0, 12.0))
    write_series(tmp_path / "dicom", np.round(data), affine)
    result = detector.detect(tmp_path / "dicom", threshold=0.2)
    assert result.name == "dicom"
    expected = detector.detect(np.round(data), affine=affine, threshold=0.2)
    np.testing.assert_allclose(result.anomaly_map, expected.anomaly_map, atol=1e-4)
    assert_equal(detector.detect(read_scan(tmp_path / "dicom"), threshold=0.2), result)


def test_a_mask_as_array_or_file_gives_the_same_result(detector, brain, tmp_path):
    """An array has the voxel order of the file; for a Volume, it is RAS+."""
    data, mask, affine = brain
    path = save(tmp_path / "scan_T1w.nii.gz", *flip(data, affine))
    file = save(tmp_path / "mask.nii.gz", mask, affine)
    expected = detector.detect(path, brain_mask=file, threshold=0.2)
    np.testing.assert_array_equal(expected.brain_mask, mask)
    assert expected.quality.record["brain_mask"] == "given"
    for given, order in ((path, flip(mask, affine)[0]), (read_scan(path), mask)):
        assert_equal(detector.detect(given, brain_mask=order, threshold=0.2), expected)
    assert_equal(detector.detect(path, brain_mask=str(file), threshold=0.2), expected)
    numbers = flip(mask, affine)[0].astype(np.uint8)
    assert_equal(detector.detect(path, brain_mask=numbers, threshold=0.2), expected)


def test_the_brain_of_a_flair_comes_from_its_t1w(tmp_path):
    tools, calls = fake_extraction(true_brain)
    model = make_detector(read_model(made_run(tmp_path / "run", "FLAIR")))
    preparation = replace(model.preparation, qc=UNALIGNED.qc)
    detector = replace(model, preparation=preparation, tools=tools)
    head, _, affine = made_head((60, 72, 30), (2.0, 2.0, 3.5))
    t1 = save(tmp_path / "session" / "a.nii.gz", head, affine)
    thick = affine @ np.diag([1, 1, 2.0, 1])
    flair = save(tmp_path / "b_FLAIR.nii.gz", head[:, :, ::2], thick)
    for given in (t1, str(t1)):
        result = detector.detect(flair, t1=given, threshold=0.2)
        assert result.quality.record["brain_mask"] == "deepbet on a.nii.gz, moved rigidly"
    write_series(tmp_path / "dicom", np.round(head), affine)
    result = detector.detect(flair, t1=tmp_path / "dicom", threshold=0.2)
    assert result.quality.record["brain_mask"] == "deepbet on dicom, moved rigidly"
    alone = detector.detect(flair, threshold=0.2)
    assert alone.quality.record["brain_mask"] == "deepbet"
    assert calls == ["a.nii.gz", "a.nii.gz", "dicom", "b_FLAIR.nii.gz"]


def test_each_choice_of_a_threshold_gives_its_residual(detector, run, scan):
    stored = json.loads((run / "calibration.json").read_text("utf-8"))
    results = {
        "default": detector.detect(scan[0]),
        "given": detector.detect(scan[0], threshold=0.2),
        "fpr": detector.detect(scan[0], fpr=0.05),
        "scan_fpr": detector.detect(scan[0], scan_fpr=0.5),
        "high": detector.detect(scan[0], sensitivity="high"),
    }
    by_rate = dict(zip(stored["fprs"], stored["thresholds"], strict=True))
    rate = stored["sensitivity"]["default"]["fpr"]
    assert results["default"].threshold == 1
    assert results["default"].threshold_used.residual == results["default"].scale == by_rate[rate]
    assert results["default"].threshold_used.origin["healthy_ml_median"] == 0
    high = stored["sensitivity"]["high"]["threshold"]
    assert results["high"].threshold_used.residual == high
    assert results["given"].threshold == 0.2
    assert results["fpr"].threshold_used.residual == by_rate[0.05]
    assert results["scan_fpr"].threshold_used.residual == stored["scan_scores"][0]
    chosen = Threshold.given(0.2, detector.scale)
    assert_equal(detector.detect(scan[0], threshold=chosen), results["given"])
    for result in results.values():
        assert result.anomaly_mask.any() == (result.score > result.threshold)


def test_only_the_seed_changes_the_noise(scan, run):
    noisy = load(run, device="cpu", noise_test=1.0)
    first, again, other = (
        noisy.detect(scan[0], threshold=0.2, seed=seed).anomaly_map for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((40, 50, 40)), "`scan`: every voxel is 1;"),
        (np.ones((4, 5, 4), dtype=complex), "a ndarray of 80 values of type complex128"),
        (np.ma.masked_array(np.ones((4, 5, 4))), "`scan`: a MaskedArray"),
        (np.ones((4, 0, 4)), "of 0 values"),
        (np.full((40, 50, 40), 1e300), r"array: its largest value is 1e\+300"),
    ],
)
def test_unusable_arrays(detector, data, message):
    with pytest.raises(InputError, match=message):
        detector.detect(data, affine=np.diag([4.0, 4.0, 4.0, 1.0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brain_mask": np.ones((3, 3, 3), dtype=bool)}, r"`brain_mask`: \(3, 3, 3\) voxels"),
        ({"brain_mask": np.ones((60, 72), dtype=bool)}, "`brain_mask`: 2 dimensions"),
        ({"brain_mask": np.zeros((60, 72, 6), dtype=bool)}, "`brain_mask`: empty"),
        ({"brain_mask": "none.nii"}, r"`brain_mask=none\.nii`: no such file"),
        ({"modality": "FLAIR"}, "run: a model for T1w, but `modality='FLAIR'`"),
        ({"modality": "PET"}, "run: a model for T1w, but `modality='PET'`"),
        ({"affine": None}, "`affine`: an array needs"),
        ({"affine": np.eye(3)}, r"`affine`: has the shape \(3, 3\)"),
        ({"affine": np.zeros((4, 4))}, "array: its affine is zero or singular"),
        ({"affine": np.diag([1e-3, 1e-3, 1e-3, 1])}, r"array: voxels of 0\.001"),
        ({"threshold": 0.2, "fpr": 0.01}, "`fpr`, `scan_fpr` and `sensitivity`: use only one"),
        ({"threshold": -0.5}, r"`threshold=-0\.5`: give a number of 0 or more"),
        ({"fpr": 0.9}, r"`fpr=0\.9`: calibrated rates are"),
        ({"scan_fpr": 0.1}, r"`scan_fpr=0\.1`: "),
        ({"t1": "none.nii"}, r"`t1=none\.nii`: no such file"),
        ({"seed": -1}, "`seed=-1`: give 0 or more"),
    ],
)
def test_wrong_arguments(detector, brain, capsys, arguments, message):
    data, _, affine = brain
    with pytest.raises(InputError, match=message):
        detector.detect(data, **{"affine": affine, **arguments})
    assert capsys.readouterr().out == ""


def test_wrong_scans(detector, scan, tmp_path, capsys):
    path, data, _, affine = scan
    other = save(tmp_path / "in" / "b_T1w.nii.gz", data, affine)
    flair = save(tmp_path / "c_FLAIR.nii.gz", data, affine)
    cases = [
        (tmp_path / "none.nii.gz", {}, r"none\.nii\.gz"),
        (tmp_path / "in", {}, "in: holds 2 scans; give one of them"),
        (flair, {}, r"c_FLAIR\.nii\.gz: FLAIR by its name, but run is a model for T1w"),
        (path, {"affine": affine}, "`affine`: only for an array"),
        (read_scan(path), {"affine": affine}, "`affine`: only for an array"),
        (data[0], {"affine": affine}, "`scan`: 2 dimensions"),
        (np.full_like(data, np.nan), {"affine": affine}, "array: holds NaN"),
        (other, {"brain_mask": save(tmp_path / "m.nii.gz", data[1:] > 0, affine)}, r"m\.nii\.gz"),
    ]
    for given, arguments, message in cases:
        with pytest.raises(InputError, match=message):
            detector.detect(given, threshold=0.2, **arguments)
    assert detector.detect(flair, threshold=0.2, modality="T1w").name == "c_FLAIR"
    assert capsys.readouterr().out == ""


def test_settings_are_part_of_the_name(run):
    detector = load(run, device="cpu", batch_size=3)
    assert (detector.name, detector.modality, detector.batch_size) == ("run", "T1w", 3)
    changed = load(str(run), device="cpu", s=24, t_test=[60, 125], unet={"blocks": 1})
    assert changed.name == "run@s=24,t_test=[60,125],unet.blocks=1"
    assert changed.model.method.config.s == 24
    assert changed.model.method.config.t_test == (60, 125)
    assert load(f"{run}@s=24", t_test=60, device="cpu").name == "run@s=24,t_test=60"
    recentred = load(run, device="cpu", recentre=True)
    assert recentred.model.method.config.recentre is True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size=0`: give 1 or more"),
        ({"device": "tpu"}, "`device='tpu'`"),
        ({"nonsense": 3}, "nonsense: unknown setting"),
        ({"s": 17}, "17"),
    ],
)
def test_wrong_options_of_load(run, options, message, capsys):
    with pytest.raises(InputError, match=message):
        load(run, **{"device": "cpu", **options})
    assert capsys.readouterr().out == ""


def test_settings_of_a_mean(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    mean = load(f"{run}@s=24+{other}", device="cpu")
    assert mean.name == "run@s=24+other"
    with pytest.raises(InputError, match=r"a mean of models; .* for example A@s=24\+B@s=24"):
        load(f"{run}+{other}", device="cpu", s=24)


def test_unknown_model():
    with pytest.raises(InputError, match="nonsense: is not a run folder"):
        load("nonsense")


def test_preparation_of_the_model(run):
    model = read_model(run)
    preparation = replace(model.preparation, brain=BrainConfig(tool="none"), qc=UNALIGNED.qc)
    assert Detector(model, preparation).preparation is preparation
    registered = replace(preparation, registration=RegistrationConfig(enabled=True))
    with pytest.raises(InputError, match="run: the detector prepares scans with another regist"):
        Detector(model, registered)


def test_symmetry_needs_registration(run):
    model = read_model(run)
    with pytest.raises(InputError, match=r"run: `?postprocess\.symmetry"):
        make_detector(model).with_postprocess({"symmetry": 0.5})
    symmetric = replace(model, postprocess=PostprocessConfig(symmetry=0.5))
    with pytest.raises(InputError, match=r"run: `?postprocess\.symmetry"):
        make_detector(symmetric)
    registered = replace(symmetric.preparation, registration=RegistrationConfig(enabled=True))
    assert make_detector(replace(symmetric, preparation=registered))


def test_other_postprocessing(detector, scan):
    changed = detector.with_postprocess({"median_size": 1})
    with pytest.raises(InputError, match="other settings of postprocess"):
        changed.detect(scan[0])
    first, second = (each.detect(scan[0], threshold=0.2) for each in (detector, changed))
    assert not np.array_equal(first.anomaly_map, second.anomaly_map)


T1W = {"white": 0.85, "grey": 0.49, "fluid": 0.16}
FLAIR = {"white": 0.64, "grey": 0.58, "fluid": 0.10}
T2W = {"white": 0.45, "grey": 0.55, "fluid": 0.93}


@pytest.mark.parametrize(
    ("levels", "refusal"), [(T1W, ""), (FLAIR, "white matter"), (T2W, "looks like T2w"), ({}, "")]
)
def test_name_without_contrast(detector, scan, levels, refusal):
    """The image is checked if the name states no contrast, whatever its neighbours' names are."""
    named, *_ = scan
    path = named.with_name("patient3.nii.gz")
    shutil.copy(named, path)
    shutil.copy(named, named.with_name("patient3_T1w.nii.gz"))
    tools = Tools(
        align=lambda *_, **__: Alignment(np.eye(4), -0.4),
        check_alignment=lambda *_: ({"tissue_levels": levels}, []),
    )
    preparation = replace(detector.preparation, qc=QualityConfig(align="always"))
    checked = replace(detector, preparation=preparation, tools=tools)
    if refusal:
        message = rf"patient3\.nii\.gz: its name states no contrast.*{refusal}"
        with pytest.raises(InputError, match=message):
            checked.detect(path, threshold=0.2)
        stated = checked.detect(path, threshold=0.2, modality="T1w")
        assert "wrong-contrast" in stated.quality.codes
        assert "wrong-contrast" in checked.detect(named, threshold=0.2).quality.codes
    else:
        codes = checked.detect(path, threshold=0.2).quality.codes
        assert ("contrast-unstated" in codes) == (not levels)


@pytest.mark.parametrize("value", [1e36, -1e36])
def test_weights_that_give_infinity(detector, scan, value):
    """Finite weights whose results are not: no empty mask, but an error with the model's name."""
    damaged = deepcopy(detector.model.method)
    with torch.no_grad():
        for parameter in damaged.parameters():
            parameter.view(-1)[0] = value
    model = replace(detector.model, network=replace(detector.model.network))
    vars(model.network)["method"] = damaged  # fills the cached property
    with pytest.raises(InputError, match=r"run: computes NaN or infinity in \d+ of \d+ voxels"):
        make_detector(model).detect(scan[0], threshold=0.2)


def test_unit_of_the_map(detector, run, scan, caplog):
    """With thresholds, 1 is the default threshold; without, the map shows the residual."""
    scaled = detector.detect(scan[0])
    (run / "calibration.json").rename(run / "kept.json")
    try:
        raw = load(run, device="cpu").detect(scan[0], threshold=scaled.scale)
    finally:
        (run / "kept.json").rename(run / "calibration.json")
    assert (scaled.threshold, scaled.unit) == (1, "default threshold")
    assert (raw.scale, raw.unit) == (None, "residual")
    np.testing.assert_array_equal(raw.residual, raw.anomaly_map)
    np.testing.assert_allclose(scaled.residual, raw.residual, rtol=3e-7)
    assert scaled.anomaly_map.max() == pytest.approx(raw.anomaly_map.max() / scaled.scale)
    np.testing.assert_array_equal(scaled.anomaly_mask, raw.anomaly_mask)
    assert scaled.score == pytest.approx(raw.score / scaled.scale)
    for one, other in zip(scaled.regions, raw.regions, strict=True):
        assert one.peak == pytest.approx(other.peak / scaled.scale)
        assert one.volume_ml == other.volume_ml
    slices = scaled.on_model_grid.anomaly_map * scaled.scale
    np.testing.assert_allclose(slices, raw.on_model_grid.anomaly_map, rtol=3e-7)
    assert scaled.summary()["scale"] == scaled.scale
    assert not caplog.records
    detector.detect(scan[0], threshold=0.01)
    assert "0.01 detects nearly everything" in caplog.text


def test_threshold_without_unit_is_at_most_1(run):
    changed = load(run, device="cpu", t_test=60)
    assert changed.scale is None and changed.threshold_for(0.5).residual == 0.5
    with pytest.raises(InputError, match=r"`threshold=1\.5`: no threshold is valid for .*run@t_t"):
        changed.threshold_for(1.5)
