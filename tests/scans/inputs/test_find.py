from pathlib import Path

import pytest

from maediff.cohort.splits import person_code, split_of
from maediff.core.errors import InputError
from maediff.scans.inputs.find import find_scans
from maediff.scans.names import contrast_from_name


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names(refs):
    return [ref.name for ref in refs]


def bids(root: Path, *files: str) -> Path:
    touch(root / "dataset_description.json", *(root / file for file in files))
    return root


def manifest(root: Path, text: str, *files: str) -> Path:
    touch(*(root / file for file in files))
    (root / "scans.csv").write_text(text, encoding="utf-8")
    return root / "scans.csv"


def test_a_bids_dataset_by_suffix_with_sessions_apart(tmp_path):
    root = bids(
        tmp_path / "ds1",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_FLAIR.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_run-2_T1w.nii",
        "sub-02/ses-b/anat/sub-02_ses-b_desc-brain_mask.nii.gz",
        "derivatives/x/sub-01/sub-01_T1w.nii.gz",
    )
    refs = find_scans([root], "T1w")
    assert names(refs) == ["sub-01", "sub-02_ses-a", "sub-02_ses-b_run-2"]
    assert [ref.subject for ref in refs] == ["sub-01", "sub-02", "sub-02"]
    assert {(ref.dataset, ref.modality, ref.healthy) for ref in refs} == {("ds1", "T1w", None)}
    assert names(find_scans([root], "FLAIR")) == ["sub-01"]
    with pytest.raises(
        InputError, match="holds T1w and FLAIR; give `modality` \\(T1w or FLAIR\\)"
    ):
        find_scans([root])
    with pytest.raises(
        InputError, match=r"no T2w scan in this BIDS dataset \(it has FLAIR, T1w, mask\)"
    ):
        find_scans([root], "T2w")


def test_a_folder_leaves_masks_and_hidden_files_out_and_names_by_relative_path(tmp_path):
    touch(
        *(
            tmp_path / name
            for name in (
                "p1/T1.nii.gz",
                "p1/lesion_mask.nii.gz",
                "p2/T1.nii",
                "p2/T1_SEG.nii",
                "p2/consensus_gt.nii",
                ".hidden/T1.nii",
                "p2/notes.txt",
                "flat.nii",
                "p4/image.nii.gz",
                "p4/image.json",  # a sidecar; what maediff wrote has its marker above it
                "p2/sub-7_ses-1_T1w.nii.gz",
            )
        )
    )
    refs = find_scans([tmp_path])
    assert names(refs) == ["flat", "p1_T1", "p2_T1", "sub-7_ses-1", "p4_image"]
    assert (
        refs[0].modality is None and refs[1].modality == "T1w" and refs[0].dataset == tmp_path.name
    )


def test_what_maediff_wrote_into_the_folder_is_not_taken_for_scans(tmp_path):
    touch(
        tmp_path / "T1.nii",
        tmp_path / "out" / ".maediff",
        tmp_path / "out" / "T1" / "anomaly_map.nii.gz",
    )
    assert names(find_scans([tmp_path])) == ["T1"]
    touch(tmp_path / ".maediff")  # but a folder that is named itself is read
    assert names(find_scans([tmp_path])) == ["T1"]
    touch(tmp_path / "p3" / "image.nii.gz", tmp_path / "p3" / "image.json")  # a scan of a cohort
    assert names(find_scans([tmp_path])) == ["T1"]


def test_folders_behind_links_are_entered_and_none_of_them_twice(tmp_path):
    touch(
        tmp_path / "store" / "T1.nii",
        tmp_path / "in" / "p2" / "T1.nii",
        tmp_path / "store" / "deep" / "T2.nii",
    )
    (tmp_path / "in" / "a").symlink_to(tmp_path / "in" / "p2")  # another name for what is there
    (tmp_path / "in" / "p1").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "deep" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / ".hidden").symlink_to(tmp_path)
    assert names(find_scans([tmp_path / "in"], "T1w")) == ["p1_T1", "p2_T1"]
    assert names(find_scans([tmp_path / "in"], "T2w")) == ["p1_deep_T2"]
    touch(tmp_path / "store" / ".maediff")
    assert names(find_scans([tmp_path / "in"], "T1w")) == ["p2_T1"]


def test_a_link_that_leads_nowhere_fails_by_name(tmp_path):
    root = bids(tmp_path / "ds", "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    gone = root / "sub-02" / "anat" / "sub-02_T1w.nii.gz"
    gone.unlink()
    gone.symlink_to("../../.git/annex/objects/x")
    (tmp_path / "ds" / "notes.txt").symlink_to("nowhere")
    for given in (
        [root],
        [root / "sub-01", root / "sub-02"],
        [root / "sub-01" / "anat" / "sub-01_T1w.nii.gz", gone],
    ):
        first, second = find_scans(given, "T1w")
        assert (first.name, first.problem, second.name) == ("sub-01", None, "sub-02")
        assert second.problem and second.problem.startswith(
            f"{gone}: broken link, its content is not there; run `datalad get`"
        )
    with pytest.raises(
        InputError, match=r"sub-02_T1w\.nii\.gz: broken link, its content is not there"
    ):
        find_scans([root / "sub-02"])


def test_what_is_left_out_is_named_and_the_case_of_an_ending_counts_for_nothing(tmp_path, caplog):
    root = bids(
        tmp_path / "ds",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-01/anat/sub-01_ce-gadolinium_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w_defaced.nii.gz",
        "sub-03/anat/sub-03_T1w.NII.GZ",
    )
    assert names(find_scans([root])) == ["sub-01", "sub-03"]
    assert "1 NIfTI file(s) skipped, their names are no BIDS names" in caplog.text
    assert (
        "sub-02_T1w_defaced.nii.gz" in caplog.text
        and "sub-01_ce-gadolinium_T1w.nii.gz" in caplog.text
    )
    caplog.clear()
    touch(
        *(
            tmp_path / "f" / name
            for name in ("a_T1.NII", "b_T1.nii", "segovia_T1.nii", "b_T1_post.nii", "b_MRA.nii")
        )
    )
    assert names(find_scans([tmp_path / "f"], "T1w")) == ["a_T1", "b_T1"]
    assert (
        "1 NIfTI file(s) skipped, masks by their names: segovia_T1.nii; to include them, list them in a manifest CSV"
        in caplog.text
    )
    assert "2 NIfTI file(s) skipped" in caplog.text and "b_MRA.nii, b_T1_post.nii" in caplog.text


def test_contrasts_in_a_folders_file_names(tmp_path):
    touch(*(tmp_path / "p1" / name for name in ("T1.nii", "T1POST.nii", "T2.nii", "FLAIR.nii")))
    assert names(find_scans([tmp_path], "T2w")) == ["p1_T2"]
    assert names(find_scans([tmp_path], "T1w")) == ["p1_T1"]
    with pytest.raises(InputError, match="holds T1w and T2w and FLAIR; give `modality`"):
        find_scans([tmp_path])
    assert contrast_from_name(Path("BraTS-GLI-00000-000-t1n.nii.gz")) == "T1w"
    assert contrast_from_name(Path("IXI012-HH-1211-T2.nii.gz")) == "T2w"
    assert contrast_from_name(Path("scan_t1ce.nii.gz")) == "other"
    assert contrast_from_name(Path("start1.nii")) is None


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
def test_a_contrast_agent_or_a_phase_is_no_plain_scan(tmp_path, name):
    assert contrast_from_name(Path(f"{name}.nii.gz")) == "other"
    touch(
        tmp_path / "f" / f"{name}.nii",
        tmp_path / "f" / "sub-1_FLAIR.nii",
        tmp_path / "f" / "p1_FLAIR.nii",
    )
    assert [(ref.name, ref.t1) for ref in find_scans([tmp_path / "f"])] == [
        ("p1_FLAIR", None),
        ("sub-1", None),
    ]
    if name.startswith("sub-"):
        root = bids(tmp_path / "ds", f"sub-1/anat/{name}.nii")
        with pytest.raises(InputError, match=r"no T.w scan in this BIDS dataset"):
            find_scans([root], name[-3:])


@pytest.mark.parametrize(
    "name",
    [
        "p_no_contrast_T1w",
        "p1_T1_without_contrast",
        "T1 pre contrast",
        "T1_w-o_contrast",
        "T1_wo_iv_contrast",
        "p1-non-contrast-T1",
        "T1_pre_Gd",
        "no.gadolinium.T1",
        "T1_non-enhanced",
        "T1_ohne_KM",
        "T1_with_no_contrast",
        "sub-1_acq-precontrast_T1w",
        "precontrast_T1",
    ],
)
def test_a_contrast_agent_that_is_denied_is_none(name):
    assert contrast_from_name(Path(f"{name}.nii.gz")) == "T1w"


@pytest.mark.parametrize(
    "name",
    [
        "T1_pre_and_post_contrast",
        "T1_w_wo_contrast",
        "T1_with_and_without_contrast",
        "T1_without_and_with_contrast",
        "T1_pre_contrast_post_contrast",
        "T1_with_contrast",
        "T1_pre_contrast_post",
        "no_motion_T1_contrast",
    ],
)
def test_a_contrast_agent_that_is_denied_and_said_stays_one(name):
    assert contrast_from_name(Path(f"{name}.nii.gz")) == "other"


@pytest.mark.parametrize(
    "name",
    [
        "sub-1_ses-post_T1w",
        "sub-post_T1w",
        "sub-1_part-mag_T1w",
        "post_T1",
        "GD_T1",
        "delgado_T1w",
        "ce01_T1",
    ],
)
def test_a_time_point_or_a_person_is_no_contrast_agent(name):
    assert contrast_from_name(Path(f"{name}.nii.gz")) == "T1w"


def test_files_are_named_as_shortly_as_their_common_folder_allows(tmp_path):
    touch(tmp_path / "a" / "T1.nii", tmp_path / "b" / "T1.nii.gz", tmp_path / "b" / "other.nii")
    assert names(find_scans([tmp_path / "a" / "T1.nii"])) == ["T1"]
    assert names(find_scans([tmp_path / "b" / "T1.nii.gz", tmp_path / "b" / "other.nii"])) == [
        "T1",
        "other",
    ]
    assert names(find_scans([tmp_path / "a" / "T1.nii", tmp_path / "b" / "T1.nii.gz"])) == [
        "a_T1",
        "b_T1",
    ]


def test_modality_chooses_among_named_files_and_a_manifests_lines(tmp_path, caplog):
    told = [
        tmp_path / f"p{number}_{kind}.nii"
        for number in (1, 2)
        for kind in ("T1", "T1ce", "T2", "FLAIR")
    ]
    untold = tmp_path / "p3.nii"
    touch(*told, untold)
    assert names(find_scans([*told, untold], "T1w")) == ["p1_T1", "p2_T1", "p3"]
    assert (
        "6 scan(s) skipped, not T1w by their names: p1_FLAIR.nii, p1_T1ce.nii, p1_T2.nii"
        in caplog.text
    )
    rows = "".join(f"{path.stem},{path.name}\n" for path in [*told, untold])
    listed = manifest(tmp_path, f"subject,image\n{rows}")
    assert names(find_scans([listed], "FLAIR")) == ["p1_FLAIR", "p2_FLAIR", "p3"]
    assert len(find_scans([listed])) == len(find_scans([*told, untold])) == 9
    with pytest.raises(
        InputError,
        match="indicate FLAIR and T2w, none of which is `modality='T1w'`; give scans of one contrast",
    ):
        find_scans([told[2], told[3]], "T1w")


def test_modality_overrides_names_that_agree(tmp_path):
    touch(*(tmp_path / name for name in ("a_FLAIR.nii", "b_FLAIR.nii", "c.nii", "a_T1ce.nii")))
    paths = sorted(tmp_path.iterdir())
    assert names(find_scans([tmp_path / "a_FLAIR.nii"], "T1w")) == ["a_FLAIR"]
    assert names(find_scans([tmp_path / "a_T1ce.nii"], "T1w")) == ["a_T1ce"]
    assert names(find_scans([path for path in paths if "ce" not in path.name], "T1w")) == [
        "a_FLAIR",
        "b_FLAIR",
        "c",
    ]
    assert names(
        find_scans([manifest(tmp_path, "subject,image\na,a_FLAIR.nii\nc,c.nii\n")], "T1w")
    ) == ["a", "c"]


def test_a_manifest_with_everything(tmp_path):
    path = manifest(
        tmp_path / "study",
        "subject,session,image,brain_mask,lesion_mask,split,healthy,dataset,lesion_kind\n"
        "anna,1,a.nii,b.nii,l.nii,val,0,site A,bright\nanna,2,c.nii,,,val,1,site A,\nbert,,d.nii,,,,,,\n",
        "a.nii",
        "b.nii",
        "l.nii",
        "c.nii",
        "d.nii",
    )
    first, second, third = find_scans([path])
    assert (first.name, second.name, third.name) == ("anna_1", "anna_2", "bert")
    assert (
        first.brain_mask == tmp_path / "study" / "b.nii"
        and first.lesion_mask == tmp_path / "study" / "l.nii"
    )
    assert (first.split, first.healthy, first.dataset) == ("val", False, "site A")
    assert first.extra == {"lesion_kind": "bright"}
    assert second.healthy is True and second.brain_mask is None
    assert (third.split, third.healthy, third.dataset, third.healthy_is_stated) == (
        None,
        None,
        "study",
        True,
    )


def test_the_smallest_manifest_with_a_byte_order_mark_and_spaces(tmp_path):
    (ref,) = find_scans(
        [manifest(tmp_path, "\ufeffsubject, image\n Zoë , my scan.nii\n", "my scan.nii")]
    )
    assert (
        ref.name == "Zoë" and ref.image == tmp_path / "my scan.nii" and not ref.healthy_is_stated
    )


@pytest.mark.parametrize(
    ("text", "says"),
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
    ],
)
def test_a_bad_manifest_is_refused_by_name(tmp_path, text, says):
    with pytest.raises(InputError, match=says) as caught:
        find_scans([manifest(tmp_path, text, "a.nii", "b.nii")])
    assert str(tmp_path) in str(caught.value)


def test_what_is_no_scan_is_refused_by_name(tmp_path):
    touch(tmp_path / "brain_mask.nii", tmp_path / "scan.png", tmp_path / "empty" / "notes.txt")
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    cases = {
        "brain_mask.nii": "by its name a mask",
        "scan.png": "not a NIfTI file",
        "empty": "no NIfTI scan",
        "gone": "no such file or folder",
        "IM0001": "give the folder that holds its series",
    }
    for name, says in cases.items():
        with pytest.raises(InputError, match=says) as caught:
            find_scans([tmp_path / name])
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(InputError, match="no input"):
        find_scans([])
    with pytest.raises(
        InputError, match="`modality='T1'`: not known; choose one of T1w, T2w, FLAIR"
    ):
        find_scans([tmp_path], "T1")


def test_data_sets_that_share_names_are_told_apart_and_a_person_stays_who_he_is(tmp_path):
    one = bids(tmp_path / "one", "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    two = bids(tmp_path / "two", "sub-01/anat/sub-01_T1w.nii.gz")
    other = bids(tmp_path / "other", "sub-03/anat/sub-03_T1w.nii.gz")
    assert [(ref.dataset, ref.name) for ref in find_scans([one, two, other], "T1w")] == [
        ("one", "one__sub-01"),
        ("one", "one__sub-02"),
        ("two", "two__sub-01"),
        ("other", "sub-03"),
    ]
    assert (
        person_code("two", "two__sub-01")
        == person_code("two", "sub-01")
        != person_code("one", "sub-01")
    )
    assert person_code("site", "site_01") != person_code("site", "01")
    assert all(
        split_of("two", f"two__{name}") == split_of("two", name) for name in map(str, range(30))
    )
    again = bids(tmp_path / "elsewhere" / "one", "sub-01/anat/sub-01_T1w.nii.gz")
    inner = bids(one / "derivatives" / "prep", "sub-01/anat/sub-01_T1w.nii.gz")
    for maybe_the_same in ([one, again], [one, inner], [one, one], [one, one / "sub-01" / "anat"]):
        with pytest.raises(InputError, match="two scans are both named sub-01"):
            find_scans(maybe_the_same, "T1w")
    twice = "subject,image,dataset,split\none__sub-01,a.nii,one,train\nsub-01,b.nii,one,test\n"
    touch(tmp_path / "m" / "a.nii", tmp_path / "m" / "b.nii")
    table = manifest(tmp_path / "m", twice)
    with pytest.raises(InputError, match="one person belongs to one split"):
        find_scans([table], "T1w")


def test_the_real_folders_are_understood(shared_data):
    assert len(find_scans([shared_data / "ds002748"])) == 60
    assert len(find_scans([shared_data / "ds000011"])) == 14
    flair = find_scans([shared_data / "lgg" / "flair.csv"])
    assert [sum(ref.split == split for ref in flair) for split in ("train", "val", "test")] == [
        48,
        10,
        20,
    ]
    assert names(find_scans([shared_data / "mslub"], "T1w")) == ["patient07_T1"]
    assert len(find_scans([shared_data / "lgg"], "FLAIR")) == 78
