"""BIDS derivatives: names, overwriting, and scans without BIDS names."""

import numpy as np
import pytest

from helpers.brains import made_brain, oblique, save
from maediff.core.errors import InputError
from maediff.detection.bids import prepare_derivative, target_of, write_derivative
from maediff.scans.inputs.find import find_scans


@pytest.fixture
def scan():
    data, _, affine = made_brain(shape=(22, 26, 4), spacing=(6.0, 6.5, 16.0))
    return np.round(data), oblique(affine)


@pytest.fixture
def bids(scan, tmp_path):
    root = tmp_path / "Mein Datensatz é"
    for name in (
        "sub-01/ses-2/anat/sub-01_ses-2_run-1_T1w.nii.gz",
        "sub-02/anat/sub-02_desc-defaced_T1w.nii",
    ):
        save(root / name, *scan)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    return root


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("anomaly_map", "desc-anomaly_T1w"),
        ("anomaly_mask", "desc-anomaly_mask"),
        ("healthy_reference", "desc-healthy_T1w"),
        ("brain_mask", "desc-brain_mask"),
    ],
)
def test_names_keep_the_entities_of_the_scan(bids, kind, suffix):
    first, second = find_scans([bids], "T1w")
    folder = "sub-01/ses-2/anat/sub-01_ses-2_run-1"
    assert target_of(first, kind).as_posix() == f"{folder}_{suffix}.nii.gz"
    assert target_of(second, kind).as_posix() == f"sub-02/anat/sub-02_{suffix}.nii.gz"


def test_overwrite_removes_old_subjects_when_the_new_results_exist(bids, tmp_path):
    """Old subjects are removed only when the new results exist."""
    refs = find_scans([bids], "T1w")
    out = tmp_path / "out"
    work = prepare_derivative(refs, out)
    assert work == out / ".detect"
    old = out / "sub-99" / "anat" / "sub-99_desc-brain_mask.nii.gz"
    save(old, np.ones((2, 2, 2)), np.eye(4))
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_derivative(refs, out)
    assert prepare_derivative(refs, out, overwrite=True) == work
    assert old.exists()
    (work / refs[0].name).mkdir(parents=True)
    (work / refs[0].name / "summary.json").write_text("{}")
    write_derivative(refs, out, overwrite=True)
    assert [path.name for path in sorted(out.glob("sub-*"))] == ["sub-01"]  # sub-02 failed


def test_scans_without_bids_names(bids, tmp_path, scan):
    alone = save(tmp_path / "sub-1_T1w.nii.gz", *scan)
    with pytest.raises(InputError, match=r"sub-1_T1w\.nii\.gz: not a scan of a BIDS dataset"):
        prepare_derivative(find_scans([alone]), tmp_path / "out")
    second = tmp_path / "second"
    save(second / "sub-5" / "anat" / "sub-5_T1w.nii", *scan)
    (second / "dataset_description.json").write_text("{}")
    with pytest.raises(InputError, match="in another BIDS dataset"):
        prepare_derivative(find_scans([bids, second], "T1w"), tmp_path / "out")
    anat = bids / "sub-02" / "anat"
    plain = save(anat / "sub-02_T1w.nii", *scan)
    twins = find_scans([anat / "sub-02_desc-defaced_T1w.nii", plain], "T1w")
    with pytest.raises(InputError, match="under one BIDS name"):
        prepare_derivative(twins, tmp_path / "out")
    assert not (tmp_path / "out").exists()
