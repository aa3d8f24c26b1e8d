"""DICOM SEG of a mask: each frame refers to its slice, and its pixels are the mask's voxels."""

import importlib.util
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless, generate_uid

from helpers.brains import oblique, save
from helpers.dicom import PLANES, write_series
from maediff.core.errors import InputError
from maediff.scans.dicom.convert import find_images
from maediff.scans.dicom.segmentation import check_dicom_seg, write_dicom_seg
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.inputs.find import find_scans
from maediff.scans.read import read_volume


@pytest.mark.parametrize("plane", PLANES)
def test_frames_refer_to_slices_and_pixels(volume, tmp_path, plane):
    data, affine = volume
    files = write_series(tmp_path / "in", data, oblique(affine), plane)
    (ref,) = find_dicom(tmp_path / "in")
    mask = np.zeros(data.shape, dtype=bool)
    mask[4:9, 5:8, 2:5] = mask[4, 5, 8] = True
    write_dicom_seg(tmp_path / "seg.dcm", mask, read_volume(ref), ref, "run")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    (segment,) = seg.SegmentSequence
    assert (seg.Modality, seg.SegmentationType) == ("SEG", "BINARY")
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("Anomaly", "AUTOMATIC")
    assert seg.Manufacturer == "maediff"
    source = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file) for file in files}
    any_source = next(iter(source.values()))
    for name in ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID"):
        assert seg[name].value == any_source[name].value
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == any_source.SeriesInstanceUID
    frames = np.atleast_3d(seg.pixel_array) if seg.NumberOfFrames > 1 else seg.pixel_array[None]
    n_pixels = 0
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        uid = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        expected = intensities_in_mask(data, mask, plane, source[uid].InstanceNumber - 1)
        assert sorted(source[uid].pixel_array[frame > 0]) == expected
        n_pixels += frame.sum()
    assert n_pixels == mask.sum()


def intensities_in_mask(data, mask, plane, number):
    """Return the sorted intensities of the mask's voxels in one slice."""
    (axis, way) = PLANES[plane][2]
    index = number if way > 0 else data.shape[axis] - 1 - number
    return sorted(np.take(data, index, axis)[np.take(mask, index, axis)])


def test_empty_mask_and_source_without_patient_fields(volume, tmp_path):
    def remove_fields(number, ds):
        for name in (
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
        ):
            delattr(ds, name)
        return ds

    write_series(tmp_path / "in", *volume, change=remove_fields)
    (ref,) = find_dicom(tmp_path / "in")
    empty = np.zeros(volume[0].shape, dtype=bool)
    write_dicom_seg(tmp_path / "seg.dcm", empty, read_volume(ref), ref, "run")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == 12
    assert not seg.pixel_array.any()


def test_header_is_neither_logged_nor_in_warnings(volume, tmp_path, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_series(
            tmp_path / "in",
            *volume,
            compress=RLELossless,
            PatientID="longer than allowed" * 9,
        )
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (ref,) = find_dicom(tmp_path / "in")
        mask = np.ones(volume[0].shape, dtype=bool)
        write_dicom_seg(tmp_path / "seg.dcm", mask, read_volume(ref), ref, "run")
    assert not caplog.records
    assert not caught


def test_slice_on_another_grid_is_refused(volume, tmp_path):
    data, affine = volume
    uid = generate_uid()
    write_series(tmp_path / "a", data, affine, SeriesInstanceUID=uid)
    moved = affine.copy()
    moved[0, 3] += 3
    write_series(tmp_path / "b", data, moved, SeriesInstanceUID=uid)
    (ref,) = find_dicom(tmp_path / "a")
    (other,) = find_dicom(tmp_path / "b")
    assert len(find_images(other.image, uid)) == 12
    mask = np.ones(data.shape, dtype=bool)
    with pytest.raises(InputError, match="not on the grid of the converted scan"):
        write_dicom_seg(tmp_path / "seg.dcm", mask, read_volume(ref), other, "run")
    assert not (tmp_path / "seg.dcm").exists()


def test_scans_without_series_and_missing_highdicom_are_refused(volume, tmp_path, monkeypatch):
    nifti = find_scans([save(tmp_path / "scan_T1w.nii.gz", *volume)])
    with pytest.raises(InputError, match=r"scan_T1w\.nii\.gz: not DICOM"):
        check_dicom_seg(nifti)
    write_series(tmp_path / "in", *volume)
    dicom = find_scans([tmp_path / "in"])
    check_dicom_seg(dicom)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "highdicom" else find_spec(name)
    )
    with pytest.raises(InputError, match=r"needs highdicom; pip install highdicom"):
        check_dicom_seg(dicom)
