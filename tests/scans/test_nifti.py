import errno
import gzip

import nibabel as nib
import numpy as np
import pytest

from helpers.brains import made_brain, oblique, save
from maediff.core.errors import InputError
from maediff.scans.nifti import read_mask, read_nifti, write_on_scan_grid, write_volume
from maediff.scans.volume import slices_to_volume, volume_to_slices


def numbered(shape=(4, 5, 6)):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_a_slice_shows_the_front_at_the_top_and_small_x_on_the_left():
    volume = np.zeros((3, 4, 2), dtype=np.float32)
    volume[0, 3, 1] = 7  # left, front, upper slice
    slices = volume_to_slices(volume)
    assert slices.shape == (2, 4, 3)
    assert slices[1, 0, 0] == 7
    assert slices.sum() == 7


def test_slices_to_volume_is_the_exact_inverse():
    volume = numbered()
    np.testing.assert_array_equal(slices_to_volume(volume_to_slices(volume)), volume)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PSR", "SPL", "AIL"])
@pytest.mark.parametrize("turned", [False, True])
def test_any_orientation_reads_as_the_same_ras_volume(tmp_path, axes, turned):
    affine = np.diag([1.0, 1.5, 3.0, 1.0])
    affine[:3, 3] = -10, 4, 7
    affine = oblique(affine) if turned else affine
    volume = read_nifti(save(tmp_path / "scan.nii.gz", numbered(), affine, axes))
    np.testing.assert_array_equal(volume.data, numbered())
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    np.testing.assert_allclose(volume.spacing_mm, [1, 1.5, 3], atol=1e-5)
    assert volume.data.dtype == np.float32


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PSR", "SPL"])
def test_results_go_back_in_the_files_own_orientation_shape_and_affine(tmp_path, axes):
    affine = oblique(np.diag([1.0, 1.5, 3.0, 1.0]))
    path = save(tmp_path / "scan.nii.gz", numbered(), affine, axes)
    volume = read_nifti(path)
    write_on_scan_grid(tmp_path / "out.nii.gz", volume.data * 2, volume)
    scan, result = nib.load(path), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(result.get_fdata(), scan.get_fdata() * 2)
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-5)
    np.testing.assert_allclose(result.get_qform(), scan.affine, atol=1e-4)
    assert result.get_data_dtype() == np.float32


def test_the_frames_code_is_kept_and_free_text_of_the_header_is_not(tmp_path, caplog):
    image = nib.Nifti1Image(numbered(), np.eye(4))
    image.set_sform(np.eye(4), code=4)
    image.header["descrip"] = b"DOE^JANE 19500101"
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = read_nifti(tmp_path / "scan.nii.gz")
    write_on_scan_grid(tmp_path / "out.nii.gz", volume.data, volume)
    assert int(nib.load(tmp_path / "out.nii.gz").header["sform_code"]) == 4
    assert b"DOE" not in gzip.decompress((tmp_path / "out.nii.gz").read_bytes())
    assert "DOE" not in repr(volume) + caplog.text


def test_a_trailing_axis_of_one_and_one_slice_are_fine(tmp_path):
    assert read_nifti(
        save(tmp_path / "a.nii", numbered((4, 5, 6))[..., None], np.eye(4))
    ).data.shape == (4, 5, 6)
    assert read_nifti(save(tmp_path / "b.nii", numbered((4, 5, 1)), np.eye(4))).data.shape == (
        4,
        5,
        1,
    )


def test_paths_with_spaces_and_letters_of_any_alphabet(tmp_path):
    assert read_nifti(
        save(tmp_path / "Ümläut 脳" / "my scan é.nii.gz", numbered(), np.eye(4))
    ).data.shape == (4, 5, 6)


def _broken(tmp_path, kind):
    path, data = tmp_path / "scan.nii.gz", numbered((12, 13, 14))
    if kind == "missing":
        return path
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"this is not an image " * 50)
    elif kind == "text.nii":
        path = tmp_path / "scan.nii"
        path.write_bytes(b"this is not an image " * 50)
    elif kind == "gzipped text":
        path.write_bytes(gzip.compress(b"this is not an image " * 50))
    elif kind == "other name":
        path = tmp_path / "scan.mgz"
        path.write_bytes(b"x")
    elif kind in ("truncated", "flipped"):
        noise = np.random.default_rng(0).random((12, 13, 14)).astype(np.float32)
        content = bytearray(save(path, noise, np.eye(4)).read_bytes())
        if kind == "flipped":
            content[3000:3400] = bytes(400)
        path.write_bytes(content[: len(content) // (2 if kind == "truncated" else 1)])
    elif kind == "truncated, not packed":
        path = save(tmp_path / "scan.nii", data, np.eye(4))
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "2-D":
        save(path, data[0], np.eye(4))
    elif kind == "4-D":
        save(path, np.stack([data, data], axis=-1), np.eye(4))
    elif kind in ("nan", "inf"):
        data[1, 2, 3] = float(kind)
        save(path, data, np.eye(4))
    elif kind == "constant":
        save(path, np.full_like(data, 5), np.eye(4))
    elif kind == "complex":
        save(path, data.astype(np.complex64), np.eye(4))
    else:
        image = nib.Nifti1Image(data, np.eye(4))
        if kind == "no orientation":
            image = nib.Nifti1Image(data, None)
        elif kind == "zero affine":
            for row in ("srow_x", "srow_y", "srow_z"):
                image.header[row] = 0
        elif kind == "singular affine":
            image.header["srow_z"] = image.header["srow_y"]
        elif kind == "nan affine":
            image.header["srow_z"] = np.nan
        elif kind == "metres":
            for row in ("srow_x", "srow_y", "srow_z"):
                image.header[row] = image.header[row] * 0.001
        content = image.header.structarr.tobytes() + b"\0" * 4 + data.tobytes(order="F")
        header = np.frombuffer(content[:348], dtype=image.header.structarr.dtype).copy()
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(gzip.compress(header.tobytes() + content[348:]))
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file"),
        ("empty", "0 bytes"),
        ("text", "damaged"),
        ("text.nii", "not a NIfTI"),
        ("gzipped text", "not a NIfTI"),
        ("other name", "not a NIfTI"),
        ("truncated", "truncated"),
        ("flipped", "damaged"),
        ("truncated, not packed", "truncated"),
        ("2-D", "three dimensions"),
        ("4-D", "three dimensions"),
        ("nan", "NaN or infinity in 1 of"),
        ("inf", "NaN or infinity in 1 of"),
        ("constant", "constant image, every voxel is 5"),
        ("complex", "real numbers"),
        ("no orientation", "orientation"),
        ("zero affine", "zero or singular"),
        ("singular affine", "zero or singular"),
        ("nan affine", "NaN"),
        ("metres", "unit"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, kind, says):
    path = _broken(tmp_path, kind)
    with pytest.raises(InputError, match=says) as caught:
        read_nifti(path)
    assert str(path) in str(caught.value)


def test_the_writer_of_broken_headers_can_write_a_good_one(tmp_path):
    assert read_nifti(_broken(tmp_path, "good")).data.shape == (12, 13, 14)


def test_a_mask_is_read_on_the_scans_grid_whatever_the_order_of_its_axes(tmp_path):
    data, brain, affine = made_brain()
    volume = read_nifti(save(tmp_path / "scan.nii.gz", data, affine, "PSR"))
    for axes in ("RAS", "LAS", "PSR"):
        mask = read_mask(save(tmp_path / f"{axes}.nii.gz", brain, affine, axes), volume)
        np.testing.assert_array_equal(mask, brain)
        assert mask.dtype == bool


def test_a_mask_that_does_not_fit_is_refused_by_name(tmp_path):
    data, brain, affine = made_brain()
    volume = read_nifti(save(tmp_path / "scan.nii.gz", data, affine))
    shifted = affine.copy()
    shifted[0, 3] += 1
    empty = np.zeros_like(brain)
    cases = {
        "shape": (brain[:-1], affine, "59 x 72 x 50"),
        "affine": (brain, shifted, "1.00 mm away"),
        "values": (brain * np.float32(255), affine, "holds 0 and 1 only, this file holds 0, 255"),
        "half": (brain * np.float32(0.5), affine, "0, 0.5"),
        "empty": (empty, affine, "empty"),
    }
    for name, (mask, where, says) in cases.items():
        path = save(tmp_path / f"{name}.nii.gz", mask, where)
        with pytest.raises(InputError, match=says) as caught:
            read_mask(path, volume, allow_empty=False)
        assert str(path) in str(caught.value)
    assert not read_mask(tmp_path / "empty.nii.gz", volume).any()


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(image, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(InputError, match="No space left"):
        write_volume(tmp_path / "out.nii.gz", numbered(), np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_stored_kinds_and_slope(tmp_path):
    for data, kind in (
        (numbered() > 3, np.uint8),
        (numbered().astype(np.uint16), np.uint16),
        (numbered().astype(np.float64), np.float32),
    ):
        write_volume(tmp_path / "out.nii.gz", data, np.eye(4))
        assert nib.load(tmp_path / "out.nii.gz").get_data_dtype() == kind
    write_volume(tmp_path / "out.nii.gz", numbered().astype(np.uint16), np.eye(4), slope=0.5)
    np.testing.assert_allclose(read_nifti(tmp_path / "out.nii.gz").data, numbered() / 2)
