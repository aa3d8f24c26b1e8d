"""Series in a folder: their order, their descriptions, and unreadable files."""

import pytest

from helpers.dicom import SECRETS, write_series, write_study
from maediff.core.errors import InputError
from maediff.scans.dicom.series import find_series


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
