"""Odd but readable series are read; each other one is refused with its true reason."""

import importlib.util
import locale
import os
import shutil
import tracemalloc

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless, generate_uid

from helpers.brains import oblique
from helpers.dicom import drop_slices, write_enhanced, write_series
from maediff.core.errors import InputError
from maediff.scans.dicom.segmentation import write_dicom_seg
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.inputs.find import find_scans
from maediff.scans.read import read_scan, read_volume


def remove_preamble(files, *, implicit=True, little=True, suffix=""):
    for file in files:
        ds = pydicom.dcmread(file)
        file.unlink()
        del ds.file_meta
        path = file.with_name(file.name + suffix)
        if little:
            pydicom.dcmwrite(
                path, ds, implicit_vr=implicit, little_endian=True, enforce_file_format=False
            )
        else:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
            pydicom.dcmwrite(
                path, ds, implicit_vr=False, little_endian=False, enforce_file_format=False
            )


@pytest.mark.parametrize("suffix", ["", ".dcm"])
@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
def test_series_without_preamble_is_read(volume, tmp_path, suffix, implicit, little):
    data, affine = volume
    files = write_series(tmp_path / "a", data, oblique(affine), "sagittal")
    remove_preamble(files, implicit=implicit, little=little, suffix=suffix)
    (ref,) = find_scans([tmp_path / "a"])
    scan = read_volume(ref)
    np.testing.assert_array_equal(scan.data, data)
    np.testing.assert_allclose(scan.affine, oblique(affine), atol=1e-3)
    write_dicom_seg(tmp_path / "seg.dcm", data > 50, scan, ref, "run")


def test_series_in_part_without_preamble_is_read(volume, tmp_path):
    files = write_series(tmp_path / "a", *volume)
    remove_preamble(files[:4])
    np.testing.assert_array_equal(read_scan(tmp_path / "a").data, volume[0])


def vary(**fields):
    """Return a `change` that gives each slice its own value of each field."""

    def change(number, ds):
        for name, form in fields.items():
            setattr(ds, name, form.format(number))
        return ds

    return change


@pytest.mark.parametrize(
    "fields",
    [
        {"StudyTime": "1010{:02}"},
        {"StudyDate": "202001{:02}", "StudyTime": ""},
        {"SeriesNumber": "{}"},
        {"AcquisitionNumber": "{}", "AcquisitionTime": "1010{:02}.5", "SeriesTime": "1010{:02}"},
        {"SeriesDescription": "t1 mprage {}"},
        {"InstanceNumber": "7"},
    ],
)
@pytest.mark.parametrize("compress", [None, RLELossless])
def test_fields_that_differ_by_slice_do_not_split_a_series(volume, tmp_path, fields, compress):
    write_series(tmp_path / "a", *volume, change=vary(**fields), compress=compress)
    scan = read_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.data, volume[0])
    np.testing.assert_allclose(scan.affine, volume[1], atol=1e-3)


def test_slices_of_two_echoes_are_not_one_volume(volume, tmp_path):
    def change(number, ds):
        ds.EchoTime = 2 + number % 2
        return ds

    write_series(tmp_path / "a", *volume, change=change)
    with pytest.raises(InputError, match="mixed series that cannot be separated: dcm2niix makes"):
        read_scan(tmp_path / "a")


def test_copies_of_an_image_are_one_image(volume, tmp_path):
    files = write_series(tmp_path / "a", *volume)
    shutil.copy(files[4], tmp_path / "a" / f"{files[4].name} (1).dcm")
    (tmp_path / "a" / "again").mkdir()
    for file in files[:3]:
        shutil.copy(file, tmp_path / "a" / "again" / file.name)
    ds = pydicom.dcmread(files[7])  # the same image, from another export
    ds.InstitutionName = "other"
    ds.save_as(tmp_path / "a" / "other")
    (ref,) = find_dicom(tmp_path / "a")
    scan = read_volume(ref)
    np.testing.assert_array_equal(scan.data, volume[0])
    write_dicom_seg(tmp_path / "seg.dcm", volume[0] > 50, scan, ref, "run")


def change_pixels(ds):
    ds.PixelData = bytes(len(ds.PixelData))


def change_position(ds):
    ds.ImagePositionPatient = [0, 0, 99]


def change_scale(ds):
    ds.RescaleSlope, ds.RescaleIntercept = 2, 0


@pytest.mark.parametrize("edit", [change_pixels, change_position, change_scale])
def test_two_versions_of_an_image_are_refused_with_both_names(volume, tmp_path, edit):
    files = write_series(tmp_path / "a", *volume)
    ds = pydicom.dcmread(files[4])
    edit(ds)
    ds.save_as(tmp_path / "a" / "version")
    with pytest.raises(InputError, match="two versions of one image") as caught:
        read_scan(tmp_path / "a")
    assert files[4].name in str(caught.value)
    assert "version" in str(caught.value)


def test_one_instance_uid_for_all_slices_is_read(volume, tmp_path):
    write_series(tmp_path / "a", *volume, SOPInstanceUID=generate_uid())
    np.testing.assert_array_equal(read_scan(tmp_path / "a").data, volume[0])


@pytest.mark.parametrize("step", [1, 0.5, 3.5, 20, 0, -7])
def test_spacing_field_does_not_override_even_positions(volume, tmp_path, step):
    write_series(tmp_path / "a", *volume, SpacingBetweenSlices=step)
    scan = read_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.data, volume[0])
    np.testing.assert_allclose(scan.spacing_mm, [6, 6.5, 7], atol=1e-3)


def test_series_of_simpleitk_is_read(volume, tmp_path):
    import SimpleITK

    data, _ = volume
    image = SimpleITK.GetImageFromArray(data.astype(np.int16).transpose(2, 1, 0))
    image.SetSpacing((6.0, 6.5, 7.0))
    writer = SimpleITK.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    before = locale.setlocale(locale.LC_ALL)  # the writer leaves the locale C
    uid = generate_uid()
    for k in range(image.GetDepth()):
        part = image[:, :, k]
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        for tag, value in {
            "0008|0060": "MR",
            "0008|103e": "T1 MPRAGE",
            "0020|000d": uid,
            "0020|000e": f"{uid}.2",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(k + 1),
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{uid}.3.{k + 1}",
            "0020|0032": "\\".join(map(str, place)),
        }.items():
            part.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{k:03}.dcm"))
        writer.Execute(part)
    locale.setlocale(locale.LC_ALL, before)
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.data, data[::-1, ::-1])
    np.testing.assert_allclose(scan.spacing_mm, [6, 6.5, 7], atol=1e-3)


def test_every_second_slice_missing_is_noticed_by_instance_numbers(volume, tmp_path):
    change = drop_slices(*range(1, 12, 2))
    write_series(tmp_path / "a", *volume, change=change, SpacingBetweenSlices=7)
    with pytest.raises(InputError, match=r"expected 7\.00 mm; 5 such gaps"):
        read_scan(tmp_path / "a")


def test_missing_slice_beside_a_wrong_spacing_field_is_one_gap(volume, tmp_path):
    write_series(tmp_path / "a", *volume, change=drop_slices(5), SpacingBetweenSlices=1)
    with pytest.raises(InputError, match=r"14\.00 mm apart, expected 7\.00 mm; 1 such gap\)"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"/annex/objects/MD5E-s1--0.dcm\n", "git-annex pointer"),
        (b"version https://git-lfs.github.com/spec/v1\n", "LFS pointer"),
        (b"<html>log in</html>", "a web page"),
        (b"no DICOM at all", "no DICM at byte 128"),
        (b"", r"the file is empty"),
    ],
)
def test_content_that_is_no_dicom_is_named(volume, tmp_path, content, message):
    write_series(tmp_path / "a", *volume)
    (tmp_path / "a" / "x.dcm").write_bytes(content)
    with pytest.raises(InputError, match=rf"x\.dcm: .*{message}"):
        read_scan(tmp_path / "a")


def test_slice_that_may_not_be_read_is_named(volume, tmp_path, monkeypatch):
    files = write_series(tmp_path / "a", *volume)
    original = type(files[0]).open

    def deny(path, *args, **more):
        if path.name == files[0].name:
            raise PermissionError(13, "Permission denied")
        return original(path, *args, **more)

    monkeypatch.setattr(type(files[0]), "open", deny)
    with pytest.raises(InputError, match=f"{files[0].name}: permission denied"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"PixelSpacing": [0, 0]}, r"pixels of 0 x 0 mm \(PixelSpacing\)"),
        ({"PixelSpacing": [2, -2]}, r"pixels of 2 x -2 mm \(PixelSpacing\)"),
        ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, "of length 1"),
        ({"ImageOrientationPatient": [1, 0, 0, 0.2, 0.98, 0]}, "not perpendicular"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "of length 1"),
    ],
)
def test_impossible_pixel_places_are_refused_by_their_field(volume, tmp_path, fields, message):
    def change(number, ds):
        for name, value in fields.items():
            setattr(ds, name, value)
        return ds

    write_series(tmp_path / "a", *volume, change=change)
    with pytest.raises(InputError, match=message):
        read_scan(tmp_path / "a")


def test_rounded_direction_cosines_are_read(volume, tmp_path):
    def change(number, ds):
        ds.ImageOrientationPatient = [round(x, 3) for x in ds.ImageOrientationPatient]
        return ds

    data, affine = volume
    write_series(tmp_path / "a", data, oblique(affine, (0.0, 0.0, 30.0)), change=change)
    np.testing.assert_array_equal(read_scan(tmp_path / "a").data, data)


def test_pipe_among_slices_is_skipped_without_waiting(volume, tmp_path):
    write_series(tmp_path / "a", *volume)
    os.mkfifo(tmp_path / "a" / "pipe")
    os.mkfifo(tmp_path / "a" / "pipe.dcm")
    np.testing.assert_array_equal(read_scan(tmp_path / "a").data, volume[0])


@pytest.mark.parametrize("fields", [{"Rows": 60000, "Columns": 60000}, {"NumberOfFrames": 10**8}])
def test_impossible_size_is_refused_before_conversion(volume, tmp_path, fields):
    def change(number, ds):
        for name, value in fields.items():
            setattr(ds, name, value)
        return ds

    write_series(tmp_path / "a", *volume, change=change)
    with pytest.raises(InputError, match=r"truncated|more than a scan of a head has"):
        read_scan(tmp_path / "a")


@pytest.mark.skipif(importlib.util.find_spec("highdicom") is None, reason="highdicom")
def test_dicom_seg_of_inverted_series_without_preamble(volume, tmp_path):
    data, affine = volume
    files = write_series(
        tmp_path / "a", 1023 - data, affine, PhotometricInterpretation="MONOCHROME1"
    )
    remove_preamble(files)
    (ref,) = find_dicom(tmp_path / "a")
    scan = read_volume(ref)
    np.testing.assert_array_equal(scan.data, data)
    write_dicom_seg(tmp_path / "seg.dcm", data > 50, scan, ref, "run")
    assert pydicom.dcmread(tmp_path / "seg.dcm").pixel_array.sum() == (data > 50).sum()


@pytest.mark.parametrize("factor", [10, 0.001])
def test_impossible_voxel_size_names_the_folder(volume, tmp_path, factor):
    data, affine = volume
    write_series(tmp_path / "a", data, affine @ np.diag([factor, factor, factor, 1]))
    with pytest.raises(InputError) as caught:
        read_scan(tmp_path / "a")
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: ")
    assert "maediff-dicom-" not in str(caught.value)


def drift(number, ds):
    """Give each slice its measured value of one setting."""
    ds.EchoTime, ds.InversionTime, ds.FlipAngle = 3 + 0.001 * number, 900 + 0.5 * number, 8
    return ds


def round_spacing(number, ds):
    ds.PixelSpacing = [float(size) + 1e-6 * number for size in ds.PixelSpacing]
    return ds


@pytest.mark.parametrize("change", [drift, round_spacing])
def test_values_that_differ_by_rounding_do_not_split_a_series(volume, tmp_path, change):
    write_series(tmp_path / "a", *volume, change=change)
    scan = read_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.data, volume[0])
    np.testing.assert_allclose(scan.affine, volume[1], atol=1e-3)


def test_message_names_the_fields_by_which_images_differ(volume, tmp_path):
    write_series(tmp_path / "a", *volume, change=vary(EchoTime="1{:02}"))
    with pytest.raises(InputError, match="12 volumes of it, whose slices differ in EchoTime; put"):
        read_scan(tmp_path / "a")


def test_pixels_of_different_sizes_are_refused(volume, tmp_path):
    write_series(tmp_path / "a", *volume, change=vary(PixelSpacing="6.{:02}\\6"))
    with pytest.raises(InputError, match="one series UID, and pixels of different sizes"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize("missing", [1, 8, 200])
@pytest.mark.parametrize("implicit", [False, True])
def test_one_missing_byte_is_truncation(volume, tmp_path, missing, implicit):
    file = write_series(tmp_path / "a", *volume)[4]
    if implicit:
        remove_preamble([file])
    file.write_bytes(file.read_bytes()[:-missing])
    with pytest.raises(InputError, match=rf"{file.name}: its pixel data is truncated"):
        read_scan(tmp_path / "a")


def test_deflated_series_is_read(volume, tmp_path):
    for file in write_series(tmp_path / "a", *volume):
        ds = pydicom.dcmread(file)
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        pydicom.dcmwrite(file, ds, enforce_file_format=True)
    np.testing.assert_array_equal(read_scan(tmp_path / "a").data, volume[0])


def test_deflated_file_is_not_unpacked_beyond_an_image(volume, tmp_path):
    file = write_series(tmp_path / "a", *volume)[4]
    ds = pydicom.dcmread(file)
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    ds.PixelData = bytes(70 << 20)
    pydicom.dcmwrite(file, ds, enforce_file_format=True)
    assert file.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(InputError, match=f"{file.name}: deflated DICOM that unpacks to more than"):
        read_scan(tmp_path / "a")
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["RGB", "PALETTE COLOR", "YBR_FULL"])
def test_colours_are_no_intensities(volume, tmp_path, name):
    write_series(tmp_path / "a", *volume, PhotometricInterpretation=name)
    with pytest.raises(InputError, match=f"a colour image \\(PhotometricInterpretation {name}"):
        read_scan(tmp_path / "a")


@pytest.mark.parametrize("sign", [1, -1])
def test_each_slice_has_its_own_scale(volume, tmp_path, sign):
    def rescale(number, ds):
        ds.RescaleSlope, ds.RescaleIntercept = sign * (1 + number / 4), 2000 * (sign < 0)
        return ds

    def rescale_frames(ds):
        for frame in ds.PerFrameFunctionalGroupsSequence:
            number = frame.FrameContentSequence[0].InStackPositionNumber - 1
            frame.PixelValueTransformationSequence = [rescale(number, pydicom.Dataset())]

    data, affine = volume
    expected = data * sign * (1 + np.arange(12) / 4) + 2000 * (sign < 0)
    write_series(tmp_path / "a", data, affine, change=rescale)
    write_enhanced(tmp_path / "b" / "x.dcm", data, affine, change_file=rescale_frames)
    for name in "ab":
        np.testing.assert_allclose(read_scan(tmp_path / name).data, expected, rtol=1e-5)


def state_wrong_step(ds):
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 1


def state_another_place(ds):
    ds.ImagePositionPatient, ds.PixelSpacing = [0, 0, 0], [9, 9]
    ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


@pytest.mark.parametrize("change_file", [state_wrong_step, state_another_place])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_frames_decide_over_other_fields(volume, tmp_path, change_file, photometric):
    data, affine = volume
    write_enhanced(
        tmp_path / "a" / "x.dcm",
        data if photometric.endswith("2") else 1023 - data,
        oblique(affine),
        "sagittal",
        change_file=change_file,
        PhotometricInterpretation=photometric,
    )
    scan = read_scan(tmp_path / "a")
    np.testing.assert_array_equal(scan.data, data)
    np.testing.assert_allclose(scan.affine, oblique(affine), atol=1e-3)


@pytest.mark.parametrize("is_enhanced", [True, False])
def test_series_of_several_multiframe_files_is_read(volume, tmp_path, is_enhanced):
    """Also a series that is multi-frame in part."""
    data, affine = volume
    uids = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    upper = affine.copy()
    upper[:3, 3] += 5 * affine[:3, 2]
    write_enhanced(tmp_path / "a" / "1.dcm", data[:, :, :5], affine, **uids)
    if is_enhanced:
        write_enhanced(tmp_path / "a" / "2.dcm", data[:, :, 5:], upper, **uids)
    else:
        write_series(tmp_path / "a" / "2", data[:, :, 5:], upper, **uids)
    (ref,) = find_scans([tmp_path / "a"])
    scan = read_volume(ref)
    np.testing.assert_array_equal(scan.data, data)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-3)
    with pytest.raises(InputError, match="a DICOM SEG refers to one such file only"):
        write_dicom_seg(tmp_path / "seg.dcm", data > 50, scan, ref, "run")
