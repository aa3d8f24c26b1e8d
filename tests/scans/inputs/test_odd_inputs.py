"""Odd paths and folders: refused by name at once, and the other scans are still found."""

import os

import nibabel as nib
import numpy as np
import pytest

from helpers.dicom import write_series
from helpers.inputs import touch, write_tiny_scans
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder, refuse_inputs_inside_output
from maediff.scans.inputs.bidsignore import read_bidsignore
from maediff.scans.inputs.find import find_scans
from maediff.scans.inputs.layouts import refuse_same_voxels
from maediff.scans.reference import MAX_NAME_BYTES, ScanRef


def names(refs):
    return [ref.name for ref in refs]


def make_loop(path):
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_loop, "a link that leads to itself"),
        (lambda path: path.symlink_to("nowhere"), "broken link"),
        (os.mkfifo, "a named pipe, not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "a device, not a regular file"),
    ],
)
def test_odd_path_fails_by_name_and_the_others_go_on(tmp_path, make, message):
    touch(tmp_path / "a_T1w.nii.gz")
    make(tmp_path / "b_T1w.nii.gz")
    with pytest.raises(InputError, match=rf"b_T1w\.nii\.gz: {message}"):
        find_scans([tmp_path / "b_T1w.nii.gz"])
    for inputs in ([tmp_path], sorted(tmp_path.iterdir())):
        good, odd = find_scans(inputs)
        assert (good.name, good.problem, odd.name) == ("a_T1w", None, "b_T1w")
        assert message in odd.problem
    refuse_inputs_inside_output(tmp_path / "out", sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("name", ["pipe.csv", "pipe", "pipe.dcm", "pipe.mgz"])
def test_pipe_of_any_name_is_refused_without_waiting(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: a named pipe"):
        find_scans([tmp_path / name])


def test_linked_folders_in_a_circle_are_searched_once(tmp_path):
    touch(tmp_path / "p" / "a_T1w.nii.gz")
    (tmp_path / "p" / "up").symlink_to(tmp_path)
    make_loop(tmp_path / "loop")
    assert names(find_scans([tmp_path])) == ["p_a_T1w"]


def test_output_that_is_a_link_to_itself_is_refused(tmp_path):
    make_loop(tmp_path / "out")
    with pytest.raises(InputError, match="a link that leads nowhere or to itself"):
        fresh_folder(tmp_path / "out")
    refuse_inputs_inside_output(tmp_path / "out", [tmp_path / "a.nii"])


@pytest.mark.parametrize("character", ["x", "é", "脳"])
def test_name_that_is_too_long_is_refused_before_any_work(tmp_path, character):
    length = len(character.encode())
    folders = [character * (120 // length)] * 2  # each is allowed, but not both joined
    touch(tmp_path.joinpath(*folders, "T1w.nii.gz"))
    with pytest.raises(InputError, match=f"bytes, and a scan's name has {MAX_NAME_BYTES} at most"):
        find_scans([tmp_path])


def test_path_that_is_too_long_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="File name too long"):
        find_scans([tmp_path / ("x" * 300 + ".nii")])


@pytest.mark.parametrize("folder", ["sub", "sub/deep"])
def test_folder_that_may_not_be_read_is_named_and_the_rest_found(tmp_path, lock, folder):
    touch(tmp_path / "a_T1w.nii.gz", tmp_path / "sub" / "deep" / "b_T1w.nii.gz")
    lock(tmp_path / folder)
    scan, locked = find_scans([tmp_path])
    assert (scan.name, scan.problem) == ("a_T1w", None)
    assert locked.name == f"{folder.replace('/', '_')}_folder"
    assert locked.problem.startswith(f"{tmp_path / folder}: permission denied")


@pytest.mark.parametrize("folder", [".", "sub"])
def test_folder_without_any_readable_scan_is_refused(tmp_path, lock, folder):
    touch(tmp_path / "sub" / "b_T1w.nii.gz")
    lock(tmp_path / folder)
    with pytest.raises(InputError, match=f"{os.path.normpath(tmp_path / folder)}: permission de"):
        find_scans([tmp_path])


def test_one_of_many_inputs_that_may_not_be_read(tmp_path, lock):
    touch(tmp_path / "a" / "1_T1w.nii.gz", tmp_path / "b" / "2_T1w.nii.gz")
    touch(tmp_path / "c" / "x" / "anat" / "3_T1w.nii.gz", tmp_path / "c" / "y" / "anat" / "4.nii")
    lock(tmp_path / "b", tmp_path / "c" / "x" / "anat", tmp_path / "c" / "y" / "anat")
    refs = find_scans([tmp_path / name for name in "abc"])
    assert {ref.name: bool(ref.problem) for ref in refs} == {
        "1_T1w": False,
        "b_folder": True,
        "x_anat_folder": True,
        "y_anat_folder": True,
    }


def test_subject_of_a_bids_dataset_that_may_not_be_read(tmp_path, lock):
    """Folders beside the subjects hold no scans, so they may be locked."""
    make_bids(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    touch(tmp_path / "derivatives" / "x" / "y.nii.gz")
    lock(tmp_path / "derivatives")
    assert [ref.problem for ref in find_scans([tmp_path])] == [None, None]
    lock(tmp_path / "sub-02" / "anat")
    refs = find_scans([tmp_path])
    assert [ref.name for ref in refs] == ["sub-01", "sub-02_anat_folder"]


def test_dicom_folder_with_a_part_that_may_not_be_read(tmp_path, lock):
    """The series may have slices in the locked folder."""
    data = np.random.default_rng(0).uniform(1, 9, (8, 9, 10))
    files = write_series(tmp_path / "dicom", data, np.eye(4))
    (tmp_path / "dicom" / "more").mkdir()
    files[-1].rename(tmp_path / "dicom" / "more" / files[-1].name)
    touch(tmp_path / "a_T1w.nii.gz")
    lock(tmp_path / "dicom" / "more")
    first, second = find_scans([tmp_path / "a_T1w.nii.gz", tmp_path / "dicom"])
    assert (first.name, second.name) == ("a_T1w", "more_folder")
    assert "permission denied" in second.problem


def test_same_voxels_are_found_without_unpacking_more_than_the_header_states(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for name in ("a.nii", "b.nii.gz"):
        nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / name)
    with (tmp_path / "a.nii").open("ab") as file:
        file.write(bytes(1000))
    touch(tmp_path / "c.nii")  # empty: fails by name when it is read
    refs = [ScanRef(name, "", tmp_path / name, "d") for name in ("a.nii", "b.nii.gz", "c.nii")]
    with pytest.raises(InputError, match="the same voxels under two names"):
        refuse_same_voxels(refs)


def make_bids(root, *files):
    touch(root / "dataset_description.json", *(root / file for file in files))


def test_unit1_is_t1w_where_the_session_has_no_t1w(tmp_path):
    make_bids(
        tmp_path,
        "sub-01/anat/sub-01_UNIT1.nii.gz",
        "sub-02/anat/sub-02_UNIT1.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-03/ses-1/anat/sub-03_ses-1_acq-x_T1w.nii.gz",
        "sub-03/ses-1/anat/sub-03_ses-1_UNIT1.nii.gz",
        "sub-03/ses-2/anat/sub-03_ses-2_UNIT1.nii.gz",
        "sub-04/anat/sub-04_inv-1_MP2RAGE.nii.gz",
        "sub-04/anat/sub-04_ce-gd_UNIT1.nii.gz",
    )
    refs = find_scans([tmp_path], "T1w")
    assert [ref.image.name for ref in refs] == [
        "sub-01_UNIT1.nii.gz",
        "sub-02_T1w.nii.gz",
        "sub-03_ses-1_acq-x_T1w.nii.gz",
        "sub-03_ses-2_UNIT1.nii.gz",
    ]
    assert {ref.modality for ref in refs} == {"T1w"}
    (ref,) = find_scans([tmp_path / "sub-01" / "anat" / "sub-01_UNIT1.nii.gz"])
    assert ref.modality == "T1w"


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ("# note\n\nsub-01/\n", ["sub-02", "sub-02_run-2"]),
        ("*_run-2_*\n", ["sub-01", "sub-02"]),
        ("/sub-02/anat/*\n", ["sub-01"]),
        ("anat/*\n", ["sub-01", "sub-02", "sub-02_run-2"]),  # anchored: has a slash
        ("**/anat/sub-02*\n!sub-02_run-2_T1w.nii.gz\n", ["sub-01", "sub-02_run-2"]),
        ("sub-*/**/anat/*_T1w.nii.gz\n!sub-01*\n", ["sub-01"]),
        ("sub-0[1]\n", ["sub-02", "sub-02_run-2"]),
        ("sub-02_T1w.nii.g?\r\n", ["sub-01", "sub-02_run-2"]),
        ("[z-a]\n", ["sub-01", "sub-02", "sub-02_run-2"]),
    ],
)
def test_bidsignore_is_respected(tmp_path, caplog, lines, kept):
    make_bids(
        tmp_path,
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_run-2_T1w.nii.gz",
    )
    (tmp_path / ".bidsignore").write_text(lines)
    assert sorted(names(find_scans([tmp_path], "T1w"))) == kept
    assert ("because .bidsignore lists them" in caplog.text) == (len(kept) < 3)


def test_bidsignore_that_cannot_be_read_is_named(tmp_path):
    assert not read_bidsignore(tmp_path)(tmp_path / "a")
    (tmp_path / ".bidsignore").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"\.bidsignore: cannot be read"):
        read_bidsignore(tmp_path)


def test_other_formats_are_found_where_there_is_no_nifti(tmp_path, caplog):
    touch(tmp_path / "a.mgz", tmp_path / "b.NRRD", tmp_path / "c.hdr", tmp_path / "c.img")
    touch(tmp_path / "d.hdr", tmp_path / "e.img", tmp_path / "f_seg.mgz")
    assert names(find_scans([tmp_path])) == ["a", "b", "c"]
    touch(tmp_path / "g.nii")
    caplog.clear()
    assert names(find_scans([tmp_path])) == ["g"]
    assert "a.mgz, b.NRRD, c.hdr" in caplog.text
    assert names(find_scans([tmp_path / "a.mgz", tmp_path / "c.img"])) == ["a", "c"]


@pytest.mark.parametrize("make", [os.link, os.symlink], ids=["hard link", "link"])
def test_one_file_under_two_names_is_logged(tmp_path, caplog, make):
    write_tiny_scans(tmp_path / "a_T1w.nii", tmp_path / "c_T1w.nii")
    make(tmp_path / "a_T1w.nii", tmp_path / "b_T1w.nii")
    assert names(find_scans([tmp_path])) == ["a_T1w", "b_T1w", "c_T1w"]
    assert f"b_T1w.nii: the same file as {tmp_path / 'a_T1w.nii'}, listed as" in caplog.text
    assert "c_T1w" not in caplog.text


def test_name_with_a_null_character_is_refused():
    with pytest.raises(InputError, match="a null character"):
        find_scans(["a\0b.nii"])
