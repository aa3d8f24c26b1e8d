"""Scans to a cohort: files, records, failures, resuming."""

import csv
import json
import logging
from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest

import maediff.cohort.preprocess as module
from helpers.brains import ball, made_brain, save
from helpers.options import OVERWRITE, QUIET, RESUME, UNREGISTERED
from maediff import cli
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess as preprocess_scans
from maediff.core.errors import InputError
from maediff.core.options import RunOptions
from maediff.preparation.brain_extraction import BrainConfig

preprocess = partial(preprocess_scans, preparation=UNREGISTERED)


def scan(path, seed=0):
    data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0), seed=seed)
    return save(path, data, affine)


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        scan(tmp_path / "in" / f"p{number}.nii.gz", number)
    return tmp_path / "in"


def qc(out):
    with (out / "qc.csv").open() as handle:
        return {row["name"]: row for row in csv.DictReader(handle)}


def test_a_folder_becomes_a_cohort(folder, tmp_path):
    out = tmp_path / "cohort"
    assert preprocess([folder], out, modality="T2w", run=QUIET) == 0
    cohort = Cohort.open(out)
    assert [row.subject for row in cohort.rows] == ["p0", "p1", "p2"]
    assert all(row.healthy for row in cohort.rows) and {row.dataset for row in cohort.rows} == {
        "in"
    }
    assert cohort.meta["modality"] == "T2w" and cohort.meta["grid"]["size"] == 96
    header = (out / "manifest.csv").read_text("utf-8").splitlines()[0]
    assert header == "subject,session,dataset,split,healthy,image,brain_mask,lesion_mask,source"
    image, mask = (nib.load(out / "p0" / f"{name}.nii.gz") for name in ("image", "brain_mask"))
    assert image.shape[:2] == (96, 96) and mask.get_data_dtype() == np.uint8
    assert sorted(path.name for path in (out / "p0").iterdir()) == [
        "brain_mask.nii.gz",
        "image.json",
        "image.nii.gz",
        "qc.png",
    ]


def test_modality_from_names(folder, tmp_path):
    scan(tmp_path / "ds" / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz")
    (tmp_path / "ds" / "dataset_description.json").write_text("{}")
    assert preprocess([tmp_path / "ds"], tmp_path / "cohort", run=QUIET) == 0
    assert Cohort.open(tmp_path / "cohort").meta["modality"] == "FLAIR"
    with pytest.raises(InputError, match=r"give no single modality .* `modality=T1w\|T2w\|FLAIR`"):
        preprocess([folder], tmp_path / "other", run=QUIET)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("column", "lesion", "expected"),
    [
        (None, None, True),
        (None, "some", False),
        (None, "none", True),
        ("1", None, True),
        ("0", None, False),
        ("", None, None),
        ("", "some", None),
        ("0", "some", False),
        ("1", "none", True),
    ],
)
def test_health_comes_from_the_manifest_or_the_lesion_mask(tmp_path, column, lesion, expected):
    data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0))
    scan(tmp_path / "a.nii.gz")
    if lesion:
        mask = ball(data.shape, affine, (10, 5, 0), 5.0)
        save(tmp_path / "l.nii.gz", mask if lesion == "some" else mask & False, affine)
    (tmp_path / "m.csv").write_text(
        f"subject,image,lesion_mask{'' if column is None else ',healthy'}\n"
        f"a,a.nii.gz,{'l.nii.gz' if lesion else ''}{'' if column is None else ',' + column}\n"
    )
    assert preprocess([tmp_path / "m.csv"], tmp_path / "out", modality="T1w", run=QUIET) == 0
    assert Cohort.open(tmp_path / "out").rows[0].healthy is expected


def test_failed_scans(folder, tmp_path, caplog):
    (folder / "p1.nii.gz").write_bytes(b"")
    save(
        folder / "p3.nii.gz",
        np.random.default_rng(0).random((40, 40, 20)),
        np.diag([4.0, 4.0, 4.0, 1.0]),
    )
    no_tool = replace(UNREGISTERED, brain=BrainConfig(tool="none"))
    with caplog.at_level(logging.ERROR):
        assert (
            preprocess([folder], tmp_path / "out", modality="T1w", preparation=no_tool, run=QUIET)
            == 2
        )
    assert "p1 failed" in caplog.text and "0 bytes" in caplog.text
    assert "p3 failed" in caplog.text and "raw scan with skull" in caplog.text
    assert [row.subject for row in Cohort.open(tmp_path / "out").rows] == ["p0", "p2"]
    assert not (tmp_path / "out" / "p1").exists()
    assert {name: row["status"] for name, row in qc(tmp_path / "out").items()} == {
        "p0": "flagged",
        "p1": "failed",
        "p2": "flagged",
        "p3": "failed",
    }  # small brains are flagged
    assert Cohort.open(tmp_path / "out").meta["n_failed"] == 2


def test_all_scans_failed(tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"")
    assert preprocess([tmp_path / "bad.nii.gz"], tmp_path / "out", modality="T1w", run=QUIET) == 1
    with pytest.raises(InputError, match=r"no cohort\.json"):
        Cohort.open(tmp_path / "out")


def _rows(tmp_path, header, row):
    (tmp_path / "m.csv").write_text(f"{header}\n{row}\n")
    return [tmp_path / "m.csv"]


def test_unusable_masks(tmp_path):
    data, brain, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0))
    scan(tmp_path / "a.nii.gz")
    save(tmp_path / "empty.nii.gz", brain & False, affine)
    save(tmp_path / "some.nii.gz", ball(data.shape, affine, (10, 5, 0), 5.0), affine)
    save(tmp_path / "small.nii.gz", brain[1:], affine)
    cases = [
        ("brain_mask", "empty.nii.gz", "", "the mask is empty"),
        ("brain_mask", "small.nii.gz", "", "59 x 72 x 14"),
        ("lesion_mask", "small.nii.gz", "", "59 x 72 x 14"),
        ("lesion_mask", "some.nii.gz", "1", "healthy=1"),
        ("lesion_mask", "empty.nii.gz", "0", "holds no lesion, but the manifest has healthy=0"),
    ]
    for number, (column, file, healthy, says) in enumerate(cases):
        inputs = _rows(tmp_path, f"subject,image,{column},healthy", f"a,a.nii.gz,{file},{healthy}")
        out = tmp_path / f"out{number}"
        assert preprocess(inputs, out, modality="T1w", run=QUIET) == 1
        assert says in qc(out)["a"]["flags"] and file in qc(out)["a"]["flags"]


def test_resume_with_other_scans_keeps_the_cohort(folder, tmp_path, caplog):
    out = tmp_path / "out"
    preprocess([folder], out, modality="T1w", run=QUIET)
    other = scan(tmp_path / "other" / "p9.nii.gz", 9).parent
    with pytest.raises(InputError, match=r"a cohort of 3 other scan\(s\) \(p0, p1, p2\)"):
        preprocess([other], out, modality="T1w", run=RESUME)
    assert len(Cohort.open(out).rows) == 3
    (folder / "p1.nii.gz").unlink()
    assert preprocess([folder], out, modality="T1w", run=RESUME) == 0
    assert "1 scan(s) are not in the inputs and leave the cohort: p1" in caplog.text
    assert [row.subject for row in Cohort.open(out).rows] == ["p0", "p2"]


def test_interrupted_and_resumed(folder, tmp_path, monkeypatch):
    preprocess([folder], tmp_path / "whole", modality="T1w", run=QUIET)
    prepare, calls = module.prepare, []

    def stop_at_second_scan(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return prepare(*args, **kwargs)

    out = tmp_path / "out"
    monkeypatch.setattr(module, "prepare", stop_at_second_scan)
    with pytest.raises(KeyboardInterrupt):
        preprocess([folder], out, modality="T1w", run=QUIET)
    with pytest.raises(InputError, match=r"did not finish; run .*--resume"):
        Cohort.open(out)
    (out / "p1").mkdir()
    (out / "p1" / "image.nii.gz").write_bytes(b"half")  # killed while writing
    with pytest.raises(InputError, match="`resume=True`"):
        preprocess([folder], out, modality="T1w", run=QUIET)
    assert preprocess([folder], out, modality="T1w", run=RESUME) == 0
    assert [str(args[0].source.name) for args in calls] == [
        "p0.nii.gz",
        "p1.nii.gz",
        "p1.nii.gz",
        "p2.nii.gz",
    ]
    for name in ("manifest.csv", "qc.csv", "cohort.json"):
        assert (out / name).read_text("utf-8") == (tmp_path / "whole" / name).read_text("utf-8")
    for row in Cohort.open(out).rows:
        whole = next(
            other for other in Cohort.open(tmp_path / "whole").rows if other.name == row.name
        )
        np.testing.assert_array_equal(
            Cohort.open(out).load(row).images, Cohort.open(out).load(whole).images
        )


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_damaged_cohort_json(folder, tmp_path, content):
    tmp_path = tmp_path / "out"
    tmp_path.mkdir()
    (tmp_path / "cohort.json").write_text(content)
    with pytest.raises(InputError, match=r"cohort\.json"):
        Cohort.open(tmp_path)
    (tmp_path / ".maediff").touch()
    assert preprocess([folder / "p0.nii.gz"], tmp_path, modality="T1w", run=RESUME) == 0
    assert len(Cohort.open(tmp_path).rows) == 1


def test_interrupted_while_resuming(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    preprocess([folder], out, modality="T1w", run=QUIET)
    scan(folder / "p1.nii.gz", seed=9)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "prepare", stop)
    with pytest.raises(KeyboardInterrupt):
        preprocess([folder], out, modality="T1w", run=RESUME)
    with pytest.raises(InputError, match="did not finish"):
        Cohort.open(out)


def test_changed_scan(folder, tmp_path):
    out = tmp_path / "out"
    (folder / "m.csv").write_text("subject,image,split\na,p0.nii.gz,train\n")
    preprocess([folder / "m.csv"], out, modality="T1w", run=QUIET)
    before = np.array(Cohort.open(out).training_slices("train").images)
    scan(folder / "p0.nii.gz", seed=9)
    preprocess([folder / "m.csv"], out, modality="T1w", run=RESUME)
    assert not np.array_equal(Cohort.open(out).training_slices("train").images, before)


@pytest.mark.parametrize("kind", ["image", "brain_mask", "lesion_mask"])
def test_missing_file(tmp_path, kind):
    data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0))
    scan(tmp_path / "a.nii.gz")
    save(tmp_path / "l.nii.gz", ball(data.shape, affine, (10, 5, 0), 5.0), affine)
    inputs, out = (
        _rows(tmp_path, "subject,image,lesion_mask", "a,a.nii.gz,l.nii.gz"),
        tmp_path / "out",
    )
    preprocess(inputs, out, modality="T1w", run=QUIET)
    (out / "a" / f"{kind}.nii.gz").unlink()
    assert preprocess(inputs, out, modality="T1w", run=RESUME) == 0
    assert (out / "a" / f"{kind}.nii.gz").is_file()


def test_other_version(folder, tmp_path, monkeypatch):
    prepare, calls = module.prepare, []

    def count(*args, **kwargs):
        calls.append(args)
        return prepare(*args, **kwargs)

    monkeypatch.setattr(module, "prepare", count)
    for version, done in (("1.0", 1), ("1.0", 1), ("1.1", 2)):
        monkeypatch.setattr(module, "__version__", version)
        preprocess(
            [folder / "p0.nii.gz"],
            tmp_path / "out",
            modality="T1w",
            run=RESUME,
        )
        assert len(calls) == done
        assert Cohort.open(tmp_path / "out").meta["maediff"] == version


def test_existing_output(folder, tmp_path):
    out = tmp_path / "out"
    preprocess([folder], out, modality="T1w", run=QUIET)
    with pytest.raises(InputError, match="exists and is not empty"):
        preprocess([folder], out, modality="T1w", run=QUIET)
    with pytest.raises(
        InputError,
        match="was made with modality T1w, but modality is T2w now; use `overwrite=True`",
    ):
        preprocess([folder], out, modality="T2w", run=RESUME)
    assert Cohort.open(out).meta["modality"] == "T1w"
    assert preprocess([folder / "p0.nii.gz"], out, modality="T2w", run=OVERWRITE) == 0
    assert len(Cohort.open(out).rows) == 1 and not (out / "p1").exists()


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
@pytest.mark.parametrize("inside", ["image", "brain_mask", "lesion_mask", "t1", "manifest"])
def test_input_inside_output(tmp_path, inside, flags):
    out, kept = tmp_path / "out", tmp_path / "out" / "mine.nii.gz"
    scan(tmp_path / "p0_FLAIR.nii.gz")
    cli.preprocess(out, [tmp_path / "p0_FLAIR.nii.gz"], manifest_only=True)
    if inside == "manifest":
        inputs = [out / "manifest.csv"]
    else:
        kept.write_bytes((tmp_path / "p0_FLAIR.nii.gz").read_bytes())
        cells = {"image": "p0_FLAIR.nii.gz", inside: "out/mine.nii.gz"}
        inputs = _rows(tmp_path, ",".join(["subject", *cells]), ",".join(["a", *cells.values()]))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(
        InputError, match=r"out: holds the input .*out/(mine\.nii\.gz|manifest\.csv); choose"
    ):
        preprocess(inputs, out, modality="FLAIR", run=RunOptions(quiet=True, **flags))
    with pytest.raises(InputError, match="holds the input"):
        cli.preprocess(out, inputs, modality="FLAIR", manifest_only=True, **flags)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_full_disk(folder, tmp_path, monkeypatch):
    save_image, out = nib.save, tmp_path / "out"

    def full(image, path):
        if path.parent.name == "p1":
            raise OSError(28, "No space left on device")
        save_image(image, path)

    monkeypatch.setattr(nib, "save", full)
    assert preprocess([folder], out, modality="T1w", run=QUIET) == 1
    assert "No space left" in qc(out)["p1"]["flags"] and not (out / "p1").exists()
    assert len(Cohort.open(out).rows) == 2


def test_record_and_margin(tmp_path):
    data, _, affine = made_brain((60, 72, 14), (2.0, 2.0, 6.0))
    scan(tmp_path / "a.nii.gz")
    save(tmp_path / "l.nii.gz", ball(data.shape, affine, (10, 5, 0), 5.0), affine)
    inputs = _rows(tmp_path, "subject,image,lesion_mask,lesion_kind", "a,a.nii.gz,l.nii.gz,bright")
    free = []
    for margin in (0, 1, 3):
        preprocess(
            inputs,
            tmp_path / f"out{margin}",
            modality="T1w",
            lesion_free_margin=margin,
            run=QUIET,
        )
        record = json.loads((tmp_path / f"out{margin}" / "a" / "image.json").read_text("utf-8"))
        free.append(sum(record["lesion_free"]))
        assert record["extra"] == {"lesion_kind": "bright"} and record["record"]["lesion_ml"] > 4
    assert free == [free[0], free[0] - 2, free[0] - 6]
    with pytest.raises(InputError, match="`lesion_free_margin=-1`: give 0 or more"):
        preprocess(inputs, tmp_path / "no", modality="T1w", lesion_free_margin=-1)


def test_progress_bar(folder, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    caplog.set_level("INFO")
    preprocess([folder], tmp_path / "out", modality="T1w")
    captured = capsys.readouterr()
    assert captured.out == "" and "preprocess" in captured.err
    assert "p0: FLAGGED (brain-volume: " in caplog.text


@pytest.mark.slow
def test_real_glioma_manifest(shared_data, tmp_path):
    """Preprocess every third patient."""
    folder = shared_data / "lgg"
    header, *rows = (folder / "flair.csv").read_text("utf-8").splitlines()
    cells = [[str(folder / c) if "/" in c else c for c in row.split(",")] for row in rows[::3]]
    manifest = tmp_path / "flair.csv"
    manifest.write_text("\n".join([header, *map(",".join, cells)]))
    assert preprocess([manifest], tmp_path / "out", modality="FLAIR", run=QUIET) == 0
    cohort = Cohort.open(tmp_path / "out")
    assert cohort.meta["modality"] == "FLAIR"
    slices = cohort.training_slices("train")
    assert len(slices.subjects) == sum("train" in row for row in cells) > 10
    scaled = [
        name for name, row in qc(tmp_path / "out").items() if "scaled to fit" in row["flags"]
    ]
    assert 1 <= len(scaled) <= 20
    for row in cohort.rows:
        loaded = cohort.load(row)
        assert not (loaded.lesion.any(axis=(1, 2)) & loaded.lesion_free).any()
        record = json.loads(row.image.with_name("image.json").read_text("utf-8"))["record"]
        brain_ml = loaded.brain.sum() * np.prod(loaded.spacing_mm) / 1000
        assert brain_ml == pytest.approx(record["brain_ml"], rel=0.02), (
            row.name
        )  # the grid cuts no head


def test_line_of_a_prepared_scan_has_its_flags_first():
    record = {"flags": [], "brain_ml": 1340.2, "slices": 80, "lesion_ml": None}
    assert module.describe_prepared("a", record) == "a: brain 1340 ml, 80 slices"
    flagged = {**record, "flags": ["scaled to fit", "small"], "lesion_ml": 2.0}
    assert module.describe_prepared("a", flagged) == (
        "a: FLAGGED (scaled to fit | small), brain 1340 ml, lesion 2.0 ml, 80 slices"
    )
