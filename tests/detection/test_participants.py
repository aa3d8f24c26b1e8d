"""BIDS App: contrasts, labels, resuming, failures and hostile trees."""

import json
import shutil
import tempfile

import numpy as np
import pytest

from helpers.brains import made_brain, save
from helpers.options import QUIET_CPU
from helpers.runs import made_run
from maediff.cli.bids_app import main
from maediff.cli.bids_app.main import count_workers
from maediff.core.errors import InputError
from maediff.detection.participants import (
    check_dataset,
    choose_models,
    collect_group,
    find_participants,
    run_participants,
)

T1, FLAIR = "sub-01/ses-a/anat/sub-01_ses-a_T1w", "sub-01/ses-a/anat/sub-01_ses-a_FLAIR"
SECOND = "sub-02/anat/sub-02_T1w"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: str(made_run(folder / name, name)) for name in ("T1w", "FLAIR")}


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "Daten ä"
    data, _, affine = made_brain(shape=(60, 72, 8), spacing=(2.0, 2.0, 8.0))
    for name in (T1, FLAIR, SECOND):
        save(root / f"{name}.nii.gz", np.round(data), affine)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    return root


def process(dataset, out, models, *labels):
    scans = find_participants(dataset, labels)
    return run_participants(dataset, out, scans, models=models, run=QUIET_CPU)


def files(out):
    return sorted(
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and "reports" not in path.relative_to(out).parts
    )


def test_each_contrast_has_its_model_and_participants_share_a_folder(dataset, models, tmp_path):
    out = dataset / "derivatives" / "maediff"
    reports = process(dataset, out, models, "01")
    assert {name: report.summaries[0]["model"] for name, report in reports.items()} == {
        "T1w": "T1w",
        "FLAIR": "FLAIR",
    }
    process(dataset, out, models, "sub-02")
    scans = [
        f"{name.rpartition('_')[0]}_desc-{kind}"
        for name, contrast in ((T1, "T1w"), (FLAIR, "FLAIR"), (SECOND, "T1w"))
        for kind in (
            *(
                f"{image}.{suffix}"
                for image in (
                    f"anomaly_{contrast}",
                    f"anomaly{contrast}_mask",
                    f"healthy_{contrast}",
                    f"brain{contrast}_mask",
                )
                for suffix in ("nii.gz", "json")
            ),
            f"anomaly{contrast}_summary.json",
        )
    ]
    top = [".bidsignore", ".maediff", "README.md", "dataset_description.json", "methods.md"]
    assert files(out) == sorted([*scans, *top])
    sidecar = json.loads((out / "sub-02/anat/sub-02_desc-anomalyT1w_mask.json").read_text("utf-8"))
    assert sidecar["Sources"] == [f"bids:raw:{SECOND}.nii.gz"]
    parameters = sidecar["Parameters"]
    assert (parameters["model"], parameters["threshold"], parameters["scale"]) == ("T1w", 1, 0.1)
    map_sidecar = json.loads((out / "sub-02/anat/sub-02_desc-anomaly_T1w.json").read_text("utf-8"))
    assert map_sidecar["ResidualScale"] == 0.1 and "ResidualScale" not in sidecar
    description = json.loads((out / "dataset_description.json").read_text("utf-8"))
    assert description["DatasetLinks"] == {"raw": "../.."}
    methods = (out / "methods.md").read_text("utf-8")
    assert "T1w scans were processed" in methods and "FLAIR scans were processed" in methods

    group = collect_group(out, find_participants(dataset))
    assert not any(report.failures for report in group.values())
    rows = (out / "participants_findings.tsv").read_text("utf-8").splitlines()
    assert [row.split("\t")[0:5:4] for row in rows[1:]] == [
        ["sub-01_ses-a", "T1w"],
        ["sub-01_ses-a", "FLAIR"],
        ["sub-02", "T1w"],
    ]


def test_a_second_run_skips_finished_scans(dataset, models, tmp_path):
    out = tmp_path / "out"
    process(dataset, out, models, "02")
    image = out / "sub-02/anat/sub-02_desc-anomaly_T1w.nii.gz"
    before = image.stat().st_mtime_ns
    process(dataset, out, models, "02")
    assert image.stat().st_mtime_ns == before
    record = out / "reports" / "T1w" / "detect.json"
    record.write_text("{")
    with pytest.raises(InputError, match=r"detect\.json: missing or damaged .*; delete it and re"):
        process(dataset, out, models, "02")
    with pytest.raises(InputError, match=r"detect\.json: .*delete it and run the participant lev"):
        collect_group(out, find_participants(dataset, ["02"]))
    record.unlink()  # the remedy of both messages
    process(dataset, out, models, "02")
    assert image.stat().st_mtime_ns == before
    assert not collect_group(out, find_participants(dataset, ["02"]))["T1w"].failures
    image.unlink()
    process(dataset, out, models, "02")
    assert image.is_file()


def test_a_failed_scan_is_named_in_the_group_and_loses_old_results(dataset, models, tmp_path):
    out = tmp_path / "out"
    process(dataset, out, models)
    shutil.copy(dataset / f"{SECOND}.nii.gz", tmp_path / "good.nii.gz")
    (dataset / f"{SECOND}.nii.gz").write_bytes(b"no image")
    assert list(process(dataset, out, models, "02")["T1w"].failures) == ["sub-02"]
    assert not [name for name in files(out) if name.startswith("sub-02")]
    process(dataset, out, models, "01")  # the reason survives runs of other participants
    reports = collect_group(out, find_participants(dataset))
    assert "sub-02_T1w.nii.gz" in reports["T1w"].failures["sub-02"]
    assert "failed" in (out / "participants_findings.tsv").read_text("utf-8")
    shutil.copy(tmp_path / "good.nii.gz", dataset / f"{SECOND}.nii.gz")
    process(dataset, out, models, "02")
    assert not collect_group(out, find_participants(dataset))["T1w"].failures


def test_a_participant_without_results_is_named_in_the_group(dataset, models, tmp_path):
    scans = find_participants(dataset)
    with pytest.raises(InputError, match="run the participant level first"):
        collect_group(tmp_path / "out", scans)
    process(dataset, tmp_path / "out", models, "01")
    failures = collect_group(tmp_path / "out", scans)["T1w"].failures
    assert failures == {"sub-02": "no results; run the participant level"}


def test_a_second_dataset_is_refused_but_a_moved_one_is_not(dataset, models, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    process(dataset, out, models, "02")
    shutil.copytree(dataset, other)
    with pytest.raises(InputError, match=r"results of another dataset, \.\./Daten ä; choose"):
        process(other, out, models, "01")
    links = json.loads((out / "dataset_description.json").read_text("utf-8"))["DatasetLinks"]
    assert links == {"raw": "../Daten ä"} and not (out / "sub-01").exists()
    (tmp_path / "link").symlink_to(dataset)
    process(tmp_path / "link", out, models, "02")
    shutil.rmtree(dataset)
    process(other, out, models, "02")
    links = json.loads((out / "dataset_description.json").read_text("utf-8"))["DatasetLinks"]
    assert links == {"raw": "../other"}


def test_a_missing_image_is_named_in_the_group(dataset, models, tmp_path):
    out, scans = tmp_path / "out", find_participants(dataset, modalities=["T1w"])
    run_participants(dataset, out, scans, models=models, run=QUIET_CPU)
    (out / "sub-02/anat/sub-02_desc-brainT1w_mask.nii.gz").unlink()
    reports = collect_group(out, scans)
    assert reports["T1w"].failures == {
        "sub-02": "an image is missing; run the participant level again"
    }
    assert [summary["subject"] for summary in reports["T1w"].summaries] == ["sub-01_ses-a"]
    run_participants(dataset, out, scans, models=models, run=QUIET_CPU)
    assert not collect_group(out, scans)["T1w"].failures


def test_a_file_in_the_way_is_refused_before_the_detection(dataset, models, tmp_path):
    out = tmp_path / "out"
    process(dataset, out, models, "01")
    (out / "sub-02").write_text("a file")
    with pytest.raises(InputError, match=r"out/sub-02: is a file, but the results need a folder"):
        process(dataset, out, models, "02")
    assert not (out / "reports" / "T1w" / "sub-02").exists()
    process(dataset, out, models, "01")


def test_unknown_labels_are_refused_by_name(dataset):
    for label in ("03", "sub-03", "../sub-01", "0", ""):
        with pytest.raises(
            InputError, match=r"no participant sub-.*; choose from: sub-01, sub-02"
        ):
            find_participants(dataset, ["01", label])
    with pytest.raises(InputError, match=r"no session .* ses-b; choose from: ses-a"):
        find_participants(dataset, sessions=["b"])
    with pytest.raises(InputError, match=r"no session .* ses-a; choose from: none"):
        find_participants(dataset, ["02"], ["ses-a"])
    refs = find_participants(dataset, sessions=["ses-a"], modalities=["T1w"])
    assert [ref.name for ref in refs["T1w"]] == ["sub-01_ses-a"] and list(refs) == ["T1w"]


def test_models_are_chosen_by_contrast(dataset, models, tmp_path):
    scans = find_participants(dataset)
    assert choose_models([*models.values()], scans) == models
    assert choose_models([], scans) == {}
    with pytest.raises(InputError, match="is for T1w too"):
        choose_models([models["T1w"], models["T1w"]], scans)
    with pytest.raises(InputError, match=r"trained on FLAIR, but the scans are T1w"):
        choose_models([models["FLAIR"]], find_participants(dataset, ["02"]))


def test_hostile_trees_are_refused_or_fail_by_name(dataset, models, tmp_path, caplog):
    shutil.copy(dataset / f"{SECOND}.nii.gz", dataset / "sub-02/anat/sub-01_ses-z_T1w.nii.gz")
    (dataset / "sub-03").mkdir()
    (dataset / "sub-04").write_text("a file")
    (dataset / "sub-05" / "anat").mkdir(parents=True)
    (dataset / "sub-05" / "anat" / "sub-05_T1w.nii.gz").symlink_to(tmp_path / "nowhere")
    (dataset / "sub-06" / "anat" / "sub-06_T1w.nii.gz").mkdir(parents=True)
    save(dataset / "sub-07/anat/sub-07_inplaneT2.nii.gz", np.ones((4, 4, 4)), np.eye(4))
    check_dataset(dataset)
    reports = process(dataset, tmp_path / "out", models)
    assert "no T1w or T2w or FLAIR scan: sub-03, sub-06, sub-07" in caplog.text
    failures = reports["T1w"].failures
    assert sorted(failures) == ["sub-01_ses-z", "sub-05"]
    assert "named sub-01, but in the folder sub-02" in failures["sub-01_ses-z"]
    assert len(reports["T1w"].summaries) == 2 and len(reports["FLAIR"].summaries) == 1
    with pytest.raises(InputError, match="no T1w or T2w or FLAIR scan of sub-03"):
        find_participants(dataset, ["03"])


def test_folders_that_must_not_be_written_to_are_refused(dataset, models, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    for out, message in (
        (dataset, "holds the input"),
        (tmp_path, "holds the input"),
        (foreign, "not made by maediff"),
    ):
        with pytest.raises(InputError, match=message):
            process(dataset, out, models)
    assert (foreign / "thesis.txt").is_file()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "dataset_description.json cannot be read"),
        ("{", "dataset_description.json cannot be read"),
        ("[]", "lacks the text Name; dataset_description.json lacks the text BIDSVersion"),
        ("null", "lacks the text Name"),
        ('"Name and BIDSVersion"', "lacks the text Name"),
        ('{"Name": "x"}', "lacks the text BIDSVersion"),
        ('{"Name": "x", "BIDSVersion": 1.8}', "lacks the text BIDSVersion"),
        ("[" * 100_000, "dataset_description.json cannot be read"),
    ],
)
def test_an_invalid_dataset_is_refused(dataset, description, message):
    path = dataset / "dataset_description.json"
    path.unlink() if description is None else path.write_text(description)
    with pytest.raises(InputError, match=message):
        check_dataset(dataset)


def test_a_byte_order_mark_is_accepted(dataset):
    path = dataset / "dataset_description.json"
    path.write_text('{"Name": "x", "BIDSVersion": "1.8.0"}', encoding="utf-8-sig")
    check_dataset(dataset)


def test_a_contrast_without_a_readable_scan_does_not_stop_the_others(dataset, models, tmp_path):
    flair = dataset / f"{FLAIR}.nii.gz"
    flair.unlink()
    flair.symlink_to(tmp_path / "nowhere")
    scans = find_participants(dataset)
    assert {name: len(refs) for name, refs in scans.items()} == {"T1w": 2, "FLAIR": 1}
    reports = process(dataset, tmp_path / "out", models)
    assert len(reports["T1w"].summaries) == 2 and not reports["FLAIR"].summaries
    assert "broken link" in reports["FLAIR"].failures["sub-01_ses-a"]
    group = collect_group(tmp_path / "out", scans)
    assert list(group["FLAIR"].failures) == ["sub-01_ses-a"]


def test_an_ignored_participant_is_named_with_the_file_that_excludes_it(dataset, caplog):
    (dataset / ".bidsignore").write_text("sub-02/\n")
    assert [ref.name for ref in find_participants(dataset)["T1w"]] == ["sub-01_ses-a"]
    assert "no T1w or T2w or FLAIR scan: sub-02" in caplog.text
    with pytest.raises(InputError, match=r"no .* scan of sub-02; check .* \.bidsignore"):
        find_participants(dataset, ["02"])


@pytest.mark.parametrize("folder", ["sub-01/ses-a/anat", "sub-01/ses-a", "sub-01"])
def test_a_locked_folder_belongs_to_its_participant_and_session(dataset, lock, folder):
    lock(dataset / folder)
    (ref,) = find_participants(dataset, ["01"])["T1w"]
    assert ref.problem
    if folder == "sub-01":
        return
    assert find_participants(dataset, ["01"], ["a"])["T1w"] == [ref]


def test_a_locked_folder_without_scans_changes_nothing(dataset, lock):
    (dataset / "sub-02" / "func").mkdir()
    lock(dataset / "sub-02" / "func")
    (ref,) = find_participants(dataset, ["02"])["T1w"]
    assert not ref.problem


def test_a_participant_whose_folder_may_not_be_read_fails_by_name(dataset, lock, models, tmp_path):
    lock(dataset / "sub-02" / "anat")
    assert list(find_participants(dataset, ["02"])) == ["T1w", "FLAIR"]
    assert [ref.subject for ref in find_participants(dataset, sessions=["a"])["T1w"]] == ["sub-01"]
    report = process(dataset, tmp_path / "out", models)["T1w"]
    assert [summary["subject"] for summary in report.summaries] == ["sub-01_ses-a"]
    ((name, reason),) = report.failures.items()
    assert name == "sub-02_anat_folder" and "permission denied" in reason


def test_odd_labels_and_empty_datasets_are_refused(dataset, tmp_path):
    (dataset / "sub-a_b").mkdir()
    with pytest.raises(InputError, match="sub-a_b: a label has letters and digits only"):
        check_dataset(dataset)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is no folder sub-LABEL"):
        check_dataset(tmp_path / "empty")
    with pytest.raises(InputError, match="so it is no BIDS dataset"):
        find_participants(tmp_path / "empty")


def test_command_line(dataset, models, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)  # --work-dir changes both
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())
    out = str(tmp_path / "out")

    def app(*arguments):
        code = main([str(dataset), out, *arguments])
        return code, capsys.readouterr()

    common = ("--device", "cpu", "-q", "--n-cpus", "1", "--mem-mb", "100")
    code, printed = app("participant", "--participant_label", "9", *common)
    assert code == 2 and "maediff-bids: " in printed.err and "sub-9" in printed.err
    only = ("--participant-label", "01", "sub-02", "--modality", "T1w")
    work = ("--work-dir", str(tmp_path / "work"), "--model", models["T1w"])
    code, printed = app("participant", *only, *common, *work)
    assert code == 0 and "derivative: " in printed.out and (tmp_path / "work").is_dir()
    code, printed = app("participant", *only, *common, "--model", models["FLAIR"])
    assert code == 2 and f"--model {models['FLAIR']}: trained on FLAIR" in printed.err
    code, printed = app("group")
    assert code == 0 and (tmp_path / "out/reports/T1w/report.html").is_file()
    assert "<h2" in (page := (tmp_path / "out/reports/T1w/report.html").read_text("utf-8"))
    assert "T1w scans were processed with maediff" in page
    assert "FLAIR: no participant was processed" in caplog.text
    code, printed = app("group", "--overwrite")
    assert code == 2 and "--overwrite: deletes the results" in printed.err
    (dataset / "sub-a_b").mkdir()
    code, printed = app("group")
    assert code == 2 and "use --skip-bids-validation" in printed.err
    assert app("group", "--skip-bids-validation")[0] == 0


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_cores_is_a_whole_number(number, dataset, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(dataset), str(tmp_path / "out"), "participant", f"--n-cpus={number}"])
    assert f"{number}: give 1 or more" in capsys.readouterr().err


def test_memory_limits_the_scans_at_once():
    assert count_workers(None, None) == 1
    assert count_workers(8, None) == 8
    assert count_workers(8, 16_000) == 4
    assert count_workers(8, 100) == 1


@pytest.mark.parametrize(
    ("limits", "workers", "threads"),
    [((), 1, None), (("--n-cpus", "8"), 8, 1), (("--n-cpus", "8", "--mem-mb", "8000"), 2, 4)],
)
def test_processes_share_the_cores(dataset, tmp_path, monkeypatch, limits, workers, threads):
    runs = []

    def process(*arguments, run, **options):
        runs.append(run)
        return {}

    monkeypatch.setattr("maediff.detection.participants.run_participants", process)
    assert main([str(dataset), str(tmp_path / "out"), "participant", "-q", *limits]) == 0
    assert (runs[0].workers, runs[0].threads) == (workers, threads)
