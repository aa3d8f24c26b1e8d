"""Several images of one scan: one is chosen by name, or the user is asked to choose."""

import re

import pytest

from helpers.inputs import make_bids, names_of, touch
from maediff.core.errors import InputError
from maediff.scans.inputs.folders import find_plain_scans

OWN = "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
MNI = "sub-01/anat/sub-01_space-MNI152NLin2009cAsym_desc-preproc_T1w.nii.gz"


@pytest.mark.parametrize("kind", ["bids", "folder"])
def test_own_space_instead_of_mni(tmp_path, caplog, kind):
    """The reported case: fMRIPrep writes a T1w in its own space and in MNI152."""
    root = tmp_path / "fmriprep"
    touch(root / OWN, root / MNI)
    if kind == "bids":
        make_bids(root)
    refs = find_plain_scans([root], "T1w")
    assert names_of(refs) == ["sub-01_desc-preproc"]
    assert "space-MNI152NLin2009cAsym" in caplog.text and "another space" in caplog.text


def test_unprocessed_instead_of_processed(tmp_path, caplog):
    root = make_bids(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", OWN, MNI)
    assert names_of(find_plain_scans([root], "T1w")) == ["sub-01"]
    assert "processed copies" in caplog.text and "another space" in caplog.text


@pytest.mark.parametrize("label", ["run", "acq", "rec", "ses"])
def test_other_entities_name_other_scans(tmp_path, caplog, label):
    root = make_bids(
        tmp_path / "ds",
        f"sub-01/anat/sub-01_{label}-1_desc-preproc_T1w.nii.gz",
        f"sub-01/anat/sub-01_{label}-2_desc-preproc_T1w.nii.gz",
    )
    assert len(find_plain_scans([root], "T1w")) == 2 and not caplog.text


def test_no_natural_choice(tmp_path):
    spaces = [MNI, MNI.replace("NLin2009cAsym", "NLin6Asym")]
    root = make_bids(tmp_path / "ds", *spaces)
    with pytest.raises(InputError, match="images of one scan of sub-01; name the one to use"):
        find_plain_scans([root], "T1w")
    only = make_bids(tmp_path / "only", MNI)  # a single image in MNI152 is used
    assert len(find_plain_scans([only], "T1w")) == 1


def test_copies_in_two_folders_are_named_with_their_folders(tmp_path):
    name = "sub-01_T1w.nii.gz"
    root = make_bids(tmp_path / "ds", f"sub-01/anat/{name}", f"sub-02/anat/{name}")
    expected = f"{root}: sub-01/anat/{name} and sub-02/anat/{name} are images of one scan"
    with pytest.raises(InputError, match=re.escape(expected)):
        find_plain_scans([root], "T1w")


def test_named_files_are_used_with_a_warning(tmp_path, caplog):
    files = [tmp_path / OWN, tmp_path / MNI]
    touch(*files)
    assert len(find_plain_scans(files, "T1w")) == 2
    assert "images of one scan of sub-01" in caplog.text and "leave out all but one" in caplog.text
