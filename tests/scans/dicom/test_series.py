"""Series in a folder, and the check for a whole volume; errors name the file and no person."""

import logging
import warnings

import numpy as np
import pytest
from pydicom.uid import generate_uid

from helpers.dicom import SECRETS, drop_slices, write_series, write_study
from maediff.core.errors import InputError
from maediff.scans.dicom.series import check_volume, find_series, silence_dicom_warnings


def change_slice(which, **fields):
    def change(number, ds):
        if number == which:
            for name, value in fields.items():
                setattr(ds, name, value)
        return ds

    return change


def move_slice(shift_mm):
    def change(number, ds):
        if number == 5:
            ds.ImagePositionPatient = list(np.array(ds.ImagePositionPatient, float) + shift_mm)
        return ds

    return change


def cut_pixels(number, ds):
    if number == 4:
        ds.PixelData = ds.PixelData[:300]
    return ds


def two_echoes(folder, volume):
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    for echo in (1, 2):
        write_series(folder / str(echo), *volume, EchoTime=echo, **uids)


def one_series(change, **header):
    return lambda folder, volume: write_series(folder, *volume, change=change, **header)


BROKEN = {
    "a slice is missing between IM.* and IM": one_series(drop_slices(5)),
    "14.00 mm apart, expected 7.00 mm; 1 such gap\\)": one_series(drop_slices(5)),
    "expected 7.00 mm; 5 such gaps": one_series(
        drop_slices(1, 3, 5, 7, 9), SpacingBetweenSlices=7
    ),
    "slices are 5.50 to 8.50 mm apart": one_series(move_slice([0, 0, 1.5])),
    "mixed series .*two or more images at one position, as IM.* \\(echoes": two_echoes,
    "mixed series .*different directions": one_series(
        change_slice(3, ImageOrientationPatient=[0, 1, 0, 0, 0, 1])
    ),
    "mixed series .*different sizes": one_series(change_slice(3, PixelSpacing=[1, 1])),
    "mixed series .*on one line": one_series(move_slice([9, 0, 0])),
    "no series or study UID": one_series(change_slice(3, SeriesInstanceUID="")),
    "multi-frame DICOM .* 12 frames": one_series(
        change_slice(0, NumberOfFrames=12, ImagePositionPatient=None)
    ),
    "does not state where its slice is": one_series(change_slice(2, ImagePositionPatient=None)),
    "holds no image": one_series(change_slice(2, Rows=0)),
    "pixel data is truncated or absent": one_series(cut_pixels),
    "a series of 2 image\\(s\\)": one_series(drop_slices(*range(2, 12))),
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_series_is_refused_by_name(volume, tmp_path, message):
    folder = tmp_path / "dicom"
    BROKEN[message](folder, volume)
    with pytest.raises(InputError, match=message) as caught:
        for series in find_series(folder):
            check_volume(folder, series.images)
    assert str(folder) in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS.values())


def test_series_are_ordered_by_number_and_described(volume, tmp_path):
    write_study(tmp_path, volume, "t1_mprage", "ax brain", "adc")
    write_series(tmp_path / "s10", *volume, SeriesNumber=10, SeriesDescription="")
    write_series(tmp_path / "s0", *volume, SeriesNumber=None)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "DICOMDIR").write_bytes(b"x")
    found = find_series(tmp_path)
    assert [series.number for series in found] == ["", "1", "2", "3", "10"]
    lines = [series.describe() for series in found]
    assert lines[0].startswith("  series without number: t1_mprage (MR, T1w, 12 images, UID ")
    assert lines[2].startswith("  series 2: ax brain (MR, contrast not stated, 12 images")
    assert lines[3].startswith("  series 3: adc (MR, another contrast, 12 images")
    assert lines[4].startswith("  series 10: no description (MR")
    assert not any(secret in "".join(lines) for secret in SECRETS.values())


def test_scouts_and_other_modalities_may_not_be_volumes(volume, tmp_path):
    data, affine = volume
    cases = {
        "mr": ({}, data, True),
        "scout": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, data, False),
        "ct": ({"Modality": "CT"}, data, False),
        "two": ({}, data[:, :, :2], False),
        "multiframe": (
            {"NumberOfFrames": 9, "ImagePositionPatient": None},
            data[:, :, :1],
            True,
        ),
    }
    for name, (header, voxels, may_be_volume) in cases.items():
        write_series(tmp_path / name, voxels, affine, **header)
        (series,) = find_series(tmp_path / name)
        assert series.may_be_volume == may_be_volume, name


def test_unreadable_file_is_an_error_or_collected(volume, tmp_path):
    write_series(tmp_path, *volume)
    (tmp_path / "x.dcm").write_bytes(b"no DICOM")
    with pytest.raises(InputError, match=r"x\.dcm: cannot be read as DICOM"):
        find_series(tmp_path)
    damaged = {}
    assert len(find_series(tmp_path, damaged)) == 1
    assert list(damaged) == [tmp_path / "x.dcm"]
    assert "cannot be read as DICOM" in damaged[tmp_path / "x.dcm"]


def test_dicom_libraries_are_silenced_and_restored(caplog):
    log = logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with silence_dicom_warnings():
            log.error("a name")
            warnings.warn("a name", stacklevel=1)
    assert not caplog.records
    assert not caught
    assert log.level == level
