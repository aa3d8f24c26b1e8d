"""Sessions of folders, BIDS datasets, manifests and files."""

from pathlib import Path

import numpy as np
import pytest

from helpers.dicom import write_study
from maediff.core.errors import InputError
from maediff.scans.inputs.sessions import (
    find_sessions,
    has_several_contrasts,
    make_session_names,
)
from maediff.scans.reference import ScanRef


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def listed(sessions):
    return {session.name: sorted(session.scans) for session in sessions}


def test_bids_sessions_share_subject_and_visit(tmp_path):
    root = touch(
        tmp_path / "ds",
        "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz",
        "sub-01/ses-1/anat/sub-01_ses-1_acq-thick_FLAIR.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-02/anat/sub-02_ce-gd_T1w.nii.gz",
    )
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    assert listed(find_sessions([root])) == {
        "sub-01_ses-1": ["FLAIR", "T1w"],
        "sub-01_ses-2": ["T1w"],
        "sub-02": ["T2w"],
    }


def test_inplane_t2_belongs_to_the_session(tmp_path):
    root = touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_inplaneT2.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    assert listed(find_sessions([root])) == {"sub-01": ["T1w", "T2w"]}


def test_folders_of_patients(tmp_path):
    root = touch(
        tmp_path / "study",
        "p1/T1.nii.gz",
        "p1/FLAIR.nii.gz",
        "p1/T1POST.nii.gz",
        "p1/lesion_mask.nii.gz",
        "p2/p2_T2.nii.gz",
        "p2/p2_flair.nii.gz",
    )
    assert listed(find_sessions([root])) == {"p1": ["FLAIR", "T1w"], "p2_p2": ["FLAIR", "T2w"]}


def test_t2_flair_is_one_contrast_unless_t2_is_a_time_point(tmp_path):
    names = ("p1_T1", "p1_T2", "p1_T2_FLAIR", "p2_t1_T1", "p2_t2_T1", "p2_t1_FLAIR", "p2_t2_FLAIR")
    root = touch(tmp_path / "a", *(f"{name}.nii" for name in names))
    both = ["FLAIR", "T1w"]
    assert listed(find_sessions([root])) == {"p1": [*both, "T2w"], "p2_t1": both, "p2_t2": both}
    root = touch(tmp_path / "b", "p1/T1.nii", "p1/T2_FLAIR.nii", "p2/T2_FLAIR.nii")
    assert listed(find_sessions([root])) == {"p1": both, "p2": ["FLAIR"]}


def test_names_beyond_ascii_are_not_joined(tmp_path):
    people = ("Müller", "Möller", "Иванов", "Петров", "张三")
    root = touch(tmp_path / "a", *(f"{name}_{c}.nii" for name in people for c in ("T1", "FLAIR")))
    assert listed(find_sessions([root])) == {name: ["FLAIR", "T1w"] for name in people}


def test_a_dark_fluid_scan_belongs_to_its_session(tmp_path):
    root = touch(tmp_path, "p1_T1.nii", "p1_dark-fluid.nii", "p2_t1.nii", "p2_darkfluid.nii")
    expected = ["FLAIR", "T1w"]
    assert listed(find_sessions([root])) == {"p1": expected, "p2": expected}


def test_datasets_that_share_names_in_one_contrast(tmp_path):
    for dataset, flair in (("A", 1), ("B", 2)):
        files = ("sub-1_T1w", "sub-2_T1w", f"sub-{flair}_FLAIR")
        root = touch(tmp_path / dataset, *(f"{name[:5]}/anat/{name}.nii" for name in files))
        (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    found = listed(find_sessions([tmp_path / "A", tmp_path / "B"]))
    both = ["FLAIR", "T1w"]
    assert found == {
        "A__sub-1": both,
        "A__sub-2": ["T1w"],
        "B__sub-1": ["T1w"],
        "B__sub-2": both,
    }


def test_the_folder_of_one_patient_names_the_session(tmp_path):
    root = touch(tmp_path / "patient07", "T1.nii.gz", "T2.nii.gz", "FLAIR.nii.gz")
    assert listed(find_sessions([root])) == {"patient07": ["FLAIR", "T1w", "T2w"]}


def test_manifest_lines_of_one_session(tmp_path):
    touch(tmp_path, "a_T1w.nii.gz", "a_FLAIR.nii.gz", "b_T1w.nii.gz")
    (tmp_path / "m.csv").write_text(
        "subject,session,image\np,1,a_T1w.nii.gz\np,1,a_FLAIR.nii.gz\np,2,b_T1w.nii.gz\n"
    )
    assert listed(find_sessions([tmp_path / "m.csv"])) == {"p_1": ["FLAIR", "T1w"], "p_2": ["T1w"]}


@pytest.mark.parametrize("stated", ["T1w", "FLAIR"])
def test_a_dicom_series_without_a_stated_contrast_belongs_to_no_session(stated, tmp_path, caplog):
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    write_study(tmp_path / "study", volume, f"AX {stated.removesuffix('w')}", "AX BRAIN")
    assert listed(find_sessions([tmp_path / "study"])) == {"study": [stated]}
    assert caplog.text.count("s2: DICOM that states no contrast") == 1


def test_visits_with_names_of_contrasts_are_not_joined(tmp_path):
    touch(tmp_path, *(f"{visit}_{kind}.nii" for visit in "ab" for kind in ("T1w", "FLAIR")))
    lines = [
        f"p1,{'T1' if v == 'a' else 'T2'},{v}_{k}.nii" for v in "ab" for k in ("T1w", "FLAIR")
    ]
    (tmp_path / "m.csv").write_text("\n".join(["subject,session,image", *lines]))
    both = ["FLAIR", "T1w"]
    assert listed(find_sessions([tmp_path / "m.csv"])) == {"p1_T1": both, "p1_T2": both}
    names = [f"sub-1_ses-{visit}_{kind}.nii" for visit in (1, 2) for kind in ("T1w", "FLAIR")]
    touch(tmp_path, *names)
    lines = [f"sub-1,{name[10]},{name}" for name in names]
    (tmp_path / "m.csv").write_text("\n".join(["subject,session,image", *lines]))
    assert listed(find_sessions([tmp_path / "m.csv"])) == {"sub-1_1": both, "sub-1_2": both}


def test_dicom_visits_with_names_of_contrasts_are_not_joined(tmp_path):
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    write_study(tmp_path / "p1" / "T1", volume, "AX T1", "AX FLAIR")
    write_study(tmp_path / "p1" / "T2", volume, "AX T1", "AX FLAIR", "AX T2")
    found = listed(find_sessions([tmp_path]))
    assert sorted(found.values()) == [["FLAIR", "T1w"], ["FLAIR", "T1w", "T2w"]]


def test_files_of_a_complete_session_give_no_warning(tmp_path, caplog):
    touch(tmp_path, "p1_T1w.nii.gz", "p1_FLAIR.nii.gz")
    (tmp_path / "m.csv").write_text("subject,image\np1,p1_T1w.nii.gz\np1,p1_FLAIR.nii.gz\n")
    files = sorted(tmp_path.glob("*.gz"))
    assert listed(find_sessions(files)) == {"p1": ["FLAIR", "T1w"]}
    assert listed(find_sessions([tmp_path / "m.csv"])) == {"p1": ["FLAIR", "T1w"]}
    assert not caplog.text


def test_nothing_is_left_out_silently(tmp_path, caplog):
    for name in ("p1_T1", "p1_T2", "p1_FLAIR", "p2_T1", "p2_FLAIR"):
        touch(tmp_path / "i", f"{name[:2]}/{name}.nii")
    found = find_sessions([tmp_path / "i" / "p1", tmp_path / "i" / "p2"])
    assert listed(found) == {"p1": ["FLAIR", "T1w"], "p2": ["FLAIR", "T1w"]}
    assert "no session has its T2w, because an input has none" in caplog.text
    caplog.clear()
    assert ["FLAIR", "T1w", "T2w"] in listed(find_sessions([tmp_path / "i"])).values()
    assert not caplog.text
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    write_study(tmp_path / "d" / "p1", volume, "AX T1", "AX FLAIR")
    write_study(tmp_path / "d" / "p2", volume, "AX T1", "SAG T1", PatientID="other")
    first, second = find_sessions([tmp_path / "d"])
    assert (list(first.scans), first.unusable) == (["T1w", "FLAIR"], {})
    assert (second.name, second.scans, list(second.unusable)) == ("p2", {}, ["T1w"])
    assert "p2: several series may be the scan" in second.unusable["T1w"].problem


def test_an_ambiguous_contrast_does_not_hide_the_others(tmp_path):
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    write_study(tmp_path / "p1", volume, "AX T1", "AX T2", "AX FLAIR", "SAG FLAIR")
    (session,) = find_sessions([tmp_path / "p1"])  # the only study, and two of two inputs
    assert (list(session.scans), list(session.unusable)) == (["T1w", "T2w"], ["FLAIR"])
    write_study(tmp_path / "p2", volume, "AX T1", "AX FLAIR")
    sessions = find_sessions([tmp_path / "p1", tmp_path / "p2"])
    assert [list(each.scans) for each in sessions] == [["T1w", "T2w"], ["T1w", "FLAIR"]]
    assert [list(each.unusable) for each in sessions] == [["FLAIR"], []]


def test_a_damaged_study_is_an_unusable_session(tmp_path):
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    write_study(tmp_path / "d" / "p1", volume, "AX T1", "AX FLAIR")
    write_study(tmp_path / "d" / "p2", volume, "AX T1", "AX FLAIR", PatientID="other")
    file = sorted(path for path in (tmp_path / "d" / "p2").rglob("*") if path.is_file())[0]
    file.write_bytes(file.read_bytes()[:400])
    usable, damaged = find_sessions([tmp_path / "d"])
    assert (usable.name, list(usable.scans), usable.unusable) == ("p1", ["T1w", "FLAIR"], {})
    assert (damaged.name, damaged.scans) == ("p2", {})
    (ref,) = damaged.unusable.values()
    assert file.name in ref.problem


def test_files_of_one_person(tmp_path):
    folder = touch(tmp_path, "x_T1w.nii.gz", "x_FLAIR.nii.gz")
    files = sorted(folder.glob("*.nii.gz"))
    assert listed(find_sessions(files)) == {"x": ["FLAIR", "T1w"]}


def test_the_first_of_two_scans_of_a_contrast_is_used_and_noted(tmp_path, caplog):
    folder = "sub-01/anat/sub-01"
    root = touch(
        tmp_path / "ds",
        f"{folder}_run-1_T1w.nii.gz",
        f"{folder}_run-2_T1w.nii.gz",
        f"{folder}_FLAIR.nii.gz",
    )
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (session,) = find_sessions([root])
    assert session.scans["T1w"].image.name == "sub-01_run-1_T1w.nii.gz"
    assert session.notes == ("sub-01_run-2_T1w.nii.gz skipped: another T1w of the session",)
    assert session.notes[0] in caplog.text


def test_a_scan_that_states_no_contrast_is_in_no_session(tmp_path):
    folder = touch(tmp_path, "x_T1w.nii.gz", "x_FLAIR.nii.gz", "scan.nii.gz")
    assert listed(find_sessions([folder])) == {"x": ["FLAIR", "T1w"]}
    with pytest.raises(InputError, match="no file name and no DICOM series states a contrast"):
        find_sessions([folder / "scan.nii.gz"])


def test_names_of_sessions_must_be_names_of_folders(tmp_path):
    folder = touch(tmp_path / "d", "cache_T1w.nii.gz", "cache_FLAIR.nii.gz")
    with pytest.raises(InputError, match="cannot be named cache"):
        find_sessions([folder])


def test_several_contrasts():
    refs = [ScanRef(name, "", Path("x"), "d", modality=name) for name in ("T1w", "FLAIR")]
    assert has_several_contrasts(refs)
    assert not has_several_contrasts(refs[:1])
    assert not has_several_contrasts([refs[0], ScanRef("x", "", Path("x"), "d", modality="other")])


@pytest.mark.parametrize(
    ("subject", "session", "name"),
    [
        ("p1_T1w", "", "p1"),
        ("T1w", "", "study"),
        ("T1_study_p1_FLAIR", "", "T1_study_p1"),
        ("p1", "T2", "p1_T2"),
        ("FLAIR_p1", "", "p1"),
        ("p1", "v2", "p1_v2"),
    ],
)
def test_the_last_word_of_a_contrast_is_removed(subject, session, name):
    assert make_session_names(ScanRef(subject, session, Path("x.nii"), "study"))[-1] == name


def test_two_scans_of_one_name_are_refused(tmp_path):
    touch(tmp_path, "a_T1w.nii.gz", "b_T1w.nii.gz", "a_FLAIR.nii.gz", "a_T2w.nii.gz")
    lines = [f"p,1,{name}.nii.gz" for name in ("a_T1w", "b_T1w", "a_FLAIR", "a_T2w")]
    (tmp_path / "m.csv").write_text("\n".join(["subject,session,image", *lines]) + "\n")
    with pytest.raises(InputError, match="two scans are both named p_1"):
        find_sessions([tmp_path / "m.csv"])


def test_several_series_without_a_contrast_make_no_contrast_unusable(tmp_path, caplog):
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    write_study(tmp_path / "p1", volume, "AX T1", "Brain", "Head 3D")
    (session,) = find_sessions([tmp_path / "p1"])
    assert (list(session.scans), session.unusable) == (["T1w"], {})
    assert caplog.text.count("DICOM that states no contrast") == 1


def test_another_input_without_a_contrast_makes_no_study_unusable(tmp_path):
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    touch(tmp_path / "nii", "p1_T1.nii", "p1_T2.nii")
    write_study(tmp_path / "d" / "p2", volume, "AX FLAIR")
    write_study(tmp_path / "d" / "p3", volume, "AX T1", "AX T2", PatientID="other")
    sessions = find_sessions([tmp_path / "nii", tmp_path / "d"])
    assert not any(session.unusable for session in sessions)


def test_a_study_of_a_contrast_that_another_input_lacks_is_not_unusable(tmp_path):
    """Only FLAIR is in all inputs, and the T1w of p3 is no damaged FLAIR."""
    volume = np.arange(24 * 24 * 6).reshape(24, 24, 6), np.diag([5.0, 5.0, 8.0, 1.0])
    touch(tmp_path / "nii", "p1_FLAIR.nii")
    write_study(tmp_path / "d" / "p3", volume, "AX T1")
    write_study(tmp_path / "d" / "p4", volume, "AX FLAIR", PatientID="other")
    sessions = find_sessions([tmp_path / "nii", tmp_path / "d"])
    assert [(list(each.scans), each.unusable) for each in sessions] == [(["FLAIR"], {})] * 2
