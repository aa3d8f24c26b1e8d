from pathlib import Path

import pytest

from maediff.core.errors import InputError
from maediff.scans.reference import ScanRef, check_names, remove_folders, subject_in_dataset


def make_ref(subject, session="", image="a.nii", dataset="ds", **fields):
    return ScanRef(subject=subject, session=session, image=Path(image), dataset=dataset, **fields)


def test_name_and_files():
    ref = make_ref("x", "ses-1", "in/a.nii", t1=Path("in/t1.nii"))
    assert ref.name == "x_ses-1"
    assert make_ref("x").name == "x"
    assert ref.files == [Path("in/a.nii"), Path("in/t1.nii")]


def test_uids_and_problem_are_not_shown():
    ref = make_ref("x", series="1.2.3", t1_series="4.5.6", problem="secret")
    assert not any(word in repr(ref) for word in ("1.2.3", "4.5.6", "secret"))


def test_dataset_prefix_is_removed():
    assert subject_in_dataset("one", "one__sub-01") == "sub-01"
    assert subject_in_dataset("two", "one__sub-01") == "one__sub-01"


def test_folders_are_removed_from_message():
    ref = make_ref("x", image="/Doe Jane/i/a.nii", lesion_mask=Path("/Doe Jane/m/l.nii"))
    text = "/Doe Jane/i/a.nii: does not fit /Doe Jane/m/l.nii"
    assert remove_folders(text, ref) == "a.nii: does not fit l.nii"
    inside = make_ref("x", image="/in/a.nii", lesion_mask=Path("/in/Doe Jane/l.nii"))
    assert remove_folders("/in/Doe Jane/l.nii: empty", inside) == "l.nii: empty"


@pytest.mark.parametrize(
    ("refs", "message"),
    [
        ([make_ref("../x")], "'../x' cannot be a folder name"),
        ([make_ref(".x")], "'.x' cannot be a folder name"),
        ([make_ref("x:y")], "'x:y' cannot be a folder name"),
        ([make_ref("x.")], "Windows allows no folder named 'x.'"),
        ([make_ref("nul")], "Windows allows no folder named 'nul'"),
        ([make_ref("Com1.a")], "Windows allows no folder named 'Com1.a'"),
        ([make_ref("\u00fc"), make_ref("u\u0308")], "both named"),
        ([make_ref("Cache")], "cannot be named Cache, because maediff writes a file"),
        ([make_ref("x"), make_ref("X", image="b.nii")], "both named X: a.nii and b.nii"),
        (
            [make_ref("x", "1", split="train"), make_ref("ds__x", "2", split="test")],
            "subject ds__x is in split train .* and in test .*; one person belongs to one split",
        ),
    ],
)
def test_unusable_names_are_refused(refs, message):
    with pytest.raises(InputError, match=message):
        check_names(refs)


def test_same_subject_in_other_dataset_may_have_other_split():
    check_names(
        [make_ref("x", "1", split="train"), make_ref("x", "2", dataset="other", split="test")]
    )
