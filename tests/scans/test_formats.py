"""Scans that are not .nii: the same volume as NIfTI, or refused with the true reason."""

import gzip
import os
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from helpers.brains import oblique
from maediff.core.errors import InputError
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_nifti, write_on_scan_grid
from maediff.scans.read import identity, read_scan
from maediff.scans.reference import ScanRef

VOXELS = np.random.default_rng(0).integers(1, 900, (12, 13, 14)).astype(np.int16)
AFFINE = oblique(np.array([[-2.0, 0, 0, 11], [0, 2, 0, -12], [0, 0, 3, -20], [0, 0, 0, 1]]))


def write_pair(path):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), path)


def write_mgh(path):
    nib.save(nib.MGHImage(VOXELS, AFFINE), path)


def write_nrrd(path, compress=True):
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), path.with_suffix(".nii"))
    image = SimpleITK.ReadImage(str(path.with_suffix(".nii")))
    SimpleITK.WriteImage(image, str(path), useCompression=compress)
    path.with_suffix(".nii").unlink()


WRITERS = {
    "a.hdr": write_pair,
    "a.img": write_pair,
    "a.HDR": lambda path: (
        write_pair(path.with_suffix(".hdr")),
        path.with_suffix(".hdr").rename(path.with_suffix(".HDR")),
        path.with_suffix(".img").rename(path.with_suffix(".IMG")),
    ),
    "a.mgz": write_mgh,
    "a.mgh": write_mgh,
    "a.nrrd": write_nrrd,
    "b.nrrd": lambda path: write_nrrd(path, compress=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_other_format_gives_the_volume_of_nifti(tmp_path, name):
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), tmp_path / "scan.nii")
    expected = read_nifti(tmp_path / "scan.nii")
    WRITERS[name](tmp_path / name)
    scan = read_scan(tmp_path / name)
    np.testing.assert_array_equal(scan.data, expected.data)
    np.testing.assert_allclose(scan.affine, expected.affine, atol=1e-4)
    write_on_scan_grid(tmp_path / "out.nii.gz", scan.data, scan)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii.gz").affine, AFFINE, atol=1e-4)


def test_packed_pair_is_read(tmp_path):
    write_pair(tmp_path / "a.hdr")
    for half in ("hdr", "img"):
        path = tmp_path / f"a.{half}"
        (tmp_path / f"a.{half}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_scan(tmp_path / "a.hdr.gz").data.shape == VOXELS.shape


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def patch_mgh(path, offset, value):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(raw)))


def replace_text(path, old, new):
    path.write_bytes(path.read_bytes().replace(old, new))


CASES = {
    "half": ("a.hdr", lambda path: path.with_suffix(".img").unlink(), "one half of a NIfTI pair"),
    "short pair": ("a.hdr", lambda path: cut(path.with_suffix(".img"), 99), r"a\.img: truncated"),
    "analyze": ("a.hdr", lambda path: replace_text(path, b"ni1\0", bytes(4)), "Analyze 7.5"),
    "single": ("a.hdr", lambda path: replace_text(path, b"ni1\0", b"n+1\0"), "name it .nii"),
    "short mgz": ("a.mgz", lambda path: cut(path, 2000), "truncated"),
    "short mgh": ("a.mgh", lambda path: cut(path, 2000), "truncated"),
    "no frame": ("a.mgz", lambda path: patch_mgh(path, 28, b"\0\0"), "goodRASFlag is 0"),
    "large mgz": ("a.mgz", lambda path: patch_mgh(path, 4, b"\0\0\x08\0" * 3), "more than a scan"),
    "longer mgz": ("a.mgz", lambda path: patch_mgh(path, 4, b"\0\0\x01\0" * 3), "truncated"),
    "frames": ("a.mgz", lambda path: patch_mgh(path, 16, b"\0\0\0\x02"), "three dimensions"),
    "type": ("a.mgz", lambda path: patch_mgh(path, 20, b"\0\0\0\x09"), "its data type is unknown"),
    "short nrrd": ("b.nrrd", lambda path: cut(path, 900), "truncated"),
    "short zip": ("a.nrrd", lambda path: cut(path, 900), "damaged or truncated"),
    "no space": (
        "b.nrrd",
        lambda path: replace_text(path, b"space: left-posterior-superior\n", b""),
        "does not state its orientation",
    ),
    "large nrrd": (
        "b.nrrd",
        lambda path: replace_text(path, b"sizes: 12 13 14", b"sizes: 2000 2000 2000"),
        "more than a scan",
    ),
    "longer nrrd": (
        "a.nrrd",
        lambda path: replace_text(path, b"sizes: 12 13 14", b"sizes: 700 700 700"),
        "truncated",
    ),
    "metres": (
        "b.nrrd",
        lambda path: replace_text(path, b"type:", b'space units: "m" "m" "m"\ntype:'),
        "its unit of length is m",
    ),
    "encoding": (
        "a.nrrd",
        lambda path: replace_text(path, b"encoding: gzip", b"encoding: bzip2"),
        "an encoding that is not read .'bzip2'",
    ),
    "version": (
        "b.nrrd",
        lambda path: replace_text(path, b"NRRD0004", b"NRRD0009"),
        "an NRRD file of an unknown version",
    ),
    "page": ("a.nrrd", lambda path: path.write_bytes(b"<html>"), "a web page"),
    "annex": ("a.mgz", lambda path: path.write_bytes(b"/annex/objects/x"), "git-annex pointer"),
    "text": ("a.mgz", lambda path: path.write_bytes(b"x" * 999), "not a FreeSurfer volume"),
    "empty": ("a.mgz", lambda path: path.write_bytes(b""), "the file is empty"),
    "pipe": ("a.nrrd", lambda path: (path.unlink(), os.mkfifo(path)), "a named pipe"),
}


@pytest.mark.parametrize("case", CASES)
def test_unusable_file_of_another_format_is_refused_by_name(tmp_path, case):
    name, damage, message = CASES[case]
    WRITERS[name](tmp_path / name)
    damage(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        read_scan(tmp_path / name)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("half", ["hdr", "img"])
@pytest.mark.parametrize("role", ["image", "brain_mask", "lesion_mask", "t1"])
def test_identity_of_a_pair_covers_both_files(tmp_path, role, half):
    write_pair(tmp_path / "a.hdr")
    paths = {"image": tmp_path / "scan.nii", role: tmp_path / f"a.{half}"}
    ref = ScanRef("a", "", dataset="d", **paths)
    before = identity(ref)
    nib.save(nib.Nifti1Pair(VOXELS[:, :, :9], AFFINE), tmp_path / "b.hdr")
    other = {"hdr": "img", "img": "hdr"}[half]
    (tmp_path / f"b.{other}").replace(tmp_path / f"a.{other}")
    assert identity(ref) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.replace(b"\nspace:", b"\ncontent: \nspace:"),
        lambda header: re.sub(rb"(NRRD000\d\n)(#[^\n]*\n)+", rb"\1", header),
        lambda header: header + b"\nSpace:=none\nsizes:=none",
        lambda header: header.replace(b"\n", b"\r\n"),
    ],
    ids=["empty field", "no comment", "notes", "line ends"],
)
def test_unusual_nrrd_headers(tmp_path, change):
    write_nrrd(tmp_path / "b.nrrd", compress=False)
    header, voxels = (tmp_path / "b.nrrd").read_bytes().split(b"\n\n", 1)
    end = b"\r\n\r\n" if b"\r" in change(header) else b"\n\n"
    expected = read_scan(tmp_path / "b.nrrd")
    (tmp_path / "c.nrrd").write_bytes(change(header) + end + voxels)
    changed = read_scan(tmp_path / "c.nrrd")
    np.testing.assert_array_equal(changed.data, expected.data)
    np.testing.assert_array_equal(changed.affine, expected.affine)


def test_a_pair_in_capitals_is_found_in_a_folder(tmp_path):
    write_pair(tmp_path / "in" / "p1_T1.hdr")
    for name in ("hdr", "img"):
        (tmp_path / "in" / f"p1_T1.{name}").rename(tmp_path / "in" / f"P1_T1.{name.upper()}")
    assert [ref.name for ref in find_scans([tmp_path / "in"], "T1w")] == ["P1_T1"]


def test_values_of_nrrd_beyond_single_precision_are_refused(tmp_path):
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.linspace(0, 1e300, 6**3).reshape(6, 6, 6))
    SimpleITK.WriteImage(image, str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match=r"a\.nrrd: its largest value is 1e\+300"):
        read_scan(tmp_path / "a.nrrd")
