"""One scan from a path or a reference, and the identity of its files."""

import numpy as np
import pytest

from helpers.brains import made_brain, save
from helpers.dicom import SECRETS, write_series, write_study
from maediff.core.errors import InputError
from maediff.scans.dicom.series import find_series
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.nifti import read_nifti
from maediff.scans.read import fingerprint, identity, read_scan, read_volume
from maediff.scans.reference import ScanRef


@pytest.fixture
def volume():
    data, _, affine = made_brain(shape=(22, 26, 12), spacing=(6.0, 6.5, 7.0))
    return np.round(data), affine


def test_read_scan_takes_nifti_and_dicom(volume, tmp_path):
    nifti = save(tmp_path / "scan.nii.gz", *volume)
    write_series(tmp_path / "dicom", *volume, "sagittal")
    expected = read_nifti(nifti)
    for path in (nifti, str(nifti), tmp_path / "dicom", str(tmp_path / "dicom")):
        np.testing.assert_array_equal(read_scan(path).data, expected.data)
    assert str(read_scan(str(nifti)).source) == str(nifti)


def test_read_scan_selects_one_series(volume, tmp_path):
    write_study(tmp_path / "p", volume, "t1_mprage", "t2_flair")
    uid = find_series(tmp_path / "p" / "s2")[0].uid
    with pytest.raises(InputError, match="several series may be the scan; give `series`"):
        read_scan(tmp_path / "p")
    assert read_scan(tmp_path / "p", modality="FLAIR").source == tmp_path / "p" / "s2"
    assert read_scan(tmp_path / "p", series="1").source == tmp_path / "p" / "s1"
    assert read_scan(tmp_path / "p", series=uid).source == tmp_path / "p" / "s2"


def test_read_scan_refuses_several_studies(volume, tmp_path):
    write_series(tmp_path / "p" / "v1", *volume)
    write_series(tmp_path / "p" / "v2", *volume)
    with pytest.raises(InputError, match=r"p: holds 2 studies \(p_v1, p_v2\); give the") as caught:
        read_scan(tmp_path / "p")
    assert not any(secret in str(caught.value) for secret in SECRETS.values())


def test_read_scan_refuses_other_paths(volume, tmp_path):
    (file, *_) = write_series(tmp_path / "dicom", *volume)
    (tmp_path / "empty").mkdir()
    cases = {
        file: "one DICOM file is one slice; give the folder",
        tmp_path / "empty": "no DICOM image in this folder",
        tmp_path / "gone.nii": "no such file",
        tmp_path / "gone": "no such file",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            read_scan(path)
        assert str(path) in str(caught.value)


def test_read_volume_reports_problem_without_list_of_series(tmp_path):
    ref = ScanRef(subject="x", session="", image=tmp_path, dataset="ds", problem="x: bad\nlist")
    with pytest.raises(InputError) as caught:
        read_volume(ref)
    assert str(caught.value) == f"x: bad (give {tmp_path} alone to list them)"


def test_missing_series_is_refused(volume, tmp_path):
    write_series(tmp_path / "d", *volume)
    ref = ScanRef(subject="x", session="", image=tmp_path / "d", dataset="d", series="1.2.3")
    with pytest.raises(InputError, match="the series is no longer in this folder"):
        read_volume(ref)


def test_fingerprint_changes_with_files_and_series(volume, tmp_path):
    files = write_series(tmp_path, *volume)
    before = fingerprint(tmp_path, "1.2.3")
    assert before == fingerprint(tmp_path, "1.2.3") != fingerprint(tmp_path, "1.2.4")
    files[0].unlink()
    assert before != fingerprint(tmp_path, "1.2.3")


def test_identity_changes_with_files(volume, tmp_path):
    image = save(tmp_path / "a.nii", *volume)
    ref = ScanRef(
        subject="x", session="", image=image, dataset="d", lesion_mask=tmp_path / "gone.nii"
    )
    record = identity(ref)
    assert record["files"][0][:2] == [str(image), image.stat().st_size]
    assert record["files"][1:] == [None, None, None]
    image.write_bytes(image.read_bytes() + b"x")
    assert identity(ref) != record
    write_series(tmp_path / "dicom", *volume)
    (dicom,) = find_dicom(tmp_path / "dicom")
    assert identity(dicom)["dicom"] == fingerprint(tmp_path / "dicom", dicom.series)
