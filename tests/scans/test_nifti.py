"""NIfTI files of every orientation, and damaged ones; each error names the file."""

import errno
import gzip

import nibabel as nib
import numpy as np
import pytest

from helpers.brains import made_brain, oblique, save
from maediff.core.errors import InputError
from maediff.scans.nifti import read_mask, read_nifti, write_on_scan_grid, write_volume


def numbered(shape=(4, 5, 6)):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PSR", "SPL", "AIL"])
@pytest.mark.parametrize("is_oblique", [False, True])
def test_every_orientation_gives_same_volume(tmp_path, axes, is_oblique):
    affine = np.diag([1.0, 1.5, 3.0, 1.0])
    affine[:3, 3] = -10, 4, 7
    affine = oblique(affine) if is_oblique else affine
    volume = read_nifti(save(tmp_path / "scan.nii.gz", numbered(), affine, axes))
    np.testing.assert_array_equal(volume.data, numbered())
    np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    np.testing.assert_allclose(volume.spacing_mm, [1, 1.5, 3], atol=1e-5)
    assert volume.data.dtype == np.float32


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PSR", "SPL"])
def test_result_has_orientation_shape_and_affine_of_file(tmp_path, axes):
    affine = oblique(np.diag([1.0, 1.5, 3.0, 1.0]))
    path = save(tmp_path / "scan.nii.gz", numbered(), affine, axes)
    volume = read_nifti(path)
    write_on_scan_grid(tmp_path / "out.nii.gz", volume.data * 2, volume)
    scan, result = nib.load(path), nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(result.get_fdata(), scan.get_fdata() * 2)
    np.testing.assert_allclose(result.affine, scan.affine, atol=1e-5)
    np.testing.assert_allclose(result.get_qform(), scan.affine, atol=1e-4)
    assert result.get_data_dtype() == np.float32


def test_result_of_another_shape_is_refused(tmp_path):
    volume = read_nifti(save(tmp_path / "scan.nii.gz", numbered(), np.eye(4)))
    with pytest.raises(ValueError, match=r"\(4, 5, 5\) is not on the grid \(4, 5, 6\) of"):
        write_on_scan_grid(tmp_path / "out.nii.gz", volume.data[:, :, 1:], volume)


def test_space_code_is_kept_and_free_text_is_not(tmp_path, caplog):
    image = nib.Nifti1Image(numbered(), np.eye(4))
    image.set_sform(np.eye(4), code=4)
    image.header["descrip"] = b"DOE^JANE 19500101"
    nib.save(image, tmp_path / "scan.nii.gz")
    volume = read_nifti(tmp_path / "scan.nii.gz")
    write_on_scan_grid(tmp_path / "out.nii.gz", volume.data, volume)
    assert int(nib.load(tmp_path / "out.nii.gz").header["sform_code"]) == 4
    assert b"DOE" not in gzip.decompress((tmp_path / "out.nii.gz").read_bytes())
    assert "DOE" not in repr(volume) + caplog.text


def test_trailing_axis_and_single_slice_are_accepted(tmp_path):
    four_d = save(tmp_path / "a.nii", numbered((4, 5, 6))[..., None], np.eye(4))
    one_slice = save(tmp_path / "b.nii", numbered((4, 5, 1)), np.eye(4))
    assert read_nifti(four_d).data.shape == (4, 5, 6)
    assert read_nifti(one_slice).data.shape == (4, 5, 1)


def test_path_with_spaces_and_any_alphabet(tmp_path):
    path = save(tmp_path / "Ümläut 脳" / "my scan é.nii.gz", numbered(), np.eye(4))
    assert read_nifti(path).data.shape == (4, 5, 6)
    assert read_nifti(str(path)).source == path


def write_damaged(tmp_path, damage):
    """Write a file with the given damage; any unknown word gives an intact file."""
    path, data = tmp_path / "scan.nii.gz", numbered((12, 13, 14))
    text = b"this is not an image " * 50
    if damage == "missing":
        return path
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_bytes(text)
    elif damage == "text.nii":
        path = tmp_path / "scan.nii"
        path.write_bytes(text)
    elif damage == "gzipped text":
        path.write_bytes(gzip.compress(text))
    elif damage == "other name":
        path = tmp_path / "scan.tif"
        path.write_bytes(b"x")
    elif damage in ("truncated", "flipped"):
        noise = np.random.default_rng(0).random((12, 13, 14)).astype(np.float32)
        content = bytearray(save(path, noise, np.eye(4)).read_bytes())
        if damage == "flipped":
            content[3000:3400] = bytes(400)
        path.write_bytes(content[: len(content) // (2 if damage == "truncated" else 1)])
    elif damage == "truncated, not packed":
        path = save(tmp_path / "scan.nii", data, np.eye(4))
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "2-D":
        save(path, data[0], np.eye(4))
    elif damage == "4-D":
        save(path, np.stack([data, data], axis=-1), np.eye(4))
    elif damage in ("nan", "inf"):
        data[1, 2, 3] = float(damage)
        save(path, data, np.eye(4))
    elif damage == "constant":
        save(path, np.full_like(data, 5), np.eye(4))
    elif damage == "complex":
        save(path, data.astype(np.complex64), np.eye(4))
    else:
        path.write_bytes(gzip.compress(damaged_header(damage, data) + data.tobytes(order="F")))
    return path


def damaged_header(damage, data):
    """Return 352 bytes of a NIfTI-1 header, as nibabel would not write it."""
    image = nib.Nifti1Image(data, None if damage == "no orientation" else np.eye(4))
    rows = ("srow_x", "srow_y", "srow_z")
    if damage == "zero affine":
        for row in rows:
            image.header[row] = 0
    elif damage == "singular affine":
        image.header["srow_z"] = image.header["srow_y"]
    elif damage == "nan affine":
        image.header["srow_z"] = np.nan
    elif damage == "metres":
        for row in rows:
            image.header[row] = image.header[row] * 0.001
    dtype = image.header.structarr.dtype
    header = np.frombuffer(image.header.structarr.tobytes(), dtype=dtype).copy()
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.tobytes() + b"\0" * 4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "no such file"),
        ("empty", "the file is empty"),
        ("text", "not a NIfTI"),
        ("text.nii", "not a NIfTI"),
        ("gzipped text", "not a NIfTI"),
        ("other name", "not a scan file"),
        ("truncated", "truncated"),
        ("flipped", "damaged, it cannot be unpacked"),
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
def test_damaged_file_is_refused_by_name(tmp_path, damage, message):
    path = write_damaged(tmp_path, damage)
    with pytest.raises(InputError, match=message) as caught:
        read_nifti(path)
    assert str(path) in str(caught.value)


def test_intact_file_by_the_writer_of_damaged_ones(tmp_path):
    assert read_nifti(write_damaged(tmp_path, "none")).data.shape == (12, 13, 14)


def test_constant_image_can_be_allowed(tmp_path):
    path = write_damaged(tmp_path, "constant")
    assert (read_nifti(path, allow_constant=True).data == 5).all()


def test_mask_is_read_on_scan_grid_in_any_orientation(tmp_path):
    data, brain, affine = made_brain()
    volume = read_nifti(save(tmp_path / "scan.nii.gz", data, affine, "PSR"))
    for axes in ("RAS", "LAS", "PSR"):
        mask = read_mask(save(tmp_path / f"{axes}.nii.gz", brain, affine, axes), volume)
        np.testing.assert_array_equal(mask, brain)
        assert mask.dtype == bool


def test_unusable_mask_is_refused_by_name(tmp_path):
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
    for name, (mask, mask_affine, message) in cases.items():
        path = save(tmp_path / f"{name}.nii.gz", mask, mask_affine)
        with pytest.raises(InputError, match=message) as caught:
            read_mask(path, volume, allow_empty=False)
        assert str(path) in str(caught.value)
    assert not read_mask(tmp_path / "empty.nii.gz", volume).any()


def test_labels_become_one_mask_if_allowed(tmp_path):
    data, brain, affine = made_brain()
    volume = read_nifti(save(tmp_path / "scan.nii.gz", data, affine))
    labels = brain.astype(np.uint8) * 4
    labels[:30][brain[:30]] = 1
    path = save(tmp_path / "labels.nii.gz", labels, affine)
    with pytest.raises(InputError, match="0 and 1 only, this file holds 0, 1, 4;"):
        read_mask(path, volume)
    np.testing.assert_array_equal(read_mask(path, volume, labels=True), brain)
    thirds = save(tmp_path / "thirds.nii.gz", labels / np.float32(3), affine)
    with pytest.raises(InputError, match=r"labels are whole numbers .* holds 0, 0\.333333"):
        read_mask(thirds, volume, labels=True)


def test_full_disk_leaves_no_partial_file(tmp_path, monkeypatch):
    def fill_disk(image, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nib, "save", fill_disk)
    with pytest.raises(InputError, match="No space left"):
        write_volume(tmp_path / "out.nii.gz", numbered(), np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_stored_type_and_slope(tmp_path):
    for data, stored in (
        (numbered() > 3, np.uint8),
        (numbered().astype(np.uint16), np.uint16),
        (numbered().astype(np.float64), np.float32),
    ):
        write_volume(tmp_path / "out.nii.gz", data, np.eye(4))
        assert nib.load(tmp_path / "out.nii.gz").get_data_dtype() == stored
    write_volume(tmp_path / "out.nii.gz", numbered().astype(np.uint16), np.eye(4), slope=0.5)
    np.testing.assert_allclose(read_nifti(tmp_path / "out.nii.gz").data, numbered() / 2)
