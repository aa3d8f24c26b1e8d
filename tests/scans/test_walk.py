from pathlib import Path

from helpers.inputs import touch
from maediff.scans.content import broken_link_message
from maediff.scans.walk import (
    is_dicom,
    log_skipped_files,
    nifti_files,
    visible_files,
)


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in nifti_files(folder)]


def test_hidden_files_and_other_files_are_skipped(tmp_path):
    files = ("p1/T1.nii.gz", "flat.nii", ".hidden/T1.nii", ".a.nii", "p2/notes.txt")
    touch(*(tmp_path / name for name in files))
    assert found(tmp_path) == ["flat.nii", "p1/T1.nii.gz"]
    visible = [path.relative_to(tmp_path).as_posix() for path in visible_files(tmp_path)]
    assert visible == ["flat.nii", "p1/T1.nii.gz", "p2/notes.txt"]


def test_output_folder_below_is_skipped(tmp_path):
    touch(tmp_path / "T1.nii", tmp_path / "out" / ".maediff", tmp_path / "out" / "T1" / "map.nii")
    assert found(tmp_path) == ["T1.nii"]
    assert found(tmp_path / "out") == ["T1/map.nii"]  # but the folder itself can be given


def test_scan_of_cohort_is_skipped(tmp_path):
    touch(tmp_path / "p1" / "image.nii.gz", tmp_path / "p1" / "image.json")
    assert found(tmp_path) == ["p1/image.nii.gz"]  # a sidecar alone does not make a cohort
    touch(tmp_path / ".maediff")
    assert found(tmp_path) == []


def test_linked_folders_are_entered_once(tmp_path):
    touch(
        tmp_path / "store" / "T1.nii",
        tmp_path / "in" / "p2" / "T1.nii",
        tmp_path / "store" / "deep" / "T2.nii",
    )
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / "p2")  # another name of a real folder
    (tmp_path / "in" / "p1").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "deep" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / ".hidden").symlink_to(tmp_path)
    assert found(tmp_path / "in") == ["p1/T1.nii", "p1/deep/T2.nii", "p2/T1.nii"]
    touch(tmp_path / "store" / ".maediff")
    assert found(tmp_path / "in") == ["p2/T1.nii"]


def test_broken_link_is_listed_with_message(tmp_path):
    (tmp_path / "a.nii").symlink_to("nowhere")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    touch(tmp_path / "b.nii")
    assert found(tmp_path) == ["a.nii", "b.nii"]
    assert list(visible_files(tmp_path)) == [tmp_path / "b.nii"]
    message = broken_link_message(tmp_path / "a.nii")
    assert message and message.startswith(f"{tmp_path / 'a.nii'}: broken link, its content is not")
    assert broken_link_message(tmp_path / "b.nii") is None
    assert broken_link_message(tmp_path / "gone.nii") is None


def test_dicom_by_name_or_content(tmp_path):
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "short").write_bytes(b"DICM")
    assert is_dicom(tmp_path / "IM0001")
    assert is_dicom(Path("gone.DCM"))
    assert is_dicom(Path("gone.ima"))
    assert not is_dicom(tmp_path / "short")
    assert not is_dicom(tmp_path / "gone")


def test_skipped_files_are_logged(tmp_path, caplog):
    log_skipped_files(tmp_path, [], "masks by their names")
    assert not caplog.text
    log_skipped_files(tmp_path, (tmp_path / f"{n}.nii" for n in range(6)), "masks by their names")
    assert "6 image file(s) skipped, masks by their names: 0.nii, 1.nii, 2.nii" in caplog.text
    assert "4.nii ...; to include them, list them in a manifest CSV" in caplog.text
