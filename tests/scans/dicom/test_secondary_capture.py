"""Secondary-capture series: pixels, order, geometry, patient, window and text."""

import json
import re
import traceback
import warnings

import numpy as np
import pydicom
import pytest

from helpers.brains import oblique, save
from helpers.dicom import PLANES, SECRETS, write_enhanced, write_series
from maediff.core.errors import InputError
from maediff.scans.dicom.geometry import LPS_TO_RAS
from maediff.scans.dicom.header import silence_dicom_warnings
from maediff.scans.dicom.secondary_capture import (
    COLOUR,
    MIN_PIXELS,
    TEXT,
    check_dicom_sc,
    choose_window,
    render_overlay,
    write_dicom_sc,
)
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.inputs.find import find_scans
from maediff.scans.read import read_volume


@pytest.fixture
def mask(volume):
    mask = np.zeros(volume[0].shape, dtype=bool)
    mask[4:9, 5:8, 2:5] = mask[4, 5, 8] = True
    return mask


def write(ref, mask, out):
    """Write the series of `mask`, and return its datasets in the order of the files."""
    scan = read_volume(ref)
    write_dicom_sc(out, mask, np.ones(mask.shape, dtype=bool), scan, ref, "run")
    return [pydicom.dcmread(path) for path in sorted(out.iterdir())]


@pytest.mark.parametrize("plane", PLANES)
def test_pixels_are_at_the_place_of_the_mask(volume, mask, tmp_path, plane):
    data, affine = volume
    files = write_series(tmp_path / "in", data, oblique(affine), plane)
    (ref,) = find_dicom(tmp_path / "in")
    captures = write(ref, mask, tmp_path / "out")
    affine = read_volume(ref).affine
    sources = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, files)}
    n_coloured = 0
    for number, capture in enumerate(captures, start=1):
        assert capture.InstanceNumber == number
        source = sources[capture.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert source.InstanceNumber == number  # the order of the scan's images
        factor = capture.Rows // source.Rows
        assert factor == -(-MIN_PIXELS // max(source.Rows, source.Columns)) > 1
        position = np.array(capture.ImagePositionPatient, dtype=float)
        cosines = np.reshape(np.array(capture.ImageOrientationPatient, dtype=float), (2, 3))
        row_mm, column_mm = capture.PixelSpacing
        assert capture.FrameOfReferenceUID == source.FrameOfReferenceUID
        # The place of each coloured pixel, by the header of the capture, is in the mask.
        pixels = capture.pixel_array.astype(int)
        text = 14 * (1 + len(TEXT) * 6 // pixels.shape[1])
        coloured = pixels[..., 0] > pixels[..., 2] + 30
        rows, columns = np.nonzero(coloured)
        lps = position + columns[:, None] * column_mm * cosines[0]
        lps = lps + rows[:, None] * row_mm * cosines[1]
        voxels = np.linalg.inv(affine) @ np.c_[lps @ LPS_TO_RAS, np.ones(len(lps))].T
        index = np.round(voxels[:3]).astype(int)
        assert mask[tuple(index)].all()
        below_text = rows >= text
        n_coloured += int(below_text.sum()) / factor**2
        assert (pixels == COLOUR).all(axis=2).any() == bool(coloured.any())
    assert len(captures) == len(files)
    hidden = 0.0 if plane == "axial" else mask.sum()
    assert mask.sum() >= n_coloured > mask.sum() - max(hidden, 1) - 1


def test_patient_and_study_are_those_of_the_scan(volume, mask, tmp_path):
    files = write_series(tmp_path / "in", *volume)
    (ref,) = find_dicom(tmp_path / "in")
    captures = write(ref, mask, tmp_path / "out")
    source = pydicom.dcmread(files[0])
    (series,) = {capture.SeriesInstanceUID for capture in captures}
    assert series != source.SeriesInstanceUID
    assert len({capture.SOPInstanceUID for capture in captures}) == len(captures)
    for capture in captures:
        for name in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber"):
            assert capture[name].value == source[name].value
        assert capture.SOPClassUID.name == "Secondary Capture Image Storage"
        assert capture.SeriesNumber == 302 and capture.Manufacturer == "maediff"
        assert capture.PhotometricInterpretation == "RGB" and capture.BurnedInAnnotation == "NO"
        assert "Not for diagnosis" in capture.DerivationDescription
        assert capture.file_meta.TransferSyntaxUID.name == "Explicit VR Little Endian"
    heights = [float(capture.ImagePositionPatient[2]) for capture in captures]
    steps = np.diff(heights)
    assert (steps > 0).all() or (steps < 0).all()
    np.testing.assert_allclose(abs(steps), float(captures[0].SliceThickness), rtol=1e-3)


def test_order_of_a_series_that_is_numbered_from_the_top(volume, mask, tmp_path):
    n = volume[0].shape[2]

    def renumber(number, ds):
        ds.InstanceNumber = n - number
        return ds

    write_series(tmp_path / "in", *volume, change=renumber)
    (ref,) = find_dicom(tmp_path / "in")
    captures = write(ref, mask, tmp_path / "out")
    heights = [float(capture.ImagePositionPatient[2]) for capture in captures]
    assert heights == sorted(heights, reverse=True)


def test_enhanced_multiframe(volume, mask, tmp_path):
    write_enhanced(tmp_path / "in" / "e.dcm", *volume)
    (ref,) = find_dicom(tmp_path / "in")
    captures = write(ref, mask, tmp_path / "out")
    assert len(captures) == volume[0].shape[2]
    frames = [capture.SourceImageSequence[0].ReferencedFrameNumber for capture in captures]
    assert sorted(frames) == list(range(1, len(captures) + 1))
    heights = [float(capture.ImagePositionPatient[2]) for capture in captures]
    assert heights == sorted(heights) or heights == sorted(heights, reverse=True)


def test_the_overlay_has_outline_colour_and_text():
    scan = np.linspace(0, 100, 400 * 300).reshape(400, 300)
    mask = np.zeros(scan.shape, dtype=bool)
    mask[200:210, 100:110] = True
    picture = render_overlay(scan, mask, 20.0, 80.0).astype(int)
    np.testing.assert_array_equal(picture[200, 100], COLOUR)
    grey = 255 * (scan[205, 105] - 20) / 60
    np.testing.assert_allclose(picture[205, 105], 0.65 * grey + 0.35 * np.array(COLOUR), atol=1)
    np.testing.assert_allclose(picture[250, 50], 255 * (scan[250, 50] - 20) / 60, atol=0.6)
    assert (picture[399] == 255).all() and (picture[50, :, 0] == 0).all()
    assert (picture[:14].min(axis=2) > 240).any()  # the text
    without = render_overlay(scan, mask & False, 20.0, 80.0).astype(int)
    assert (without[..., 0] == without[..., 2]).all()
    large = render_overlay(scan[:4, :4], mask[:4, :4] | True, 0.0, 1.0, factor=64)
    assert large.shape == (256, 256, 3)
    assert (large[200, 200] != large[200, 255]).any()  # the outline is one pixel wide


def header(centre, width):
    ds = pydicom.Dataset()
    ds.WindowCenter, ds.WindowWidth = centre, width
    return ds


def test_the_window_of_the_series_is_used_if_it_fits_the_brain(volume, tmp_path):
    write_series(tmp_path / "in", *volume)
    (ref,) = find_dicom(tmp_path / "in")
    scan = read_volume(ref)
    brain = scan.data > 0
    low, high = np.percentile(scan.data[brain], [0.5, 99.5])
    middle, width = float(np.median(scan.data[brain])), float(high - low)
    fits = [
        header(middle, width),
        header([middle + 1, 5], [1.2 * width, 5]),
        header(middle, width),
    ]
    assert choose_window(fits, scan, brain) == pytest.approx(
        (middle - width / 2, middle + width / 2), rel=1e-6
    )
    for bad in (
        [header(middle, width), pydicom.Dataset()],
        [header(middle * 1000, width)],
        [header(middle, width * 1000)],
        [header(middle, 0)],
        [header("", "")],
    ):
        assert choose_window(bad, scan, brain) == pytest.approx((low, high))


def test_header_is_not_in_warnings_and_others_are_refused(volume, mask, tmp_path):
    files = write_series(tmp_path / "in", *volume)
    (ref,) = find_dicom(tmp_path / "in")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write(ref, mask, tmp_path / "out")
    assert not caught
    nifti = find_scans([save(tmp_path / "scan_T1w.nii.gz", *volume)])
    with pytest.raises(InputError, match=r"scan_T1w\.nii\.gz: not DICOM.*without `dicom_sc`"):
        check_dicom_sc(nifti)
    assert len(files) == len(list((tmp_path / "out").iterdir()))
    assert not any(re.search("Secret", json.dumps(path.name)) for path in tmp_path.rglob("*"))
    assert SECRETS


def test_a_header_that_cannot_be_written_is_not_quoted(volume, mask, tmp_path):
    def add_date(number, ds):
        with silence_dicom_warnings():
            ds.PatientBirthDate = "01.02.1970"
        return ds

    write_series(tmp_path / "in", *volume, change=add_date)
    (ref,) = find_dicom(tmp_path / "in")
    with pytest.raises(InputError, match="no secondary capture can be made") as caught:
        write(ref, mask, tmp_path / "out")
    text = "".join(traceback.format_exception(caught.value))
    assert "1970" not in text
