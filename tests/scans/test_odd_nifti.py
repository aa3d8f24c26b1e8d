"""Odd headers and odd content: read correctly, or refused with the true reason."""

import bz2
import gzip
import io
import os
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from maediff.core.errors import InputError
from maediff.scans.nifti import read_mask, read_nifti, write_on_scan_grid

SHAPE = (12, 13, 14)
AFFINE = np.array([[-2.0, 0, 0, 11], [0, 2, 0, -12], [0, 0, 3, -20], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)


def content(sform=1, qform=1, affine=AFFINE, voxels=VOXELS):
    image = nib.Nifti1Image(voxels, affine)
    image.set_sform(affine if sform else None, sform)
    image.set_qform(affine if qform else None, qform)
    return bytearray(image.to_bytes())


def patch(raw, offset, form, *values):
    struct.pack_into(f"<{form}", raw, offset, *values)
    return raw


def write(path, raw):
    path.write_bytes(bytes(raw))
    return path


def assert_same(volume):
    expected = np.ascontiguousarray(VOXELS[::-1]).astype(np.float32)
    np.testing.assert_array_equal(volume.data, expected)
    np.testing.assert_allclose(volume.affine, np.abs(AFFINE) * np.sign(volume.affine), atol=1e-4)


@pytest.mark.parametrize("offset", [0, 1, 348, 351])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_voxels_never_start_inside_the_header(tmp_path, caplog, offset, name):
    raw = patch(content(), 108, "f", offset)
    path = write(tmp_path / name, gzip.compress(raw, mtime=0) if name.endswith("gz") else raw)
    assert_same(read_nifti(path))
    assert f"{path}: its voxels cannot start inside the header" in caplog.text
    longer = write(tmp_path / "b.nii", raw + bytes(16))
    with pytest.raises(InputError, match="longer than its header states"):
        read_nifti(longer)


@pytest.mark.parametrize("offset", [float("nan"), -352, float("inf"), 352.5, 2.0**31])
def test_impossible_voxel_offset_is_refused(tmp_path, offset):
    path = write(tmp_path / "a.nii", patch(content(), 108, "f", offset))
    with pytest.raises(InputError, match="vox_offset"):
        read_nifti(path)


def test_voxels_behind_a_header_extension_are_read(tmp_path):
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE" * 8))
    raw = bytearray(image.to_bytes())
    assert_same(read_nifti(write(tmp_path / "a.nii", raw)))
    raw[352:360] = b"\xff" * 8  # damaged size of the extension
    assert_same(read_nifti(write(tmp_path / "b.nii", raw)))


@pytest.mark.parametrize(
    "sizes", [(0, 0, 0), (2, 2, 0), (2, -2, 3), (np.nan, 2, 3), (np.inf, 2, 3)]
)
def test_qform_without_voxel_sizes_is_refused_unless_an_sform_is_stated(tmp_path, caplog, sizes):
    path = write(tmp_path / "a.nii", patch(content(sform=0), 80, "3f", *sizes))
    with pytest.raises(InputError, match=r"affine is not stated: voxels of .* mm \(pixdim\)"):
        read_nifti(path)
    both = write(tmp_path / "b.nii", patch(content(), 80, "3f", *sizes))
    volume = read_nifti(both)
    assert_same(volume)
    assert f"{both}: its qform is ignored (voxels of" in caplog.text
    write_on_scan_grid(tmp_path / "out.nii", volume.data, volume)
    header = nib.load(tmp_path / "out.nii").header
    np.testing.assert_allclose(header.get_zooms(), (2, 2, 3))
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


@pytest.mark.parametrize("unit", [1, 3, 7])
def test_unit_that_is_not_mm_is_logged_with_the_file(tmp_path, caplog, unit):
    path = write(tmp_path / "a.nii", patch(content(), 123, "B", unit))
    assert_same(read_nifti(path))
    assert f"{path}: its header states" in caplog.text


def test_nothing_reaches_the_error_stream_without_the_file(tmp_path, caplog, capfd):
    raw = patch(content(), 72, "h", 8)  # bitpix of int16 is 16
    path = write(tmp_path / "a.nii", patch(raw, 76, "2f", 5, -2))  # pixdim[0] is -1 or 1
    assert_same(read_nifti(path))
    err = capfd.readouterr().err
    assert not [line for line in err.splitlines() if str(path) not in line]
    assert f"{path}: header corrected: pixdim[1,2,3] should be positive" in caplog.text


@pytest.mark.parametrize(
    ("offset", "form", "values", "message"),
    [
        (112, "2f", (np.inf, 0), "scl_slope"),
        (112, "2f", (2, np.nan), "scl_inter"),
        (40, "h", (99,), r"the sizes .* \(dim\)"),
        (40, "4h", (3, -5, 4, 4), r"the sizes .* \(dim\)"),
        (70, "h", (99,), "damaged, its header cannot be used"),
        (344, "4s", (b"\0\0\0\0",), "an Analyze 7.5 image"),
        (344, "4s", (b"ni1\0",), "its voxels are in an .img file"),
        (80, "3f", (1e-4, 1e-4, 1e-4), "expected 0.05 to 50"),
        (256, "f", (np.nan,), "NaN or infinity"),
        (256, "3f", (9, 9, 9), "not a rotation"),
    ],
)
def test_impossible_header_field_is_refused_by_name(tmp_path, offset, form, values, message):
    path = write(tmp_path / "a.nii", patch(content(sform=0), offset, form, *values))
    with pytest.raises(InputError, match=message) as caught:
        read_nifti(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("code", [-1, 6, 99, 30000])
def test_code_that_nifti_does_not_have_states_no_orientation(tmp_path, code):
    for offset in (252, 254):  # qform_code, sform_code
        other = 506 - offset
        path = write(tmp_path / "a.nii", patch(content(), offset, "h", code))
        assert_same(read_nifti(path))  # the other one is used
        raw = patch(patch(content(), offset, "h", code), other, "h", 0)
        with pytest.raises(InputError, match="does not state its orientation"):
            read_nifti(write(tmp_path / "b.nii", raw))


def test_slope_of_zero_or_nan_means_no_scaling(tmp_path):
    for slope in (0.0, np.nan):
        assert_same(read_nifti(write(tmp_path / "a.nii", patch(content(), 112, "f", slope))))


@pytest.mark.parametrize("excess", [5e-7, 1e-4, 4e-3])
def test_quaternion_with_a_rounding_error_is_normalised(tmp_path, excess):
    turned = np.diag([-2.0, -2, 3, 1])  # 180 degrees about z: (b, c, d) = (0, 0, 1)
    raw = content(sform=0, affine=turned)
    path = write(tmp_path / "a.nii", patch(raw, 264, "f", 1 + excess))
    volume = read_nifti(path)
    np.testing.assert_allclose(volume.native_affine, turned, atol=1e-5)
    write_on_scan_grid(tmp_path / "out.nii", volume.data, volume)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, turned, atol=1e-5)


@pytest.mark.parametrize(("sform", "qform"), [(2, 1), (0, 1), (4, 0), (1, 3)])
@pytest.mark.parametrize("version", [nib.Nifti1Image, nib.Nifti2Image])
def test_result_has_sform_qform_and_codes_of_the_scan(tmp_path, sform, qform, version):
    moved = AFFINE.copy()
    moved[:3, 3] += (10, -5, 20)
    image = version(VOXELS, AFFINE)
    image.set_qform(AFFINE if qform else None, qform)
    image.set_sform(moved if sform else None, sform)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    write_on_scan_grid(tmp_path / "out.nii.gz", volume.data, volume)
    scan, result = (nib.load(tmp_path / name) for name in ("a.nii.gz", "out.nii.gz"))
    np.testing.assert_array_equal(result.get_fdata(), scan.get_fdata())
    for name in (
        "sform_code",
        "qform_code",
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "srow_x",
        "srow_y",
        "srow_z",
        "qoffset_x",
        "qoffset_y",
        "qoffset_z",
    ):
        np.testing.assert_array_equal(
            result.header[name], scan.header[name].astype(np.float32), err_msg=name
        )
    np.testing.assert_array_equal(result.header["pixdim"][:4], scan.header["pixdim"][:4])
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-5)


RAW, PACKED = bytes(content()), gzip.compress(bytes(content()), mtime=0)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("gzipped.nii", PACKED),
        ("plain.nii.gz", RAW),
        ("twice.nii.gz", gzip.compress(PACKED, mtime=0)),
        ("tail.nii.gz", PACKED + b"\n\x00x trailing"),
        ("zeros.nii.gz", PACKED + bytes(5000)),
        ("one more byte.nii.gz", PACKED + b"\x1f"),
        ("members.nii.gz", gzip.compress(RAW[:999], mtime=0) + gzip.compress(RAW[999:], mtime=0)),
        ("tail.nii", RAW + bytes(99)),
    ],
)
def test_content_decides_whether_a_file_is_gzipped(tmp_path, name, stored):
    assert_same(read_nifti(write(tmp_path / name, stored)))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"/annex/objects/MD5E-s10493--0123.nii.gz\n", "git-annex pointer.*datalad get"),
        (b"../../.git/annex/objects/Gk/x/MD5E-s1--0.nii.gz", "git-annex pointer"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer.*lfs pull"),
        (b"<!DOCTYPE html><html><title>Sign in</title></html>", "a web page.*log in"),
        (b"\xef\xbb\xbf\r\n <HTML lang='de'>", "a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML document"),
        (b'{"message": "Not found"}', "a JSON document"),
        (b"PK\x03\x04" + bytes(99), "a ZIP archive; unpack it"),
        (bz2.compress(RAW), "compressed with bzip2; unpack it"),
        (bytes(128) + b"DICM" + bytes(99), "a DICOM file; give the folder"),
        (bytes(4096), "only zeros"),
        (RAW[:200], "truncated, it has 200 bytes"),
        (RAW[:3000], f"truncated, it has 3000 of the {len(RAW)} bytes"),
        (PACKED[:-4], "truncated, its gzip stream has no end"),
        (PACKED[:-4] + b"bad!", "damaged, it cannot be unpacked .*incorrect length check"),
        (gzip.compress(b"/annex/objects/x\n", mtime=0), "git-annex pointer"),
    ],
)
def test_content_that_is_no_scan_is_named(tmp_path, stored, message):
    for name in ("a.nii.gz", "a.nii"):
        with pytest.raises(InputError, match=message) as caught:
            read_nifti(write(tmp_path / name, stored))
        assert str(tmp_path / name) in str(caught.value)


def test_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nii", RAW)

    def deny(*_args, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(InputError, match=r"a\.nii: permission denied; ask its owner"):
        read_nifti(path)


def test_special_files_and_links_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "p.nii.gz")
    (tmp_path / "dev.nii").symlink_to("/dev/zero")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    (tmp_path / "gone.nii").symlink_to("nowhere")
    (tmp_path / "folder.nii").mkdir()
    for name, message in {
        "p.nii.gz": "a named pipe, not a regular file",
        "dev.nii": "a device, not a regular file",
        "folder.nii": "a folder, not a regular file",
        "loop.nii": "a link that leads to itself",
        "gone.nii": "broken link",
        "x" * 300 + ".nii": "File name too long",
    }.items():
        with pytest.raises(InputError, match=message):
            read_nifti(tmp_path / name)


@pytest.mark.parametrize("sizes", [(2000, 2000, 2000), (32767, 32767, 32767), (800, 800, 800)])
def test_stated_size_is_compared_with_the_file_before_memory_is_used(tmp_path, sizes):
    raw = patch(content(), 42, "3h", *sizes)
    patch(raw, 280, "12f", *(0.1 * np.eye(4)[:3].ravel()))  # small voxels: a possible head
    for name, stored in (("a.nii.gz", gzip.compress(raw, mtime=0)), ("a.nii", raw)):
        path = write(tmp_path / name, stored)
        tracemalloc.start()
        with pytest.raises(InputError, match=r"truncated|more than a scan of a head"):
            read_nifti(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
        tracemalloc.stop()


def test_gzip_is_not_unpacked_beyond_the_stated_size(tmp_path):
    packed = io.BytesIO()
    with gzip.open(packed, "wb", 1) as file:
        file.write(RAW)
        for _ in range(100):
            file.write(bytes(1 << 20))
    path = write(tmp_path / "a.nii.gz", packed.getvalue())
    tracemalloc.start()
    with pytest.raises(InputError, match="longer than its header states"):
        read_nifti(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


@pytest.mark.parametrize("factor", [25, 20, 0.01])
def test_head_of_impossible_size_is_refused_before_anything_is_resampled(tmp_path, factor):
    affine = AFFINE @ np.diag([factor, factor, factor, 1])
    path = write(tmp_path / "a.nii", content(affine=affine))
    with pytest.raises(InputError, match="check the unit in the header"):
        read_nifti(path)


def with_nan(where):
    data = VOXELS.astype(np.float32)
    data[where] = np.nan
    return data


def test_nan_at_the_edge_is_background(tmp_path):
    inside = np.zeros(SHAPE, dtype=bool)
    inside[3:9, 3:10, 2:12] = True
    for name, where in (("all round", ~inside), ("corner", np.s_[:3, :3]), ("end", np.s_[:2])):
        data = with_nan(where)
        path = write(tmp_path / f"{name}.nii", content(voxels=data))
        expected = np.nan_to_num(data)[::-1]
        np.testing.assert_array_equal(read_nifti(path).data, expected)


@pytest.mark.parametrize("where", [np.s_[5, 6, 7], np.s_[:, :, 6], np.s_[4:6], np.s_[:]])
def test_nan_in_the_head_is_refused(tmp_path, where):
    path = write(tmp_path / "a.nii", content(voxels=with_nan(where)))
    with pytest.raises(InputError, match="holds NaN or infinity in"):
        read_nifti(path)


def test_infinity_is_never_background(tmp_path):
    data = with_nan(np.s_[:2])
    data[0, 0, 0] = np.inf
    with pytest.raises(InputError, match="holds NaN or infinity"):
        read_nifti(write(tmp_path / "a.nii", content(voxels=data)))


def test_mask_with_nan_background_is_read(tmp_path):
    scan = read_nifti(write(tmp_path / "a.nii", content()))
    mask = np.full(SHAPE, np.nan, dtype=np.float32)
    mask[3:8, 3:8, 3:8] = 1
    path = write(tmp_path / "m.nii", content(voxels=mask))
    assert read_mask(path, scan).sum() == 125


@pytest.mark.parametrize("handedness", [2.0, -0.5, np.nan])
def test_handedness_of_the_qform_is_never_guessed(tmp_path, caplog, handedness):
    """Programs differ in what they make of it: the NIfTI library only looks at the sign."""
    path = write(tmp_path / "a.nii", patch(content(), 76, "f", handedness))
    scan = read_nifti(path)
    assert_same(scan)
    assert scan.forms.qform_code == 0
    assert f"{path}: its qform is ignored (the handedness of the qform is" in caplog.text
    write(path, patch(content(sform=0), 76, "f", handedness))
    with pytest.raises(InputError, match="its affine is not stated: the handedness"):
        read_nifti(path)


def test_handedness_of_zero_is_one(tmp_path):
    affine = np.diag([2.0, 2, 3, 1])
    paths = [
        write(tmp_path / f"{value}.nii", patch(content(0, 1, affine), 76, "f", value))
        for value in (0, 1)
    ]
    zero, one = map(read_nifti, paths)
    np.testing.assert_array_equal(zero.affine, one.affine)


@pytest.mark.parametrize("distance", [1e30, -2e5])
def test_scan_far_from_the_origin_is_refused(tmp_path, distance):
    path = write(tmp_path / "a.nii", patch(content(), 292, "f", distance))
    with pytest.raises(InputError, match=r"puts the first voxel .* mm from the origin"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("voxels", "slope", "largest"),
    [
        (VOXELS * 1e300, None, "e+302"),
        (VOXELS * 1e-50, None, "e-48"),
        (VOXELS, 1e38, "e+40"),
        (VOXELS, 1e-42, "e-40"),
    ],
)
def test_values_beyond_single_precision_are_refused(tmp_path, voxels, slope, largest):
    raw = content(voxels=voxels)
    raw = patch(raw, 112, "f", slope) if slope else raw
    with pytest.raises(InputError) as caught:
        read_nifti(write(tmp_path / "a.nii", raw))
    assert "a.nii: its largest value is" in str(caught.value)
    assert largest in str(caught.value)


def test_infinity_is_not_a_large_value(tmp_path):
    voxels = VOXELS.astype(np.float64)
    voxels[3, 3, 3] = np.inf
    with pytest.raises(InputError, match="holds NaN or infinity in 1 of"):
        read_nifti(write(tmp_path / "a.nii", content(voxels=voxels)))
