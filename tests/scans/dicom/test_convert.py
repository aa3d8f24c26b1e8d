"""DICOM gives the same volume as NIfTI; undecodable series are refused by name."""

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless

from helpers.brains import oblique, save
from helpers.dicom import SECRETS, write_enhanced, write_series
from maediff.core.errors import InputError
from maediff.scans.dicom.convert import convert, find_images
from maediff.scans.dicom.header import silence_dicom_warnings
from maediff.scans.dicom.series import find_series
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.nifti import read_nifti
from maediff.scans.read import read_volume


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("is_oblique", [False, True])
def test_same_volume_as_nifti(volume, tmp_path, plane, is_oblique):
    data, affine = volume
    affine = oblique(affine) if is_oblique else affine
    write_series(tmp_path / "dicom", data, affine, plane)
    expected = read_nifti(save(tmp_path / "scan.nii.gz", data, affine))
    (ref,) = find_dicom(tmp_path / "dicom")
    found = read_volume(ref)
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-3)
    assert found.source == tmp_path / "dicom"


def test_rle_in_scattered_files_is_read(volume, tmp_path):
    data, affine = volume
    root = tmp_path / "a"
    files = write_series(root / "s", data, affine, "sagittal", seed=1, compress=RLELossless)
    (root / "t").mkdir()
    for file in files[::2]:
        file.rename(root / "t" / (file.name + ".dcm"))
    (root / "DICOMDIR").write_bytes(b"x")
    (root / "notes.txt").write_text("x")
    (ref,) = find_dicom(root)
    assert (ref.name, ref.modality, ref.dataset, ref.image) == ("a", "T1w", "a", root)
    np.testing.assert_array_equal(read_volume(ref).data, data)


def break_jpeg(number, ds):
    if number == 4:
        ds.PixelData = encapsulate([b"\xff\x4f" + b"garbage!" * 50])
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return ds


def break_rle(number, ds):
    if number == 4:
        ds.PixelData = encapsulate([b"\x02" + bytes(101)])
    return ds


@pytest.mark.parametrize(
    ("change", "compress", "message"),
    [
        (break_jpeg, None, "cannot be decoded \\(.*JPEG 2000.* dcm2niix ended with"),
        (break_rle, RLELossless, "cannot be decoded \\(RLE"),
    ],
)
def test_undecodable_series_is_refused_by_name(volume, tmp_path, change, compress, message):
    write_series(tmp_path / "dicom", *volume, change=change, compress=compress)
    (ref,) = find_dicom(tmp_path / "dicom")
    with pytest.raises(InputError, match=message) as caught:
        read_volume(ref)
    assert str(tmp_path / "dicom") in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS.values())


def test_undecodable_multiframe_file_is_refused_by_name(volume, tmp_path):
    def break_frames(ds):
        ds.PixelData = encapsulate([b"\xff\x4f" + bytes(200)] * ds.NumberOfFrames)
        ds["PixelData"].is_undefined_length = True
        ds.file_meta.TransferSyntaxUID = JPEG2000Lossless

    write_enhanced(tmp_path / "a" / "x.dcm", *volume, change_file=break_frames)
    (ref,) = find_dicom(tmp_path / "a")
    with pytest.raises(InputError, match=r"x\.dcm: this DICOM cannot be decoded \(JPEG 2000"):
        read_volume(ref)


@pytest.mark.parametrize(("slope", "intercept"), [("1", "0.1"), ("1.57", "-3.2")])
def test_slice_of_one_value_is_read(volume, tmp_path, slope, intercept):
    data, affine = volume
    data = data.copy()
    data[:, :, 0] = 5
    header = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    write_series(tmp_path / "a", data, affine, **header)
    (ref,) = find_dicom(tmp_path / "a")
    np.testing.assert_allclose(
        read_volume(ref).data, float(slope) * data + float(intercept), rtol=1e-5
    )


def test_number_of_a_slice_may_have_a_decimal_point(volume, tmp_path):
    def write_decimal(number, ds):
        with silence_dicom_warnings():
            ds.InstanceNumber = f"{number}.0"
        return ds

    write_series(tmp_path / "a", *volume, change=write_decimal)
    (ref,) = find_dicom(tmp_path / "a")
    assert ref.problem is None


def test_images_of_one_series_are_found(volume, tmp_path):
    write_series(tmp_path / "a", *volume)
    write_series(tmp_path / "b", *volume)
    (series,) = find_series(tmp_path / "a")
    images = find_images(tmp_path, series.uid)
    assert {image.path.parent for image in images} == {tmp_path / "a"}
    with pytest.raises(InputError, match="the series is no longer in this folder"):
        find_images(tmp_path, "1.2.3")


def test_result_of_dcm2niix_holds_no_patient_data(volume, tmp_path):
    write_series(tmp_path / "a", *volume)
    (series,) = find_series(tmp_path / "a")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    result = convert(tmp_path / "a", series.images, scratch)
    assert [path for path in scratch.rglob("*") if path.parent == result.parent] == [result]
    content = result.read_bytes()
    assert not any(secret.encode() in content for secret in (*SECRETS.values(), "Secret"))
