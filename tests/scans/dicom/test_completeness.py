"""The check for a whole volume: a broken series is refused, with its folder and no person."""

import numpy as np
import pytest
from pydicom.uid import generate_uid

from helpers.dicom import SECRETS, drop_slices, write_series
from maediff.core.errors import InputError
from maediff.scans.dicom.completeness import check_volume
from maediff.scans.dicom.series import find_series


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
