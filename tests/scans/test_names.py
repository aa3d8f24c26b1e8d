import logging
import unicodedata
from pathlib import Path

import pytest

from maediff.core.errors import InputError
from maediff.scans.names import (
    NOT_SCANS,
    contrast_from_name,
    is_nifti,
    nifti_stem,
    relative_name,
    select_contrast,
    session_key,
    split_bids_name,
)


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("BraTS-GLI-00000-000-t1n", "T1w"),
        ("IXI012-HH-1211-T2", "T2w"),
        ("scan_t1ce", "other"),
        ("start1", None),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("p1_t2_space_dark-fluid_sag_p2_iso", "FLAIR"),
        ("darkfluid", "FLAIR"),
        ("p1_T2_star", "other"),
        ("p1_T1_map", "other"),
        ("T1rho", "other"),
        ("T1_perf", "other"),
        ("T1W_3D_TFE_KM", "other"),
        ("KM_T1", "T1w"),
        ("T2_starr", "T2w"),
    ],
)
def test_last_word_decides_contrast(name, contrast):
    assert contrast_from_name(Path(f"{name}.nii.gz")) == contrast


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
        # an agent that the name denies and states
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
def test_contrast_agent_and_phase_are_other(name):
    assert contrast_from_name(Path(f"{name}.nii.gz")) == "other"


@pytest.mark.parametrize(
    "name",
    [
        # a denied agent
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
        # time points and people
        "sub-1_ses-post_T1w",
        "sub-post_T1w",
        "sub-1_part-mag_T1w",
        "post_T1",
        "GD_T1",
        "delgado_T1w",
        "ce01_T1",
    ],
)
def test_denied_agent_time_point_and_person_are_plain(name):
    assert contrast_from_name(Path(f"{name}.nii.gz")) == "T1w"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("sub-01_ses-2_run-1_T1w.nii.gz", ("sub-01", "ses-2_run-1")),
        ("sub-01_T1w.NII", ("sub-01", "")),
        ("sub-02_T1w_defaced.nii.gz", None),
        ("sub-02_acq-hi-res_T1w.nii", None),
        ("01_T1w.nii", None),
    ],
)
def test_bids_name_is_split(name, parts):
    assert split_bids_name(Path(name)) == parts


def test_session_key_is_shared_by_contrasts_of_one_session():
    keys = [
        session_key(Path(name))
        for name in ("sub-1_ses-2_run-1_T1w.nii", "sub-1_ses-2_FLAIR.nii", "sub-1_ses-3_T1w.nii")
    ]
    assert keys[0] == keys[1] == ("sub-1", "ses-2")
    assert keys[2] == ("sub-1", "ses-3")
    assert session_key(Path("p1_T1.nii")) == session_key(Path("p1_FLAIR.nii")) == ("p1",)
    assert session_key(Path("p1_T2_FLAIR.nii")) == session_key(Path("T1w.p1.nii")) == ("p1",)
    assert session_key(Path("p1_t1_T1.nii")) == session_key(Path("p1_t1_FLAIR.nii"))
    assert session_key(Path("p1_t1_FLAIR.nii")) != session_key(Path("p1_t2_T1.nii"))
    assert session_key(Path("T1.nii")) == session_key(Path("FLAIR.nii")) == ()
    assert session_key(Path("Müller_T1.nii")) != session_key(Path("Möller_T1.nii"))
    assert session_key(Path("张三_T1.nii")) == session_key(Path("张三_FLAIR.nii")) == ("张三",)
    decomposed = unicodedata.normalize("NFD", "Müller_FLAIR.nii")  # as on macOS
    assert session_key(Path(decomposed)) == session_key(Path("Müller_T1.nii"))


def test_suffix_and_masks_by_name():
    assert is_nifti(Path("A.NII.GZ"))
    assert not is_nifti(Path("a.mgz"))
    assert nifti_stem(Path("a.b.Nii.gz")) == "a.b"
    assert relative_name(Path("in/p1/T1.nii"), Path("in")) == "p1_T1"
    for name in ("brain_mask", "T1_SEG", "consensus_gt", "GT"):
        assert NOT_SCANS.search(name)
    for name in ("Segura_T1", "sagT1", "T2gt2"):
        assert not NOT_SCANS.search(name)


def test_contrast_is_selected_among_named_scans(caplog):
    contrasts = {Path("a"): "T1w", Path("b"): "FLAIR", Path("c"): None}
    assert select_contrast(Path("in"), contrasts, None) == set(contrasts)
    assert select_contrast(Path("in"), contrasts, "T1w") == {Path("a"), Path("c")}
    assert "in: 1 scan(s) skipped, not T1w by their names: b;" in caplog.text
    with pytest.raises(InputError, match="in: the file names indicate FLAIR and T1w, none of"):
        select_contrast(Path("in"), contrasts, "T2w")


def test_modality_overrides_names_that_agree(caplog):
    caplog.set_level(logging.DEBUG)
    contrasts = {Path("a"): "FLAIR", Path("b"): "FLAIR", Path("c"): None}
    assert select_contrast(Path("in"), contrasts, "T1w") == set(contrasts)
    assert not caplog.text
