import pytest

from maediff.scans.contrast import contrast_from_text, remove_denied_agents


@pytest.mark.parametrize(
    ("text", "contrast"),
    [
        ("t1_mprage_sag_p2_iso", "T1w"),
        ("sT1W_3D_TFE", "T1w"),
        ("SAG BRAVO", "T1w"),
        ("AX T2 FSE", "T2w"),
        ("t2_tse_tra", "T2w"),
        ("AX T2 FLAIR", "FLAIR"),
        ("t2_tirm_tra_dark-fluid", "FLAIR"),
        ("Ax T1 FLAIR", None),
        ("T2*_GRE", "other"),
        ("AX T2 GRE", "other"),
        ("t2_fl2d_tra_hemo", "other"),
        ("sT2W_FFE", "other"),
        ("AX T1 SUB", "other"),
        ("t1_mp2rage_sag_T1_Images", "other"),
        ("sub-01 T1 GRE", "T1w"),
        ("t1_mprage_post gd", "other"),
        ("AX T1 +C", "other"),
        ("ep2d_diff_trace", "other"),
        ("T1 map", "other"),
        ("brain", None),
        ("T10", None),
        ("", None),
        ("PD TSE", "other"),
        ("T1 C+", "other"),
        ("MPRAGE_C+", "other"),
        ("AX T1 GADO", "other"),
        ("t1_mprage_gadolinium", "other"),
        ("T1 postcontrast", "other"),
        ("T1 POSTGAD", "other"),
        ("T1 mit Kontrast", "other"),
        ("T1GD", "other"),
        ("SAG T1 DOTAREM", "other"),
        ("t1 posterior fossa", "T1w"),
        ("AX T1 WITHOUT CONTRAST", "T1w"),
        ("T1 PRE CONTRAST", "T1w"),
        ("SAG T1 W/O CONTRAST", "T1w"),
        ("T1_MPRAGE_NON-CONTRAST", "T1w"),
        ("AX T1 PRE GD", "T1w"),
        ("AX T1 W/O I.V. CONTRAST", "T1w"),
        ("AX T1 MRI BRAIN W/WO CONTRAST", "other"),
        ("AX T1 MRI BRAIN W/ & W/O CONTRAST", "other"),
        ("AX T1 +C MRI BRAIN W/O CONTRAST", "other"),
        ("T1 POST MRI BRAIN WITHOUT CONTRAST", "other"),
    ],
)
def test_contrast_of_description(text, contrast):
    assert contrast_from_text(text) == contrast


def test_denied_agents_are_removed_unless_text_says_with():
    assert remove_denied_agents("t1 w/o iv contrast axial").split() == ["t1", "axial"]
    assert remove_denied_agents("brain w wo contrast") == "brain w wo contrast"
