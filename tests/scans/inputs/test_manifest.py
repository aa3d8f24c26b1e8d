"""Manifests: every column, every mistake, and the way from references to a CSV and back."""

import io
import os

import numpy as np
import pytest

from helpers.brains import ball, made_brain, save
from helpers.dicom import write_series
from helpers.inputs import make_brats, make_manifest, names_of, touch, write_tiny_scans
from maediff.core.errors import InputError
from maediff.scans.inputs.find import find_scans
from maediff.scans.inputs.manifest import read_manifest, write_manifest
from maediff.scans.reference import ScanRef


def test_every_column_is_read(tmp_path):
    path = make_manifest(
        tmp_path / "study",
        "subject,session,image,brain_mask,lesion_mask,split,healthy,dataset,lesion_kind\n"
        "anna,1,a.nii,b.nii,l.nii,val,0,site A,bright\n"
        "anna,2,c.nii,,,val,1,site A,\n"
        "bert,,d.nii,,,,,,\n",
        "a.nii",
        "b.nii",
        "l.nii",
        "c.nii",
        "d.nii",
    )
    first, second, third = read_manifest(path, None)
    assert (first.name, second.name, third.name) == ("anna_1", "anna_2", "bert")
    assert first.brain_mask == tmp_path / "study" / "b.nii"
    assert first.lesion_mask == tmp_path / "study" / "l.nii"
    assert (first.split, first.healthy, first.dataset) == ("val", False, "site A")
    assert first.extra == {"lesion_kind": "bright"}
    assert second.healthy is True
    assert second.brain_mask is None
    assert (third.split, third.healthy, third.dataset) == (None, None, "study")
    assert third.healthy_is_stated


def test_smallest_manifest_with_byte_order_mark_and_spaces(tmp_path):
    text = "\ufeffsubject, image\n Zoë , my scan.nii\n"
    (ref,) = read_manifest(make_manifest(tmp_path, text, "my scan.nii"), None)
    assert ref.name == "Zoë"
    assert ref.image == tmp_path / "my scan.nii"
    assert not ref.healthy_is_stated


def test_t1_column(tmp_path):
    text = "subject,image,t1\na,a.nii.gz,else where/ö.nii.gz\n"
    path = make_manifest(tmp_path, text, "a.nii.gz", "else where/ö.nii.gz")
    assert find_scans([path])[0].t1 == tmp_path / "else where" / "ö.nii.gz"
    path.write_text("subject,image,t1\na,a.nii.gz,gone.nii.gz\n")
    with pytest.raises(InputError, match=r"gone\.nii\.gz"):
        find_scans([path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image\na.nii\n", "missing: subject; found: image"),
        ("subject;image\nx;a.nii\n", "separated by commas; missing: subject, image"),
        ("", "missing: subject, image; found: nothing"),
        ("subject,image\n", "lists no scan"),
        ("subject,image\nx,gone.nii\n", "1 file.* do not exist: .*gone.nii"),
        ("subject,image,lesion_mask\nx,a.nii,gone.nii\n", "gone.nii"),
        ("subject,image\nx,a.nii\nx,b.nii\n", "two scans are both named x: .*a.nii and .*b.nii"),
        ("subject,image\nx,a.nii\nX,b.nii\n", "both named X"),
        ("subject,image,split\nx,a.nii,training\n", "line 2: split 'training'"),
        ("subject,image,healthy\nx,a.nii,yes\n", "line 2: healthy 'yes'"),
        ("subject,image,lesion_labels\nx,a.nii,2\n", "line 2: lesion_labels '2'"),
        ("subject,image\n,a.nii\n", "line 2: subject and image must not be empty"),
        ("subject,image\n../x,a.nii\n", "cannot be a folder name"),
        (
            "subject,image\nCache,a.nii\n",
            "a scan cannot be named Cache, because maediff writes a file",
        ),
        (
            "subject,session,image,split\nx,1,a.nii,train\nx,2,b.nii,test\n",
            "x is in split train .* and in test",
        ),
        (
            "subject,image,dataset,split\none__sub-01,a.nii,one,train\nsub-01,b.nii,one,test\n",
            "one person belongs to one split",
        ),
    ],
)
def test_invalid_manifest_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        find_scans([make_manifest(tmp_path, text, "a.nii", "b.nii")])
    assert str(tmp_path) in str(caught.value)


def test_unreadable_manifest_is_refused_by_name(tmp_path, monkeypatch):
    path = make_manifest(tmp_path, "subject,image\n")
    (tmp_path / "latin.csv").write_bytes(b"subject,image\nZo\xeb,a.nii\n")
    with pytest.raises(InputError, match=r"latin\.csv: not a CSV file in UTF-8"):
        read_manifest(tmp_path / "latin.csv", None)
    open_file = io.open

    def refuse(file, *args, **kwargs):  # root may read any file, whatever its mode
        if str(file) == str(path):
            raise PermissionError(13, "Permission denied", str(file))
        return open_file(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", refuse)
    message = r"scans\.csv: cannot be read \(Permission denied\); check its permissions"
    with pytest.raises(InputError, match=message):
        find_scans([path])


def test_dicom_folders_in_manifest(tmp_path):
    data, _, affine = made_brain(shape=(22, 26, 12), spacing=(6.0, 6.5, 7.0))
    for name in ("a", "b"):
        write_series(tmp_path / "scans" / name, np.round(data), affine)
    (tmp_path / "list.csv").write_text("subject,image,split\nx,scans/a,train\ny,scans/b,test\n")
    first, second = find_scans([tmp_path / "list.csv"])
    assert (first.name, first.modality, first.split, second.name) == ("x", "T1w", "train", "y")
    assert first.series
    assert first.image == tmp_path / "scans" / "a"
    (tmp_path / "list.csv").write_text("subject,image\nx,scans\n")
    with pytest.raises(InputError, match="folder of several studies"):
        find_scans([tmp_path / "list.csv"])


FIELDS = (
    "subject",
    "session",
    "split",
    "healthy",
    "dataset",
    "modality",
    "lesion_labels",
    "healthy_is_stated",
)


def test_written_manifest_reads_as_same_scans(tmp_path):
    refs = find_scans([make_brats(tmp_path / "mes données" / "BraTS", "BraTS2020")], "FLAIR")
    path = tmp_path / "out" / "manifest.csv"
    write_manifest(path, refs)
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    for ref, same in zip(refs, find_scans([path]), strict=True):
        assert same.image.resolve() == ref.image.resolve()
        for field in FIELDS:
            assert getattr(same, field) == getattr(ref, field), field
        assert ref.t1 and same.t1 and same.t1.resolve() == ref.t1.resolve()


def test_written_manifest_keeps_t1_and_extra_columns(tmp_path):
    write_tiny_scans(tmp_path / "m" / "a.nii", tmp_path / "m" / "else where" / "t.nii")
    text = "subject,image,t1,kind\na,a.nii,else where/t.nii,bright\n"
    write_manifest(tmp_path / "m.csv", find_scans([make_manifest(tmp_path / "m", text)]))
    (ref,) = find_scans([tmp_path / "m.csv"])
    assert ref.t1.resolve() == tmp_path / "m" / "else where" / "t.nii"
    assert ref.extra == {"kind": "bright"}


def test_dicom_and_problems_cannot_be_written(tmp_path):
    series = ScanRef(subject="a", session="", image=tmp_path, dataset="d", series="1.2")
    with pytest.raises(InputError, match="a manifest cannot hold a DICOM series"):
        write_manifest(tmp_path / "x.csv", [series])
    broken = ScanRef(subject="a", session="", image=tmp_path, dataset="d", problem="a: damaged")
    with pytest.raises(InputError, match="a: damaged"):
        write_manifest(tmp_path / "x.csv", [broken])
    assert not (tmp_path / "x.csv").exists()


def test_healthy_column_is_omitted_if_unstated(tmp_path):
    files = ("plain/a_T1.nii", "plain/b_T1.nii", "ds/sub-1/ses-2/anat/sub-1_ses-2_T1w.nii")
    touch(*(tmp_path / name for name in files))
    (tmp_path / "ds" / "dataset_description.json").write_text("{}")
    for number, inputs in enumerate([["plain"], ["ds"], ["plain", "ds"]]):
        refs = find_scans([tmp_path / name for name in inputs])
        path = tmp_path / f"list{number}" / "manifest.csv"
        write_manifest(path, refs)
        assert "healthy" not in path.read_text("utf-8")
        back = find_scans([path])
        for field in ("name", *FIELDS):
            expected = [getattr(ref, field) for ref in refs]
            assert [getattr(ref, field) for ref in back] == expected, field


def test_healthy_of_unstated_scans_beside_stated_ones(tmp_path):
    data, brain, affine = made_brain(shape=(20, 24, 8), spacing=(6.0, 6.0, 12.0))
    for name in ("x", "y", "z", "1", "0", "u"):
        save(tmp_path / f"{name}.nii", data, affine)
    save(tmp_path / "lesion.nii", ball(data.shape, affine, (0, 0, 0), 30) & brain, affine)
    save(tmp_path / "none.nii", brain & False, affine)
    (tmp_path / "open.csv").write_text(
        "subject,image,lesion_mask\nx,x.nii,\ny,y.nii,lesion.nii\nz,z.nii,none.nii\n"
    )
    (tmp_path / "stated.csv").write_text("subject,image,healthy\n1,1.nii,1\n0,0.nii,0\nu,u.nii,\n")
    refs = find_scans([tmp_path / "open.csv", tmp_path / "stated.csv"])
    write_manifest(tmp_path / "both.csv", refs)
    back = {ref.name: ref.healthy for ref in find_scans([tmp_path / "both.csv"])}
    assert back == {"x": True, "y": False, "z": True, "1": True, "0": False, "u": None}


@pytest.mark.parametrize("name", ["=1+1", "+1", "@x", "-a", "-2"])
def test_name_like_a_formula_is_written_as_text_and_read_back(tmp_path, name):
    touch(tmp_path / f"{name}_T1w.nii.gz")
    (ref,) = find_scans([tmp_path])
    write_manifest(tmp_path / "manifest.csv", [ref])
    cells = (tmp_path / "manifest.csv").read_text("utf-8").splitlines()[1].split(",")
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "-a"))]
    (same,) = read_manifest(tmp_path / "manifest.csv", None)
    assert (same.name, same.image.resolve()) == (ref.name, ref.image.resolve())


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x7f", "\x9b", "\u202e", "\u200b"])
def test_control_characters_are_refused_in_names_and_paths_of_a_manifest(tmp_path, character):
    touch(tmp_path / "in" / f"a{character}b_T1w.nii.gz")
    with pytest.raises(InputError, match="cannot be a folder name"):
        find_scans([tmp_path / "in"])
    touch(tmp_path / f"x{character}" / "c_T1w.nii.gz")
    (ref,) = find_scans([tmp_path / f"x{character}" / "c_T1w.nii.gz"])
    with pytest.raises(InputError, match="its path holds control characters"):
        write_manifest(tmp_path / "manifest.csv", [ref])


@pytest.mark.parametrize("name", ["x" * 300 + ".nii.gz", "a/" * 3000 + "b.nii", "[" * 5000])
def test_impossible_path_is_an_absent_file(tmp_path, name):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"subject,image\na,{name}\n")
    with pytest.raises(InputError, match=r"1 file\(s\) of the manifest do not exist") as caught:
        find_scans([manifest], "T1w")
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject,image,image\np,a.nii,b.nii\n", "the header names image twice"),
        ("subject, image ,split,split\np,a.nii,val,train\n", "the header names split twice"),
        ("subject,image\np,a.nii\nq,b.nii,val\n", "line 3: 3 cells, and the header has 2"),
        ("subject,image\n\n\nq,scan,2.nii\n", "line 4: 3 cells, and the header has 2"),
        ("subject,image\n\n\n,a.nii\n", "line 4: subject and image must not be empty"),
        ("subject,image\n" + "x" * 200_000 + ",a.nii\n", "not a CSV file .field larger"),
    ],
)
def test_no_cell_is_lost_silently(tmp_path, text, message):
    path = make_manifest(tmp_path, text, "a.nii", "b.nii")
    with pytest.raises(InputError, match=message) as caught:
        find_scans([path])
    assert str(path) in str(caught.value)


def test_empty_cells_behind_the_last_column_are_ignored(tmp_path):
    """As spreadsheets write them."""
    path = make_manifest(
        tmp_path, "subject,image,,\np,a.nii,,\nq,b.nii,,,\nr,c.nii\n", "a.nii", "b.nii", "c.nii"
    )
    assert names_of(find_scans([path])) == ["p", "q", "r"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_written_manifest_behind_a_link_names_existing_files(tmp_path):
    touch(tmp_path / "data" / "p1_T1.nii")
    (tmp_path / "scratch" / "deep").mkdir(parents=True)
    (tmp_path / "work").symlink_to(tmp_path / "scratch" / "deep")
    ref = ScanRef("p1", "", tmp_path / "data" / "p1_T1.nii", "data")
    write_manifest(tmp_path / "work" / "manifest.csv", [ref])
    (back,) = read_manifest(tmp_path / "work" / "manifest.csv", None)
    assert back.image.samefile(ref.image)
