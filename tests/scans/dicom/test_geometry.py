"""A converted series has every slice where its header says; any other series is refused."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from helpers.brains import oblique, save
from helpers.dicom import PLANES, write_enhanced, write_series
from maediff.core.errors import InputError
from maediff.scans.dicom.convert import find_images
from maediff.scans.dicom.geometry import check_conversion
from maediff.scans.dicom.segmentation import write_dicom_seg
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.nifti import read_nifti
from maediff.scans.read import read_scan, read_volume


def shear(degrees, affine, plane="axial", which=0):
    """Return a `change` that moves each slice along one of its own two directions."""
    axis, _ = PLANES[plane][2]
    step = np.tan(np.radians(degrees)) * np.linalg.norm(affine[:3, axis])

    def change(number, ds):
        direction = np.reshape(ds.ImageOrientationPatient, (2, 3))[which].astype(float)
        place = np.array(ds.ImagePositionPatient, float) + number * step * direction
        ds.ImagePositionPatient = [f"{x:.10g}" for x in place]
        return ds

    return change


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(("degrees", "which"), [(0.2, 1), (-5, 0), (20, 1)])
def test_sheared_series_is_refused_with_its_angle(volume, tmp_path, plane, degrees, which):
    data, affine = volume
    change = shear(degrees, affine, plane, which)
    write_series(tmp_path / "a", data, oblique(affine), plane, change=change)
    with pytest.raises(InputError, match=f"obliquely to their normal .*{abs(degrees):g} degrees"):
        read_scan(tmp_path / "a")


def test_gantry_tilt_in_the_header_is_refused_like_any_shear(volume, tmp_path):
    data, affine = volume
    write_series(tmp_path / "a", data, affine, change=shear(8, affine), GantryDetectorTilt=8)
    write_enhanced(tmp_path / "b" / "x.dcm", data, affine, change=shear(8, affine))
    for name in "ab":
        with pytest.raises(InputError, match="tilted gantry or a sheared reformat: 8 degrees"):
            read_scan(tmp_path / name)


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda a: a + np.outer([0, 0.2, 0, 0], [0, 0, 0, 1]), "away from the position"),
        (lambda a: a @ np.diag([1, 1, 1.01, 1]), "away from the position"),
        (lambda a: a + np.outer([0, 0.4, 0, 0], [0, 0, 1, 0]), "away from the position"),
    ],
)
def test_wrong_affine_of_the_conversion_is_refused(volume, tmp_path, move, message):
    write_series(tmp_path / "a", *volume)
    (ref,) = find_dicom(tmp_path / "a")
    images, scan = find_images(ref.image, ref.series), read_volume(ref)
    check_conversion(ref.image, images, scan)
    with pytest.raises(InputError, match=message):
        check_conversion(ref.image, images, replace(scan, affine=move(scan.affine)))


def test_swapped_or_flipped_slices_of_the_conversion_are_refused(volume, tmp_path):
    write_series(tmp_path / "a", *volume)
    (ref,) = find_dicom(tmp_path / "a")
    images, scan = find_images(ref.image, ref.series), read_volume(ref)
    swapped = scan.data.copy()
    swapped[:, :, [4, 5]] = swapped[:, :, [5, 4]]
    for data in (swapped, scan.data[::-1], scan.data.max() - scan.data):
        with pytest.raises(InputError, match="dcm2niix changes the pixels"):
            check_conversion(ref.image, images, replace(scan, data=np.ascontiguousarray(data)))
    brighter = scan.data * np.where(np.arange(scan.data.shape[2]) == 4, 1.05, 1).astype(np.float32)
    with pytest.raises(InputError, match="scales the intensities of slices differently"):
        check_conversion(ref.image, images, replace(scan, data=brighter))
    with pytest.raises(InputError, match="dcm2niix makes"):
        check_conversion(ref.image, images, replace(scan, data=scan.data[:, :, :-1]))


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("is_oblique", [False, True])
def test_enhanced_multiframe_is_read_like_nifti(volume, tmp_path, plane, is_oblique):
    data, affine = volume
    affine = oblique(affine) if is_oblique else affine
    write_enhanced(tmp_path / "a" / "x.dcm", data, affine, plane)
    expected = read_nifti(save(tmp_path / "scan.nii.gz", data, affine))
    scan = read_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.data, expected.data)
    np.testing.assert_allclose(scan.affine, expected.affine, atol=1e-3)


def drop_frame(ds):
    del ds.PerFrameFunctionalGroupsSequence[5]


def put_frame_on_another(ds):
    first, second = ds.PerFrameFunctionalGroupsSequence[:2]
    second.PlanePositionSequence = first.PlanePositionSequence


def remove_orientation(ds):
    del ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence


def cut_frames(ds):
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]


@pytest.mark.parametrize(
    ("change_file", "message"),
    [
        (drop_frame, "multi-frame DICOM that does not state where each of its 12 frames is"),
        (put_frame_on_another, "two or more images at one position, as x.dcm frame"),
        (remove_orientation, "does not state where its slice is"),
        (cut_frames, "pixel data is truncated"),
    ],
)
def test_enhanced_multiframe_without_clear_places_is_refused(
    volume, tmp_path, change_file, message
):
    write_enhanced(tmp_path / "a" / "x.dcm", *volume, change_file=change_file)
    with pytest.raises(InputError, match=message):
        read_scan(tmp_path / "a")


def test_enhanced_multiframe_with_contrast_agent_is_not_plain_t1(volume, tmp_path):
    def add_agent(ds):
        agent = pydicom.Dataset()
        agent.ContrastBolusAgentNumber = 1
        ds.ContrastBolusAgentSequence = [agent]

    write_enhanced(tmp_path / "a" / "x.dcm", *volume, change_file=add_agent)
    with pytest.raises(InputError, match="no MR series that may be T1w"):
        find_dicom(tmp_path / "a")


@pytest.mark.parametrize("compress", [None, RLELossless])
def test_low_values_that_are_bright_are_inverted(volume, tmp_path, compress):
    data, affine = volume
    header = {"PhotometricInterpretation": "MONOCHROME1"}
    write_series(tmp_path / "a", 1023 - data, affine, compress=compress, **header)
    write_enhanced(tmp_path / "b" / "x.dcm", 1023 - data, affine, **header)
    for name in "ab":
        np.testing.assert_array_equal(read_scan(tmp_path / name).data, data)


def test_series_that_is_inverted_in_part_is_refused(volume, tmp_path):
    def invert(number, ds):
        if number == 4:
            ds.PhotometricInterpretation = "MONOCHROME1"
        return ds

    write_series(tmp_path / "a", *volume, change=invert)
    with pytest.raises(InputError, match="low values are bright in some slices only"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize("plane", PLANES)
def test_dicom_seg_of_enhanced_multiframe_refers_to_its_frames(volume, tmp_path, plane):
    data, affine = volume
    file = write_enhanced(tmp_path / "a" / "x.dcm", data, oblique(affine), plane)
    (ref,) = find_dicom(tmp_path / "a")
    mask = np.zeros(data.shape, dtype=bool)
    mask[4:9, 5:8, 2:5] = True
    write_dicom_seg(tmp_path / "seg.dcm", mask, read_volume(ref), ref, "run")
    seg, source = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(file)
    values = []
    for frame, groups in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        item = groups.DerivationImageSequence[0].SourceImageSequence[0]
        number = item.ReferencedFrameNumber
        place = source.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0]
        assert groups.PlanePositionSequence[0].ImagePositionPatient == place.ImagePositionPatient
        values += list(source.pixel_array[number - 1][frame > 0])
    assert sorted(values) == sorted(data[mask])
