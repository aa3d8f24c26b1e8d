"""DICOM folders: the same volume as from NIfTI, one series asked for among several, refusals by name."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, RLELossless, generate_uid

from helpers.brains import made_brain, oblique, save
from helpers.dicom import SECRETS, write_series
from helpers.options import QUIET, RESUME
from maediff.cohort.preprocess import preprocess
from maediff.core.errors import InputError
from maediff.scans.contrast import contrast_from_text
from maediff.scans.dicom.series import find_series
from maediff.scans.dicom.studies import find_dicom
from maediff.scans.inputs.find import find_scans
from maediff.scans.nifti import read_nifti
from maediff.scans.read import fingerprint, read_volume
from maediff.scans.reference import ScanRef, remove_folders


@pytest.fixture
def volume():
    data, _, affine = made_brain(shape=(22, 26, 12), spacing=(6.0, 6.5, 7.0))
    return np.round(data), affine


def read_all(folder, **kwargs):
    return [read_volume(ref) for ref in find_dicom(folder, **kwargs)]


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_same_volume_as_from_nifti(volume, tmp_path, plane, turned):
    data, affine = volume
    affine = oblique(affine) if turned else affine
    write_series(tmp_path / "dicom", data, affine, plane)
    expected = read_nifti(save(tmp_path / "scan.nii.gz", data, affine))
    (found,) = read_all(tmp_path / "dicom")
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-3)
    assert found.source == tmp_path / "dicom"


def test_file_names_and_folders_change_nothing_and_rle_is_read(volume, tmp_path):
    data, affine = volume
    files = write_series(
        tmp_path / "a" / "s", data, affine, "sagittal", seed=1, compress=RLELossless
    )
    (tmp_path / "a" / "t").mkdir()
    for file in files[::2]:
        file.rename(tmp_path / "a" / "t" / (file.name + ".dcm"))
    (tmp_path / "a" / "DICOMDIR").write_bytes(b"x")
    (tmp_path / "a" / "notes.txt").write_text("x")
    (ref,) = find_dicom(tmp_path / "a")
    assert (ref.name, ref.modality, ref.dataset, ref.image) == ("a", "T1w", "a", tmp_path / "a")
    np.testing.assert_array_equal(read_volume(ref).data, data)


def test_subjects_are_named_by_folders_and_a_persons_studies_are_sessions(volume, tmp_path):
    data, affine = volume
    root = tmp_path / "Köln Studie"
    write_series(root / "Änne Ö" / "visit 1", data, affine)
    write_series(root / "Änne Ö" / "visit 2", data, affine)
    write_series(root / "bert" / "x" / "y", data, affine, PatientID="other")
    refs = find_scans([root])
    assert [ref.name for ref in refs] == ["bert_x_y", "Änne Ö_visit 1", "Änne Ö_visit 2"]
    assert [ref.subject for ref in refs] == ["bert_x_y", "Änne Ö", "Änne Ö"]
    np.testing.assert_array_equal(read_volume(refs[2]).data, data)


def study(folder, volume, *described, **header):
    uid = generate_uid()
    for number, text in enumerate(described, start=1):
        write_series(
            folder / f"s{number}",
            *volume,
            StudyInstanceUID=uid,
            SeriesNumber=number,
            SeriesDescription=text,
            **header,
        )


def test_several_series_are_listed_and_one_is_asked_for(volume, tmp_path):
    study(
        tmp_path / "p", volume, "t1_mprage", "t2_flair_tra", "ep2d_diff_adc", "my scan", "t2_tse"
    )
    write_series(
        tmp_path / "p" / "scout",
        volume[0][:, :, :2],
        volume[1],
        SeriesNumber=9,
        StudyInstanceUID=find_series(tmp_path / "p")[0].study,
    )
    with pytest.raises(
        InputError,
        match=r"give `series` \(number or UID\), or `modality` \(T1w, T2w or FLAIR\):\n",
    ) as caught:
        find_dicom(tmp_path / "p")
    said = str(caught.value)
    assert "series 2: t2_flair_tra (MR, FLAIR, 12 images, UID " in said
    assert "series 4: my scan (MR, contrast not stated, 12 images" in said
    assert not any(secret in said for secret in SECRETS.values())
    for modality, folder in {"T1w": "s1", "FLAIR": "s2", "T2w": "s5"}.items():
        (ref,) = find_dicom(tmp_path / "p", modality)
        assert (ref.name, ref.image, ref.modality) == ("p", tmp_path / "p" / folder, modality)
    (ref,) = find_dicom(tmp_path / "p", series="4")
    assert (ref.image, ref.modality) == (tmp_path / "p" / "s4", None)
    (ref,) = find_dicom(tmp_path / "p", "T1w", series=find_series(tmp_path / "p" / "s4")[0].uid)
    assert (ref.image, ref.modality) == (tmp_path / "p" / "s4", "T1w")
    with pytest.raises(
        InputError, match="`series='7'`: no such series; choose one of\n  series 1: t1_mprage"
    ):
        find_dicom(tmp_path / "p", series="7")


def test_a_contrast_that_is_not_there_or_not_told(volume, tmp_path):
    study(tmp_path / "p", volume, "t1_mprage", "t1_mprage")
    with pytest.raises(
        InputError, match=r"several series may be the scan; give `series` \(number or UID\):\n"
    ):
        find_dicom(tmp_path / "p", "T1w")
    with pytest.raises(InputError, match="no FLAIR series by the descriptions"):
        find_dicom(tmp_path / "p", "FLAIR")
    study(tmp_path / "q", volume, "ax brain")
    assert find_dicom(tmp_path / "q")[0].modality is None
    assert find_dicom(tmp_path / "q", "T2w")[0].modality == "T2w"
    with pytest.raises(InputError, match=r"give no single modality .* `modality=T1w"):
        preprocess([tmp_path / "q"], tmp_path / "out", run=QUIET)
    study(tmp_path / "r", volume, "t1_mprage", ContrastBolusAgent="Gd")
    with pytest.raises(InputError, match="no MR series that may be T1w, T2w or FLAIR"):
        find_dicom(tmp_path / "r")
    study(tmp_path / "phase", volume, "t1_fl3d", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    with pytest.raises(InputError, match="no MR series that may be T1w, T2w or FLAIR"):
        find_dicom(tmp_path / "phase")
    study(tmp_path / "ct", volume, "head", Modality="CT")
    with pytest.raises(InputError, match="no MR series"):
        find_dicom(tmp_path / "ct")
    with pytest.raises(InputError, match="CT, not MR"):
        find_dicom(tmp_path / "ct", series="1")


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
def test_the_contrast_is_guessed_only_where_the_words_leave_no_doubt(text, contrast):
    assert contrast_from_text(text) == contrast


def broken(change, plane="axial", **header):
    return lambda folder, volume: write_series(folder, *volume, plane, change=change, **header)


def without(*numbers):
    return lambda number, one: None if number in numbers else one


def changed(which, **fields):
    def change(number, one):
        for name, value in fields.items() if number == which else ():
            setattr(one, name, value)
        return one

    return change


def moved(by):
    def change(number, one):
        if number == 5:
            one.ImagePositionPatient = list(np.array(one.ImagePositionPatient, dtype=float) + by)
        return one

    return change


def undecodable(number, one):
    if number == 4:
        one.PixelData = encapsulate([b"\xff\x4f" + b"garbage!" * 50])
        one["PixelData"].is_undefined_length = True
        one.file_meta.TransferSyntaxUID = JPEG2000Lossless
    return one


def bad_rle(number, one):
    if number == 4:
        one.PixelData = encapsulate([b"\x02" + bytes(101)])
    return one


def cut_short(number, one):
    if number == 4:
        one.PixelData = one.PixelData[:300]
    return one


def two_echoes(folder, volume):
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    for echo in (1, 2):
        write_series(folder / str(echo), *volume, EchoTime=echo, **uids)


BROKEN = {
    "a slice is missing between IM.* and IM": broken(without(5)),
    "14.00 mm apart, expected 7.00 mm; 1 such gap\\)": broken(without(5)),
    "expected 7.00 mm; 5 such gaps": broken(without(1, 3, 5, 7, 9), SpacingBetweenSlices=7),
    "slices are 5.50 to 8.50 mm apart": broken(moved([0, 0, 1.5])),
    "mixed series .*two or more images at one position, as IM.* \\(echoes": two_echoes,
    "mixed series .*different directions": broken(
        changed(3, ImageOrientationPatient=[0, 1, 0, 0, 0, 1])
    ),
    "mixed series .*different sizes": broken(changed(3, PixelSpacing=[1, 1])),
    "mixed series .*on one line": broken(moved([9, 0, 0])),
    "no series or study UID": broken(changed(3, SeriesInstanceUID="")),
    "multi-frame \\(enhanced\\) DICOM \\(12 frames\\)": broken(changed(0, NumberOfFrames=12)),
    "multi-frame": broken(changed(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1")),
    "does not state where its slice is": broken(changed(2, ImagePositionPatient=None)),
    "holds no image": broken(changed(2, Rows=0)),
    "cannot be decoded \\(.*JPEG 2000.* dcm2niix ended with": broken(undecodable),
    "cannot be decoded \\(RLE": broken(bad_rle, compress=RLELossless),
    "pixel data is truncated or absent": broken(cut_short),
}


@pytest.mark.parametrize("says", BROKEN)
def test_a_broken_series_is_refused_by_name(volume, tmp_path, says):
    BROKEN[says](tmp_path / "dicom", volume)
    with pytest.raises(InputError, match=says) as caught:
        read_all(tmp_path / "dicom")
    assert str(tmp_path / "dicom") in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS.values())


def test_other_wrong_folders(volume, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.dcm").write_bytes(b"no DICOM")
    with pytest.raises(InputError, match=r"x\.dcm: cannot be read as DICOM"):
        find_scans([tmp_path / "a"])
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match="no NIfTI scan"):
        find_scans([tmp_path / "b"])
    with pytest.raises(InputError, match="no DICOM image"):
        find_dicom(tmp_path / "b")
    write_series(tmp_path / "d", *volume)
    with pytest.raises(InputError, match="`series='3'`: there is no DICOM"):
        find_scans([save(tmp_path / "T1.nii", *volume)], series="3")
    with pytest.raises(InputError, match="the series is no longer in this folder"):
        read_volume(ScanRef("x", "", tmp_path / "d", "d", series="1.2.3"))


def test_dicom_beside_nifti_is_left_out_with_a_word(volume, tmp_path, caplog):
    save(tmp_path / "in" / "a" / "T1.nii", *volume)
    write_series(tmp_path / "in" / "b", *volume)
    assert [ref.name for ref in find_scans([tmp_path / "in"])] == ["a_T1"]
    assert "in: DICOM is skipped in a folder with NIfTI, as b/IM" in caplog.text


def test_one_bad_study_fails_by_name_and_the_others_go_on(tmp_path, caplog):
    data, _, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    volume = np.round(data), affine
    root = tmp_path / "in"
    write_series(root / "good" / "s", *volume, PatientID="1")
    write_series(root / "junk" / "s", *volume, PatientID="2")
    (root / "junk" / "s" / "x.dcm").write_bytes(b"no DICOM")
    study(root / "two", volume, "t1_mprage", "t1_mprage", PatientID="3")
    study(root / "contrast", volume, "t1_mprage gd", PatientID="4")
    write_series(root / "mixed" / "v1", *volume, PatientID="5")
    write_series(root / "mixed", *volume, PatientID="5")
    (root / "empty").mkdir()
    (root / "empty" / "y.dcm").write_bytes(b"no DICOM")
    assert {
        ref.name: (ref.problem or "").partition(": ")[2][:21] for ref in find_scans([root])
    } == {
        "good_s": "",
        "junk_s": "cannot be read as DIC",
        "two": "several series may be",
        "empty": "cannot be read as DIC",
        "contrast_s1": "no MR series that may",
        "mixed": "holds several studies",
    }
    assert preprocess([root], tmp_path / "out", run=QUIET) == 5
    for name in ("junk_s", "two", "contrast_s1", "mixed", "empty"):
        assert f"{name} failed: {root / name.partition('_')[0]}" in caplog.text
    assert (
        f"two failed: {root / 'two'}: several series may be the scan; give `series`" in caplog.text
    )
    assert f"(give {root / 'two'} alone to list them)" in caplog.text
    written = (tmp_path / "out" / "qc.csv").read_text() + caplog.text
    assert not any(secret in written for secret in (*SECRETS.values(), "1.2.826"))
    assert [ref.problem is None for ref in find_scans([root / "good", root / "two"])] == [
        True,
        False,
    ]
    (tmp_path / "list.csv").write_text("subject,image\nx,in/good\ny,in/two\nz,in\n")
    listed = find_scans([tmp_path / "list.csv"])
    assert [ref.name for ref in listed if ref.problem] == ["y", "z"]
    for name in ("good", "junk", "mixed", "empty"):
        shutil.rmtree(root / name)
    with pytest.raises(
        InputError, match=r"no MR series that(.|\n)*1 more studies in .* cannot be used either"
    ):
        find_dicom(root)


def test_a_series_uid_is_for_the_study_that_holds_it(volume, tmp_path):
    study(tmp_path / "a", volume, "t1_mprage", "t1_mprage", PatientID="a")
    study(tmp_path / "b", volume, "t1_mprage", PatientID="b")
    uid = find_series(tmp_path / "a" / "s2")[0].uid
    first, second = find_scans([tmp_path], series=uid)
    assert (first.name, first.image, first.series) == ("a", tmp_path / "a" / "s2", uid)
    assert (second.name, second.problem) == ("b_s1", None)
    assert [ref.problem for ref in find_scans([tmp_path / "a", tmp_path / "b"], series=uid)] == [
        None,
        None,
    ]
    with pytest.raises(
        InputError, match=r"`series='1\.2\.3'`: no study among the inputs holds it"
    ):
        find_scans([tmp_path / "b"], series="1.2.3")


def test_without_an_id_folders_tell_people_apart(volume, tmp_path, caplog):
    for visit in ("p1/v1", "p1/v2", "p2/v1"):
        write_series(tmp_path / "none" / visit, *volume, PatientID="")
    told = [(ref.subject, ref.session) for ref in find_dicom(tmp_path / "none")]
    assert told == [("p1", "v1"), ("p1", "v2"), ("p2_v1", "")]
    write_series(tmp_path / "some" / "p1" / "v1", *volume)
    write_series(tmp_path / "some" / "p1" / "v2", *volume, PatientID="")
    assert [ref.subject for ref in find_dicom(tmp_path / "some")] == ["p1", "p1"]
    assert not caplog.text
    for name in ("p1", "p2"):
        write_series(tmp_path / "same" / name, *volume)
    assert [(ref.subject, ref.session) for ref in find_dicom(tmp_path / "same")] == [
        ("same", "p1"),
        ("same", "p2"),
    ]
    assert "same: its 2 studies share one patient ID and are in 2 folders" in caplog.text
    assert "manifest CSV" in caplog.text and not any(
        secret in caplog.text for secret in SECRETS.values()
    )


def test_what_is_wrong_is_said_of_whole_paths_though_the_folder_was_given_relatively(
    volume, tmp_path, monkeypatch
):
    """`detect` cuts a scan's own, absolute folder from what it writes: a patient's name can stand in it."""
    write_series(tmp_path / "Doe Jane" / "a", *volume, PatientID="a")
    write_series(tmp_path / "Doe Jane" / "b", *volume, PatientID="b")
    damaged = sorted((tmp_path / "Doe Jane" / "b").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:200])
    monkeypatch.chdir(tmp_path)
    (broken,) = [ref for ref in find_dicom(Path("Doe Jane")) if ref.problem]
    assert str(broken.image) in broken.problem
    assert "Doe" not in remove_folders(broken.problem, broken)


def test_several_people_in_one_folder_are_refused(volume, tmp_path):
    data, affine = volume
    write_series(tmp_path / "c", data, affine, PatientID="1")
    for file in list((tmp_path / "c").iterdir()):
        file.rename(file.with_name("first" + file.name))
    write_series(tmp_path / "c", data, affine, PatientID="2")
    with pytest.raises(InputError, match="c: holds several patients in one folder"):
        find_dicom(tmp_path / "c")
    for file in list((tmp_path / "c").glob("IM*")):
        file.unlink()
    write_series(tmp_path / "c", data, affine, PatientID="1")
    with pytest.raises(InputError, match="c: holds several studies in one folder"):
        find_dicom(tmp_path / "c")


def test_a_cohort_from_dicom_names_nobody_and_is_resumed(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    data, _, affine = made_brain(shape=(60, 72, 12), spacing=(2.0, 2.0, 7.0))
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, np.round(data), affine, PatientID=name)
    write_series(tmp_path / "in" / "c", np.round(data), affine, PatientID="c", change=without(5))
    out = tmp_path / "out"
    assert preprocess([tmp_path / "in"], out, run=QUIET) == 1
    assert "c failed" in caplog.text and "a slice is missing" in caplog.text
    written = "".join(
        p.read_text(errors="replace") for p in out.rglob("*") if p.suffix in (".json", ".csv")
    )
    names = " ".join(str(p) for p in out.rglob("*"))
    for secret in (*SECRETS.values(), "Secret", "1.2.826"):
        assert secret not in written + names + caplog.text
    read = []
    monkeypatch.setattr(
        "maediff.cohort.preprocess.read_volume",
        lambda ref: read.append(ref.name) or read_volume(ref),
    )
    assert preprocess([tmp_path / "in"], out, run=RESUME) == 1
    assert read == ["c"]


def test_the_fingerprint_changes_with_the_files_and_the_series(volume, tmp_path):
    files = write_series(tmp_path, *volume)
    before = fingerprint(tmp_path, "1.2.3")
    assert before == fingerprint(tmp_path, "1.2.3") != fingerprint(tmp_path, "1.2.4")
    files[0].unlink()
    assert before != fingerprint(tmp_path, "1.2.3")
