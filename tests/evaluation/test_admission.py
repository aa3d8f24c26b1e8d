"""Checks before an evaluation: names, contrasts, splits and people."""

import json
import logging
import shutil

import numpy as np
import pytest

from helpers.brains import save
from helpers.scores import made_small_run
from maediff.anomaly.postprocess import PostprocessConfig
from maediff.cohort.cohort import Cohort
from maediff.cohort.splits import person_code
from maediff.core.errors import InputError
from maediff.evaluation.admission import (
    describe_other_postprocess,
    describe_other_preparation,
    describe_seen_calibration,
    find_map_folders,
    load_scans,
    read_models,
    refuse_seen_subjects,
)


@pytest.fixture(scope="module")
def cohort(flair_cohort):
    return Cohort.open(flair_cohort)


def made_maps(folder):
    save(folder / "test-ill.nii.gz", np.zeros((4, 4, 4)), np.eye(4))
    return folder


# ---- maps and models


def test_folders_of_maps_are_told_from_runs(tmp_path):
    maps, run = made_maps(tmp_path / "maps"), made_small_run(tmp_path / "run")
    assert find_map_folders([run, maps, "t1"]) == {"maps": maps}


def test_two_folders_of_maps_with_one_name(tmp_path):
    folders = [made_maps(tmp_path / site / "maps") for site in ("a", "b")]
    message = r"b/maps: a second folder of maps named 'maps', beside .*a/maps"
    with pytest.raises(InputError, match=message):
        find_map_folders(folders)


def test_maps_named_like_a_baseline(tmp_path):
    with pytest.raises(InputError, match="named like the baseline 'bright'"):
        find_map_folders([made_maps(tmp_path / "bright")])


def test_models_by_name(tmp_path, cohort):
    run = made_small_run(tmp_path / "ddpm-0")
    models = read_models([run, f"{run}@t_test=60"], cohort)
    assert list(models) == ["ddpm-0", "ddpm-0@t_test=60"]


def test_model_of_another_contrast(tmp_path, cohort):
    with pytest.raises(InputError, match=r"t1: trained on T1w.*holds FLAIR"):
        read_models([made_small_run(tmp_path / "t1", modality="T1w")], cohort)


def test_model_named_like_a_baseline(tmp_path, cohort):
    with pytest.raises(InputError, match="baseline 'bright'"):
        read_models([made_small_run(tmp_path / "bright")], cohort)


def test_two_models_with_one_name(tmp_path, cohort):
    runs = [made_small_run(tmp_path / site / "good") for site in ("a", "b")]
    with pytest.raises(InputError, match="second run named 'good'"):
        read_models(runs, cohort)
    with pytest.raises(InputError, match="second run named 'good'"):
        read_models(runs[:1], cohort, used_names=["good"])


def test_no_model(tmp_path, cohort):
    with pytest.raises(InputError, match="nowhere"):
        read_models([tmp_path / "nowhere"], cohort)


# ---- people


def write_subjects(run, cohort, names):
    codes = {row.subject: person_code(row.dataset, row.subject) for row in cohort.rows}
    (run / "train_subjects.json").write_text(json.dumps([codes[name] for name in names]))
    return read_models([run], cohort)


def test_model_trained_on_scored_subject_is_refused(tmp_path, cohort):
    run = made_small_run(tmp_path / "run")
    models = write_subjects(run, cohort, ["train-ill", "test-ill"])
    with pytest.raises(InputError, match=r"run: was trained on test-ill of split 'test'"):
        refuse_seen_subjects(models, cohort, "test")
    refuse_seen_subjects(write_subjects(run, cohort, ["train-ill"]), cohort, "test")


def test_model_trained_on_calibration_subject_is_described(tmp_path, cohort):
    models = write_subjects(made_small_run(tmp_path / "run"), cohort, ["val-ill"])
    (note,) = describe_seen_calibration(models, cohort, "val")
    assert note.startswith(
        "run was trained on val-ill of split 'val', on which thresholds are chosen"
    )
    assert describe_seen_calibration(models, cohort, "test") == []


@pytest.mark.parametrize("content", ["", "[1, ", '"text"', "{}"])
def test_damaged_list_of_subjects(tmp_path, cohort, content):
    run = made_small_run(tmp_path / "run")
    (run / "train_subjects.json").write_text(content)
    with pytest.raises(InputError, match=r"train_subjects\.json: .*damaged"):
        read_models([run], cohort)


# ---- preparation and post-processing


def test_other_preparation_is_described(tmp_path, cohort, caplog):
    same = {key: cohort.meta[key] for key in ("modality", "grid", "normalise", "bias")}
    models = {}
    for name, changes in (("same", {}), ("other", {"registration": {"enabled": True}})):
        run = made_small_run(tmp_path / name)
        config = json.loads((run / "config.json").read_text("utf-8"))
        (run / "config.json").write_text(json.dumps(config | {"cohort": same | changes}))
        models |= read_models([run], cohort)
    with caplog.at_level(logging.WARNING, "maediff"):
        (note,) = describe_other_preparation(models, cohort)
    assert note == (
        "other was trained on scans with other settings of registration than the cohort's."
    )
    assert note.rstrip(".") in caplog.text and "`like=other`" in caplog.text


def test_other_postprocess_is_described(tmp_path, cohort):
    runs = [made_small_run(tmp_path / name) for name in ("own", "plain")]
    content = json.dumps({"postprocess": {"median_size": 1}})
    (runs[0] / "calibration.json").write_text(content)
    models = read_models(runs, cohort)
    (note,) = describe_other_postprocess(models, PostprocessConfig())
    assert note.startswith("own has its own post-processing")
    assert describe_other_postprocess(models, PostprocessConfig(median_size=1)) == []


# ---- splits


def test_scans_of_two_splits(cohort):
    scans = load_scans(cohort, "val", "test")
    assert [scan.name for scan in scans.calibrate] == ["val-healthy", "val-ill"]
    assert [scan.name for scan in scans.scored] == ["test-healthy", "test-ill"]
    assert scans.notes == []


def test_one_split_for_both_is_noted(cohort):
    scans = load_scans(cohort, "val", "val")
    assert scans.calibrate is scans.scored
    assert "optimistic" in scans.notes[0]


def test_train_split_is_noted(cohort):
    assert "trained on these subjects" in load_scans(cohort, "val", "train").notes[0]


def change_manifest(cohort, folder, old, new):
    """Return a copy of the cohort in which the manifest has `new` instead of `old`."""
    copied = shutil.copytree(cohort.path, folder)
    text = (copied / "manifest.csv").read_text("utf-8")
    assert old in text
    (copied / "manifest.csv").write_text(text.replace(old, new))
    return Cohort.open(copied)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("val-ill,,", "test-ill in both 'test' and 'val'"),
        ("train-ill,,", "test-ill in both 'test' and 'train'"),
    ],
)
def test_person_in_two_splits(tmp_path, cohort, line, message):
    changed = change_manifest(cohort, tmp_path / "cohort", line, "test-ill,one,")
    with pytest.raises(InputError, match=message):
        load_scans(changed, "val", "test")


def test_empty_splits(tmp_path, cohort):
    no_test = change_manifest(cohort, tmp_path / "a", ",test,", ",train,")
    with pytest.raises(InputError, match="no subject in split 'test'; choose another `score_spl"):
        load_scans(no_test, "val", "test")
    no_val = change_manifest(cohort, tmp_path / "b", ",val,", ",train,")
    scans = load_scans(no_val, "val", "test")
    assert scans.calibrate == []
    assert scans.notes[0].startswith("No subject in split 'val': no threshold")


def test_nothing_to_score_against(tmp_path, cohort):
    changed = change_manifest(cohort, tmp_path / "cohort", "test,1", "train,1")
    changed.rows = [row for row in changed.rows if row.name != "test-ill"] + [
        row.__class__(**{**vars(row), "lesion_mask": None, "healthy": None})
        for row in changed.rows
        if row.name == "test-ill"
    ]
    with pytest.raises(InputError, match="neither a healthy subject nor a lesion"):
        load_scans(changed, "val", "test")
