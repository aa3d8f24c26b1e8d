"""Raw scans through `preprocess`: extraction, the T1w of a study, registration, processes."""

import csv
import json
import logging
import os
from functools import partial

import numpy as np
import pytest
from pydicom.uid import generate_uid

from helpers.brains import dice, made_brain, save
from helpers.dicom import write_series
from helpers.heads import atlas_brain, fake_extraction, made_head, true_brain
from helpers.options import QUIET, UNALIGNED, UNREGISTERED
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.preparation.config import PreparationConfig
from maediff.preparation.steps import run_steps
from maediff.report import write_report
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_nifti
from maediff.scans.read import read_volume


def read_qc(out):
    with (out / "qc.csv").open() as handle:
        return {row["name"]: row for row in csv.DictReader(handle)}


@pytest.mark.parametrize("failure", ["empty", "error"])
def test_failed_extraction(tmp_path, caplog, failure):
    def extract(volume):
        if volume.source.name == "b.nii.gz":
            if failure == "empty":
                return np.zeros(volume.data.shape, dtype=bool)
            raise InputError("b.nii.gz: brain extraction (deepbet) failed, it found no brain")
        return true_brain(volume)

    tools, _ = fake_extraction(extract)
    for seed, name in enumerate("abc"):
        head, _, affine = made_head(seed=seed)
        save(tmp_path / "in" / f"{name}.nii.gz", head, affine)
    out, options = tmp_path / "out", {"preparation": UNALIGNED, "tools": tools, "run": QUIET}
    with caplog.at_level(logging.ERROR):
        assert preprocess([tmp_path / "in"], out, modality="T1w", **options) == 1
    assert "b failed" in caplog.text and "found no brain" in read_qc(out)["b"]["flags"]
    assert [row.name for row in Cohort.open(out).rows] == ["a", "c"]
    assert read_qc(out)["a"]["brain_mask"] == "deepbet"
    meta = json.loads((out / "cohort.json").read_text("utf-8"))
    assert meta["brain"]["tool"] == "auto"
    assert not meta["registration"]["enabled"] and not meta["bias"]["enabled"]
    settings = json.loads((out / "a" / "image.json").read_text("utf-8"))["settings"]
    assert settings["qc"]["align"] == "never"
    assert (out / "a" / "qc.png").is_file()
    page = write_report(out).read_text("utf-8")
    assert "2 of 3 scans were prepared" in page
    assert "data:image/jpeg" in page and "found no brain" in page


def test_t1_of_a_dicom_study(tmp_path):
    tools, _ = fake_extraction(true_brain)
    head, brain, affine = made_head((60, 72, 30), (2.0, 2.0, 3.5))
    uid = generate_uid()
    thick = affine @ np.diag([1, 1, 2.0, 1])
    series = [
        ("t1_tse", head[:, :, ::2], thick),
        ("t1_mprage", head, affine),
        ("t1_mprage gd", head, affine),
        ("t2_tse", head[:, :, ::2], thick),
    ]
    for number, (description, data, grid) in enumerate(series):
        write_series(
            tmp_path / "in" / "p" / description,
            np.round(data),
            grid,
            StudyInstanceUID=uid,
            SeriesDescription=description,
            SeriesNumber=number,
        )
    (ref,) = find_scans([tmp_path / "in"], "T2w")
    assert (ref.image.name, ref.t1 and ref.t1.name) == ("t2_tse", "t1_mprage")
    assert ref.t1_series not in repr(ref)
    assert find_scans([tmp_path / "in"], "T1w", series="0")[0].t1 is None
    out, options = tmp_path / "out", {"preparation": UNALIGNED, "tools": tools, "run": QUIET}
    assert preprocess([tmp_path / "in"], out, modality="T2w", **options) == 0
    assert read_qc(out)["p"]["brain_mask"] == "deepbet on t1_mprage, moved rigidly"
    stepped = run_steps(
        read_volume(ref),
        None,
        UNALIGNED.for_modality("T2w"),
        t1=ref.t1,
        t1_series=ref.t1_series,
        tools=tools,
    )
    assert dice(stepped.brain, brain[:, :, ::2]) > 0.95
    assert ref.t1_series not in (out / "p" / "image.json").read_text("utf-8")
    (tmp_path / "list.csv").write_text("subject,image\nx,in/p\n")
    assert find_scans([tmp_path / "list.csv"], "T2w")[0].t1 == ref.t1


def test_registered_by_default(tmp_path):
    data, _, affine = atlas_brain()
    save(tmp_path / "in" / "a.nii.gz", data, affine)
    run = partial(preprocess, [tmp_path / "in"], modality="T1w", run=QUIET)
    assert run(tmp_path / "on") == run(tmp_path / "off", preparation=UNREGISTERED) == 0
    for name, enabled in (("on", True), ("off", False)):
        meta = json.loads((tmp_path / name / "cohort.json").read_text("utf-8"))
        assert meta["registration"] == {"enabled": enabled}
        assert PreparationConfig.from_record(meta).registered is enabled
        record = json.loads((tmp_path / name / "a" / "image.json").read_text("utf-8"))["record"]
        assert ("to_atlas" in record) is enabled


@pytest.mark.slow
def test_several_processes(tmp_path, monkeypatch):
    for seed in range(4):
        data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0), seed=seed)
        save(tmp_path / "in" / f"p{seed}.nii.gz", data, affine)
    run = partial(preprocess, [tmp_path / "in"], modality="T1w", preparation=UNREGISTERED)
    two_processes = RunOptions(workers=2, quiet=True)
    assert run(tmp_path / "one", run=QUIET) == run(tmp_path / "two", run=two_processes) == 0
    for row, other in zip(
        Cohort.open(tmp_path / "one").rows, Cohort.open(tmp_path / "two").rows, strict=True
    ):
        np.testing.assert_array_equal(read_nifti(row.image).data, read_nifti(other.image).data)

    def kill_at_second_scan(do, ref):
        if ref.name == "p1":
            os.kill(os.getpid(), 9)
        return do(ref)

    monkeypatch.setattr("maediff.scans.parallel._run_safely", kill_at_second_scan)
    assert run(tmp_path / "three", run=two_processes) == 1
    assert "its process was killed" in read_qc(tmp_path / "three")["p1"]["flags"]
    assert [row.name for row in Cohort.open(tmp_path / "three").rows] == ["p0", "p2", "p3"]
