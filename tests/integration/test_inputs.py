"""Inputs of every kind through `preprocess`: the cohort, and messages of unusable scans."""

import io
import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from helpers.brains import ball, made_brain, save
from helpers.dicom import SECRETS, drop_slices, write_series, write_study
from helpers.inputs import make_brats, make_ixi, names_of
from helpers.options import QUIET, RESUME, UNREGISTERED
from maediff import cli
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess as preprocess_scans
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder
from maediff.scans.inputs.find import find_scans
from maediff.scans.read import read_volume

preprocess = partial(preprocess_scans, preparation=UNREGISTERED)


@pytest.fixture
def volume():
    """(data, affine): 12 thick slices of whole numbers, large enough to preprocess."""
    data, _, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    return np.round(data), affine


def test_modality_is_needed_if_no_name_states_it(volume, tmp_path):
    write_study(tmp_path / "q", volume, "ax brain")
    with pytest.raises(InputError, match=r"no single modality .* `modality=T1w"):
        preprocess([tmp_path / "q"], tmp_path / "out", run=QUIET)


def test_pdw_is_for_manifests_only(tmp_path):
    root = make_ixi(tmp_path / "IXI")
    with pytest.raises(InputError, match="modality PDw: no model uses it"):
        preprocess([root], tmp_path / "out", modality="PDw", run=QUIET)
    with pytest.raises(InputError, match=r"\(PDw\); use `modality=T1w"):
        preprocess([root / "IXI-PD"], tmp_path / "out", run=QUIET)
    cli.preprocess(tmp_path / "list", [root], modality="PDw", manifest_only=True)
    assert len(find_scans([tmp_path / "list" / "manifest.csv"])) == 4


def test_unusable_studies_fail_by_name(volume, tmp_path, caplog):
    root = tmp_path / "in"
    write_series(root / "good" / "s", *volume, PatientID="1")
    write_series(root / "junk" / "s", *volume, PatientID="2")
    (root / "junk" / "s" / "x.dcm").write_bytes(b"no DICOM")
    write_study(root / "two", volume, "t1_mprage", "t1_mprage", PatientID="3")
    write_study(root / "contrast", volume, "t1_mprage gd", PatientID="4")
    write_series(root / "mixed" / "v1", *volume, PatientID="5")
    write_series(root / "mixed", *volume, PatientID="5")
    (root / "empty").mkdir()
    (root / "empty" / "y.dcm").write_bytes(b"no DICOM")
    refs = find_scans([root])
    assert {ref.name: (ref.problem or "").partition(": ")[2][:21] for ref in refs} == {
        "good_s": "",
        "junk_s": "cannot be read as DIC",
        "two": "several series may be",
        "empty": "cannot be read as DIC",
        "contrast_s1": "no MR series that may",
        "mixed": "holds several studies",
    }
    assert preprocess([root], tmp_path / "out", run=QUIET) == 5
    for name in ("junk_s", "two", "contrast_s1", "mixed", "empty"):
        assert f"{name} failed: {root / name.partition('_')[0]}" in caplog.text
    two = root / "two"
    assert f"two failed: {two}: several series may be the scan; give `series`" in caplog.text
    assert f"(give {two} alone to list them)" in caplog.text
    written = (tmp_path / "out" / "qc.csv").read_text("utf-8") + caplog.text
    assert not any(secret in written for secret in (*SECRETS.values(), "1.2.826"))


def test_cohort_from_dicom_names_nobody_and_is_resumed(volume, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, *volume, PatientID=name)
    write_series(tmp_path / "in" / "c", *volume, PatientID="c", change=drop_slices(5))
    out = tmp_path / "out"
    assert preprocess([tmp_path / "in"], out, run=QUIET) == 1
    assert "c failed" in caplog.text
    assert "a slice is missing" in caplog.text
    texts = [path for path in out.rglob("*") if path.suffix in (".json", ".csv")]
    written = "".join(path.read_text(errors="replace") for path in texts)
    paths = " ".join(str(path) for path in out.rglob("*"))
    for secret in (*SECRETS.values(), "Secret", "1.2.826"):
        assert secret not in written + paths + caplog.text
    read = []
    monkeypatch.setattr(
        "maediff.cohort.preprocess.read_volume",
        lambda ref: read.append(ref.name) or read_volume(ref),
    )
    assert preprocess([tmp_path / "in"], out, run=RESUME) == 1
    assert read == ["c"]


def test_manifest_of_the_command_reads_as_same_scans(tmp_path):
    root = make_brats(tmp_path / "mes données" / "BraTS", "BraTS2020")
    refs = find_scans([root], "FLAIR")
    cli.preprocess(tmp_path / "out", [root], modality="FLAIR", manifest_only=True)
    path = tmp_path / "out" / "manifest.csv"
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    back = find_scans([path])
    for field in ("name", "split", "healthy", "dataset", "modality", "lesion_labels"):
        assert [getattr(ref, field) for ref in back] == [getattr(ref, field) for ref in refs]


def test_scans_without_statement_stay_healthy_through_a_manifest(tmp_path):
    data, brain, affine = made_brain(shape=(20, 24, 8), spacing=(6.0, 6.0, 12.0))
    files = ("plain/a_T1.nii", "plain/b_T1.nii", "ds/sub-1/ses-2/anat/sub-1_ses-2_T1w.nii")
    for number, name in enumerate(files):
        save(tmp_path / name, data + number * brain, affine)
    (tmp_path / "ds" / "dataset_description.json").write_text("{}")
    inputs = [tmp_path / "plain", tmp_path / "ds"]
    cli.preprocess(tmp_path / "list", inputs, manifest_only=True)
    manifest = tmp_path / "list" / "manifest.csv"
    assert names_of(find_scans([manifest])) == names_of(find_scans(inputs))
    assert preprocess([manifest], tmp_path / "out", run=QUIET) == 0
    assert [row.healthy for row in Cohort.open(tmp_path / "out").rows] == [True] * 3


def test_labels_of_a_tumour_become_one_lesion(tmp_path):
    data, brain, affine = made_brain(shape=(60, 72, 8), spacing=(2.0, 2.0, 8.0))
    tumour = ball(data.shape, affine, (12, -10, 5), 20) & brain
    labels = tumour.astype(np.uint8) * 4
    labels[:, :36][tumour[:, :36]] = 1
    for number in range(3):
        case = f"BraTS2021_0000{number}"
        save(tmp_path / "in" / case / f"{case}_flair.nii.gz", data + number * brain, affine)
        save(tmp_path / "in" / case / f"{case}_seg.nii.gz", labels, affine)
    assert preprocess([tmp_path / "in"], tmp_path / "out", run=QUIET) == 0
    cohort = Cohort.open(tmp_path / "out")
    rows = cohort.split("val") + cohort.split("test")
    assert [row.healthy for row in rows] == [False] * 3
    lesion = cohort.load(rows[0]).lesion
    voxel_ml = 4 * 8 / 1000
    assert lesion.sum() * voxel_ml == pytest.approx(tumour.sum() * voxel_ml, rel=0.1)


def test_unreadable_file_fails_by_name(tmp_path, monkeypatch, caplog):
    data, brain, affine = made_brain(shape=(20, 24, 8), spacing=(6.0, 6.0, 12.0))
    folder = tmp_path / "IXI"
    for number in range(3):
        name = f"IXI00{number}-HH-000{number}-T1.nii"
        save(folder / name, data + number * brain, affine)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes").write_text("x")
    locked = folder / "IXI001-HH-0001-T1.nii"
    open_file, open_descriptor = io.open, os.open

    def refuse(file, *args, **kwargs):  # root may read any file, whatever its mode
        if str(file) in (str(locked), str(tmp_path / "in" / "notes")):
            raise PermissionError(13, "Permission denied", str(file))
        return open_file(file, *args, **kwargs)

    def refuse_descriptor(path, *args, **kwargs):
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return open_descriptor(path, *args, **kwargs)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(os, "open", refuse_descriptor)
    with pytest.raises(PermissionError):
        locked.read_bytes()
    assert preprocess([folder], tmp_path / "out", run=QUIET) == 1
    assert "IXI001 failed" in caplog.text
    assert "T1.nii: permission denied" in caplog.text
    assert names_of(Cohort.open(tmp_path / "out").rows) == ["IXI000", "IXI002"]
    assert names_of(find_scans(sorted(folder.iterdir())))[1] == "IXI001-HH-0001-T1"
    with pytest.raises(InputError, match="notes: permission denied"):
        find_scans([tmp_path / "in"])


def test_unusable_output_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    root = make_brats(tmp_path / "in", "BraTS2021")
    with pytest.raises(InputError, match="file: is a file, but the output is a folder"):
        preprocess([root], tmp_path / "file", modality="FLAIR", run=QUIET)
    with pytest.raises(InputError, match=r"below: could not be created .*; choose another folder"):
        preprocess([root], tmp_path / "file" / "below", modality="FLAIR", run=QUIET)

    def read_only(*_args, **_kwargs):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(
        InputError, match=r"out: could not be .* \(Read-only file system\); choose another"
    ):
        preprocess([root], tmp_path / "out", modality="FLAIR", run=QUIET)


def test_read_only_cohort_is_named_when_resumed(tmp_path, monkeypatch):
    out = fresh_folder(tmp_path / "out")
    root = make_brats(tmp_path / "in", "BraTS2021")

    def refuse_new_files(call):
        def refuse(path, *args, **kwargs):
            if Path(path).parent == out and (call is os.unlink or not Path(path).exists()):
                raise PermissionError(13, "Permission denied")
            return call(path, *args, **kwargs)

        return refuse

    (out / "cohort.json").write_text("{}")
    monkeypatch.setattr(os, "open", refuse_new_files(os.open))
    monkeypatch.setattr(os, "unlink", refuse_new_files(os.unlink))
    message = r"out: could not be written to \(Permission denied\); choose another"
    with pytest.raises(InputError, match=message):
        preprocess([root], out, modality="FLAIR", run=RESUME)
    with pytest.raises(InputError, match=r"out: could not be written to"):
        fresh_folder(out, resume=True)  # as detect does
