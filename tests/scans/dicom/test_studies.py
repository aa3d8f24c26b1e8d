"""Subjects, sessions and series of the studies in a folder; errors list series and no person."""

from pathlib import Path

import numpy as np
import pytest

from helpers.dicom import SECRETS, write_series, write_study
from maediff.core.errors import InputError
from maediff.scans.dicom.series import find_series
from maediff.scans.dicom.studies import find_dicom, find_plain_t1
from maediff.scans.read import read_volume
from maediff.scans.reference import remove_folders


def subjects_and_sessions(folder):
    return [(ref.subject, ref.session) for ref in find_dicom(folder)]


def test_folders_name_subjects_and_studies_are_sessions(volume, tmp_path):
    data, affine = volume
    root = tmp_path / "Köln Studie"
    write_series(root / "Änne Ö" / "visit 1", data, affine)
    write_series(root / "Änne Ö" / "visit 2", data, affine)
    write_series(root / "bert" / "x" / "y", data, affine, PatientID="other")
    refs = find_dicom(root)
    assert [ref.name for ref in refs] == ["bert_x_y", "Änne Ö_visit 1", "Änne Ö_visit 2"]
    assert [ref.subject for ref in refs] == ["bert_x_y", "Änne Ö", "Änne Ö"]
    np.testing.assert_array_equal(read_volume(refs[2]).data, data)


def test_several_series_are_listed_and_one_can_be_chosen(volume, tmp_path):
    root = tmp_path / "p"
    write_study(root, volume, "t1_mprage", "t2_flair_tra", "ep2d_diff_adc", "my scan", "t2_tse")
    write_series(
        root / "scout",
        volume[0][:, :, :2],
        volume[1],
        SeriesNumber=9,
        StudyInstanceUID=find_series(root)[0].study,
    )
    message = r"give `series` \(number or UID\), or `modality` \(T1w, T2w or FLAIR\):\n"
    with pytest.raises(InputError, match=message) as caught:
        find_dicom(root)
    text = str(caught.value)
    assert "series 2: t2_flair_tra (MR, FLAIR, 12 images, UID " in text
    assert "series 4: my scan (MR, contrast not stated, 12 images" in text
    assert not any(secret in text for secret in SECRETS.values())
    for modality, folder in {"T1w": "s1", "FLAIR": "s2", "T2w": "s5"}.items():
        (ref,) = find_dicom(root, modality)
        assert (ref.name, ref.image, ref.modality) == ("p", root / folder, modality)
    (ref,) = find_dicom(root, series="4")
    assert (ref.image, ref.modality) == (root / "s4", None)
    (ref,) = find_dicom(root, "T1w", series=find_series(root / "s4")[0].uid)
    assert (ref.image, ref.modality) == (root / "s4", "T1w")
    message = "`series='7'`: no such series; choose one of\n  series 1: t1_mprage"
    with pytest.raises(InputError, match=message):
        find_dicom(root, series="7")


def test_two_series_of_one_contrast_need_a_choice(volume, tmp_path):
    write_study(tmp_path / "p", volume, "t1_mprage", "t1_mprage")
    message = r"several series may be the scan; give `series` \(number or UID\):\n"
    with pytest.raises(InputError, match=message):
        find_dicom(tmp_path / "p", "T1w")
    with pytest.raises(InputError, match="no FLAIR series by the descriptions"):
        find_dicom(tmp_path / "p", "FLAIR")


def test_series_number_used_twice_needs_a_uid(volume, tmp_path):
    write_study(tmp_path / "p", volume, "t1_mprage", "t2_tse")
    write_series(
        tmp_path / "p" / "s3",
        *volume,
        SeriesNumber=2,
        StudyInstanceUID=find_series(tmp_path / "p")[0].study,
    )
    with pytest.raises(InputError, match="`series='2'`: several series have this number"):
        find_dicom(tmp_path / "p", series="2")


def test_modality_is_assumed_for_unstated_contrast(volume, tmp_path):
    write_study(tmp_path / "q", volume, "ax brain")
    assert find_dicom(tmp_path / "q")[0].modality is None
    assert find_dicom(tmp_path / "q", "T2w")[0].modality == "T2w"


@pytest.mark.parametrize(
    ("description", "header"),
    [
        ("t1_mprage", {"ContrastBolusAgent": "Gd"}),
        ("t1_fl3d", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}),
        ("head", {"Modality": "CT"}),
    ],
)
def test_agent_phase_and_ct_are_no_scans(volume, tmp_path, description, header):
    write_study(tmp_path / "r", volume, description, **header)
    with pytest.raises(InputError, match="no MR series that may be T1w, T2w or FLAIR") as caught:
        find_dicom(tmp_path / "r")
    assert ("with contrast agent by its header" in str(caught.value)) == ("Gd" in header.values())


@pytest.mark.parametrize("value", ["NONE", "No", " ", "No contrast agent", "kein KM", "w/o Gd"])
def test_no_agent_in_words_is_no_agent(volume, tmp_path, value):
    write_study(tmp_path / "r", volume, "t1_mprage", ContrastBolusAgent=value)
    (ref,) = find_dicom(tmp_path / "r")
    assert ref.modality == "T1w" and ref.problem is None


def test_ct_is_refused_even_if_chosen(volume, tmp_path):
    write_study(tmp_path / "ct", volume, "head", Modality="CT")
    with pytest.raises(InputError, match="CT, not MR"):
        find_dicom(tmp_path / "ct", series="1")


def test_folder_without_dicom_is_refused(tmp_path):
    with pytest.raises(InputError, match="no DICOM image"):
        find_dicom(tmp_path)


def test_problem_of_each_study_and_error_if_all_have_one(volume, tmp_path):
    write_series(tmp_path / "good" / "s", *volume, PatientID="1")
    write_study(tmp_path / "two", volume, "t1_mprage", "t1_mprage", PatientID="3")
    write_study(tmp_path / "contrast", volume, "t1_mprage gd", PatientID="4")
    problems = {ref.name: (ref.problem or "").partition(": ")[2] for ref in find_dicom(tmp_path)}
    assert problems["good_s"] == ""
    assert problems["two"].startswith("several series may be the scan")
    assert problems["contrast_s1"].startswith("no MR series that may")
    for file in (tmp_path / "good" / "s").iterdir():
        file.unlink()
    with pytest.raises(
        InputError, match=r"no MR series that(.|\n)*1 more studies in .* cannot be used either"
    ):
        find_dicom(tmp_path)


def test_series_uid_affects_only_its_study(volume, tmp_path):
    write_study(tmp_path / "a", volume, "t1_mprage", "t1_mprage", PatientID="a")
    write_study(tmp_path / "b", volume, "t1_mprage", PatientID="b")
    uid = find_series(tmp_path / "a" / "s2")[0].uid
    first, second = find_dicom(tmp_path, series=uid)
    assert (first.name, first.image, first.series) == ("a", tmp_path / "a" / "s2", uid)
    assert (second.name, second.problem) == ("b_s1", None)


def test_folders_separate_people_without_patient_id(volume, tmp_path, caplog):
    for visit in ("p1/v1", "p1/v2", "p2/v1"):
        write_series(tmp_path / "none" / visit, *volume, PatientID="")
    expected = [("p1", "v1"), ("p1", "v2"), ("p2_v1", "")]
    assert subjects_and_sessions(tmp_path / "none") == expected
    write_series(tmp_path / "some" / "p1" / "v1", *volume)
    write_series(tmp_path / "some" / "p1" / "v2", *volume, PatientID="")
    assert [ref.subject for ref in find_dicom(tmp_path / "some")] == ["p1", "p1"]
    assert not caplog.text


def test_one_patient_id_in_several_folders_is_logged(volume, tmp_path, caplog):
    for name in ("p1", "p2"):
        write_series(tmp_path / "same" / name, *volume)
    assert subjects_and_sessions(tmp_path / "same") == [("same", "p1"), ("same", "p2")]
    assert "same: its 2 studies share one patient ID and are in 2 folders" in caplog.text
    assert "manifest CSV" in caplog.text
    assert not any(secret in caplog.text for secret in SECRETS.values())


def test_several_people_in_one_folder_are_refused(volume, tmp_path):
    folder = tmp_path / "c"
    write_series(folder, *volume, PatientID="1")
    for file in list(folder.iterdir()):
        file.rename(file.with_name("first" + file.name))
    write_series(folder, *volume, PatientID="2")
    with pytest.raises(InputError, match="c: holds several patients in one folder"):
        find_dicom(folder)
    for file in list(folder.glob("IM*")):
        file.unlink()
    write_series(folder, *volume, PatientID="1")
    with pytest.raises(InputError, match="c: holds several studies in one folder"):
        find_dicom(folder)


def test_people_whose_visits_are_in_shared_folders_are_refused(volume, tmp_path):
    for visit in ("baseline", "followup"):
        for person in "ab":
            write_series(tmp_path / visit / person, *volume, PatientID=person)
    with pytest.raises(InputError, match="its folders mix the studies of several patients"):
        find_dicom(tmp_path)


def test_problem_names_absolute_paths_for_relative_folder(volume, tmp_path, monkeypatch):
    """`detect` removes the absolute folder, which may hold a patient's name, from its files."""
    write_series(tmp_path / "Doe Jane" / "a", *volume, PatientID="a")
    write_series(tmp_path / "Doe Jane" / "b", *volume, PatientID="b")
    damaged = min((tmp_path / "Doe Jane" / "b").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:200])
    monkeypatch.chdir(tmp_path)
    (broken,) = [ref for ref in find_dicom(Path("Doe Jane")) if ref.problem]
    assert str(broken.image) in broken.problem
    assert "Doe" not in remove_folders(broken.problem, broken)


def test_plain_t1_has_most_images(volume, tmp_path):
    data, affine = volume
    write_study(tmp_path, volume, "t2_tse", "t1_mprage gd", "t1_mprage")
    study = find_series(tmp_path)[0].study
    write_series(tmp_path / "s4", data[:, :, ::2], affine, SeriesNumber=4, StudyInstanceUID=study)
    series = find_series(tmp_path)
    t1 = find_plain_t1(series, series[0])
    assert t1 is not None and t1.number == "3"
    t1 = find_plain_t1(series, series[2])
    assert t1 is not None and t1.number == "4"
    (ref,) = find_dicom(tmp_path, "T2w")
    assert (ref.t1, ref.t1_series) == (tmp_path / "s3", series[2].uid)
    assert find_dicom(tmp_path, "T1w", series="3")[0].t1 is None
