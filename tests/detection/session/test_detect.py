"""`detect_sessions`: files, failures, resuming, processes, report and BIDS names."""

import base64
import csv
import gzip
import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.brains import save
from helpers.options import QUIET_CPU
from helpers.runs import ABOUT, made_run
from helpers.sessions import inverted, made_scan, made_session
from maediff.cli import app
from maediff.core.errors import InputError
from maediff.core.files import write_json
from maediff.detection.result import IMAGES
from maediff.detection.session.detect import ThresholdChoice, detect_sessions
from maediff.detection.volumes import load_volumes
from maediff.models import catalogue
from maediff.models.export import export_model
from maediff.report import write_report
from maediff.scans.inputs.sessions import SessionRef, find_sessions
from maediff.scans.reference import ScanRef

FILES = {
    "anomaly_map.nii.gz",
    "anomaly_mask.nii.gz",
    "brain_mask.nii.gz",
    "T1w_anomaly_map.nii.gz",
    "FLAIR_anomaly_map.nii.gz",
    "FLAIR_scan.nii.gz",
    "anomaly_map.json",
    "anomaly_mask.json",
    "brain_mask.json",
    "T1w_anomaly_map.json",
    "FLAIR_anomaly_map.json",
    "FLAIR_scan.json",
    "summary.json",
    "session.json",
    "regions.tsv",
    "slices.npz",
    "slices_T1w.npz",
    "slices_FLAIR.npz",
    "volumes.npz",
    "volumes_T1w.npz",
    "volumes_FLAIR.npz",
    "T1w",
    "FLAIR",
}


def detect(folder, out, models, **options):
    names = ("resume", "overwrite", "workers")
    run = {name: options.pop(name) for name in names if name in options}
    return detect_sessions(
        find_sessions([folder]),
        out,
        models=models,
        run=replace(QUIET_CPU, **run),
        **options,
    )


def read(path):
    return json.loads(path.read_text("utf-8"))


def test_files_of_a_session(folder, models, tmp_path):
    out = tmp_path / "out"
    report = detect(folder, out, models)
    assert not report.failures
    assert {path.name for path in (out / "p1").iterdir()} == FILES
    for contrast in ("T1w", "FLAIR"):
        names = {path.name for path in (out / "p1" / contrast).iterdir()}
        assert {f"{kind}.nii.gz" for kind in IMAGES} | {"summary.json", "regions.tsv"} <= names
        assert read(out / "p1" / contrast / "summary.json")["modality"] == contrast
    (summary,) = report.summaries
    assert summary == read(out / "p1" / "summary.json")
    assert summary["subject"] == "p1" and summary["modality"] == "T1w+FLAIR"
    assert summary["unit"] == "threshold of each contrast"
    assert summary["grid_of"] == "T1w" and list(summary["contrasts"]) == ["T1w", "FLAIR"]
    scan = nib.load(folder / "p1" / "T1.nii.gz")
    for name in sorted(FILES):
        if name.endswith(".nii.gz"):
            image = nib.load(out / "p1" / name)
            assert image.shape == scan.shape
            np.testing.assert_allclose(image.affine, scan.affine, atol=1e-5)
    combined = nib.load(out / "p1" / "anomaly_map.nii.gz").get_fdata()
    assert combined.max() > 1
    with (out / "participants_findings.tsv").open(encoding="utf-8", newline="") as table:
        (row,) = csv.DictReader(table, delimiter="\t")
    assert (row["participant_id"], row["modality"]) == ("p1", "T1w+FLAIR")
    shared = read(out / "detect.json")
    assert shared["session"] is True and list(shared["contrasts"]) == ["T1w", "FLAIR"]


def test_without_combination(folder, models, tmp_path):
    out = tmp_path / "out"
    report = detect(folder, out, models, rule=None)
    assert {path.name for path in (out / "p1").iterdir()} == {"T1w", "FLAIR", "session.json"}
    assert [summary["modality"] for summary in report.summaries] == ["T1w", "FLAIR"]
    page = write_report(out).read_text("utf-8")
    assert "p1, T1w" in page and "p1, FLAIR" in page and "Contrasts without a combined map" in page
    (out / "p1" / "FLAIR" / "summary.json").write_text("{", "utf-8")
    page = write_report(out).read_text("utf-8")
    assert "p1, T1w" in page and "p1 FLAIR" in page and "summary.json is damaged" in page


def test_two_heads_fail_by_name_and_their_maps_are_written(folder, models, tmp_path):
    small, _, affine = made_scan(radii_mm=(42.0, 52.0, 35.0))
    save(folder / "p1" / "FLAIR.nii.gz", inverted(small), affine)
    made_session(folder / "p2")
    out = tmp_path / "out"
    report = detect(folder, out, models)
    assert list(report.failures) == ["p1"]
    assert "the FLAIR is not of the same head" in report.failures["p1"]
    assert "15% at most" in report.failures["p1"]
    assert {path.name for path in (out / "p1").iterdir()} == {"T1w", "FLAIR", "session.json"}
    assert [summary["subject"] for summary in report.summaries] == ["p1", "p1", "p2"]
    assert read(out / "detect.json")["failures"] == report.failures
    page = write_report(out).read_text("utf-8")
    assert "not of the same head" in page and "1 without a combined map" in page


def test_a_damaged_scan_fails_by_name_and_is_done_again(folder, models, tmp_path):
    made_session(folder / "p2")
    good = tmp_path / "good.nii.gz"
    shutil.move(folder / "p1" / "FLAIR.nii.gz", good)
    (folder / "p1" / "FLAIR.nii.gz").write_bytes(b"no image")
    out = tmp_path / "out"
    report = detect(folder, out, models)
    assert list(report.failures) == ["p1 FLAIR"]
    assert str(folder) not in report.failures["p1 FLAIR"]
    record = (tmp_path / "out" / "p1" / "session.json").read_text("utf-8")
    assert "FLAIR.nii.gz" in record and str(folder) not in record
    assert [summary["modality"] for summary in report.summaries] == ["T1w", "T1w+FLAIR"]
    kept = out / "p2" / "anomaly_map.nii.gz"
    before = kept.stat().st_mtime_ns
    shutil.copy(good, folder / "p1" / "FLAIR.nii.gz")
    report = detect(folder, out, models, resume=True)
    assert not report.failures
    assert {summary["modality"] for summary in report.summaries} == {"T1w+FLAIR"}
    page = write_report(out).read_text("utf-8")
    assert "score is above its threshold" in page and ">Threshold<" in page
    assert kept.stat().st_mtime_ns == before


def test_resume_computes_what_changed(folder, models, tmp_path):
    out = tmp_path / "out"
    detect(folder, out, models)
    image = out / "p1" / "anomaly_map.nii.gz"
    before = image.stat().st_mtime_ns
    detect(folder, out, models, resume=True)
    assert image.stat().st_mtime_ns == before
    (out / "p1" / "FLAIR" / "anomaly_map.nii.gz").unlink()
    detect(folder, out, models, resume=True)
    assert (out / "p1" / "FLAIR" / "anomaly_map.nii.gz").is_file()
    with pytest.raises(InputError, match="was made with another"):
        detect(folder, out, models, resume=True, choice=ThresholdChoice(threshold=0.3))
    with pytest.raises(InputError, match="use `resume=True` to continue"):
        detect(folder, out, models)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", None),
        ("summary.json", "{"),
        ("slices.npz", None),
        ("regions.tsv", None),
        ("volumes_FLAIR.npz", None),
        ("FLAIR_scan.nii.gz", None),
        ("FLAIR/summary.json", "{"),
    ],
)
def test_lost_and_damaged_files_are_made_again(folder, models, tmp_path, name, content):
    out = tmp_path / "out"
    detect(folder, out, models)
    path = out / "p1" / name
    before = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_text(content, "utf-8")
    made_session(folder / "p2")
    report = detect(folder, out, models, resume=True)
    assert not report.failures and len(report.summaries) == 2
    assert path.stat().st_size > 10 and (
        path.suffix == ".npz" or len(path.read_bytes()) == len(before)
    )


def test_results_stay_while_the_content_of_a_scan_is_absent(folder, models, tmp_path):
    """Get, process, drop is a usual order with DataLad."""
    out, scan = tmp_path / "out", folder / "p1" / "FLAIR.nii.gz"
    content = tmp_path / "content.nii.gz"
    shutil.move(scan, content)
    scan.symlink_to(content)
    detect(folder, out, models)
    files = {path.name for path in (out / "p1").iterdir()}
    shutil.move(content, tmp_path / "elsewhere.nii.gz")
    report = detect(folder, out, models, resume=True)
    assert list(report.failures) == ["p1"] and "broken link" in report.failures["p1"]
    assert {path.name for path in (out / "p1").iterdir()} == files
    scan.unlink()
    scan.write_text("version https://git-lfs.github.com/spec/v1\n")
    report = detect(folder, out, models, resume=True)
    assert list(report.failures) == ["p1"] and "git lfs pull" in report.failures["p1"]
    assert {path.name for path in (out / "p1").iterdir()} == files
    shutil.move(tmp_path / "elsewhere.nii.gz", scan)
    assert not detect(folder, out, models, resume=True).failures


def test_a_scan_that_was_never_there_stops_no_session(folder, models, tmp_path):
    out, scan = tmp_path / "out", folder / "p1" / "FLAIR.nii.gz"
    scan.unlink()
    scan.symlink_to(tmp_path / "absent.nii.gz")
    for options in ({}, {"resume": True}):
        report = detect(folder, out, models, **options)
        assert list(report.failures) == ["p1 FLAIR"]
        assert [each["modality"] for each in report.summaries] == ["T1w"]


def test_a_further_contrast_is_no_other_setting(folder, models, tmp_path):
    out, flair = tmp_path / "out", folder / "p1" / "FLAIR.nii.gz"
    made_session(folder / "p2")
    (folder / "p2" / "FLAIR.nii.gz").unlink()
    shutil.move(flair, tmp_path / "flair.nii.gz")
    detect(folder, out, models)
    before = (out / "p2" / "anomaly_map.nii.gz").stat().st_mtime_ns
    shutil.move(tmp_path / "flair.nii.gz", flair)
    report = detect(folder, out, models, resume=True)
    assert [each["modality"] for each in report.summaries] == ["T1w+FLAIR", "T1w"]
    assert (out / "p2" / "anomaly_map.nii.gz").stat().st_mtime_ns == before
    assert read(out / "detect.json")["modality"] == "T1w+FLAIR"
    flair.unlink()  # the settings of the FLAIR stay known
    report = detect(folder, out, models, resume=True)
    assert list(read(out / "detect.json")["contrasts"]) == ["T1w", "FLAIR"]
    with pytest.raises(InputError, match="another threshold of T1w"):
        detect(folder, out, models, resume=True, choice=ThresholdChoice(threshold=0.3))


@pytest.mark.slow
def test_processes_give_the_same_results(folder, models, tmp_path):
    made_session(folder / "p2")
    detect(folder, tmp_path / "one", models)
    detect(folder, tmp_path / "two", models, workers=2)
    for name in ("p1", "p2"):
        one, two = (
            nib.load(tmp_path / out / name / "anomaly_map.nii.gz").get_fdata()
            for out in ("one", "two")
        )
        np.testing.assert_array_equal(one, two)


def test_unusable_scans_of_a_session_fail_by_name(folder, models, tmp_path):
    (session,) = find_sessions([folder])
    listing = "series 1.2.3: FLAIR of Meier"
    (tmp_path / "study").mkdir()
    problem = f"{tmp_path / 'study'}: several series may be the scan:\n{listing}"
    ref = ScanRef("p1", "", tmp_path / "study", "study", problem=problem)
    sessions = [
        replace(session, unusable={"T2w": ref}),
        SessionRef("lost", {}, (), {"FLAIR": replace(ref, subject="lost")}),
    ]
    report = detect_sessions(sessions, tmp_path / "out", models=models, run=QUIET_CPU)
    expected = "study: several series may be the scan: (give study alone to list them)"
    assert report.failures == {f"{session.name} T2w": expected, "lost": expected}
    (summary,) = report.summaries
    assert list(summary["contrasts"]) == ["T1w", "FLAIR"]
    record = json.loads((tmp_path / "out" / session.name / "session.json").read_text("utf-8"))
    assert record["failures"] == {"T2w": expected}
    assert not (tmp_path / "out" / "lost").exists()
    page = write_report(tmp_path / "out").read_text("utf-8")
    assert f"{session.name} T2w" in page and expected in page
    texts = [path.read_text("utf-8") for path in (tmp_path / "out").rglob("*.[jth][sm]*")]
    assert len(texts) > 5 and not any("Meier" in text for text in texts)
    # A finished session that gets an unusable scan, and a finished one that becomes unusable.
    resume = replace(QUIET_CPU, resume=True)
    finished = detect_sessions([session], tmp_path / "two", models=models, run=QUIET_CPU)
    assert finished.failures == {}
    again = detect_sessions([sessions[0]], tmp_path / "two", models=models, run=resume)
    assert list(again.failures) == [f"{session.name} T2w"]
    lost = [replace(sessions[1], name=session.name), replace(session, name="other")]
    assert list(detect_sessions(lost, tmp_path / "two", models=models, run=resume).failures) == [
        session.name
    ]
    assert not (tmp_path / "two" / session.name).exists()


def test_thresholds_of_the_contrasts(folder, models, tmp_path):
    report = detect(folder, tmp_path / "out", models, choice=ThresholdChoice(threshold=0.3))
    contrasts = report.summaries[0]["contrasts"]
    assert {each["threshold"] for each in contrasts.values()} == {0.3}
    with pytest.raises(InputError, match="use only one of them"):
        detect(folder, tmp_path / "x", models, choice=ThresholdChoice(threshold=0.3, fpr=0.01))


def test_report_has_the_contrasts_side_by_side(folder, models, tmp_path):
    out = tmp_path / "out"
    detect(folder, out, models)
    page = write_report(out).read_text("utf-8")
    assert ">Session<" in page and "Combined map" in page and "Score in thresholds" in page
    assert "The combined map is the power mean with exponent 0.5" in page
    info = page.partition('id="scan-0-viewer-info">')[2].partition("</script>")[0]
    info = json.loads(info.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&"))
    assert [name for name, _ in info["images"]] == [
        "scan",
        "reference",
        "FLAIR",
        "FLAIR-reference",
    ]
    assert [entry["name"] for entry in info["maps"]] == ["all contrasts", "T1w", "FLAIR"]
    assert {entry[key] for entry in info["maps"] for key in ("layer", "mask")} <= set(
        info["layers"]
    )
    (volumes,) = (load_volumes(path) for path in out.glob("*/volumes_FLAIR.npz"))
    assert info["ranges"] == {"FLAIR": [volumes.low, volumes.high]}


def test_viewer_has_the_exact_mask_and_the_growth_of_each_contrast(folder, models, tmp_path):
    out = tmp_path / "out"
    detect(folder, out, models)
    settings = json.loads((out / "detect.json").read_text("utf-8"))
    settings["contrasts"]["FLAIR"]["postprocess"]["extent"] = 0.5
    write_json(out / "detect.json", settings)
    (scan,) = (path.parent for path in out.glob("*/volumes_FLAIR.npz"))
    page = write_report(out).read_text("utf-8")
    info, volumes = (
        page.partition(f'id="scan-0-viewer-{part}"')[2].partition(">")[2].partition("</script>")[0]
        for part in ("info", "volumes")
    )
    info = json.loads(info)
    combined, t1, flair = info["maps"]
    threshold = json.loads((scan / "summary.json").read_text("utf-8"))["threshold"]
    assert (combined["threshold"], combined["extent"]) == (threshold, 1)
    assert (t1["threshold"], t1["extent"]) == (1, 1)
    assert (flair["threshold"], flair["extent"]) == (1, 0.5)
    shown = np.frombuffer(gzip.decompress(base64.b64decode(volumes)), dtype=np.uint8)
    shown = dict(zip(info["layers"], np.split(shown, len(info["layers"])), strict=True))
    for each, path in ((t1, "volumes_T1w.npz"), (flair, "volumes_FLAIR.npz")):
        mask = load_volumes(scan / path).layers[3]
        np.testing.assert_array_equal(shown[each["mask"]], mask.ravel(order="F"))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """The only models are t1 and flair."""
    for name, modality in (("t1", "T1w"), ("flair", "FLAIR")):
        run = made_run(tmp_path / "runs" / name, modality)
        export_model(run, tmp_path / "shipped" / name, ABOUT)
    monkeypatch.setattr(catalogue, "PACKAGED", tmp_path / "none")
    monkeypatch.setattr(catalogue, "CHECKOUT", tmp_path / "none")
    monkeypatch.setenv("MAEDIFF_MODELS", str(tmp_path / "shipped"))


def run_command(*arguments):
    command = ["detect", *map(str, arguments), "--device", "cpu", "-q"]
    return CliRunner().invoke(app, command)


def test_command_finds_sessions_by_itself(folder, shipped, tmp_path):
    out = tmp_path / "out"
    result = run_command(folder, "-o", out)
    assert result.exit_code == 0, result.output
    assert (out / "p1" / "anomaly_map.nii.gz").is_file()
    command = "maediff detect in --out out --device cpu"
    assert read(out / "detect.json")["command"] == command
    page = (out / "report.html").read_text("utf-8")
    assert f">{command}</pre>" in page and page.count("scans were processed with maediff") == 2
    assert str(tmp_path) not in page
    result = run_command(folder, "-o", tmp_path / "alone", "--no-combine")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "alone" / "p1" / "anomaly_map.nii.gz").exists()
    assert (tmp_path / "alone" / "p1" / "T1w" / "anomaly_map.nii.gz").is_file()


def test_command_with_a_contrast_is_as_before(folder, shipped, tmp_path):
    out = tmp_path / "out"
    result = run_command(folder, "-o", out, "--modality", "T1w")
    assert result.exit_code == 0, result.output
    assert (out / "p1_T1" / "anomaly_map.nii.gz").is_file()


def test_command_exits_with_1_for_two_heads(folder, shipped, tmp_path):
    small, _, affine = made_scan(radii_mm=(42.0, 52.0, 35.0))
    save(folder / "p1" / "FLAIR.nii.gz", inverted(small), affine)
    result = run_command(folder, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert (tmp_path / "out" / "p1" / "FLAIR" / "anomaly_map.nii.gz").is_file()


def test_bids_derivative_of_sessions(shipped, tmp_path):
    root, out = tmp_path / "ds", tmp_path / "out"
    made_session(root / "sub-01" / "ses-a" / "anat")
    for name in ("T1", "FLAIR"):
        folder = root / "sub-01/ses-a/anat"
        suffix = {"T1": "T1w"}.get(name, name)
        (folder / f"{name}.nii.gz").rename(folder / f"sub-01_ses-a_{suffix}.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    result = run_command(root, "-o", out, "--bids-derivative")
    assert result.exit_code == 0, result.output
    anat = out / "sub-01/ses-a/anat"
    images = sorted(path.name.removeprefix("sub-01_ses-a_") for path in anat.glob("*.nii.gz"))
    assert images == [
        "desc-anomalyFLAIR_mask.nii.gz",
        "desc-anomalyT1w_mask.nii.gz",
        "desc-anomaly_FLAIR.nii.gz",
        "desc-anomaly_T1w.nii.gz",
        "desc-brainFLAIR_mask.nii.gz",
        "desc-brainT1w_mask.nii.gz",
        "desc-healthy_FLAIR.nii.gz",
        "desc-healthy_T1w.nii.gz",
        "desc-session_T1w.nii.gz",
        "desc-session_mask.nii.gz",
        "space-T1w_desc-anomaly_FLAIR.nii.gz",
        "space-T1w_desc-anomaly_T1w.nii.gz",
        "space-T1w_desc-scan_FLAIR.nii.gz",
    ]
    described = sorted(path.name.removeprefix("sub-01_ses-a_") for path in anat.glob("*.json"))
    expected = {name.replace(".nii.gz", ".json") for name in images}
    assert expected <= set(described) and "desc-session_summary.json" in described
    sidecar = read(anat / "sub-01_ses-a_desc-session_mask.json")
    assert sidecar["Sources"] == [
        "bids:raw:sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "bids:raw:sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz",
    ]
    assert read(anat / "sub-01_ses-a_desc-session_summary.json")["grid_of"] == "T1w"
    assert (out / "report.html").is_file()
    image = anat / "sub-01_ses-a_desc-session_T1w.nii.gz"
    before = image.stat().st_mtime_ns
    stale = anat / "sub-01_ses-a_desc-anomaly_T2w.nii.gz"  # its scan was there once
    stale.touch()
    assert run_command(root, "-o", out, "--bids-derivative", "--resume").exit_code == 0
    assert image.stat().st_mtime_ns == before and not stale.exists()
    # The T1w fails now: everything on its grid goes, and the FLAIR has the combined map.
    (root / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz").write_bytes(b"no image")
    assert run_command(root, "-o", out, "--bids-derivative", "--resume").exit_code == 1
    left = sorted(path.name.removeprefix("sub-01_ses-a_") for path in anat.glob("*"))
    assert [name for name in left if "T1w" in name and "space-FLAIR" not in name] == []
    assert not {"space-FLAIR_desc-anomaly_T1w.json", "space-FLAIR_desc-scan_T1w.json"} & {*left}
    assert {"desc-session_FLAIR.nii.gz", "desc-session_summary.json"} <= {*left}
    assert read(anat / "sub-01_ses-a_desc-session_summary.json")["grid_of"] == "FLAIR"


def test_three_contrasts_in_one_session(folder, models, tmp_path):
    data, _, affine = made_scan()
    save(folder / "p1" / "T2.nii.gz", 0.5 * data + 20 * (data > 0), affine)
    three = {**models, "T2w": str(made_run(tmp_path / "T2w", "T2w"))}
    report = detect(folder, tmp_path / "out", three)
    assert not report.failures
    (summary,) = report.summaries
    assert list(summary["contrasts"]) == ["T1w", "FLAIR", "T2w"]
    assert (tmp_path / "out" / "p1" / "T2w_scan.nii.gz").is_file()
    assert "T2w map" in write_report(tmp_path / "out").read_text("utf-8")
