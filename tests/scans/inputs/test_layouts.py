"""Folders of IXI, BraTS and MSLUB, in small: masks, splits, folds and duplicates."""

import gzip
import hashlib
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.inputs import (
    BRATS,
    BRATS_KINDS,
    make_brats,
    make_ixi,
    make_mslub,
    names_of,
    write_tiny_scans,
)
from maediff.core.errors import InputError
from maediff.scans.inputs.find import find_scans
from maediff.scans.inputs.layouts import (
    assign_splits,
    read_layout,
    recognise_layout,
    refuse_same_voxels,
    voxel_digest,
)
from maediff.scans.reference import ScanRef


def test_ixi_has_same_splits_in_every_contrast(tmp_path):
    root = make_ixi(tmp_path / "IXI")
    assert recognise_layout(root) == recognise_layout(root / "IXI-T1") == "ixi"
    t1w = find_scans([root], "T1w")
    t2w_alone = find_scans([root / "IXI-T2"])
    pdw = read_layout(root, "ixi", "PDw")
    for refs, kind in ((t1w, "T1"), (t2w_alone, "T2"), (pdw, "PD")):
        assert names_of(refs) == ["IXI002", "IXI012", "IXI013", "IXI035"]
        assert {ref.image.parent.name for ref in refs} == {f"IXI-{kind}"}
        assert {(ref.healthy, ref.dataset) for ref in refs} == {(True, "IXI")}
        assert {ref.lesion_mask for ref in refs} == {None}
        assert [ref.split for ref in refs] == [ref.split for ref in t1w]
    assert [ref.t1 for ref in t1w] == [ref.t1 for ref in t2w_alone] == [None] * 4
    assert [ref.t1 for ref in pdw] == [ref.image for ref in t1w]
    assert [ref.t1 for ref in find_scans([root], "T2w")] == [ref.image for ref in t1w]
    with pytest.raises(InputError, match="holds PDw and T1w and T2w; give `modality`"):
        find_scans([root])
    with pytest.raises(InputError, match="no FLAIR scan in this ixi folder"):
        find_scans([root], "FLAIR")


def test_ixi_with_mra_and_dti(tmp_path):
    root = make_ixi(tmp_path / "IXI")
    write_tiny_scans(
        *(
            root / f"IXI-{kind}" / f"IXI012-HH-1211-{name}.nii.gz"
            for kind, name in (("MRA", "MRA"), ("DTI", "DTI-00"), ("DTI", "DTI-01"))
        )
    )
    assert recognise_layout(root) == "ixi"
    assert names_of(find_scans([root], "T1w")) == ["IXI002", "IXI012", "IXI013", "IXI035"]
    for kind in ("MRA", "DTI"):
        with pytest.raises(InputError, match="no NIfTI scan"):
            find_scans([root / f"IXI-{kind}"], "T1w")


def make_refs(dataset: str, count: int, lesion: Path | None = None) -> list[ScanRef]:
    return [
        ScanRef(
            subject=f"{dataset}{number:04}",
            session="",
            image=Path(f"{number}.nii"),
            dataset=dataset,
            lesion_mask=lesion,
        )
        for number in range(count)
    ]


def test_ixi_folds_share_only_the_test_split():
    subjects = make_refs("IXI", 560)
    folds = [[ref.split for ref in assign_splits(subjects, "ixi", fold)] for fold in range(5)]
    for splits in folds:
        assert Counter(splits)["test"] == pytest.approx(158, abs=40)
        assert Counter(splits)["val"] == pytest.approx(44, abs=20)
    for splits in zip(*folds, strict=True):
        assert set(splits) == {"test"} or "test" not in splits
        assert splits.count("val") <= 1
    with pytest.raises(InputError, match="`fold=5`: there are 5 folds; choose 0 to 4"):
        read_layout(Path(), "ixi", fold=5)


def test_brats_and_mslub_splits_have_published_sizes():
    patients = make_refs("BraTS2021", 1251, Path("seg.nii"))
    for fold in range(5):
        refs = assign_splits(patients, "brats", fold)
        assert Counter(ref.split for ref in refs) == {"val": 100, "test": 1151}
    reversed_refs = assign_splits(patients[::-1], "brats")[::-1]
    assert [ref.split for ref in reversed_refs] == [ref.split for ref in refs]
    mslub = assign_splits(make_refs("MSLUB", 30, Path("gt.nii")), "mslub")
    assert Counter(ref.split for ref in mslub) == {"val": 10, "test": 20}


@pytest.mark.parametrize("year", BRATS)
def test_brats_of_each_year(tmp_path, year):
    root = make_brats(tmp_path / "data", year)
    cases, join, _ = BRATS[year]
    assert recognise_layout(root) == "brats"
    for modality, index in {"T1w": 0, "T2w": 2, "FLAIR": 3}.items():
        refs = find_scans([root], modality)
        names = [re.sub(r"^(BraTS-.*)-", r"\1_", Path(case).name) for case in cases]
        assert sorted(names_of(refs)) == sorted(names)
        assert {ref.dataset for ref in refs} == {year}
        for ref in refs:
            assert ref.image.name.split(".")[0].endswith(join + BRATS_KINDS[join][index])
            assert ref.split in ("val", "test")
            assert ref.healthy_is_stated
            labelled = "Validation" not in ref.name
            expected = (False, True) if labelled else (None, False)
            assert (ref.healthy, ref.lesion_labels) == expected
            folder = ref.lesion_mask.parent if ref.lesion_mask else None
            assert folder == (ref.image.parent if labelled else None)
    with pytest.raises(InputError, match="holds FLAIR and T1w and T2w"):
        find_scans([root])


def test_brats_with_broken_links(tmp_path):
    root = make_brats(tmp_path / "data", "BraTS2021")
    complete = find_scans([root], "FLAIR")
    for path in (complete[0].image, complete[1].lesion_mask):
        path.unlink()
        path.symlink_to("nowhere")
    partial = find_scans([root], "FLAIR", unique=True)
    assert "content is not there" in partial[0].problem
    # The second case keeps its broken lesion mask, which fails by name when it is read.
    assert [replace(partial[0], problem=None), partial[1]] == complete
    complete[1].image.unlink()
    complete[1].image.symlink_to("nowhere")
    with pytest.raises(InputError, match="content is not there"):
        find_scans([root], "FLAIR")


@pytest.mark.parametrize("modality", [None, "T1w"])
def test_brats_without_usable_contrast(tmp_path, modality):
    root = make_brats(tmp_path / "data", "BraTS2021")
    for path in sorted(root.rglob("*.nii.gz")):
        if not path.name.endswith(("_t1ce.nii.gz", "_seg.nii.gz")):
            path.unlink()
    message = r"no T1w, T2w or FLAIR scan in this brats folder \(it has seg, t1ce\)"
    with pytest.raises(InputError, match=message):
        find_scans([root], modality, layout="brats")


def test_brats_visits_are_sessions_of_one_subject(tmp_path):
    refs = find_scans([make_brats(tmp_path, "BraTS2023")], "FLAIR")
    assert [(ref.subject, ref.session) for ref in refs] == [
        ("BraTS-GLI-00000", "000"),
        ("BraTS-GLI-00000", "001"),
        ("BraTS-GLI-00002", "000"),
    ]
    assert refs[0].split == refs[1].split


def test_brats_mask_of_another_name_is_found(tmp_path):
    case = tmp_path / "BraTS20_Training_355"
    write_tiny_scans(case / "BraTS20_Training_355_flair.nii", case / "W39_1998.09.19_Segm.nii")
    (ref,) = find_scans([tmp_path])
    assert ref.lesion_mask == case / "W39_1998.09.19_Segm.nii"


def test_two_files_of_one_kind_are_refused(tmp_path):
    case = tmp_path / "BraTS2021_00000"
    names = [f"BraTS2021_00000_{end}" for end in ("flair.nii", "flair.nii.gz")]
    write_tiny_scans(*(case / name for name in names))
    message = "flair.nii and .*flair.nii.gz: two flair files of BraTS2021_00000"
    with pytest.raises(InputError, match=message):
        find_scans([tmp_path])


@pytest.mark.parametrize("prefix", [True, False])
def test_mslub_with_masks_and_splits(tmp_path, prefix):
    root = make_mslub(tmp_path / "3D-MR-MS", prefix)
    write_tiny_scans(root / "patient01" / "raw" / "patient01_FLAIR.nii.gz")
    assert recognise_layout(root) == "mslub"
    refs = find_scans([root], "FLAIR")
    assert names_of(refs) == [f"patient{number:02}" for number in range(1, 31)]
    assert Counter(ref.split for ref in refs) == {"val": 10, "test": 20}
    expected = {(False, False, "MSLUB")}
    assert {(ref.healthy, ref.lesion_labels, ref.dataset) for ref in refs} == expected
    assert refs[0].image.parent == root / "patient01"
    assert "brainmask" in refs[0].brain_mask.name
    assert "consensus_gt" in refs[0].lesion_mask.name


def test_mslub_patients_in_one_folder(tmp_path):
    write_tiny_scans(tmp_path / "patient01_FLAIR.nii.gz", tmp_path / "patient02_FLAIR.nii.gz")
    assert names_of(find_scans([tmp_path], layout="mslub")) == ["patient01", "patient02"]


def test_mslub_patient_twice_is_refused(tmp_path):
    for folder in ("coregistered", "coregistered_resampled"):
        make_mslub(tmp_path / folder, prefix=False)
    with pytest.raises(InputError, match="patient01 twice"):
        find_scans([tmp_path], "FLAIR")


def test_other_folders_are_not_recognised(tmp_path):
    root = make_ixi(tmp_path / "IXI")
    write_tiny_scans(root / "mine" / "T1.nii")
    assert recognise_layout(root) is None
    patient = tmp_path / "own" / "patient07"
    names = ("T1.nii.gz", "FLAIR.nii.gz", "T2W.nii.gz", "BraTS2021_00001_t1.nii.gz")
    write_tiny_scans(*(patient / name for name in names))
    assert recognise_layout(tmp_path / "own") is None


def test_layout_can_be_given(tmp_path):
    root = make_ixi(tmp_path / "IXI")
    write_tiny_scans(root / "mine" / "T1.nii")
    assert find_scans([root], "T1w", layout="ixi")[0].name == "IXI002"
    plain = find_scans([root / "IXI-T1"], layout="plain")
    assert plain[0].name == "IXI002-Guys-0828-T1"
    assert plain[0].split is None
    with pytest.raises(InputError, match="no file named as in the brats layout"):
        find_scans([root], "T1w", layout="brats")


@pytest.mark.parametrize(
    ("make", "mask", "stray"),
    [
        (
            lambda root: make_brats(root, "BraTS2021"),
            "BraTS2021_00000/BraTS2021_00000_brainmask.nii.gz",
            "mine/T1.nii",
        ),
        (make_mslub, "patient01/patient01_T1W_mask.nii.gz", "patient01/patient01_T1W_n4.nii.gz"),
    ],
)
def test_stray_file_does_not_make_patients_healthy(tmp_path, make, mask, stray, caplog):
    root = make(tmp_path / "data")
    expected = find_scans([root], "T1w")
    write_tiny_scans(root / mask)
    assert find_scans([root], "T1w") == expected
    assert "1 image file(s) skipped, their names do not fit the" in caplog.text
    assert mask in caplog.text
    write_tiny_scans(root / stray)
    layout = expected[0].dataset.lower()[:5]
    message = (
        f"{stray}: does not fit the {layout} layout, .* give `layout='{layout}'` .* "
        "`layout='plain'`"
    )
    with pytest.raises(InputError, match=message):
        find_scans([root], "T1w")
    assert find_scans([root], "T1w", layout=layout) == expected
    assert all(ref.split is None for ref in find_scans([root], "T1w", layout="plain"))


def test_same_voxels_under_two_names_are_refused(tmp_path):
    root = make_ixi(tmp_path / "IXI")
    first = root / "IXI-T1" / "IXI012-HH-1211-T1.nii.gz"
    twin = root / "IXI-T1" / "IXI999-HH-0001-T1.nii.gz"
    image = nib.load(first)
    image.header["descrip"] = b"another header"
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header), twin)
    assert first.read_bytes() != twin.read_bytes()
    refs = find_scans([root], "T1w")
    message = r"IXI012-HH-1211-T1.nii.gz and .*IXI999.*: the same voxels under two names"
    with pytest.raises(InputError, match=message):
        find_scans([root], "T1w", unique=True)
    refuse_same_voxels([ref for ref in refs if ref.subject != "IXI999"])
    twin.write_bytes(gzip.compress(b"")[:-3])  # a damaged file fails by name when it is read
    assert len(find_scans([root], "T1w", unique=True)) == 5


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxel_digest_ignores_the_header(tmp_path, image_class):
    data = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    image = image_class(data, np.eye(4))
    nib.save(image, tmp_path / "a.nii.gz")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
    nib.save(image, tmp_path / "b.nii")
    nib.save(image_class(data + 1, np.eye(4)), tmp_path / "c.nii")
    a, b, c = (voxel_digest(tmp_path / name) for name in ("a.nii.gz", "b.nii", "c.nii"))
    assert a == b != c
    assert a == hashlib.sha256(data.tobytes(order="F")).hexdigest()


def test_real_folders(shared_data):
    assert recognise_layout(shared_data / "ixi10") == "ixi"
    assert recognise_layout(shared_data / "mslub") is None
