"""The official folder layouts of IXI, BraTS and MSLUB, in small; roles, folds, duplicates, manifests."""

import gzip
import hashlib
import io
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from helpers.brains import ball, made_brain, save
from helpers.options import QUIET, RESUME
from maediff import cli
from maediff.cohort.cohort import Cohort
from maediff.cohort.preprocess import preprocess
from maediff.core.errors import InputError
from maediff.core.files import fresh_folder
from maediff.scans.inputs.find import find_scans
from maediff.scans.inputs.layouts import (
    assign_splits,
    read_layout,
    recognise_layout,
    refuse_same_voxels,
    voxel_digest,
)
from maediff.scans.inputs.manifest import write_manifest
from maediff.scans.nifti import read_mask, read_nifti
from maediff.scans.reference import ScanRef


def tiny(*paths: Path) -> None:
    """A volume of eight voxels for each path, none like another."""
    header = nib.Nifti1Image(np.zeros((2, 2, 2), dtype=np.float32), np.eye(4)).to_bytes()[:352]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (
            header
            + np.random.default_rng([number, len(paths)]).normal(size=8).astype("<f4").tobytes()
        )
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def ixi(root: Path) -> Path:
    tiny(
        *(
            root / f"IXI-{kind}" / f"{name}-{kind}.nii.gz"
            for name in ("IXI012-HH-1211", "IXI013-HH-1212", "IXI002-Guys-0828", "IXI035-IOP-0873")
            for kind in ("T1", "T2", "PD")
        )
    )
    return root


BRATS = {
    "BraTS2018": (["HGG/Brats18_CBICA_AAB_1", "LGG/Brats18_TCIA09_177_1"], "_", ".nii.gz"),
    "BraTS2019": (["HGG/BraTS19_CBICA_AAB_1", "LGG/BraTS19_2013_0_1"], "_", ".nii"),
    "BraTS2020": (
        ["MICCAI_BraTS2020_TrainingData/BraTS20_Training_001", "v/BraTS20_Validation_001"],
        "_",
        ".nii.gz",
    ),
    "BraTS2021": (["BraTS2021_00000", "BraTS2021_01666"], "_", ".nii.gz"),
    "BraTS2023": (
        ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00002-000"],
        "-",
        ".nii.gz",
    ),
}
KINDS_OF_YEAR = {
    "-": ("t1n", "t1c", "t2w", "t2f", "seg"),
    "_": ("t1", "t1ce", "t2", "flair", "seg"),
}


def brats(root: Path, year: str) -> Path:
    cases, join, end = BRATS[year]
    kinds = KINDS_OF_YEAR[join]
    tiny(
        *(
            root / case / f"{Path(case).name}{join}{kind}{end}"
            for case in cases
            for kind in kinds
            if not ("Validation" in case and kind == "seg")
        )
    )
    return root


def mslub(root: Path, prefix=True) -> Path:
    kinds = ("T1W", "T2W", "FLAIR", "T1WKS", "brainmask", "consensus_gt")
    people = [f"patient{number:02}" for number in range(1, 31)]
    tiny(
        *(
            root / who / f"{who + '_' if prefix else ''}{kind}.nii.gz"
            for who in people
            for kind in kinds
        )
    )
    return root


def test_ixi_by_contrast_with_the_same_roles_in_each(tmp_path):
    root = ixi(tmp_path / "IXI")
    assert recognise_layout(root) == recognise_layout(root / "IXI-T1") == "ixi"
    names = ["IXI002", "IXI012", "IXI013", "IXI035"]
    by_contrast = [
        find_scans([root], "T1w"),
        find_scans([root / "IXI-T2"]),
        read_layout(root, "ixi", "PDw"),
    ]
    for refs, kind in zip(by_contrast, ("T1", "T2", "PD"), strict=True):
        assert [ref.name for ref in refs] == names
        assert {ref.image.parent.name for ref in refs} == {f"IXI-{kind}"}
        assert {(ref.healthy, ref.dataset, ref.lesion_mask) for ref in refs} == {
            (True, "IXI", None)
        }
        assert [ref.split for ref in refs] == [ref.split for ref in by_contrast[0]]
        t1s = (
            [None] * 4
            if kind == "T1" or refs is by_contrast[1]
            else [ref.image for ref in by_contrast[0]]
        )
        assert [ref.t1 for ref in refs] == t1s
    assert [ref.t1 for ref in find_scans([root], "T2w")] == [ref.image for ref in by_contrast[0]]
    with pytest.raises(InputError, match="holds PDw and T1w and T2w; give `modality`"):
        find_scans([root])
    with pytest.raises(InputError, match="modality PDw: no model uses it"):
        preprocess([root], tmp_path / "out", modality="PDw", run=QUIET)
    with pytest.raises(InputError, match=r"\(PDw\); use `modality=T1w"):
        preprocess([root / "IXI-PD"], tmp_path / "out", run=QUIET)
    with pytest.raises(InputError, match="no FLAIR scan in this ixi folder"):
        find_scans([root], "FLAIR")


def test_ixi_with_mra_and_dti_beside_it(tmp_path):
    root = ixi(tmp_path / "IXI")
    tiny(
        *(
            root / f"IXI-{kind}" / f"IXI012-HH-1211-{name}.nii.gz"
            for kind, name in (("MRA", "MRA"), ("DTI", "DTI-00"), ("DTI", "DTI-01"))
        )
    )
    assert recognise_layout(root) == "ixi"
    assert [ref.name for ref in find_scans([root], "T1w")] == [
        "IXI002",
        "IXI012",
        "IXI013",
        "IXI035",
    ]
    for kind in ("MRA", "DTI"):
        with pytest.raises(InputError, match="no NIfTI scan"):
            find_scans([root / f"IXI-{kind}"], "T1w")


def refs_of(dataset: str, count: int, lesion: Path | None = None) -> list[ScanRef]:
    return [
        ScanRef(f"{dataset}{n:04}", "", Path(f"{n}.nii"), dataset, lesion_mask=lesion)
        for n in range(count)
    ]


def test_roles_have_the_fields_sizes_and_folds_share_the_test_scans_only():
    people = refs_of("IXI", 560)
    folds = [[ref.split for ref in assign_splits(people, "ixi", fold)] for fold in range(5)]
    for splits in folds:
        assert Counter(splits)["test"] == pytest.approx(158, abs=40)
        assert Counter(splits)["val"] == pytest.approx(44, abs=20)
    for one, *others in zip(*folds, strict=True):
        assert (one == "test") == all(other == "test" for other in others)
        assert [one, *others].count("val") <= 1
    patients = refs_of("BraTS2021", 1251, Path("seg.nii"))
    for fold in range(5):
        roles = assign_splits(patients, "brats", fold)
        assert Counter(ref.split for ref in roles) == {"val": 100, "test": 1151}
    again = assign_splits(patients[::-1], "brats")[::-1]
    assert [ref.split for ref in again] == [ref.split for ref in roles]
    assert Counter(
        ref.split for ref in assign_splits(refs_of("MSLUB", 30, Path("gt.nii")), "mslub")
    ) == {
        "val": 10,
        "test": 20,
    }
    with pytest.raises(InputError, match="`fold=5`: there are 5 folds; choose 0 to 4"):
        read_layout(Path(), "ixi", fold=5)


@pytest.mark.parametrize("year", BRATS)
def test_brats_of_each_year(tmp_path, year):
    root = brats(tmp_path / "data", year)
    assert recognise_layout(root) == "brats"
    for modality, index in {"T1w": 0, "T2w": 2, "FLAIR": 3}.items():
        refs = find_scans([root], modality)
        names = [re.sub(r"^(BraTS-.*)-", r"\1_", Path(case).name) for case in BRATS[year][0]]
        assert sorted(ref.name for ref in refs) == sorted(names)
        assert {ref.dataset for ref in refs} == {year}
        for ref in refs:
            join = BRATS[year][1]
            assert ref.image.name.split(".")[0].endswith(join + KINDS_OF_YEAR[join][index])
            assert ref.split in ("val", "test") and ref.healthy_is_stated
            labelled = "Validation" not in ref.name
            assert (ref.healthy, ref.lesion_labels) == (
                (False, True) if labelled else (None, False)
            )
            assert ref.lesion_mask is None or ref.lesion_mask.parent == ref.image.parent
    with pytest.raises(InputError, match="holds FLAIR and T1w and T2w"):
        find_scans([root])


def test_brats_of_which_only_a_part_is_fetched(tmp_path):
    root = brats(tmp_path / "data", "BraTS2021")
    whole = find_scans([root], "FLAIR")
    image, lesion = whole[0].image, whole[1].lesion_mask
    for path in (image, lesion):
        path.unlink()
        path.symlink_to("nowhere")
    part = find_scans([root], "FLAIR", unique=True)
    assert "content is not there" in part[0].problem
    assert [replace(part[0], problem=None), part[1]] == whole  # the mask, too, is missed by name
    whole[1].image.unlink()
    whole[1].image.symlink_to("nowhere")
    with pytest.raises(InputError, match="content is not there"):
        find_scans([root], "FLAIR")


@pytest.mark.parametrize("modality", [None, "T1w"])
def test_brats_without_any_contrast_of_ours_says_what_it_has(tmp_path, modality):
    root = brats(tmp_path / "data", "BraTS2021")
    for path in sorted(root.rglob("*.nii.gz")):
        if not path.name.endswith(("_t1ce.nii.gz", "_seg.nii.gz")):
            path.unlink()
    with pytest.raises(
        InputError, match=r"no T1w, T2w or FLAIR scan in this brats folder \(it has seg, t1ce\)"
    ):
        find_scans([root], modality, layout="brats")


def test_two_visits_are_one_subject_and_the_stray_mask_of_brats20_is_found(tmp_path):
    refs = find_scans([brats(tmp_path / "2023", "BraTS2023")], "FLAIR")
    assert [(ref.subject, ref.session) for ref in refs] == [
        ("BraTS-GLI-00000", "000"),
        ("BraTS-GLI-00000", "001"),
        ("BraTS-GLI-00002", "000"),
    ]
    assert refs[0].split == refs[1].split
    case = tmp_path / "2020" / "BraTS20_Training_355"
    tiny(case / "BraTS20_Training_355_flair.nii", case / "W39_1998.09.19_Segm.nii")
    (ref,) = find_scans([tmp_path / "2020"])
    assert ref.lesion_mask == case / "W39_1998.09.19_Segm.nii"


@pytest.mark.parametrize("prefix", [True, False])
def test_mslub_with_masks_and_roles(tmp_path, prefix):
    root = mslub(tmp_path / "3D-MR-MS", prefix)
    tiny(root / "patient01" / "raw" / "patient01_FLAIR.nii.gz")
    assert recognise_layout(root) == "mslub"
    refs = find_scans([root], "FLAIR")
    assert [ref.name for ref in refs] == [f"patient{number:02}" for number in range(1, 31)]
    assert Counter(ref.split for ref in refs) == {"val": 10, "test": 20}
    assert {(ref.healthy, ref.lesion_labels, ref.dataset) for ref in refs} == {
        (False, False, "MSLUB")
    }
    first = refs[0]
    assert first.image.parent == root / "patient01"
    assert "brainmask" in first.brain_mask.name and "consensus_gt" in first.lesion_mask.name
    tiny(
        tmp_path / "deep" / "cases" / "patient01_FLAIR.nii.gz",
        tmp_path / "deep" / "cases" / "patient02_FLAIR.nii.gz",
    )
    assert [ref.name for ref in find_scans([tmp_path / "deep"], layout="mslub")] == [
        "patient01",
        "patient02",
    ]
    for folder in ("coregistered", "coregistered_resampled"):
        mslub(tmp_path / "open_ms_data" / folder, prefix=False)
    with pytest.raises(InputError, match="patient01 twice"):
        find_scans([tmp_path / "open_ms_data"], "FLAIR")


def test_other_folders_are_not_taken_for_one_of_them_and_a_layout_can_be_said(tmp_path):
    root = ixi(tmp_path / "IXI")
    tiny(root / "mine" / "T1.nii")
    assert recognise_layout(root) is None
    own = tmp_path / "own" / "patient07"
    tiny(
        own / "T1.nii.gz",
        own / "FLAIR.nii.gz",
        own / "T2W.nii.gz",
        own / "BraTS2021_00001_t1.nii.gz",
    )
    assert recognise_layout(tmp_path / "own") is None
    assert find_scans([root], "T1w", layout="ixi")[0].name == "IXI002"
    plain = find_scans([root / "IXI-T1"], layout="plain")
    assert plain[0].name == "IXI002-Guys-0828-T1" and plain[0].split is None
    with pytest.raises(InputError, match="no file named as in the brats layout"):
        find_scans([root], "T1w", layout="brats")
    with pytest.raises(
        InputError,
        match="`layout='adni'`: not known; choose one of auto, plain, ixi, brats, mslub",
    ):
        find_scans([root], layout="adni")


@pytest.mark.parametrize(
    ("make", "mask", "stray"),
    [
        (
            lambda root: brats(root, "BraTS2021"),
            "BraTS2021_00000/BraTS2021_00000_brainmask.nii.gz",
            "mine/T1.nii",
        ),
        (mslub, "patient01/patient01_T1W_mask.nii.gz", "patient01/patient01_T1W_n4.nii.gz"),
    ],
)
def test_a_stray_file_does_not_make_patients_healthy(tmp_path, make, mask, stray, caplog):
    root = make(tmp_path / "data")
    expected = find_scans([root], "T1w")
    tiny(root / mask)
    assert find_scans([root], "T1w") == expected
    assert (
        "1 NIfTI file(s) skipped, their names do not fit the" in caplog.text
        and mask in caplog.text
    )
    tiny(root / stray)
    layout = expected[0].dataset.lower()[:5]
    with pytest.raises(
        InputError,
        match=f"{stray}: does not fit the {layout} layout, .* give `layout='{layout}'` .* `layout='plain'`",
    ):
        find_scans([root], "T1w")
    assert find_scans([root], "T1w", layout=layout) == expected
    assert all(ref.split is None for ref in find_scans([root], "T1w", layout="plain"))


def test_the_same_voxels_under_two_names_are_refused(tmp_path):
    root = ixi(tmp_path / "IXI")
    first = root / "IXI-T1" / "IXI012-HH-1211-T1.nii.gz"
    twin = root / "IXI-T1" / "IXI999-HH-0001-T1.nii.gz"
    image = nib.load(first)
    image.header["descrip"] = b"another header"
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header), twin)
    assert first.read_bytes() != twin.read_bytes()
    refs = find_scans([root], "T1w")
    with pytest.raises(
        InputError,
        match=r"IXI012-HH-1211-T1.nii.gz and .*IXI999.*: the same voxels under two names",
    ):
        find_scans([root], "T1w", unique=True)
    refuse_same_voxels([ref for ref in refs if ref.subject != "IXI999"])
    twin.write_bytes(gzip.compress(b"")[:-3])  # damaged files are named later, each by itself
    assert len(find_scans([root], "T1w", unique=True)) == 5
    with pytest.raises(InputError, match="both named IXI002"):
        find_scans([root / "IXI-T1", ixi(tmp_path / "second") / "IXI-T1"])


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_digest_is_of_the_voxels_whatever_the_header(tmp_path, kind):
    data = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    image = kind(data, np.eye(4))
    nib.save(image, tmp_path / "a.nii.gz")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
    nib.save(image, tmp_path / "b.nii")
    nib.save(kind(data + 1, np.eye(4)), tmp_path / "c.nii")
    a, b, c = (voxel_digest(tmp_path / name) for name in ("a.nii.gz", "b.nii", "c.nii"))
    assert a == b != c
    assert a == hashlib.sha256(data.tobytes(order="F")).hexdigest()


def test_a_manifest_reads_back_as_the_same_scans(tmp_path):
    root = brats(tmp_path / "mes données" / "BraTS", "BraTS2020")
    refs = find_scans([root], "FLAIR")
    cli.preprocess(tmp_path / "out", [root], modality="FLAIR", manifest_only=True)
    text = (tmp_path / "out" / "manifest.csv").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    back = find_scans([tmp_path / "out" / "manifest.csv"])
    for ref, same in zip(refs, back, strict=True):
        assert same.image.resolve() == ref.image.resolve()
        for field in (
            "subject",
            "session",
            "split",
            "healthy",
            "dataset",
            "modality",
            "lesion_labels",
            "healthy_is_stated",
        ):
            assert getattr(same, field) == getattr(ref, field), field
        assert ref.t1 and same.t1 and same.t1.resolve() == ref.t1.resolve()
    tiny(tmp_path / "m" / "a.nii", tmp_path / "m" / "else where" / "t.nii")
    (tmp_path / "m" / "m.csv").write_text("subject,image,t1\na,a.nii,else where/t.nii\n")
    write_manifest(tmp_path / "m.csv", find_scans([tmp_path / "m" / "m.csv"]))
    assert (
        find_scans([tmp_path / "m.csv"])[0].t1.resolve() == tmp_path / "m" / "else where" / "t.nii"
    )
    with pytest.raises(InputError, match="manifest cannot hold a DICOM series"):
        write_manifest(tmp_path / "x.csv", [ScanRef("a", "", tmp_path, "d", series="1.2")])


def test_a_manifest_of_scans_of_which_nothing_is_stated_keeps_them_healthy(tmp_path):
    data, brain, affine = made_brain(shape=(20, 24, 8), spacing=(6.0, 6.0, 12.0))
    for number, name in enumerate(
        ("plain/a_T1.nii", "plain/b_T1.nii", "ds/sub-1/ses-2/anat/sub-1_ses-2_T1w.nii")
    ):
        save(tmp_path / name, data + number * brain, affine)
    (tmp_path / "ds" / "dataset_description.json").write_text("{}")
    for number, given in enumerate([["plain"], ["ds"], ["plain", "ds"]]):
        refs = find_scans([tmp_path / name for name in given])
        cli.preprocess(
            tmp_path / f"list{number}", [tmp_path / name for name in given], manifest_only=True
        )
        back = find_scans([tmp_path / f"list{number}" / "manifest.csv"])
        for field in (
            "name",
            "subject",
            "session",
            "dataset",
            "healthy",
            "healthy_is_stated",
            "modality",
            "split",
        ):
            assert [getattr(ref, field) for ref in back] == [
                getattr(ref, field) for ref in refs
            ], field
    assert preprocess([tmp_path / "list2" / "manifest.csv"], tmp_path / "out", run=QUIET) == 0
    assert [row.healthy for row in Cohort.open(tmp_path / "out").rows] == [True] * 3


def test_a_manifest_of_stated_and_other_scans_says_what_preprocess_takes_them_for(tmp_path):
    data, brain, affine = made_brain(shape=(20, 24, 8), spacing=(6.0, 6.0, 12.0))
    for name in ("x", "y", "z", "1", "0", "u"):
        save(tmp_path / f"{name}.nii", data, affine)
    save(tmp_path / "lesion.nii", ball(data.shape, affine, (0, 0, 0), 30) & brain, affine)
    save(tmp_path / "none.nii", brain & False, affine)
    (tmp_path / "open.csv").write_text(
        "subject,image,lesion_mask\nx,x.nii,\ny,y.nii,lesion.nii\nz,z.nii,none.nii\n"
    )
    (tmp_path / "stated.csv").write_text("subject,image,healthy\n1,1.nii,1\n0,0.nii,0\nu,u.nii,\n")
    write_manifest(
        tmp_path / "both.csv", find_scans([tmp_path / "open.csv", tmp_path / "stated.csv"])
    )
    back = {ref.name: ref.healthy for ref in find_scans([tmp_path / "both.csv"])}
    assert back == {"x": True, "y": False, "z": True, "1": True, "0": False, "u": None}


def test_labels_of_a_tumour_become_one_lesion(tmp_path):
    data, brain, affine = made_brain(shape=(60, 72, 8), spacing=(2.0, 2.0, 8.0))
    tumour = ball(data.shape, affine, (12, -10, 5), 20) & brain
    labels = tumour.astype(np.uint8) * 4
    labels[:, :36][tumour[:, :36]] = 1
    for number in range(3):
        case = f"BraTS2021_0000{number}"
        save(tmp_path / "in" / case / f"{case}_flair.nii.gz", data + number * brain, affine)
        save(tmp_path / "in" / case / f"{case}_seg.nii.gz", labels, affine)
    with pytest.raises(InputError, match="0 and 1 only"):
        seg = tmp_path / "in" / case / f"{case}_seg.nii.gz"
        read_mask(seg, read_nifti(seg))
    wrong = save(tmp_path / "seg.nii.gz", labels / np.float32(3), affine)
    with pytest.raises(InputError, match="labels are whole numbers"):
        read_mask(wrong, read_nifti(wrong), labels=True)
    assert preprocess([tmp_path / "in"], tmp_path / "out", run=QUIET) == 0
    cohort = Cohort.open(tmp_path / "out")
    rows = cohort.split("val") + cohort.split("test")
    assert [row.healthy for row in rows] == [False] * 3
    lesion = cohort.load(rows[0]).lesion
    assert lesion.sum() * 4 * 8 / 1000 == pytest.approx(tumour.sum() * 4 * 8 / 1000, rel=0.1)


def test_a_manifest_may_name_dicom_folders(tmp_path):
    from helpers.dicom import write_series

    data, _, affine = made_brain(shape=(22, 26, 12), spacing=(6.0, 6.5, 7.0))
    for name in ("a", "b"):
        write_series(tmp_path / "scans" / name, np.round(data), affine)
    (tmp_path / "list.csv").write_text("subject,image,split\nx,scans/a,train\ny,scans/b,test\n")
    first, second = find_scans([tmp_path / "list.csv"])
    assert (first.name, first.modality, first.split, second.name) == ("x", "T1w", "train", "y")
    assert first.series and first.image == tmp_path / "scans" / "a"
    (tmp_path / "list.csv").write_text("subject,image\nx,scans\n")
    with pytest.raises(InputError, match="folder of several studies"):
        find_scans([tmp_path / "list.csv"])


def test_the_real_folders_fit(shared_data):
    refs = find_scans([shared_data / "ixi10"])
    assert [ref.name for ref in refs][:2] == ["IXI012", "IXI013"] and len(refs) == 10
    assert [ref.name for ref in find_scans([shared_data / "mslub"], "T1w")] == ["patient07_T1"]


def test_a_file_that_may_not_be_read_fails_by_name_and_the_others_go_on(
    tmp_path, monkeypatch, caplog
):
    data, brain, affine = made_brain(shape=(20, 24, 8), spacing=(6.0, 6.0, 12.0))
    for number in range(3):
        save(
            tmp_path / "IXI" / f"IXI00{number}-HH-000{number}-T1.nii",
            data + number * brain,
            affine,
        )
    (tmp_path / "m.csv").write_text("subject,image\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes").write_text("x")
    locked = tmp_path / "IXI" / "IXI001-HH-0001-T1.nii"
    real = io.open

    def refuse(file, *args, **kwargs):  # root may read everything, so modes do not show it
        if str(file) in (str(locked), str(tmp_path / "m.csv"), str(tmp_path / "in" / "notes")):
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PermissionError):
        locked.read_bytes()
    assert preprocess([tmp_path / "IXI"], tmp_path / "out", run=QUIET) == 1
    assert (
        "IXI001 failed" in caplog.text
        and "T1.nii: damaged or truncated, it cannot be unpacked (Perm" in caplog.text
    )
    assert [row.subject for row in Cohort.open(tmp_path / "out").rows] == ["IXI000", "IXI002"]
    assert [ref.name for ref in find_scans(sorted((tmp_path / "IXI").iterdir()))][
        1
    ] == "IXI001-HH-0001-T1"
    with pytest.raises(
        InputError, match=r"m\.csv: cannot be read \(Permission denied\); check its permissions"
    ):
        find_scans([tmp_path / "m.csv"])
    with pytest.raises(InputError, match="in: no NIfTI scan in this folder"):
        find_scans([tmp_path / "in"])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    root = brats(tmp_path / "in", "BraTS2021")
    with pytest.raises(InputError, match="file: is a file, but the output is a folder"):
        preprocess([root], tmp_path / "file", modality="FLAIR", run=QUIET)
    with pytest.raises(InputError, match=r"below: could not be created .*; choose another folder"):
        preprocess([root], tmp_path / "file" / "below", modality="FLAIR", run=QUIET)

    def read_only(*_args, **_kwargs):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(
        InputError, match=r"out: could not be .* \(Read-only file system\); choose another"
    ):
        preprocess([root], tmp_path / "out", modality="FLAIR", run=QUIET)


def test_a_cohort_that_may_only_be_read_is_named_when_resumed(tmp_path, monkeypatch):
    out = fresh_folder(tmp_path / "out")
    root = brats(tmp_path / "in", "BraTS2021")

    def no_new_file(call):
        def refuse(path, *args, **kwargs):
            if Path(path).parent == out and (call is os.unlink or not Path(path).exists()):
                raise PermissionError(13, "Permission denied")
            return call(path, *args, **kwargs)

        return refuse

    (out / "cohort.json").write_text("{}")
    monkeypatch.setattr(os, "open", no_new_file(os.open))
    monkeypatch.setattr(os, "unlink", no_new_file(os.unlink))
    with pytest.raises(
        InputError, match=r"out: could not be written to \(Permission denied\); choose another"
    ):
        preprocess([root], out, modality="FLAIR", run=RESUME)
    with pytest.raises(InputError, match=r"out: could not be written to"):
        fresh_folder(out, resume=True)  # as detect does
