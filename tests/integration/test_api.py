"""The Python API: its results equal those of `maediff detect`, bit for bit."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import maediff
from helpers.brains import ball, made_brain, made_cohort, save
from helpers.dicom import write_series
from helpers.runs import ABOUT, made_run
from maediff import cli
from maediff.cohort.cohort import Cohort
from maediff.detection.result import IMAGES
from maediff.models.calibrate import calibrate_folder
from maediff.models.export import export_model

ONLY_OF_THE_COMMAND = {"made_from", "model_from", "source"}
OPENED: list[str] | None = None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    run = made_run(folder / "run")
    calibrate_folder(run, Cohort.open(made_cohort(folder / "cohort")))
    return run


@pytest.fixture
def scan(tmp_path):
    """(data, mask, affine) of whole numbers, with a bright ball."""
    data, brain, affine = made_brain(shape=(60, 72, 6), spacing=(2.0, 2.0, 12.0))
    data = np.where(ball(data.shape, affine, (15, -10, 0), 15) & brain, 230, np.round(data))
    mask = brain.copy()
    mask[:25] = False
    return data.astype(np.float32), mask, affine


def read(path):
    """Return the content of a result file; gzip stores a name besides the content."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def assert_same_files(folder, expected):
    """Assert that two folders of results hold the same files with the same content."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}
    for path in expected.iterdir():
        if path.suffix == ".npz":
            first, second = (np.load(each / path.name) for each in (folder, expected))
            assert {*first.files} == {*second.files}
            for name in first.files:
                np.testing.assert_array_equal(first[name], second[name])
        elif path.name != "summary.json":
            assert read(folder / path.name) == read(path), path.name
    summaries = [
        json.loads((each / "summary.json").read_text("utf-8")) for each in (folder, expected)
    ]
    keys = summaries[1].keys() - ONLY_OF_THE_COMMAND
    assert {key: summaries[0][key] for key in keys} == {key: summaries[1][key] for key in keys}
    assert summaries[0].keys() | {"made_from", "source"} == summaries[1].keys()


def command(scan, out, run, **options):
    """Run `maediff detect` on one scan, and return the folder of its results."""
    cli.detect(out, [scan], model=str(run), device="cpu", quiet=True, **options)
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


def test_detect_of_a_file_writes_the_files_of_the_command(run, scan, tmp_path, capsys):
    data, mask, affine = scan
    path = save(tmp_path / "patient_T1w.nii.gz", data, affine, "LPS")
    file = save(tmp_path / "mask.nii.gz", mask, affine)
    model = maediff.load(run, device="cpu")
    capsys.readouterr()
    for number, options in enumerate(
        (
            {},
            {"threshold": 0.2},
            {"fpr": 0.05},
            {"scan_fpr": 0.5},
            {"brain_mask": file},
            {"seed": 4},
        )
    ):
        result = model.detect(path, **options)
        folder = result.save(tmp_path / f"python{number}")
        assert capsys.readouterr().out == ""
        expected = command(path, tmp_path / f"command{number}", run, **options)
        capsys.readouterr()
        assert_same_files(folder, expected)
        for name in IMAGES:
            written = maediff.read_scan(expected / f"{name}.nii.gz").data
            np.testing.assert_array_equal(getattr(result, name).astype(np.float32), written)
    by_array = model.detect(path, brain_mask=mask[::-1, ::-1])  # the file is LPS
    np.testing.assert_array_equal(
        by_array.anomaly_map, model.detect(path, brain_mask=file).anomaly_map
    )


def test_detect_of_a_dicom_folder_writes_the_files_of_the_command(run, scan, tmp_path):
    data, _, affine = scan
    write_series(tmp_path / "patient", data, affine)
    result = maediff.load(run, device="cpu").detect(tmp_path / "patient", threshold=0.2)
    expected = command(tmp_path / "patient", tmp_path / "out", run, modality="T1w", threshold=0.2)
    assert_same_files(result.save(tmp_path / "python"), expected)


def test_volume_and_arrays(run, scan, tmp_path):
    data, _, affine = scan
    path = save(tmp_path / "patient_T1w.nii.gz", data, affine)
    expected = command(path, tmp_path / "out", run, threshold=0.2)
    maps = {name: maediff.read_scan(expected / f"{name}.nii.gz").data for name in IMAGES}
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    to_lps[:2, 3] = data.shape[0] - 1, data.shape[1] - 1
    model = maediff.load(run, device="cpu")
    for result in (
        model.detect(maediff.read_scan(path), threshold=0.2),
        model.detect(data, affine=affine, threshold=0.2),
        model.detect(data[::-1, ::-1], affine=affine @ to_lps, threshold=0.2),
    ):
        for name in IMAGES:
            array = getattr(result, name).astype(np.float32)
            np.testing.assert_array_equal(array, maps[name], name)
    lps = model.detect(data[::-1, ::-1], affine=affine @ to_lps, threshold=0.2)
    saved = maediff.read_scan(lps.save(tmp_path / "lps") / "anomaly_map.nii.gz")
    np.testing.assert_array_equal(saved.data, maps["anomaly_map"])
    np.testing.assert_allclose(saved.native_affine, affine @ to_lps)  # as the array was given


def test_errors_name_arguments(run, scan, capsys):
    data, _, affine = scan
    model = maediff.load(run, device="cpu")
    for arguments in (
        {"threshold": -2.0},
        {"fpr": 0.9},
        {"scan_fpr": 0.001},
        {"seed": -1},
        {"t1": "none.nii"},
        {"brain_mask": "none.nii"},
        {"affine": np.eye(3)},
        {"modality": "PET"},
    ):
        (name,) = arguments
        with pytest.raises(maediff.InputError, match=f"`{name}[=`]"):
            model.detect(data, **{"affine": affine, **arguments})
    for arguments in ({"device": "tpu"}, {"batch_size": 0}):
        (name,) = arguments
        with pytest.raises(maediff.InputError, match=f"`{name}="):
            maediff.load(run, **arguments)
    with pytest.raises(maediff.InputError, match="no-such-model"):
        maediff.load("no-such-model")
    with pytest.raises(maediff.InputError, match="no_such_setting"):
        maediff.load(run, no_such_setting=1)
    assert capsys.readouterr().out == ""


def _record_open(event, arguments):
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


@pytest.fixture
def opened():
    """Paths that are opened during the test."""
    global OPENED
    if not getattr(sys, "_maediff_hook", False):
        sys.addaudithook(_record_open)
        sys._maediff_hook = True
    OPENED = []
    yield OPENED
    OPENED = None


@pytest.mark.parametrize("shipped", [False, True])
def test_each_file_of_a_model_is_opened_once(run, scan, tmp_path, shipped, opened):
    data, _, affine = scan
    model = run
    if shipped:
        (run / "train_subjects.json").write_text("[]")
        export_model(run, tmp_path / "t1", ABOUT)
        model = tmp_path / "t1"
    opened.clear()
    maediff.load(model, device="cpu").detect(data, affine=affine)
    inside = [Path(path) for path in opened if Path(path).is_relative_to(model)]
    assert len(inside) == len(set(inside)), inside
    names = sorted(path.relative_to(model).as_posix() for path in inside)
    parts = (
        ["model.safetensors"] if shipped else ["best/model.safetensors", "last/model.safetensors"]
    )
    assert {"calibration.json", "config.json", *parts} <= {*names}
    assert ("card.json" in names) == shipped


def test_imports_no_torch():
    code = (
        "import sys, maediff\n"
        "assert set(dir(maediff)) >= {'load', 'read_scan', '__version__'}\n"
        "maediff.InputError, maediff.RunOptions, maediff.__version__\n"
        "heavy = {'torch', 'scipy', 'SimpleITK', 'nibabel', 'matplotlib'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", maediff.__all__)
def test_every_public_name_is_importable_and_documented(name):
    assert name in dir(maediff)
    value = getattr(maediff, name)
    assert value is getattr(maediff, name)
    if name != "__version__":
        assert value.__doc__ and value.__name__ == name


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'maediff' has no attribute 'lod'"):
        maediff.lod  # noqa: B018
