"""Scans in NIfTI files, folders and BIDS datasets; errors name the input."""

from pathlib import Path

import pytest

from helpers.inputs import make_bids, make_manifest, names_of, touch
from maediff.cohort.splits import person_code, split_of
from maediff.core.errors import InputError
from maediff.scans.inputs.folders import find_plain_scans, t1s_by_session
from maediff.scans.names import session_key


def test_bids_dataset_by_suffix(tmp_path):
    root = make_bids(
        tmp_path / "ds1",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_run-2_T1w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_desc-brain_mask.nii.gz",
        "derivatives/x/sub-01/sub-01_T1w.nii.gz",
    )
    refs = find_plain_scans([root], "T1w")
    assert names_of(refs) == ["sub-01", "sub-02_ses-a", "sub-02_ses-b_run-2"]
    assert [ref.subject for ref in refs] == ["sub-01", "sub-02", "sub-02"]
    assert {(ref.dataset, ref.modality, ref.healthy) for ref in refs} == {("ds1", "T1w", None)}
    assert names_of(find_plain_scans([root], "FLAIR")) == ["sub-01"]
    with pytest.raises(InputError, match=r"holds T1w and FLAIR; give `modality` \(T1w or FLAIR\)"):
        find_plain_scans([root])
    with pytest.raises(
        InputError, match=r"no T2w scan in this BIDS dataset \(it has FLAIR, T1w, mask\)"
    ):
        find_plain_scans([root], "T2w")


def test_inplane_t2_counts_as_t2(tmp_path):
    root = make_bids(tmp_path / "ds", "sub-1/anat/sub-1_inplaneT2.nii.gz")
    assert [ref.modality for ref in find_plain_scans([root], "T2w")] == ["T2w"]


def test_folder_skips_masks_and_names_by_path(tmp_path):
    files = (
        "p1/T1.nii.gz",
        "p1/lesion_mask.nii.gz",
        "p2/T1.nii",
        "p2/T1_SEG.nii",
        "p2/consensus_gt.nii",
        ".hidden/T1.nii",
        "p2/notes.txt",
        "flat.nii",
        "p4/image.nii.gz",
        "p4/image.json",  # a sidecar; a cohort of maediff has its marker above it
        "p2/sub-7_ses-1_T1w.nii.gz",
    )
    touch(*(tmp_path / name for name in files))
    refs = find_plain_scans([tmp_path])
    assert names_of(refs) == ["flat", "p1_T1", "p2_T1", "sub-7_ses-1", "p4_image"]
    assert refs[0].modality is None
    assert refs[0].dataset == tmp_path.name
    assert refs[1].modality == "T1w"


def test_output_folder_is_skipped(tmp_path):
    touch(
        tmp_path / "T1.nii",
        tmp_path / "out" / ".maediff",
        tmp_path / "out" / "T1" / "anomaly_map.nii.gz",
    )
    assert names_of(find_plain_scans([tmp_path])) == ["T1"]
    touch(tmp_path / ".maediff")  # but the folder itself can be given
    assert names_of(find_plain_scans([tmp_path])) == ["T1"]
    touch(tmp_path / "p3" / "image.nii.gz", tmp_path / "p3" / "image.json")  # a scan of a cohort
    assert names_of(find_plain_scans([tmp_path])) == ["T1"]


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
    assert names_of(find_plain_scans([tmp_path / "in"], "T1w")) == ["p1_T1", "p2_T1"]
    assert names_of(find_plain_scans([tmp_path / "in"], "T2w")) == ["p1_deep_T2"]
    touch(tmp_path / "store" / ".maediff")
    assert names_of(find_plain_scans([tmp_path / "in"], "T1w")) == ["p2_T1"]


def test_broken_link_is_a_problem_of_its_scan(tmp_path):
    root = make_bids(
        tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"
    )
    good = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    broken = root / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    broken.unlink()
    broken.symlink_to("../../.git/annex/objects/x")
    (tmp_path / "ds" / "notes.txt").symlink_to("nowhere")
    for inputs in ([root], [root / "sub-01", root / "sub-02"], [good, broken]):
        first, second = find_plain_scans(inputs, "T1w")
        assert (first.name, first.problem, second.name) == ("sub-01", None, "sub-02")
        assert second.problem and second.problem.startswith(
            f"{broken}: broken link, its content is not there; run `datalad get`"
        )


def test_skipped_files_of_bids_dataset_are_logged(tmp_path, caplog):
    root = make_bids(
        tmp_path / "ds",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w_defaced.nii.gz",
        "sub-03/anat/sub-03_T1w.NII.GZ",
    )
    assert names_of(find_plain_scans([root])) == ["sub-01", "sub-03"]
    assert "1 image file(s) skipped, their names are no BIDS names" in caplog.text
    assert "sub-02_T1w_defaced.nii.gz" in caplog.text
    assert "sub-01_ce-gadolinium_T1w.nii.gz" in caplog.text


def test_a_label_that_looks_like_a_mask_is_a_scan(tmp_path):
    touch(tmp_path / "sub-gt05_T1w.nii.gz", tmp_path / "sub-01_seg_T1w.nii.gz")
    refs = find_plain_scans([tmp_path])
    assert [ref.image.name for ref in refs] == ["sub-gt05_T1w.nii.gz"]


def test_skipped_files_of_folder_are_logged(tmp_path, caplog):
    files = ("a_T1.NII", "b_T1.nii", "segovia_T1.nii", "b_T1_post.nii", "b_MRA.nii")
    touch(*(tmp_path / name for name in files))
    assert names_of(find_plain_scans([tmp_path], "T1w")) == ["a_T1", "b_T1"]
    message = (
        "1 image file(s) skipped, masks by their names: segovia_T1.nii; to include them, list"
    )
    assert message in caplog.text
    assert "2 image file(s) skipped" in caplog.text
    assert "b_MRA.nii, b_T1_post.nii" in caplog.text


def test_modality_selects_in_folder(tmp_path):
    touch(*(tmp_path / "p1" / name for name in ("T1.nii", "T1POST.nii", "T2.nii", "FLAIR.nii")))
    assert names_of(find_plain_scans([tmp_path], "T2w")) == ["p1_T2"]
    assert names_of(find_plain_scans([tmp_path], "T1w")) == ["p1_T1"]
    with pytest.raises(InputError, match="holds T1w and T2w and FLAIR; give `modality`"):
        find_plain_scans([tmp_path])


@pytest.mark.parametrize(
    "name",
    [
        "T1_post",
        "T1_Gd",
        "t1_ce",
        "T1_C+",
        "T1+C_brain",
        "p1_gadolinium_T1",
        "T1-Gadovist",
        "mprage_T1_KM_postcontrast",
        "sub-1_ce-gadolinium_T1w",
        "sub-1_acq-postGd_T1w",
        "sub-1_part-phase_T2w",
        "sub-1_part-real_T1w",
    ],
)
def test_agent_and_phase_are_neither_scan_nor_t1(tmp_path, name):
    names = (name, "sub-1_FLAIR", "p1_FLAIR")
    touch(*(tmp_path / "f" / f"{name}.nii" for name in names))
    assert [(ref.name, ref.t1) for ref in find_plain_scans([tmp_path / "f"])] == [
        ("p1_FLAIR", None),
        ("sub-1", None),
    ]
    if name.startswith("sub-"):
        root = make_bids(tmp_path / "ds", f"sub-1/anat/{name}.nii")
        with pytest.raises(InputError, match=r"no T.w scan in this BIDS dataset"):
            find_plain_scans([root], name[-3:])


def test_files_are_named_below_their_common_folder(tmp_path):
    a, b, other = (tmp_path / name for name in ("a/T1.nii", "b/T1.nii.gz", "b/other.nii"))
    touch(a, b, other)
    assert names_of(find_plain_scans([a])) == ["T1"]
    assert names_of(find_plain_scans([b, other])) == ["T1", "other"]
    assert names_of(find_plain_scans([a, b])) == ["a_T1", "b_T1"]


def test_modality_selects_files_and_lines(tmp_path, caplog):
    named = [
        tmp_path / f"p{number}_{kind}.nii"
        for number in (1, 2)
        for kind in ("T1", "T1ce", "T2", "FLAIR")
    ]
    unnamed = tmp_path / "p3.nii"
    touch(*named, unnamed)
    assert names_of(find_plain_scans([*named, unnamed], "T1w")) == ["p1_T1", "p2_T1", "p3"]
    message = "6 scan(s) skipped, not T1w by their names: p1_FLAIR.nii, p1_T1ce.nii, p1_T2.nii"
    assert message in caplog.text
    rows = "".join(f"{path.stem},{path.name}\n" for path in [*named, unnamed])
    listed = make_manifest(tmp_path, f"subject,image\n{rows}")
    assert names_of(find_plain_scans([listed], "FLAIR")) == ["p1_FLAIR", "p2_FLAIR", "p3"]
    assert len(find_plain_scans([listed])) == len(find_plain_scans([*named, unnamed])) == 9
    message = "indicate FLAIR and T2w, none of which is `modality='T1w'`; give scans"
    with pytest.raises(InputError, match=message):
        find_plain_scans([named[2], named[3]], "T1w")


def test_modality_overrides_names_that_agree(tmp_path):
    files = [tmp_path / name for name in ("a_FLAIR.nii", "b_FLAIR.nii", "c.nii", "a_T1ce.nii")]
    touch(*files)
    assert names_of(find_plain_scans(files[:1], "T1w")) == ["a_FLAIR"]
    assert names_of(find_plain_scans(files[3:], "T1w")) == ["a_T1ce"]
    assert names_of(find_plain_scans(files[:3], "T1w")) == ["a_FLAIR", "b_FLAIR", "c"]
    listed = make_manifest(tmp_path, "subject,image\na,a_FLAIR.nii\nc,c.nii\n")
    assert names_of(find_plain_scans([listed], "T1w")) == ["a", "c"]


def test_other_inputs_are_refused_by_name(tmp_path):
    touch(tmp_path / "brain_mask.nii", tmp_path / "scan.png", tmp_path / "empty" / "notes.txt")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    cases = {
        "brain_mask.nii": "by its name a mask",
        "scan.png": "not a scan file",
        "empty": "no NIfTI scan",
        "gone": "no such file or folder",
        "IM0001": "give the folder that holds its series",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            find_plain_scans([tmp_path / name])
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(InputError, match="no input"):
        find_plain_scans([])
    with pytest.raises(InputError, match="`modality='T1'`: not known; choose one of T1w, T2w, FL"):
        find_plain_scans([tmp_path], "T1")


def test_shared_names_are_prefixed_by_dataset(tmp_path):
    one = make_bids(
        tmp_path / "one", "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"
    )
    two = make_bids(tmp_path / "two", "sub-01/anat/sub-01_T1w.nii.gz")
    other = make_bids(tmp_path / "other", "sub-03/anat/sub-03_T1w.nii.gz")
    refs = find_plain_scans([one, two, other], "T1w")
    assert [(ref.dataset, ref.name) for ref in refs] == [
        ("one", "one__sub-01"),
        ("one", "one__sub-02"),
        ("two", "two__sub-01"),
        ("other", "sub-03"),
    ]
    again = make_bids(tmp_path / "elsewhere" / "one", "sub-01/anat/sub-01_T1w.nii.gz")
    inner = make_bids(one / "derivatives" / "prep", "sub-01/anat/sub-01_T1w.nii.gz")
    for inputs in ([one, again], [one, inner], [one, one], [one, one / "sub-01" / "anat"]):
        with pytest.raises(InputError, match="two scans are both named sub-01"):
            find_plain_scans(inputs, "T1w")


def test_prefix_changes_neither_person_nor_split():
    assert person_code("two", "two__sub-01") == person_code("two", "sub-01")
    assert person_code("two", "sub-01") != person_code("one", "sub-01")
    assert person_code("site", "site_01") != person_code("site", "01")
    for name in map(str, range(30)):
        assert split_of("two", f"two__{name}") == split_of("two", name)


@pytest.mark.parametrize(
    ("image", "others", "t1"),
    [
        ("sub-1_T2w", ["sub-1_T1w"], "sub-1_T1w"),
        ("sub-1_ses-2_T2w", ["sub-1_ses-1_T1w", "sub-1_ses-2_run-1_T1w"], "sub-1_ses-2_run-1_T1w"),
        ("sub-1_ses-2_FLAIR", ["sub-1_ses-1_T1w"], None),
        ("sub-1_inplaneT2", ["sub-1_T1w", "sub-10_T1w"], "sub-1_T1w"),
        ("IXI012-T2", ["IXI012-T1", "IXI013-T1"], "IXI012-T1"),
        ("p1_flair", ["p1_t1ce", "p2_t1"], None),
        ("scan", ["other"], None),
        ("sub-1_FLAIR", ["sub-1_space-MNI152NLin2009cAsym_desc-preproc_T1w"], None),
    ],
)
def test_t1_of_same_session(tmp_path, image, others, t1):
    touch(*(tmp_path / f"{name}.nii.gz" for name in (image, *others)))
    expected = None if t1 is None else tmp_path / f"{t1}.nii.gz"
    scan = tmp_path / f"{image}.nii.gz"
    assert t1s_by_session(tmp_path).get(("", *session_key(scan))) == expected
    (ref,) = find_plain_scans([scan])
    assert ref.t1 == expected


def test_t1_of_another_format_is_used_if_there_is_no_nifti(tmp_path):
    touch(tmp_path / "FLAIR.mgz", tmp_path / "T1.mgz")
    (ref,) = find_plain_scans([tmp_path / "FLAIR.mgz"])
    assert ref.t1 == tmp_path / "T1.mgz"
    touch(tmp_path / "T1.nii.gz")
    (ref,) = find_plain_scans([tmp_path / "FLAIR.mgz"])
    assert ref.t1 == tmp_path / "T1.nii.gz"


def test_t1_in_the_space_of_the_scan_comes_first(tmp_path):
    names = [f"sub-1_space-{space}_T1w" for space in ("A", "B")]
    touch(*(tmp_path / f"{name}.nii.gz" for name in (*names, "sub-1_T1w")))
    for space, t1 in (("B", names[1]), ("C", "sub-1_T1w")):
        scan = tmp_path / f"sub-1_space-{space}_FLAIR.nii.gz"
        touch(scan)
        (ref,) = find_plain_scans([scan])
        assert ref.t1 == tmp_path / f"{t1}.nii.gz"


def test_bidsignore_of_the_raw_data_is_not_for_its_derivatives(tmp_path, monkeypatch):
    root = make_bids(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_FLAIR.nii.gz")
    (root / ".bidsignore").write_text("derivatives/\n*_T1w.nii.gz\n")
    derived = root / "derivatives" / "x" / "sub-1" / "anat"
    touch(derived / "sub-1_T1w.nii.gz", derived / "sub-1_FLAIR.nii.gz")
    (ref,) = find_plain_scans([derived / "sub-1_FLAIR.nii.gz"])
    assert ref.t1 == derived / "sub-1_T1w.nii.gz"
    monkeypatch.chdir(root / "sub-1" / "anat")
    (ref,) = find_plain_scans([Path("sub-1_FLAIR.nii.gz")])
    assert ref.t1 is None


def test_t1_that_bidsignore_lists_is_not_used(tmp_path):
    root = make_bids(tmp_path, "sub-1/anat/sub-1_T1w.nii.gz", "sub-1/anat/sub-1_FLAIR.nii.gz")
    (ref,) = find_plain_scans([root], "FLAIR")
    assert ref.t1 == root / "sub-1/anat/sub-1_T1w.nii.gz"
    (root / ".bidsignore").write_text("*_T1w.nii.gz\n")
    (ref,) = find_plain_scans([root], "FLAIR")
    assert ref.t1 is None


def test_t1_of_missing_folder_is_none(tmp_path):
    assert t1s_by_session(tmp_path / "gone") == {}


def test_real_folders(shared_data):
    assert len(find_plain_scans([shared_data / "ds002748"])) == 60
    assert len(find_plain_scans([shared_data / "ds000011"])) == 14
    flair = find_plain_scans([shared_data / "lgg" / "flair.csv"])
    counts = [sum(ref.split == split for ref in flair) for split in ("train", "val", "test")]
    assert counts == [48, 10, 20]
    assert names_of(find_plain_scans([shared_data / "mslub"], "T1w")) == ["patient07_T1"]
    assert len(find_plain_scans([shared_data / "lgg"], "FLAIR")) == 78
