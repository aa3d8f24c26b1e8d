"""Plain, DICOM and known-layout inputs, and the checks over all inputs together."""

import numpy as np
import pytest

from helpers.brains import made_brain, save
from helpers.dicom import write_series, write_study
from helpers.inputs import make_bids, make_ixi, names_of, touch
from maediff.core.errors import InputError
from maediff.scans.dicom.series import find_series
from maediff.scans.inputs.find import find_scans, is_dicom_folder


@pytest.fixture
def volume():
    data, _, affine = made_brain(shape=(22, 26, 12), spacing=(6.0, 6.5, 7.0))
    return np.round(data), affine


def test_plain_dicom_and_known_layout_together(volume, tmp_path):
    write_series(tmp_path / "dicom", *volume)
    touch(tmp_path / "plain" / "a_T1.nii")
    ixi = make_ixi(tmp_path / "IXI") / "IXI-T1"
    refs = find_scans([tmp_path / "plain", tmp_path / "dicom", ixi], "T1w")
    assert names_of(refs) == ["dicom", "a_T1", "IXI002", "IXI012", "IXI013", "IXI035"]
    assert [bool(ref.series) for ref in refs] == [True, *[False] * 5]
    assert [bool(ref.split) for ref in refs] == [False, False, *[True] * 4]
    assert names_of(find_scans([str(tmp_path / "plain")])) == ["a_T1"]


def test_nothing_given_and_unknown_arguments(tmp_path):
    with pytest.raises(InputError, match="no input"):
        find_scans([])
    with pytest.raises(InputError, match="`modality='T1'`: not known; choose one of T1w, T2w, FL"):
        find_scans([tmp_path], "T1")
    with pytest.raises(
        InputError,
        match="`layout='adni'`: not known; choose one of auto, plain, ixi, brats, mslub",
    ):
        find_scans([tmp_path], layout="adni")


def test_unusable_folders_are_refused_by_name(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.dcm").write_bytes(b"no DICOM")
    with pytest.raises(InputError, match=r"x\.dcm: cannot be read as DICOM"):
        find_scans([tmp_path / "a"])
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="no NIfTI scan"):
        find_scans([tmp_path / "b"])


def test_series_without_dicom_is_refused(volume, tmp_path):
    with pytest.raises(InputError, match="`series='3'`: there is no DICOM"):
        find_scans([save(tmp_path / "T1.nii", *volume)], series="3")


def test_series_uid_affects_only_its_study(volume, tmp_path):
    write_study(tmp_path / "a", volume, "t1_mprage", "t1_mprage", PatientID="a")
    write_study(tmp_path / "b", volume, "t1_mprage", PatientID="b")
    uid = find_series(tmp_path / "a" / "s2")[0].uid
    first, second = find_scans([tmp_path], series=uid)
    assert (first.name, first.image, first.series) == ("a", tmp_path / "a" / "s2", uid)
    assert (second.name, second.problem) == ("b_s1", None)
    refs = find_scans([tmp_path / "a", tmp_path / "b"], series=uid)
    assert [ref.problem for ref in refs] == [None, None]
    with pytest.raises(
        InputError, match=r"`series='1\.2\.3'`: no study among the inputs holds it"
    ):
        find_scans([tmp_path / "b"], series="1.2.3")


def test_dicom_beside_nifti_is_skipped_with_warning(volume, tmp_path, caplog):
    save(tmp_path / "in" / "a" / "T1.nii", *volume)
    write_series(tmp_path / "in" / "b", *volume)
    assert not is_dicom_folder(tmp_path / "in")
    assert is_dicom_folder(tmp_path / "in" / "b")
    assert names_of(find_scans([tmp_path / "in"])) == ["a_T1"]
    assert "in: DICOM is skipped in a folder with NIfTI, as b/IM" in caplog.text


def test_dicom_in_bids_dataset_is_skipped_silently(volume, tmp_path, caplog):
    root = make_bids(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz")
    write_series(root / "sourcedata", *volume)
    assert names_of(find_scans([root])) == ["sub-01"]
    assert "DICOM" not in caplog.text


def test_error_if_every_scan_has_a_problem(volume, tmp_path):
    broken = tmp_path / "sub-02_T1w.nii.gz"
    broken.symlink_to("../../.git/annex/objects/x")
    with pytest.raises(InputError, match=r"sub-02_T1w\.nii\.gz: broken link, its content is not"):
        find_scans([tmp_path])
    touch(tmp_path / "sub-01_T1w.nii.gz")
    assert [ref.problem is None for ref in find_scans([tmp_path])] == [True, False]


def test_problem_of_one_study_spares_the_others(volume, tmp_path):
    write_series(tmp_path / "good" / "s", *volume, PatientID="1")
    write_study(tmp_path / "two", volume, "t1_mprage", "t1_mprage", PatientID="3")
    refs = find_scans([tmp_path / "good", tmp_path / "two"])
    assert [ref.problem is None for ref in refs] == [True, False]
    (tmp_path / "list.csv").write_text("subject,image\nx,good\ny,two\nz,.\n")
    listed = find_scans([tmp_path / "list.csv"])
    assert [ref.name for ref in listed if ref.problem] == ["y", "z"]


def test_shared_names_are_prefixed_by_dataset(tmp_path):
    one = make_bids(tmp_path / "one", "sub-01/anat/sub-01_T1w.nii.gz")
    two = make_bids(tmp_path / "two", "sub-01/anat/sub-01_T1w.nii.gz")
    assert names_of(find_scans([one, two], "T1w")) == ["one__sub-01", "two__sub-01"]


def test_same_name_in_two_inputs_is_refused(tmp_path):
    first = make_ixi(tmp_path / "IXI") / "IXI-T1"
    second = make_ixi(tmp_path / "second") / "IXI-T1"
    with pytest.raises(InputError, match="both named IXI002"):
        find_scans([first, second])


def test_real_folders(shared_data):
    refs = find_scans([shared_data / "ixi10"])
    assert names_of(refs)[:2] == ["IXI012", "IXI013"]
    assert len(refs) == 10
    assert names_of(find_scans([shared_data / "mslub"], "T1w")) == ["patient07_T1"]
    assert len(find_scans([shared_data / "ds002748"])) == 60
    assert len(find_scans([shared_data / "lgg"], "FLAIR")) == 78
